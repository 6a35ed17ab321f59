import json
import string
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.errors import ExecutionNotFoundError
from client.redrive import Retry, execute, failed_since, find, plan, retry_name, wait
from client.stack import Stack
from core.errors import CorruptImageError, InvalidRequestError, WeightsHashMismatchError
from functions.contracts.errors import StorageDeniedError
from tests.fakes.stack_in_memory import NOW, Buckets, Executions, History, stack, uploaded

FAIL_STATE = History().enter("Failed", "Fail").add("ExecutionFailed").events
UNCAUGHT_ERROR = History().enter("Refine").add("ExecutionFailed").events
JUST = {"startDate": datetime.now(UTC) - timedelta(minutes=5), "redriveStatus": "REDRIVABLE"}


class Cloud:
    """A stack whose uploads bucket holds version v1 of a.jpg and b.jpg."""

    def __init__(self) -> None:
        self.executions, self.buckets = Executions(), Buckets()
        self.buckets.newest = {"a.jpg": "v1", "b.jpg": "v1"}

    @property
    def stack(self) -> Stack:
        return stack(self.executions, self.buckets)

    def failed(self, name: str, *, key: str = "a.jpg", version: str = "v1", **facts: Any) -> str:
        """Add an execution that ended at a Fail state by default."""
        arn = self.executions.add(
            name, uploaded(key, version), **{"status": "FAILED", "error": "StorageDeniedError", **JUST, **facts}
        )
        self.executions.histories.setdefault(arn, [FAIL_STATE])
        return arn

    def put_sidecar(self, name: str, version: str, *, key: str | None = None) -> None:
        source = {"bucket": "uploads", "key": name, "version_id": version}
        sidecar = {"source": source, "execution": {"name": "winner"}}
        self.buckets.objects["results", key or f"results/{name}.png.json"] = json.dumps(sidecar).encode()

    def plan(self, *arns: str, named: bool = False) -> list[Retry]:
        return plan(self.stack, arns, named=named)

    def recover(self, *arns: str, named: bool = False) -> list[Retry]:
        return list(execute(self.stack, self.plan(*arns, named=named)))


def test_an_execution_that_ended_at_a_fail_state_is_restarted() -> None:
    cloud = Cloud()
    [retry] = cloud.recover(cloud.failed("one"))
    assert retry.action == "restarted" and cloud.executions.calls == [("start", "one-retry-1")]
    assert json.loads(cloud.executions.known[str(retry.retry_arn)]["input"]) == uploaded("a.jpg", "v1")


@pytest.mark.parametrize(
    "facts",
    [
        {"status": "TIMED_OUT", "error": None},
        {"status": "ABORTED", "error": "Mine"},
        {"error": "States.Runtime"},
    ],
    ids=lambda facts: facts.get("status") or facts["error"],
)
def test_an_execution_that_did_not_end_at_a_fail_state_is_redriven(facts: dict[str, Any]) -> None:
    cloud = Cloud()
    arn = cloud.failed("one", **facts)
    cloud.executions.histories[arn] = [UNCAUGHT_ERROR]
    [retry] = cloud.recover(arn)
    assert (retry.action, retry.retry_arn) == ("redriven", arn)
    assert cloud.executions.calls == [("redrive", "one")]


@pytest.mark.parametrize(
    "facts",
    [
        {"status": "ABORTED", "redriveStatus": "NOT_REDRIVABLE", "redriveStatusReason": "too old"},
        {"status": "TIMED_OUT", "startDate": datetime.now(UTC) - timedelta(days=2)},
        {"error": "States.Runtime", "redriveCount": 1},
    ],
    ids=["the service does not allow it", "its masks are deleted", "a redrive failed too"],
)
def test_executions_that_cannot_be_redriven_are_restarted(facts: dict[str, Any]) -> None:
    cloud = Cloud()
    arn = cloud.failed("one", **facts)
    cloud.executions.histories[arn] = [UNCAUGHT_ERROR]
    cloud.recover(arn)
    assert cloud.executions.calls == [("start", "one-retry-1")]


@pytest.mark.parametrize("status", ["FAILED", "TIMED_OUT", "ABORTED"])
def test_an_execution_that_waited_for_an_asynchronous_endpoint_is_restarted(status: str) -> None:
    asked = History().enter("SegmentOnSageMakerAsync", "Parallel").add("ParallelStateStarted").enter("AwaitMask")
    asked.attempt().task("FindRequest").task("InvokeEndpoint").add("ExecutionAborted")
    cloud = Cloud()
    arn = cloud.failed("one", status=status)
    cloud.executions.histories[arn] = [asked.events]
    cloud.recover(arn)
    assert cloud.executions.calls == [("start", "one-retry-1")]


def test_a_redrive_continues_after_an_asynchronous_mask() -> None:
    answered = History().enter("SegmentOnSageMakerAsync", "Parallel").add("ParallelStateStarted").task("AwaitMask")
    answered.add("ParallelStateSucceeded").exit("SegmentOnSageMakerAsync", "Parallel").enter("Refine")
    cloud = Cloud()
    arn = cloud.failed("one", status="ABORTED")
    cloud.executions.histories[arn] = [answered.add("ExecutionAborted").events]
    cloud.recover(arn)
    assert cloud.executions.calls == [("redrive", "one")]


def test_repeated_retries_start_one_execution() -> None:
    cloud = Cloud()
    arn = cloud.failed("one")
    planned_twice = [*cloud.plan(arn), *cloud.plan(arn)]
    list(execute(cloud.stack, planned_twice))
    [again] = cloud.recover(arn)
    assert (again.action, again.reason) == ("skipped", "its retry one-retry-1 is running")
    assert cloud.executions.calls == [("start", "one-retry-1")]


def test_a_failed_retry_is_retried() -> None:
    cloud = Cloud()
    first = cloud.failed("one", startDate=datetime.now(UTC) - timedelta(minutes=9))
    second = cloud.failed("one-retry-1")
    [skipped, _] = cloud.recover(first, second)
    assert "later execution" in skipped.reason
    assert cloud.executions.calls == [("start", "one-retry-2")]
    [named] = cloud.plan(first, named=True)
    assert named.reason == "its retry one-retry-1 ended with status FAILED"


def test_only_the_newest_failure_of_an_upload_is_retried() -> None:
    cloud = Cloud()
    old = cloud.failed("old", startDate=datetime.now(UTC) - timedelta(minutes=9))
    other, new = cloud.failed("other", key="b.jpg"), cloud.failed("new")
    cloud.recover(new, other, old)
    assert cloud.executions.calls == [("start", "new-retry-1"), ("start", "other-retry-1")]


@pytest.mark.parametrize("status", ["RUNNING", "SUCCEEDED"])
def test_running_and_succeeded_executions_are_skipped(status: str) -> None:
    cloud = Cloud()
    [retry] = cloud.recover(cloud.failed("one", status=status), named=True)
    assert retry.action == "skipped" and not cloud.executions.calls


def test_an_upload_with_a_result_is_retried_only_if_named() -> None:
    cloud = Cloud()
    cloud.put_sidecar("a.jpg", "v1")
    arn = cloud.failed("with other options")
    [skipped], [named] = cloud.plan(arn), cloud.plan(arn, named=True)
    assert (skipped.action, named.action) == ("skipped", "restarted")
    assert skipped.reason == "the upload has a result, from winner; to retry anyway, pass its name"


def test_denied_access_to_results_names_the_permissions() -> None:
    cloud = Cloud()
    cloud.put_sidecar("a.jpg", "v1")
    cloud.buckets.denied = True
    arn = cloud.failed("one")
    with pytest.raises(StorageDeniedError, match=r"s3:GetObject and s3:ListBucket"):
        cloud.plan(arn)
    with pytest.raises(StorageDeniedError):
        find(cloud.stack, "a.jpg")


@pytest.mark.parametrize(
    "given",
    [uploaded("", "v1"), uploaded("../a.jpg", "v1"), uploaded("k" * 1025, "v1"), "a.jpg", ["a.jpg"], None],
    ids=["no key", "no key of S3's", "too long", "text", "list", "nothing"],
)
def test_an_input_without_a_valid_object_does_not_stop_the_others(given: Any) -> None:
    cloud = Cloud()
    refused = cloud.executions.add("refused", given, status="FAILED", error=InvalidRequestError.__name__, **JUST)
    [skipped, _] = cloud.recover(refused, cloud.failed("one"))
    assert skipped.action == "skipped" and cloud.executions.calls == [("start", "one-retry-1")]


@pytest.mark.parametrize("key", ["results/a.jpg.webp.json", "results/a.json"], ids=["webp", "of version 0.2"])
def test_a_result_of_any_format_or_earlier_version_counts(key: str) -> None:
    cloud = Cloud()
    cloud.put_sidecar("a.jpg", "v1", key=key)
    [retry] = cloud.plan(cloud.failed("one"))
    assert retry.reason.startswith("the upload has a result, from winner")


@pytest.mark.parametrize(("name", "version"), [("a.jpg", "v0"), ("a.png", "v1")])
def test_a_result_of_another_version_or_key_does_not_count(name: str, version: str) -> None:
    cloud = Cloud()
    cloud.put_sidecar(name, version, key="results/a.json")
    cloud.recover(cloud.failed("one"))
    assert cloud.executions.calls == [("start", "one-retry-1")]


def test_an_input_without_a_version_refers_to_the_newest() -> None:
    cloud = Cloud()
    cloud.put_sidecar("a.jpg", "v1")
    arn = cloud.executions.add("asked", {"source": {"bucket": "uploads", "key": "a.jpg"}}, status="FAILED", **JUST)
    [retry] = cloud.plan(arn)
    assert retry.reason.startswith("the upload has a result, from winner")


@pytest.mark.parametrize("newest", [{"a.jpg": "v2"}, {}], ids=["replaced", "deleted"])
def test_a_replaced_or_deleted_upload_is_retried_only_if_named(newest: dict[str, str]) -> None:
    cloud = Cloud()
    cloud.buckets.newest = newest
    arn = cloud.failed("one")
    [skipped], [named] = cloud.plan(arn), cloud.plan(arn, named=True)
    assert (skipped.action, named.action) == ("skipped", "restarted") and "pass its name" in skipped.reason


def test_an_invalid_image_is_retried_only_if_named() -> None:
    cloud = Cloud()
    arn = cloud.failed("one", error=CorruptImageError.__name__)
    [skipped], [named] = cloud.plan(arn), cloud.plan(arn, named=True)
    assert (skipped.action, named.action) == ("skipped", "restarted") and "pass its name" in skipped.reason


@pytest.mark.parametrize("error", [WeightsHashMismatchError.__name__, "StorageDeniedError", "WorkerCrashedError"])
def test_errors_of_the_stack_are_retried(error: str) -> None:
    cloud = Cloud()
    assert [retry.action for retry in cloud.plan(cloud.failed("one", error=error))] == ["restarted"]


def test_an_execution_without_its_input_is_skipped() -> None:
    cloud = Cloud()
    arn = cloud.failed("one")
    del cloud.executions.known[arn]["input"]
    [retry] = cloud.recover(arn, named=True)
    assert retry.action == "skipped" and "upload the image again" in retry.reason


def test_a_rejected_retry_does_not_stop_the_others() -> None:
    cloud = Cloud()
    planned = cloud.plan(cloud.failed("one"), cloud.failed("two", key="b.jpg"))
    cloud.executions.end("one", "FAILED")
    cloud.failed("one-retry-1", startDate=NOW)
    unreachable = Retry("arn:x:gone", "c.jpg", "E", "redriven", "", retry_arn="arn:x:gone")
    cloud.executions.known["arn:x:gone"] = {"status": "RUNNING", "name": "gone"}
    taken, lost, started = execute(cloud.stack, [planned[0], unreachable, planned[1]])
    assert (taken.action, lost.action, started.action) == ("skipped", "skipped", "restarted")


def test_wait_handles_lagging_descriptions() -> None:
    class Behind(Executions):
        """DescribeExecution lags behind a redrive or a start."""

        def describe_execution(self, **request: Any) -> dict[str, Any]:
            found = super().describe_execution(**request)
            looks = self.described.count(request["executionArn"])
            if looks == 2:
                return {**found, "status": "ABORTED", "redriveCount": 0}
            return {**found, "status": "RUNNING"} if looks == 3 else found

    executions, buckets = Behind(), Buckets()
    buckets.newest = {"a.jpg": "v1"}
    arn = executions.add("one", uploaded("a.jpg", "v1"), **{"status": "ABORTED", **JUST})
    deployed = stack(executions, buckets)
    retries = list(execute(deployed, plan(deployed, [arn], named=True)))
    executions.end("one", "FAILED", error="UnknownForegroundError")
    [ended] = wait(deployed, retries)
    assert (ended.status, ended.retry_error) == ("FAILED", "UnknownForegroundError")
    assert executions.described.count(arn) == 4


def test_failed_since_uses_the_end_of_executions() -> None:
    executions = Executions()

    def add(name: str, status: str, began_min: float, ended_min: float) -> None:
        dates = {"startDate": NOW - timedelta(minutes=began_min), "stopDate": NOW - timedelta(minutes=ended_min)}
        executions.add(name, {}, status=status, **dates)

    add("recent", "FAILED", 10, 9)
    add("long", "TIMED_OUT", 490, 20)
    add("stopped", "ABORTED", 35, 29)
    add("redriven", "FAILED", 1500, 10)
    add("before", "FAILED", 40, 31)
    add("good", "SUCCEEDED", 5, 4)
    found = failed_since(stack(executions), NOW - timedelta(minutes=30))
    assert [arn.rpartition(":")[2] for arn in found] == ["recent", "stopped", "long", "redriven"]


def test_find_by_the_key_of_a_failed_upload() -> None:
    cloud = Cloud()
    arn = cloud.failed("one")
    cloud.buckets.objects["results", "failed/a.jpg.json"] = json.dumps({"execution": {"id": arn}}).encode()
    assert find(cloud.stack, "a.jpg") == find(cloud.stack, "one") == find(cloud.stack, arn) == arn
    with pytest.raises(ExecutionNotFoundError):
        find(cloud.stack, "b.jpg")


@given(st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=80))
def test_retry_names_are_valid_and_numbered(name: str) -> None:
    first = retry_name(name)
    second = retry_name(first)
    assert len(second) <= 80 and retry_name(name) == first
    stem, number = second.rsplit("-", 1)
    assert first == f"{stem}-{int(number) - 1}"


def test_retry_names_of_long_names_are_unique() -> None:
    assert retry_name("x" * 79 + "a") != retry_name("x" * 79 + "b")
