"""Runs the fault matrix: every fault of every Task state, each in its own execution on the project's template.

Everything that a case does not mock runs for real: table, buckets, and the functions other than segmentation.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from embedded_cloud.cloud import EmbeddedCloud
from tests.conftest import ROOT, client, disc
from tests.integration.deployment import Deployed, Ended
from tests.resilience.faults.matrix import FOR_FAILED_JOBS, NO_SUBJECT, UNKNOWN, Fate, Fault, fate_of, faults

pytestmark = pytest.mark.timeout(900)  # the first test runs all cases

SIDE_BY_SIDE = 12
SIZE = {"width": 64, "height": 48}
HOSTS = {"SegmentOnEcs": "ecs", "SegmentOnSageMaker": "sagemaker", "SegmentOnSageMakerAsync": "sagemaker"}
BRANCHES = ("AwaitMask", "FindRequest", "InvokeEndpoint")
SERVED = ("ServeCached", "SaveSidecar")
CLAIMED = ("LookUpCache", "CheckOwner", "TakeOverClaim")
MEETS_A_CLAIM = ("LookUpCache", "WaitedBefore?")
"""States that handle the error of a case in which another execution has the claim."""
NOTIFYING = ("StartWebhook", "DeadLetterNotice")

FAULTS = list(faults())


def one_of_each_class() -> set[Fault]:
    """Return the first fault of each outcome class, for the fast tests: how a job ends, and what handles the error."""
    classes: dict[tuple[object, ...], Fault] = {}
    for fault in FAULTS:
        fate = fate_of(fault)
        classes.setdefault((fault.lasting, bool(fault.answer), fate.then, fate.outcome), fault)
    return set(classes.values())


FAST = one_of_each_class()


@dataclass(frozen=True)
class Case:
    """A fault in an execution of its own, with the same name."""

    number: int
    fault: Fault

    @property
    def name(self) -> str:
        return re.sub(r"\W", "", f"{self.number}{self.fault}")[:60]

    @property
    def key(self) -> str:
        return f"backgrounds/{self.name}.png"  # an upload with this prefix starts no execution


@dataclass(frozen=True)
class Played:
    """What a case left when its execution ended."""

    ended: Ended
    has_result: bool
    sidecar: dict[str, Any] | None
    report: dict[str, Any] | None

    @cached_property
    def attempts(self) -> Counter[str]:
        """How often the task of each state was scheduled."""
        by_id = {event["id"]: event for event in self.ended.events}

        def state_of(event: dict[str, Any]) -> str:
            while "stateEnteredEventDetails" not in event:
                event = by_id[event["previousEventId"]]
            return str(event["stateEnteredEventDetails"]["name"])

        return Counter(state_of(event) for event in self.ended.events if event["type"] == "TaskScheduled")


class Stage:
    """Runs cases on a deployed stack."""

    def __init__(self, stack: Deployed, mocks: Path) -> None:
        self._stack, self._mocks = stack, mocks
        region, endpoint = stack.cloud.region, stack.cloud.endpoint_url
        self._lambda, self._logs = client("lambda", endpoint, region), client("logs", endpoint, region)
        self._machine_arn = stack.outputs["StateMachineArn"]
        functions = [f["FunctionName"] for f in self._lambda.list_functions()["Functions"]]
        [self._validate] = [name for name in functions if "Validate" in name]
        pilot = stack.process("pilot.png", disc(**SIZE, seed=0))
        assert pilot.status == "SUCCEEDED", pilot.cause
        self._pilot, self._arn = pilot, pilot.output["execution"]["id"]
        [encode] = [e["stateEnteredEventDetails"] for e in pilot.events if _enters(e, "Encode")]
        job = json.loads(encode["input"])
        self._mask, self._alpha = job["segment"]["mask"], job["refine"]["alpha"]
        self._cached_key = job["keys"]["cached"]

    def play(self, cases: list[Case]) -> dict[Fault, Played | Exception]:
        """Run cases side by side; an exception in one does not affect the others."""
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            prepared = dict(zip(cases, pool.map(self._prepare, cases), strict=True))
            self._mocks.write_text(json.dumps(mock_file(self._machine_arn.rsplit(":", 1)[1], prepared)))
            return dict(zip((case.fault for case in cases), pool.map(self._play, cases), strict=True))

    def claims(self) -> set[str]:
        """Return the names of the executions that hold a claim, after giving ReconcileFunction time."""
        expected = {self._arn_of(Case(n, fault)) for n, fault in enumerate(FAULTS) if leaves_its_claim(fault)}

        def held() -> set[str]:
            claims = [item["owner"]["S"] for item in self._stack.cached() if item["status"]["S"] == "IN_PROGRESS"]
            return {owner for owner in claims if owner != self._arn}

        _until(lambda: held() <= expected, 20)
        return {owner.rpartition(":")[2] for owner in held()}

    def metrics(self) -> dict[str, list[dict[str, Any]]]:
        """Read the metrics of each execution, by its name."""
        found: dict[str, list[dict[str, Any]]] = {}
        for function in ("metrics", "reconcile"):
            group = {"logGroupName": f"/aws/lambda/{self._stack.cloud.stack_name}-{function}"}
            for stream in self._logs.describe_log_streams(**group)["logStreams"]:
                of_process = {**group, "logStreamName": stream["logStreamName"], "startFromHead": True, "limit": 10_000}
                for name, published in _published(self._logs.get_log_events(**of_process)["events"]):
                    found.setdefault(name, []).extend(published)
        return found

    def _prepare(self, case: Case) -> dict[str, Any]:
        """Upload the case's image, prepare what its state needs, and return its mocked responses."""
        state, picture = case.fault.state, disc(**SIZE, seed=1 + case.number)
        self._stack.upload(case.key, picture)
        mocked: dict[str, Any] = {
            "SegmentOnLambda": _answers({"Payload": self._mask}),
            "Refine": _answers({"Payload": self._alpha}),
        }
        if case.fault.answer and fate_of(case.fault).failed == ("Refine", "InvalidRequestError"):
            del mocked["Refine"]  # the real Refine has to fail
        host = HOSTS.get("SegmentOnSageMakerAsync" if state in BRANCHES else state)
        if host or state in (*SERVED, *CLAIMED):
            job = self._job(case)
            if host:
                job |= {"host": host, "sagemaker_mode": "async" if state in BRANCHES else "realtime"}
                mask = {**self._mask, "host": host}
                good = {"Body": json.dumps(mask)} if state == "SegmentOnSageMaker" else mask
                mocked |= {"Validate": _answers({"Payload": job}), state: _answers(good)}
                if state in BRANCHES:
                    mocked |= {name: _answers(mask if name == "AwaitMask" else {}) for name in BRANCHES}
            else:
                self._own(job["cache_key"], done=job if state in SERVED else None)
        if state in FOR_FAILED_JOBS:
            mocked["SegmentOnLambda"] = _throws(NO_SUBJECT[1], times=1)
        if state in NOTIFYING:
            mocked["StartWebhook"] = _answers({}) if state == "StartWebhook" else _throws(UNKNOWN, times=1)
        mocked[state] = _faulty(case.fault, mocked.get(state, {}))
        return mocked

    def _job(self, case: Case) -> dict[str, Any]:
        execution = {"id": self._arn_of(case), "name": case.name, "started_at": "2026-01-05T10:00:00Z"}
        event = {"input": self._input(case), "execution": execution}
        answer = self._lambda.invoke(FunctionName=self._validate, Payload=json.dumps(event))
        job: dict[str, Any] = json.load(answer["Payload"])
        assert "cache_key" in job, job
        return job

    def _input(self, case: Case) -> dict[str, Any]:
        order = {"source": {"bucket": self._stack.outputs["UploadsBucket"], "key": case.key}, "options": {}}
        webhook = {"webhook": {"url": "https://example.com/webhook", "key_id": "k1"}}
        return {**order, **(webhook if case.fault.state in NOTIFYING else {})}

    def _arn_of(self, case: Case) -> str:
        return f"{self._machine_arn.replace(':stateMachine:', ':execution:')}:{case.name}"

    def _own(self, cache_key: str, *, done: dict[str, Any] | None) -> None:
        """Make the pilot's execution, which has ended, own a cache key: with a result to serve, or without."""
        item = {"cache_key": cache_key, "owner": self._arn, "status": "DONE" if done else "IN_PROGRESS"}
        if done:
            item["document"] = json.dumps(self._pilot.output)
            bucket = self._stack.outputs["WorkBucket"]
            source = {"Bucket": bucket, "Key": self._cached_key}
            self._stack.s3.copy_object(Bucket=bucket, Key=done["keys"]["cached"], CopySource=source)
        typed = {name: {"S": value} for name, value in item.items()}
        self._stack.dynamodb.put_item(
            TableName=self._stack.outputs["CacheTable"], Item={**typed, "expires_at": {"N": "2000000000"}}
        )

    def _play(self, case: Case) -> Played | Exception:
        try:
            return self._run(case)
        except Exception as error:
            return error

    def _run(self, case: Case) -> Played:
        fate = fate_of(case.fault)
        arn = self._stack.sfn.start_execution(
            stateMachineArn=f"{self._machine_arn}#{case.name}", name=case.name, input=json.dumps(self._input(case))
        )["executionArn"]
        if fate.then in MEETS_A_CLAIM:
            self._finish_meanwhile(arn)
        ended = self._wait(arn)
        report_key = f"failed/{case.key}.json"
        if fate.outcome == "settled":
            _until(lambda: self._read(report_key) is not None)
        result = f"results/{case.key}.png"
        listed = self._stack.s3.list_objects_v2(Bucket=self._stack.outputs["ResultsBucket"], Prefix=result)
        has_result = any(item["Key"] == result for item in listed.get("Contents", []))
        return Played(ended, has_result, self._read(f"{result}.json"), self._read(report_key))

    def _wait(self, arn: str) -> Ended:
        _until(lambda: self._stack.sfn.describe_execution(executionArn=arn)["status"] != "RUNNING")
        return self._stack.wait(arn)

    def _finish_meanwhile(self, arn: str) -> None:
        """Act as the owner that the execution waits for: save its result before the next look-up."""

        def waits() -> list[dict[str, Any]]:
            events = self._stack.sfn.get_execution_history(executionArn=arn, maxResults=1000)["events"]
            return [e["stateEnteredEventDetails"] for e in events if _enters(e, "WaitForOwner")]

        [details, *_] = _until(waits, longest_pause_s=0.1)  # it waits for 2 s
        job = json.loads(details["input"])
        self._own(job["cache_key"], done=job)

    def _read(self, key: str) -> dict[str, Any] | None:
        try:
            return json.loads(self._stack.result(key))
        except self._stack.s3.exceptions.NoSuchKey:
            return None


def _until(condition: Callable[[], Any], timeout_s: float = 60, longest_pause_s: float = 1) -> Any:
    """Wait for a condition with growing pauses: many wait side by side and share the processors with the cloud."""
    pause_s, deadline = 0.1, time.monotonic() + timeout_s
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, longest_pause_s)
    return value


def _published(events: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the name of each execution that a process worked for, and the metrics that it logged."""
    published: list[dict[str, Any]] = []
    for entry in map(_json, (event["message"] for event in events)):
        if "_aws" in entry:
            published.append(entry)
        elif entry.get("message") in ("stage done", "stage failed"):
            yield entry["job_id"], published
            published = []


def _enters(event: dict[str, Any], state: str) -> bool:
    return event.get("stateEnteredEventDetails", {}).get("name") == state


def _json(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def leaves_its_claim(fault: Fault) -> bool:
    """Return whether the claim stays: the result is delivered, but the table cannot be written."""
    return fault.state == "SaveCache" and fault.lasting


def mock_file(machine: str, mocked: dict[Case, dict[str, Any]]) -> dict[str, Any]:
    """Return the mock configuration with these cases."""
    cases = {case.name: {state: f"{case.name}{state}" for state in states} for case, states in mocked.items()}
    responses = {f"{case.name}{state}": given for case, states in mocked.items() for state, given in states.items()}
    return {"StateMachines": {machine: {"TestCases": cases}}, "MockedResponses": responses}


def _answers(answer: Any) -> dict[str, Any]:
    return {"0": {"Return": answer}}


def _throws(error: str, times: int) -> dict[str, Any]:
    facts = {"error": error, "message": "Injected failure", "field": "test", "value": error, "remedy": "None."}
    cause = json.dumps(facts) if "." not in error else "Injected failure"
    return {f"0-{times - 1}" if times > 1 else "0": {"Throw": {"Error": error, "Cause": cause}}}


def _faulty(fault: Fault, good: dict[str, Any]) -> dict[str, Any]:
    if fault.answer:
        return _answers(json.loads(fault.answer))
    if fault.lasting:
        return _throws(fault.error, fate_of(fault).attempts + 2)  # more than will be made
    return {**_throws(fault.error, 1), **({"1": good["0"]} if good else {})}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The stack with almost no wait between retries."""
    mocks = tmp_path_factory.mktemp("mocks") / "MockConfigFile.json"
    parameters = {"DefaultModel": "classical"}
    with EmbeddedCloud(ROOT / "template.yaml", parameters, mock_config=mocks, retry_pace=0.0005) as cloud:
        yield Stage(Deployed(cloud), mocks)


@pytest.fixture(scope="module")
def played(stage: Stage, request: pytest.FixtureRequest) -> dict[Fault, Played | Exception]:
    """The outcomes of all selected cases."""
    items = [item for item in request.session.items if item.path == request.path and isinstance(item, pytest.Function)]
    asked = {item.callspec.params["fault"] for item in items}
    return stage.play([Case(number, fault) for number, fault in enumerate(FAULTS) if fault in asked])


@pytest.fixture(scope="module")
def claims(stage: Stage, played: dict[Fault, Played | Exception]) -> set[str]:
    """The executions that hold a claim at the end."""
    return stage.claims()


@pytest.fixture(scope="module")
def metrics(stage: Stage, played: dict[Fault, Played | Exception]) -> dict[str, list[dict[str, Any]]]:
    """The metrics of all executions."""
    return stage.metrics()


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=() if fault in FAST else pytest.mark.slow) for fault in FAULTS], ids=str
)
def test_a_fault_ends_as_the_state_machine_defines(
    fault: Fault, played: dict[Fault, Played | Exception], claims: set[str], metrics: dict[str, list[dict[str, Any]]]
) -> None:
    seen, fate = played[fault], fate_of(fault)
    if isinstance(seen, Exception):
        raise seen
    states = seen.ended.states
    # An execution that waits asks again after each wait, until the owner has ended.
    visits = states.count(fault.state) if fate.then in MEETS_A_CLAIM else 1
    assert seen.attempts[fault.state] == visits * fate.attempts
    assert not fate.then or fate.then in states
    if fate.outcome == "result":
        assert seen.ended.status == "SUCCEEDED", seen.ended.cause
        assert seen.report is None
        assert seen.has_result and seen.sidecar and seen.sidecar["source"] == seen.ended.output["source"]
        assert seen.sidecar["degraded"] == (fate.then == "SegmentOnLambda")
    else:
        assert seen.ended.status == "FAILED"
        check_report(seen, fate)
    name = Case(FAULTS.index(fault), fault).name
    assert (name in claims) == leaves_its_claim(fault)
    check_metrics(fault, fate, metrics.get(name, []))


def check_report(seen: Played, fate: Fate) -> None:
    """Check that there is a report and no result, and that the report names the failure and a remedy."""
    assert seen.report, seen.ended.cause
    assert seen.sidecar is None and not seen.has_result
    assert (seen.report["stage"], seen.report["error"]) == fate.failed
    assert seen.report["message"] and seen.report["remedy"]
    if fate.outcome == "report":
        assert seen.ended.error == fate.failed[1]


def check_metrics(fault: Fault, fate: Fate, published: list[dict[str, Any]]) -> None:
    """Check that the metrics count the job once, by its outcome, and any failure that did not fail it."""
    if fault.state == "PublishMetrics" and fault.lasting:
        assert not published
        return
    [end] = [entry for entry in published if entry.keys() & {"Failed", "Processed", "CacheHit"}]
    failed = ("RecordFailure", "FailureNotRecordedError") if fate.then == "DescribeUnrecordedFailure" else fate.failed
    assert ((end["Stage"], end["Error"]) if "Failed" in end else None) == failed
    assert any("Degraded" in entry for entry in published) == fate.degraded
