"""The embedded cloud starts, stops and leaves nothing behind."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from embedded_cloud.cloud import EmbeddedCloud
from embedded_cloud.faults import ErrorResponse, Request
from tests import conftest
from tests.conftest import ROOT

pytestmark = pytest.mark.slow  # most tests start a cloud of their own

TEMPLATE = Path(__file__).parent / "stack" / "template.yaml"


def client(service: str, environment: dict[str, str]) -> Any:
    return conftest.client(service, environment["AWS_ENDPOINT_URL"], environment["AWS_REGION"])


def children_of(process: int) -> set[int]:
    arguments = ["ps", "-o", "pid=,comm=", "--ppid", str(process)]
    lines = subprocess.run(arguments, capture_output=True, text=True, check=False).stdout.splitlines()
    return {int(line.split()[0]) for line in lines if line.split()[1] != "ps"}


def is_running(process: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, 0)
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_cloud(number: signal.Signals) -> None:
    arguments = [sys.executable, "-m", "embedded_cloud", "--port", "0", "--template", str(TEMPLATE)]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        environment: dict[str, str] = {}
        for line in process.stdout or []:
            if line.startswith("export "):
                name, value = line.strip().removeprefix("export ").split("=", 1)
                environment[name] = value
            if len(environment) == 5:
                break
        lambdas = client("lambda", environment)
        echo = next(f["FunctionName"] for f in lambdas.list_functions()["Functions"] if "Echo" in f["FunctionName"])
        lambdas.invoke(FunctionName=echo, Payload="{}")
        children = children_of(process.pid)
        assert len(children) == 2  # the sandbox and the worker
        process.send_signal(number)
        assert process.wait(15) == (0 if number is signal.SIGTERM else -signal.SIGKILL)
    deadline = time.monotonic() + 5
    while any(is_running(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_alarms_are_evaluated_while_the_cloud_runs() -> None:
    with EmbeddedCloud(TEMPLATE, {"WorkerCount": "0"}, alarm_interval_s=0.1) as cloud:
        cloudwatch, deadline = client("cloudwatch", cloud.environment), time.monotonic() + 10
        while not cloudwatch.describe_alarms(AlarmTypes=["CompositeAlarm"], StateValue="OK")["CompositeAlarms"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_second_cloud_on_the_same_port_starts_empty() -> None:
    port = free_port()
    for _ in range(2):
        with EmbeddedCloud(TEMPLATE, {"WorkerCount": "0"}, port) as cloud:
            buckets = client("s3", cloud.environment).list_buckets()["Buckets"]
            assert {bucket["Name"] for bucket in buckets} == {cloud.outputs["Bucket"], cloud.outputs["PlainBucket"]}
            with pytest.raises(RuntimeError, match="Another embedded cloud"), EmbeddedCloud(TEMPLATE):
                pass


@pytest.mark.parametrize(
    "settings",
    [
        {"HTTP_PROXY": "http://127.0.0.1:9"},
        {"AWS_PROFILE": "missing"},
        {"AWS_CONFIG_FILE": __file__, "AWS_SHARED_CREDENTIALS_FILE": __file__},
        {"AWS_DEFAULT_REGION": ""},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_the_cloud_runs_whatever_the_users_settings_are(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with EmbeddedCloud(TEMPLATE) as cloud:
        assert cloud.region
        assert cloud.outputs["Echo"]
    assert dict(os.environ) == before


@pytest.mark.parametrize("argument", ["port", "api_port"])
def test_a_port_in_use_is_reported(argument: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"in use: port {port}"), EmbeddedCloud(TEMPLATE, **{argument: port}):
            pass


def test_a_closed_cloud_leaves_no_running_execution() -> None:
    others = children_of(os.getpid())  # of earlier tests, such as the resource tracker of multiprocessing
    with EmbeddedCloud(TEMPLATE, {"WorkerCount": "0"}) as cloud:
        machines = client("stepfunctions", cloud.environment)
        call: dict[str, Any] = {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "End": True}
        call["Parameters"] = {"FunctionName": cloud.outputs["Sleep"], "Payload": {"seconds": 1.5}}
        call["Retry"] = [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 1, "MaxAttempts": 9}]
        definition = json.dumps({"StartAt": "Call", "States": {"Call": call}})
        role = "arn:aws:iam::123456789012:role/tests"
        machine = machines.create_state_machine(name="busy", definition=definition, roleArn=role)["stateMachineArn"]
        for _ in range(4 * (os.cpu_count() or 1)):  # more than run at a time
            machines.start_execution(stateMachineArn=machine)
        deadline = time.monotonic() + 10
        while children_of(os.getpid()) <= others:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    time.sleep(1.5)  # retries would start functions again, and those would stay
    deadline = time.monotonic() + 10
    while children := children_of(os.getpid()) - others:
        assert time.monotonic() < deadline, children
        time.sleep(0.1)


THROTTLED = ErrorResponse(400, "ThrottlingException")
DROPPED = SystemExit()
"""Ends the server's thread, which closes the connection without a response."""
of_ended_threads = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


class Refusals:
    """Returns errors or drops connections as planned, and records the events of all invocations."""

    def __init__(self) -> None:
        self.left: dict[str, list[ErrorResponse | SystemExit]] = {}
        self.invoked: list[str] = []

    def request(self, request: Request) -> ErrorResponse | None:
        left = self.left.get(request.operation)
        end = left.pop() if left else None
        if isinstance(end, SystemExit):
            raise end
        return end

    def invocation(self, function: str, event: str) -> None:
        self.invoked.append(event)


@pytest.fixture(scope="module")
def refusals() -> Refusals:
    return Refusals()


@pytest.fixture(scope="module")
def hasty(refusals: Refusals) -> Iterator[EmbeddedCloud]:
    """A cloud with nearly no retry delays."""
    with EmbeddedCloud(TEMPLATE, {"WorkerCount": "0"}, retry_pace=0.0001, faults=refusals) as cloud:
        yield cloud


def failing_execution(cloud: EmbeddedCloud) -> str:
    """Run an execution that fails after four attempts, and return its ARN."""
    machines = client("stepfunctions", cloud.environment)
    call: dict[str, Any] = {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "End": True}
    call["Parameters"] = {"FunctionName": "missing", "Payload": {}}
    call["Retry"] = [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 600, "MaxAttempts": 3}]
    definition = json.dumps({"StartAt": "Call", "States": {"Call": call}})
    role = "arn:aws:iam::123456789012:role/tests"
    machine = machines.create_state_machine(name=uuid4().hex, definition=definition, roleArn=role)["stateMachineArn"]
    execution = machines.start_execution(stateMachineArn=machine, input='{"what": "ever"}')["executionArn"]
    deadline = time.monotonic() + 10
    while machines.describe_execution(executionArn=execution)["status"] == "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return str(execution)


def dead_letter(cloud: EmbeddedCloud) -> tuple[dict[str, Any], dict[str, str]]:
    """Wait for a message in the dead-letter queue, and return its body and attributes."""
    sqs = client("sqs", cloud.environment)
    [message] = sqs.receive_message(
        QueueUrl=cloud.outputs["DeadLettersUrl"], MessageAttributeNames=["All"], WaitTimeSeconds=20
    )["Messages"]
    sqs.delete_message(QueueUrl=cloud.outputs["DeadLettersUrl"], ReceiptHandle=message["ReceiptHandle"])
    attributes = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    return json.loads(message["Body"]), attributes


def test_retry_delays_are_scaled(hasty: EmbeddedCloud) -> None:
    machines = client("stepfunctions", hasty.environment)
    events = machines.get_execution_history(executionArn=failing_execution(hasty))["events"]
    assert sum(event["type"] == "TaskScheduled" for event in events) == 4
    dead_letter(hasty)


def test_a_status_event_reaches_the_function_and_its_dead_letter_queue(
    hasty: EmbeddedCloud, refusals: Refusals
) -> None:
    execution = failing_execution(hasty)
    event, why = dead_letter(hasty)
    assert (event["source"], event["resources"]) == ("aws.states", [execution])
    assert (event["detail"]["executionArn"], event["detail"]["status"]) == (execution, "FAILED")
    assert json.loads(event["detail"]["input"]) == {"what": "ever"}
    assert event["detail"]["error"] and event["detail"]["startDate"] <= event["detail"]["stopDate"]
    assert json.loads(why["ErrorMessage"]) == {"field": "source.key"}
    assert sum(execution in event for event in refusals.invoked) == 3


def test_an_undeliverable_event_goes_to_the_dead_letter_queue(hasty: EmbeddedCloud) -> None:
    client("s3", hasty.environment).put_object(Bucket=hasty.outputs["Bucket"], Key="lost/it.txt", Body=b"it")
    event, why = dead_letter(hasty)
    assert event["detail"]["object"]["key"] == "lost/it.txt"
    assert (why["ERROR_CODE"], why["RETRY_ATTEMPTS"]) == ("StateMachineDoesNotExist", "0")
    assert why["TARGET_ARN"].endswith(":stateMachine:missing") and ":rule/" in why["RULE_ARN"]


def test_a_cloud_with_a_running_execution_is_not_idle(hasty: EmbeddedCloud) -> None:
    machines = client("stepfunctions", hasty.environment)
    definition = json.dumps({"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 3, "End": True}}})
    role = "arn:aws:iam::123456789012:role/tests"
    machine = machines.create_state_machine(name=uuid4().hex, definition=definition, roleArn=role)["stateMachineArn"]
    machines.start_execution(stateMachineArn=machine)
    time.sleep(2)
    assert hasty.idle_s() < 1
    time.sleep(3)
    assert hasty.idle_s() > 2


@of_ended_threads
@pytest.mark.parametrize("end", [THROTTLED, DROPPED], ids=["throttled", "dropped"])
def test_throttled_and_unanswered_deliveries_are_retried(
    hasty: EmbeddedCloud, refusals: Refusals, end: ErrorResponse | SystemExit
) -> None:
    machines, machine = client("stepfunctions", hasty.environment), hasty.outputs["MachineArn"]
    before = len(machines.list_executions(stateMachineArn=machine)["executions"])
    refusals.left["StartExecution"] = [end, end]
    client("s3", hasty.environment).put_object(Bucket=hasty.outputs["Bucket"], Key="in/late.txt", Body=b"it")
    deadline = time.monotonic() + 10
    while len(machines.list_executions(stateMachineArn=machine)["executions"]) == before:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not refusals.left["StartExecution"]


@of_ended_threads
def test_an_unanswered_event_goes_to_the_dead_letter_queue(hasty: EmbeddedCloud, refusals: Refusals) -> None:
    refusals.left["StartExecution"] = [DROPPED] * 8
    client("s3", hasty.environment).put_object(Bucket=hasty.outputs["Bucket"], Key="lost/it.txt", Body=b"it")
    _event, why = dead_letter(hasty)
    assert (why["ERROR_CODE"], why["RETRY_ATTEMPTS"]) == ("SDK_CLIENT_ERROR", "7")
