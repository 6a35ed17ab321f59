"""Each upload ends with a result or with a report: never both, and never neither, also where no Catch sees the end."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from functions.shared.outcome import MADE_BY, Outcomes, Subject
from functions.shared.store import Store
from tests.conftest import client, disc
from tests.integration.machine.conftest import Deployed

HANDLED = "backgrounds/"  # no event starts anything for what lies under this prefix


def eventually(look: Callable[[], Any], timeout_s: float = 30) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.1)
    return found


def versions(stack: Deployed, key: str) -> list[str]:
    """Return the versions of an object in the results bucket, deleted ones left out."""
    listed = stack.s3.list_object_versions(Bucket=stack.outputs["ResultsBucket"], Prefix=key).get("Versions", [])
    return [version["VersionId"] for version in listed if version["Key"] == key]


def log_lines(stack: Deployed, function: str, containing: str) -> list[dict[str, Any]]:
    logs = client("logs", stack.cloud.endpoint_url, stack.cloud.region)
    group = f"/aws/lambda/{stack.cloud.stack_name}-{function}"
    events = logs.filter_log_events(logGroupName=group)["events"]
    return [json.loads(event["message"]) for event in events if containing in event["message"]]


@contextmanager
def no_worker(stack: Deployed) -> Iterator[None]:
    """Leave what is sent to ECS without an answer."""
    ecs = client("ecs", stack.cloud.endpoint_url, stack.cloud.region)
    [cluster] = ecs.list_clusters()["clusterArns"]
    [service] = ecs.list_services(cluster=cluster)["serviceArns"]
    ecs.update_service(cluster=cluster, service=service, desiredCount=0)
    try:
        yield
    finally:
        ecs.update_service(cluster=cluster, service=service, desiredCount=1)


def claims(stack: Deployed, owner: str) -> list[Any]:
    return [item for item in stack.cached() if item["owner"]["S"] == owner and item["status"]["S"] == "IN_PROGRESS"]


@pytest.fixture
def by_hand(stack: Deployed) -> Callable[[str, bytes], dict[str, str]]:
    """Upload without an event, so that a test has all executions of the upload in its own hands."""

    def upload(name: str, data: bytes) -> dict[str, str]:
        key = HANDLED + name
        return {"bucket": stack.outputs["UploadsBucket"], "key": key, "version_id": stack.upload(key, data)}

    return upload


def test_a_stopped_execution_gets_a_report_and_keeps_no_claim(stack: Deployed) -> None:
    with no_worker(stack):
        version = stack.upload("stopped.png", disc(seed=61), {"pbr-segmentation_host": "ecs"})
        execution_arn = stack.execution_of("stopped.png", version)
        eventually(lambda: claims(stack, execution_arn))
        stack.sfn.stop_execution(executionArn=execution_arn, error="Mistake", cause="the wrong bucket")
        report = eventually(lambda: versions(stack, "failed/stopped.png.json") and stack.report("stopped.png"))
    assert (report["stage"], report["error"]) == ("SegmentOnEcs", "ExecutionAborted")
    assert report["message"].endswith("the wrong bucket") and "pbr redrive" in report["remedy"]
    assert report["source"]["version_id"] == version
    assert report["options"]["segmentation_host"] == "ecs"
    assert not claims(stack, execution_arn)
    assert eventually(
        lambda: [line for line in log_lines(stack, "settle", '"Failed"') if line["Stage"] == "SegmentOnEcs"]
    )


def test_an_execution_that_recorded_its_failure_is_left_as_it_is(stack: Deployed) -> None:
    ended = stack.process("recorded.png", b"no picture")
    assert ended.error == "UnsupportedFormatError"
    name = stack.report("recorded.png")["execution"]["name"]
    eventually(lambda: [line for line in log_lines(stack, "settle", "stage done") if line.get("job_id") == name])
    assert len(versions(stack, "failed/recorded.png.json")) == 1
    assert not [
        line for line in log_lines(stack, "settle", '"Failed"') if line.get("Error") == "UnsupportedFormatError"
    ]


def test_an_execution_that_no_catch_saw_fail_is_settled(stack: Deployed, by_hand: Any) -> None:
    source = by_hand("unseen.png", disc(seed=62))
    definition = json.dumps(
        {"StartAt": "Look", "States": {"Look": {"Type": "Pass", "InputPath": "$.missing", "End": True}}}
    )
    machine = stack.sfn.create_state_machine(
        name="unseen", definition=definition, roleArn="arn:aws:iam::123456789012:role/any"
    )["stateMachineArn"]
    started = stack.sfn.start_execution(stateMachineArn=machine, input=json.dumps({"source": source}))
    ended = stack.wait(started["executionArn"])
    assert (ended.status, ended.error) == ("FAILED", "States.Runtime")
    event = {"detail": {"executionArn": started["executionArn"], "name": "unseen"}}
    answer = client("lambda", stack.cloud.endpoint_url, stack.cloud.region).invoke(
        FunctionName=stack.outputs["SettleFunctionArn"], Payload=json.dumps(event)
    )
    assert json.loads(answer["Payload"].read())["report_key"] == f"failed/{source['key']}.json"
    report = stack.report(source["key"])
    assert (report["stage"], report["error"]) == ("Look", "States.Runtime") and report["remedy"]


@pytest.mark.parametrize("given", ["null", "7", "[]", '"text"'])
def test_an_execution_whose_input_is_no_object_has_a_report_under_its_own_name(stack: Deployed, given: str) -> None:
    started = stack.sfn.start_execution(stateMachineArn=stack.outputs["StateMachineArn"], input=given)
    assert stack.wait(started["executionArn"]).status == "FAILED"
    key = f"failed/executions/{started['executionArn'].rpartition(':')[2]}.json"
    eventually(lambda: versions(stack, key))
    report = json.loads(stack.result(key))
    assert report["error"] and report["remedy"] and report["source"]["key"] is None


def test_a_late_execution_of_an_upload_that_has_its_result_reports_nothing(stack: Deployed, by_hand: Any) -> None:
    source = by_hand("late.png", disc(seed=63))
    assert stack.wait(stack.start(source)).status == "SUCCEEDED"
    stack.s3.delete_object(Bucket=source["bucket"], Key=source["key"], VersionId=source["version_id"])
    ended = stack.wait(stack.start(source))
    assert (ended.status, ended.error) == ("FAILED", "SourceNotFoundError")
    assert "has its result" in (ended.cause or "")
    assert not versions(stack, f"failed/{source['key']}.json")
    assert stack.result("results/backgrounds/late.png")


@pytest.mark.parametrize("cached", [False, True], ids=["made anew", "served from the cache"])
def test_a_result_takes_back_the_report_of_a_failure_before_it(stack: Deployed, by_hand: Any, cached: bool) -> None:
    data = disc(seed=64 + cached)
    if cached:
        assert stack.wait(stack.start(by_hand("first-of-its-content.png", data))).status == "SUCCEEDED"
    source = by_hand(f"second-try-{cached}.png", data)
    for _ in range(2):
        assert stack.wait(stack.start(source, model="no-such-model")).error == "InvalidOptionsError"
    assert versions(stack, f"failed/{source['key']}.json")
    ended = stack.wait(stack.start(source))
    assert (ended.status, ended.output["cache"]["hit"]) == ("SUCCEEDED", cached), ended.cause
    assert not versions(stack, f"failed/{source['key']}.json")


def test_a_newer_upload_does_not_take_back_the_report_of_an_older_one(stack: Deployed, by_hand: Any) -> None:
    broken = by_hand("mended.png", b"no picture")
    stack.wait(stack.start(broken))
    ended = stack.wait(stack.start(by_hand("mended.png", disc(seed=66))))
    assert ended.status == "SUCCEEDED"
    assert stack.report(broken["key"])["source"]["version_id"] == broken["version_id"]


def test_a_result_without_its_sidecar_is_taken_back_and_what_it_replaced_is_there_again(stack: Deployed) -> None:
    bucket, key = stack.outputs["ResultsBucket"], "results/half.png"
    outcomes = Outcomes(Store(stack.s3), bucket)
    for maker, data in (("earlier", b"whole"), ("failing", b"half"), ("failing", b"half")):
        outcomes.store.put(bucket, key, data, "image/png", {MADE_BY: maker})
    outcomes.take_back_result(key, "failing")
    assert stack.result(key) == b"whole"


def test_a_report_that_comes_at_the_same_moment_as_the_result_goes(stack: Deployed) -> None:
    bucket = stack.outputs["ResultsBucket"]
    subject = Subject(bucket="uploads", key="moment.png", version_id="7")

    class ResultComesMeanwhile(Store):
        def put(self, bucket: str, key: str, *arguments: Any) -> str | None:
            if key.startswith("failed/"):
                super().put(bucket, "results/moment.json", json.dumps({"source": vars(subject)}).encode(), "text/json")
            return super().put(bucket, key, *arguments)

    assert Outcomes(ResultComesMeanwhile(stack.s3), bucket).report(subject, "me", {"status": "FAILED"}) is None
    assert not versions(stack, "failed/moment.png.json")


@pytest.mark.parametrize("foreign", [b"\xff", b"[]", b"{}", b'{"source": {"key": 3}}'])
def test_a_foreign_file_in_the_place_of_a_sidecar_is_no_result(stack: Deployed, foreign: bytes) -> None:
    bucket = stack.outputs["ResultsBucket"]
    outcomes = Outcomes(Store(stack.s3), bucket)
    outcomes.store.put(bucket, "results/foreign.json", foreign, "text/plain")
    assert outcomes.result_of(Subject(bucket="uploads", key="foreign.png", version_id="1")) is None
