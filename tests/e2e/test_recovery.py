"""`pbr redrive` and `pbr replay-dlq` on an embedded cloud with injected faults."""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner

from client.cli import app
from embedded_cloud.cloud import EmbeddedCloud
from embedded_cloud.faults import ErrorResponse, InvocationFault, Request
from functions.contracts.failure_report import source_of
from tests.conftest import ROOT, client, disc

pytestmark = pytest.mark.slow  # tests/unit/client covers each command without a cloud


class SwitchedFaults:
    """Faults that can be switched on: reading uploads is denied, and Refine does not end."""

    def __init__(self) -> None:
        self.denied = False
        self.refine_goes_on = threading.Event()
        self.refine_goes_on.set()

    def request(self, request: Request) -> ErrorResponse | None:
        reads_uploads = request.service == "s3" and request.method == "GET" and "-uploadsbucket-" in request.path
        return ErrorResponse(403, "AccessDenied") if self.denied and reads_uploads else None

    def invocation(self, function: str, _event: str) -> InvocationFault | None:
        if "RefineFunction" in function:
            self.refine_goes_on.wait(60)
        return None


class Deployed:
    """The deployed stack, as its operator uses it."""

    def __init__(self, cloud: EmbeddedCloud, trouble: SwitchedFaults) -> None:
        self.outputs, self.trouble, self._endpoint_url = cloud.outputs, trouble, cloud.endpoint_url
        self.s3, self.sfn, self.sqs, self.events = (
            client(service, cloud.endpoint_url, cloud.region) for service in ("s3", "stepfunctions", "sqs", "events")
        )

    def pbr(self, *arguments: str, status: int = 0) -> list[dict[str, Any]]:
        """Run a command with --json and return what it says."""
        done = CliRunner().invoke(app, [*arguments, "--json"], env={"AWS_ENDPOINT_URL": self._endpoint_url})
        assert done.exit_code == status, done.output
        said: list[dict[str, Any]] = json.loads(done.stdout)
        return said

    def upload(self, key: str, data: bytes) -> str:
        return str(self.s3.put_object(Bucket=self.outputs["UploadsBucket"], Key=key, Body=data)["VersionId"])

    def executions(self, key: str) -> list[dict[str, Any]]:
        """Return the descriptions of all executions for this key, newest first."""
        listed = self.sfn.list_executions(stateMachineArn=self.outputs["StateMachineArn"])["executions"]
        found = [self.sfn.describe_execution(executionArn=one["executionArn"]) for one in listed]
        return [one for one in found if source_of(json.loads(one["input"]))["key"] == key]

    def order(self, key: str, **options: Any) -> str:
        """Start an execution as a person does, wait for its end, and return its ARN."""
        asked = {"source": {"bucket": self.outputs["UploadsBucket"], "key": key}, "options": options}
        machine = self.outputs["StateMachineArn"]
        arn = str(self.sfn.start_execution(stateMachineArn=machine, input=json.dumps(asked))["executionArn"])
        until(lambda: self.sfn.describe_execution(executionArn=arn)["status"] != "RUNNING")
        return arn

    def ended(self, key: str) -> dict[str, Any]:
        """Wait for the end of the execution that an upload started, and describe it."""
        return until(lambda: next((one for one in self.executions(key) if one["status"] != "RUNNING"), None))

    def states(self, execution_arn: str) -> list[str]:
        pages = self.sfn.get_paginator("get_execution_history").paginate(executionArn=execution_arn)
        details = [event.get("stateEnteredEventDetails") for page in pages for event in page["events"]]
        return [entered["name"] for entered in details if entered]

    def is_in_results(self, key: str) -> bool:
        listed = self.s3.list_objects_v2(Bucket=self.outputs["ResultsBucket"], Prefix=key).get("Contents", [])
        return any(found["Key"] == key for found in listed)

    @contextmanager
    def without_rule(self, logical_id: str) -> Iterator[None]:
        """Have one of EventBridge's rules deliver nothing meanwhile."""
        [name] = [rule["Name"] for rule in self.events.list_rules()["Rules"] if logical_id in rule["Name"]]
        self.events.disable_rule(Name=name)
        yield
        self.events.enable_rule(Name=name)

    def waiting(self, queue: str) -> int:
        url = self.outputs[f"{queue}DeadLetterQueueUrl"]
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        attributes = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(int(count) for count in attributes.values())


def until(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def stack() -> Iterator[Deployed]:
    trouble = SwitchedFaults()
    with (
        EmbeddedCloud(ROOT / "template.yaml", {"DefaultModel": "classical"}, retry_pace=0.01, faults=trouble) as cloud,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.delenv("PBR_STACK", raising=False)
        yield Deployed(cloud, trouble)


def test_a_stopped_execution_resumes_where_it_was(stack: Deployed) -> None:
    stack.trouble.refine_goes_on.clear()
    stack.upload("stopped.png", disc(seed=61))
    [running] = until(lambda: stack.executions("stopped.png"))
    until(lambda: "Refine" in stack.states(running["executionArn"]))
    stack.sfn.stop_execution(executionArn=running["executionArn"], error="Mine", cause="to be gone on with")
    until(lambda: stack.is_in_results("failed/stopped.png.json"))
    [recovery] = stack.pbr("redrive", running["name"])
    assert (recovery["action"], recovery["error"]) == ("redriven", "Mine")
    stack.trouble.refine_goes_on.set()

    assert stack.ended("stopped.png")["status"] == "SUCCEEDED"
    states = stack.states(running["executionArn"])
    assert (states.count("Validate"), states.count("Refine"), states.count("Done")) == (1, 2, 1)
    assert len(stack.executions("stopped.png")) == 1
    assert stack.is_in_results("results/stopped.png.png") and not stack.is_in_results("failed/stopped.png.json")


def test_a_failed_upload_is_processed_again_once_the_cause_is_fixed(stack: Deployed) -> None:
    stack.trouble.denied = True
    stack.upload("denied.png", disc(seed=62))
    failed = stack.ended("denied.png")
    assert failed["error"] == "StorageDeniedError" and stack.is_in_results("failed/denied.png.json")
    stack.trouble.denied = False

    def of_denied(said: list[dict[str, Any]]) -> dict[str, Any]:
        [recovery] = [one for one in said if one["arn"] == failed["executionArn"]]
        return recovery

    planned = of_denied(stack.pbr("redrive", "--failed", "--since", "10m", "--dry-run"))
    assert planned["action"] == "restarted" and len(stack.executions("denied.png")) == 1, "nothing is done yet"
    done = of_denied(stack.pbr("redrive", "--failed", "--since", "10m", "--wait"))
    assert (done["status"], done["retry_arn"]) == ("SUCCEEDED", f"{failed['executionArn']}-retry-1")
    assert stack.is_in_results("results/denied.png.png") and not stack.is_in_results("failed/denied.png.json")

    again = of_denied(stack.pbr("redrive", "--failed", "--since", "10m"))
    assert (again["action"], len(stack.executions("denied.png"))) == ("skipped", 2), "it is not started twice"


def test_a_bad_upload_is_retried_only_if_named(stack: Deployed) -> None:
    stack.upload("corrupt.png", disc(seed=63)[:2000])
    failed = stack.ended("corrupt.png")
    [skipped] = [one for one in stack.pbr("redrive", "--failed") if one["arn"] == failed["executionArn"]]
    assert (skipped["action"], skipped["error"]) == ("skipped", "CorruptImageError")
    [tried] = stack.pbr("redrive", "corrupt.png", "--wait", status=1)
    assert (tried["action"], tried["retry_error"]) == ("restarted", "CorruptImageError")


def test_a_request_for_an_upload_with_a_result_is_retried_if_named(stack: Deployed) -> None:
    stack.upload("ordered.png", disc(seed=67))
    assert stack.ended("ordered.png")["status"] == "SUCCEEDED"
    stack.trouble.denied = True
    failed = stack.order("ordered.png", format="webp")
    stack.trouble.denied = False
    [skipped] = [one for one in stack.pbr("redrive", "--failed", "--dry-run") if one["arn"] == failed]
    [tried] = stack.pbr("redrive", failed, "--wait")
    assert (skipped["action"], tried["status"]) == ("skipped", "SUCCEEDED")
    assert stack.is_in_results("results/ordered.png.webp")


@pytest.mark.parametrize("key", ["", "k" * 1025], ids=["none", "too long"])
def test_an_impossible_key_is_skipped(stack: Deployed, key: str) -> None:
    failed = stack.order(key)
    [skipped] = [one for one in stack.pbr("redrive", "--failed", "--dry-run") if one["arn"] == failed]
    assert (skipped["action"], skipped["error"]) == ("skipped", "InvalidRequestError")


def test_an_undelivered_event_is_replayed_and_anything_else_is_left(stack: Deployed) -> None:
    with stack.without_rule("RemoveBackgroundUpload"):
        version = stack.upload("undelivered.png", disc(seed=64))
    event = {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Object Created",
        "source": "aws.s3",
        "detail": {
            "bucket": {"name": stack.outputs["UploadsBucket"]},
            "object": {"key": "undelivered.png", "version-id": version},
        },
    }
    why = {"DataType": "String", "StringValue": "NO_PERMISSIONS"}
    for body in (json.dumps(event), json.dumps(event), "no event"):
        stack.sqs.send_message(
            QueueUrl=stack.outputs["UploadsDeadLetterQueueUrl"], MessageBody=body, MessageAttributes={"ERROR_CODE": why}
        )
    looked = stack.pbr("replay-dlq", "uploads", "--dry-run")
    assert sorted(letter["status"] for letter in looked) == ["kept", "replayable", "replayable"]
    assert (stack.waiting("Uploads"), stack.executions("undelivered.png")) == (3, [])

    replayed = stack.pbr("replay-dlq", "uploads")
    assert sorted(letter["status"] for letter in replayed) == ["kept", "replayed", "replayed"]
    assert {letter["error"] for letter in replayed} == {"NO_PERMISSIONS"}
    assert stack.ended("undelivered.png")["status"] == "SUCCEEDED"
    assert (stack.waiting("Uploads"), len(stack.executions("undelivered.png"))) == (1, 1)


def test_an_undelivered_end_is_reconciled(stack: Deployed) -> None:
    stack.trouble.refine_goes_on.clear()
    stack.upload("undelivered-end.png", disc(seed=66))
    [running] = until(lambda: stack.executions("undelivered-end.png"))
    until(lambda: "Refine" in stack.states(running["executionArn"]))
    detail = {
        "executionArn": running["executionArn"],
        "name": running["name"],
        "startDate": int(running["startDate"].timestamp() * 1000),
        "input": running["input"],
    }
    url = stack.outputs["ReconcileDeadLetterQueueUrl"]
    with stack.without_rule("ReconcileFunctionEnded"):
        stack.sfn.stop_execution(executionArn=running["executionArn"])
        stack.trouble.refine_goes_on.set()
        stack.sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"source": "aws.states", "detail": detail}))
        assert not stack.is_in_results("failed/undelivered-end.png.json")
        [replayed] = stack.pbr("replay-dlq", "reconcile")
    assert (replayed["status"], replayed["key"], stack.waiting("Reconcile")) == ("replayed", "undelivered-end.png", 0)
    assert stack.is_in_results("failed/undelivered-end.png.json")


def test_a_job_without_a_waiting_execution_is_explained_and_then_deleted(stack: Deployed) -> None:
    stack.upload("unanswered.png", disc(seed=65))
    execution = stack.ended("unanswered.png")
    given = next(
        json.loads(event["taskScheduledEventDetails"]["parameters"])["Payload"]
        for event in stack.sfn.get_execution_history(executionArn=execution["executionArn"], maxResults=1000)["events"]
        if "segment" in event.get("taskScheduledEventDetails", {}).get("parameters", "").lower()
    )
    url = stack.outputs["SegmentationDeadLetterQueueUrl"]
    stack.sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"token": "gone", "job": given}))
    [explained] = stack.pbr("replay-dlq", "segmentation")
    assert (explained["status"], explained["key"]) == ("obsolete", "unanswered.png")
    assert execution["name"] in explained["reason"] and "lambda" in explained["reason"]
    [deleted] = stack.pbr("replay-dlq", "segmentation", "--purge")
    assert (deleted["status"], stack.waiting("Segmentation")) == ("deleted", 0)
