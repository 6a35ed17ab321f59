"""Each upload ends with either a result or a report, even if no Catch handles the end."""

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from core.errors import CorruptImageError
from functions.contracts.failure_report import FailureReport
from functions.contracts.job import Execution
from functions.contracts.outcome import ObjectVersion
from functions.runtime.failure_reports import FailureConfig, FailureReporter
from functions.runtime.outcomes import Outcomes, execution_metadata
from functions.runtime.store import Store
from tests.conftest import client, disc, file_of
from tests.integration.deployment import Deployed, until

SLOW = pytest.mark.slow
HANDLED = "backgrounds/"  # uploads under this prefix start no execution


def execution(name: str) -> Execution:
    return Execution(id=f"arn:aws:states:eu-west-1:123456789012:execution:m:{name}", name=name, started_at="2026")


def failed(source: ObjectVersion, execution: Execution) -> FailureReport:
    facts = CorruptImageError("The file ends early", field="image", value=None, remedy="Upload it again.").facts()
    return FailureReport(status="FAILED", stage="Refine", **facts, options={}, execution=execution, source=source)


def versions(stack: Deployed, key: str) -> list[str]:
    """Return the versions of an object in the results bucket, deleted ones left out."""
    listed = stack.s3.list_object_versions(Bucket=stack.outputs["ResultsBucket"], Prefix=key).get("Versions", [])
    return [version["VersionId"] for version in listed if version["Key"] == key]


def log_lines(stack: Deployed, function: str, containing: str) -> list[dict[str, Any]]:
    logs = client("logs", stack.cloud.endpoint_url, stack.cloud.region)
    group = f"/aws/lambda/{stack.cloud.stack_name}-{function}"
    events = logs.filter_log_events(logGroupName=group)["events"]
    return [json.loads(event["message"]) for event in events if containing in event["message"]]


def of(stack: Deployed) -> Outcomes:
    return Outcomes(Store(stack.s3), stack.outputs["ResultsBucket"])


def claims(stack: Deployed, owner: str) -> list[Any]:
    return [item for item in stack.cached() if item["owner"]["S"] == owner and item["status"]["S"] == "IN_PROGRESS"]


@pytest.fixture
def by_hand(stack: Deployed) -> Callable[[str, bytes], dict[str, str]]:
    """Upload without an event, so that the test starts all executions itself."""

    def upload(name: str, data: bytes) -> dict[str, str]:
        key = HANDLED + name
        return {"bucket": stack.outputs["UploadsBucket"], "key": key, "version_id": stack.upload(key, data)}

    return upload


def test_a_stopped_execution_gets_a_report_and_keeps_no_claim(stack: Deployed) -> None:
    with stack.no_workers():
        version = stack.upload("mistake.png", disc(seed=61), {"pbr-segmentation_host": "ecs"})
        execution_arn = stack.execution_of("mistake.png", version)
        until(lambda: "SegmentOnEcs" in stack.states_of(execution_arn))
        assert claims(stack, execution_arn)
        stack.sfn.stop_execution(executionArn=execution_arn, error="Mistake", cause="the wrong bucket")
        report = until(lambda: versions(stack, "failed/mistake.png.json") and stack.report("mistake.png"))
    assert (report["stage"], report["error"]) == ("SegmentOnEcs", "ExecutionAborted")
    assert report["message"].endswith("the wrong bucket") and "pbr redrive" in report["remedy"]
    assert report["source"]["version_id"] == version
    assert report["options"]["segmentation_host"] == "ecs"
    assert not claims(stack, execution_arn)
    assert until(
        lambda: [line for line in log_lines(stack, "reconcile", '"Failed"') if line["Stage"] == "SegmentOnEcs"]
    )


@pytest.mark.slow
def test_an_execution_that_recorded_its_failure_is_left_unchanged(stack: Deployed) -> None:
    ended = stack.process("recorded.png", b"no picture")
    assert ended.error == "UnsupportedFormatError"
    name = stack.report("recorded.png")["execution"]["name"]
    until(lambda: [line for line in log_lines(stack, "reconcile", "stage done") if line.get("job_id") == name])
    assert len(versions(stack, "failed/recorded.png.json")) == 1
    assert not [
        line for line in log_lines(stack, "reconcile", '"Failed"') if line.get("Error") == "UnsupportedFormatError"
    ]


def reconcile(stack: Deployed, execution_arn: str, **detail: str) -> Any:
    """Invoke ReconcileFunction for an execution that ended, and return its answer."""
    event = {"executionArn": execution_arn, "name": "by hand", "startDate": 1767607200000, **detail}
    answer = client("lambda", stack.cloud.endpoint_url, stack.cloud.region).invoke(
        FunctionName=stack.outputs["ReconcileFunctionArn"], Payload=json.dumps({"detail": event})
    )
    return json.loads(answer["Payload"].read())


def fail_unseen(stack: Deployed, state: dict[str, Any]) -> str:
    """Run a state machine that fails in Encode with an invalid path; return the execution's ARN.

    It is not the stack's state machine, so ReconcileFunction gets the permission to read its executions.
    """
    endpoint, region = stack.cloud.endpoint_url, stack.cloud.region
    function = client("lambda", endpoint, region).get_function(FunctionName=stack.outputs["ReconcileFunctionArn"])
    statement = {
        "Effect": "Allow",
        "Action": "states:GetExecutionHistory",
        "Resource": "arn:aws:states:*:execution:unseen-*",
    }
    client("iam", endpoint, region).put_role_policy(
        RoleName=function["Configuration"]["Role"].rpartition("/")[2],
        PolicyName="unseen",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
    )
    states = {
        "Job": {"Type": "Pass", "Result": state, "Next": "Encode"},
        "Encode": {"Type": "Pass", "InputPath": "$.missing", "End": True},
    }
    machine = stack.sfn.create_state_machine(
        name=f"unseen-{uuid.uuid4().hex}",
        definition=json.dumps({"StartAt": "Job", "States": states}),
        roleArn="arn:aws:iam::123456789012:role/any",
    )["stateMachineArn"]
    started = stack.sfn.start_execution(stateMachineArn=machine)["executionArn"]
    ended = stack.wait(started)
    assert (ended.status, ended.error) == ("FAILED", "States.Runtime")
    return str(started)


@pytest.mark.slow
def test_a_failure_that_no_catch_handles_is_reconciled(stack: Deployed, by_hand: Any) -> None:
    source = by_hand("unseen.png", disc(seed=62))
    execution_arn = fail_unseen(stack, {"cache_key": "none", "source": source})
    assert reconcile(stack, execution_arn)["report_key"] == f"failed/{source['key']}.json"
    report = stack.report(source["key"])
    assert (report["stage"], report["error"]) == ("Encode", "States.Runtime") and report["remedy"]


@pytest.mark.slow
def test_the_failure_of_a_second_attempt_is_not_reported_as_the_cause(stack: Deployed, by_hand: Any) -> None:
    source, second = by_hand("second.png", disc(seed=67)), {"Refine": {"Error": "Runtime.ExitError", "Cause": ""}}
    reconcile(stack, fail_unseen(stack, {"cache_key": "none", "source": source, "failed": second, "degraded": second}))
    report = stack.report(source["key"])
    assert (report["stage"], report["error"]) == ("Encode", "States.Runtime")


@pytest.mark.slow
def test_a_result_without_a_sidecar_is_deleted_after_an_unhandled_failure(stack: Deployed, by_hand: Any) -> None:
    source, key = by_hand("left.png", disc(seed=68)), "results/backgrounds/left.png.png"
    execution_arn = fail_unseen(
        stack, {"cache_key": "none", "source": source, "keys": {"result": key, "sidecar": f"{key}.json"}}
    )
    maker = Execution(id=execution_arn, name="any", started_at="any")
    Store(stack.s3).put(stack.outputs["ResultsBucket"], key, b"half", "image/png", execution_metadata(maker))
    reconcile(stack, execution_arn)
    assert not versions(stack, key) and stack.report(source["key"])


@pytest.mark.slow
def test_a_result_without_a_sidecar_is_deleted_when_its_execution_fails(stack: Deployed, by_hand: Any) -> None:
    source, key = (
        by_hand("blank.png", file_of(Image.new("RGB", (80, 80), "white"), "PNG")),
        "results/backgrounds/blank.png.png",
    )
    machine, name = stack.outputs["StateMachineArn"], uuid.uuid4().hex
    maker = Execution(id=f"{machine.replace(':stateMachine:', ':execution:')}:{name}", name=name, started_at="any")
    of(stack).store.put(stack.outputs["ResultsBucket"], key, b"half", "image/png", execution_metadata(maker))
    started = stack.sfn.start_execution(stateMachineArn=machine, name=name, input=json.dumps({"source": source}))
    assert stack.wait(started["executionArn"]).error == "UnknownForegroundError"
    assert not versions(stack, key) and stack.report(source["key"])


@pytest.mark.slow
def test_an_end_that_is_not_yet_in_the_history_is_reconciled_later(stack: Deployed) -> None:
    with stack.no_workers():
        running = stack.execution_of(
            "runs.png", stack.upload("runs.png", disc(seed=69), {"pbr-segmentation_host": "ecs"})
        )
        until(lambda: claims(stack, running))
        assert reconcile(stack, running)["errorType"] == "HistoryBehindError"
        stack.sfn.stop_execution(executionArn=running)


@pytest.mark.parametrize(
    "given",
    [
        "null",
        pytest.param("7", marks=SLOW),
        pytest.param("[]", marks=SLOW),
        pytest.param('"text"', marks=SLOW),
        '{"failed": {"Refine": {}}, "degraded": 1}',
        pytest.param('{"keys": 1, "failure": 1, "cache_key": 1, "input": 1}', marks=SLOW),
        pytest.param('{"source": {"bucket": "b", "key": "%s"}}' % ("k" * 100_000), marks=SLOW),
        pytest.param(
            '{"source": {"bucket": "b", "key": "a.png"}, "options": {"x": "%s"}}' % ("x" * 200_000), marks=SLOW
        ),
    ],
    ids=lambda given: given[:40],
)
def test_any_input_has_a_report_and_a_message_on_the_topic(stack: Deployed, given: str) -> None:
    with stack.listener() as heard:
        started = stack.sfn.start_execution(stateMachineArn=stack.outputs["StateMachineArn"], input=given)
        ended = stack.wait(started["executionArn"])
        published = [json.loads(message["Message"]) for message in heard()]
    assert (ended.status, ended.error) == ("FAILED", "InvalidRequestError")
    assert "ReleaseClaim" not in ended.states and "RecordFailure" in ended.states
    name = started["executionArn"].rpartition(":")[2]
    report = stack.report(f"executions/{name}")
    assert report["stage"] == "Validate" and report["remedy"] and report["execution"]["name"] == name
    assert [message for message in published if message["execution"]["name"] == name] == [report]


@pytest.mark.slow
def test_a_late_execution_for_an_upload_with_a_result_reports_nothing(stack: Deployed, by_hand: Any) -> None:
    source = by_hand("late.png", disc(seed=63))
    assert stack.wait(stack.start(source)).status == "SUCCEEDED"
    stack.s3.delete_object(Bucket=source["bucket"], Key=source["key"], VersionId=source["version_id"])
    ended = stack.wait(stack.start(source))
    assert (ended.status, ended.error) == ("FAILED", "SourceNotFoundError")
    assert "already has a result" in (ended.cause or "")
    assert not versions(stack, f"failed/{source['key']}.json")
    assert stack.result("results/backgrounds/late.png.png")


@pytest.mark.slow
def test_another_request_for_an_upload_with_a_result_fails_with_a_message_and_no_report(
    stack: Deployed, by_hand: Any
) -> None:
    source = by_hand("ordered.png", disc(seed=70))
    assert stack.wait(stack.start(source, precision_level="draft")).status == "SUCCEEDED"
    with stack.listener() as heard:
        assert stack.wait(stack.start(source, precision_level="draft", model="none")).error == "InvalidOptionsError"
        [message] = heard()
        assert json.loads(message["Message"])["source"] == source
        stale = failed(ObjectVersion(**source), execution("earlier")).model_dump_json().encode()
        of(stack).store.put(stack.outputs["ResultsBucket"], f"failed/{source['key']}.json", stale, "application/json")
        stack.s3.delete_object(Bucket=source["bucket"], Key=source["key"], VersionId=source["version_id"])
        assert stack.wait(stack.start(source, precision_level="draft")).error == "SourceNotFoundError"
        assert not heard()
    assert not versions(stack, f"failed/{source['key']}.json")


@pytest.mark.slow
def test_a_request_without_a_version_deletes_its_stale_report(stack: Deployed, by_hand: Any) -> None:
    source = by_hand("unversioned.png", disc(seed=71))
    named = {"bucket": source["bucket"], "key": source["key"]}
    assert stack.wait(stack.start(named, model="none")).error == "InvalidOptionsError"
    assert stack.report(source["key"])["source"]["version_id"] is None
    assert stack.wait(stack.start(named)).status == "SUCCEEDED"
    assert not versions(stack, f"failed/{source['key']}.json")


@pytest.mark.parametrize("cached", [False, True], ids=["processed", "served from the cache"])
@pytest.mark.slow
def test_an_execution_may_have_any_name_that_step_functions_accepts(stack: Deployed, cached: bool) -> None:
    key = f"any-name-{cached}.png"
    source = {"bucket": stack.outputs["UploadsBucket"], "key": HANDLED + key}
    stack.upload(source["key"], disc(seed=72))
    started = stack.sfn.start_execution(
        stateMachineArn=stack.outputs["StateMachineArn"],
        name=f"größe-{cached}",
        input=json.dumps({"source": source, "options": {"precision_level": "draft"}}),
    )
    ended = stack.wait(started["executionArn"])
    assert (ended.status, ended.output["cache"]["hit"]) == ("SUCCEEDED", cached), ended.cause
    head = stack.s3.head_object(Bucket=stack.outputs["ResultsBucket"], Key=f"results/{HANDLED}{key}.png")
    maker = Execution(id=started["executionArn"], name="any", started_at="any")
    assert head["Metadata"] == execution_metadata(maker)


@pytest.mark.parametrize("cached", [False, pytest.param(True, marks=SLOW)], ids=["processed", "served from the cache"])
def test_a_result_deletes_the_report_of_an_earlier_failure(stack: Deployed, by_hand: Any, cached: bool) -> None:
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


@pytest.mark.slow
def test_a_newer_upload_does_not_delete_the_report_of_an_older_one(stack: Deployed, by_hand: Any) -> None:
    broken = by_hand("mended.png", b"no picture")
    stack.wait(stack.start(broken))
    ended = stack.wait(stack.start(by_hand("mended.png", disc(seed=66))))
    assert ended.status == "SUCCEEDED"
    assert stack.report(broken["key"])["source"]["version_id"] == broken["version_id"]


@pytest.mark.slow
def test_deleting_a_result_without_a_sidecar_restores_the_version_before(stack: Deployed) -> None:
    outcomes, key = of(stack), "results/half.png.png"
    for maker, data in (("früher", b"whole"), ("failing", b"half"), ("failing", b"half")):
        outcomes.store.put(outcomes.bucket, key, data, "image/png", execution_metadata(execution(maker)))
    outcomes.delete_undescribed_results(key, f"{key}.json", execution("failing"))
    assert stack.result(key) == b"whole"


@pytest.mark.slow
def test_a_report_written_at_the_same_moment_as_the_result_is_deleted(stack: Deployed) -> None:
    bucket = stack.outputs["ResultsBucket"]
    subject = ObjectVersion(bucket="uploads", key="moment.png", version_id="7")

    class ResultComesMeanwhile(Store):
        def put(self, bucket: str, key: str, *arguments: Any) -> str | None:
            if key.startswith("failed/"):
                sidecar = {"source": vars(subject), "execution": vars(execution("other")), "options": {}}
                super().put(bucket, "results/moment.png.png.json", json.dumps(sidecar).encode(), "text/json")
            return super().put(bucket, key, *arguments)

    outcomes = Outcomes(ResultComesMeanwhile(stack.s3), bucket)
    assert outcomes.write_report(failed(subject, execution("me"))) is None
    assert not versions(stack, "failed/moment.png.json")


@pytest.mark.slow
def test_a_stale_report_is_deleted_when_the_next_execution_fails(stack: Deployed) -> None:
    subject = ObjectVersion(bucket=stack.outputs["UploadsBucket"], key="gone.png", version_id="7")
    outcomes = of(stack)
    assert outcomes.write_report(failed(subject, execution("first")))
    sidecar = {"source": vars(subject), "execution": vars(execution("second")), "options": {}}
    outcomes.store.put(outcomes.bucket, "results/gone.png.png.json", json.dumps(sidecar).encode(), "application/json")
    third = fail_unseen(stack, {"cache_key": "none", "source": vars(subject)})
    assert reconcile(stack, third)["report_key"] is None
    assert not versions(stack, "failed/gone.png.json")


@pytest.mark.slow
def test_the_pixels_of_a_failed_request_do_not_stay_under_the_sidecar_of_another(stack: Deployed) -> None:
    subject, outcomes = ObjectVersion(bucket="uploads", key="two.png", version_id="7"), of(stack)
    key, sidecar_key = "results/two.png.png", "results/two.png.png.json"
    first, second = execution("first"), execution("second")
    outcomes.store.put(outcomes.bucket, key, b"first", "image/png", execution_metadata(first))
    sidecar = {"source": vars(subject), "execution": vars(first), "options": {}}
    outcomes.store.put(outcomes.bucket, sidecar_key, json.dumps(sidecar).encode(), "application/json")
    outcomes.store.put(outcomes.bucket, key, b"second", "image/png", execution_metadata(second))
    config = FailureConfig(
        uploads_bucket=stack.outputs["UploadsBucket"],
        results_bucket=outcomes.bucket,
        topic_arn=stack.outputs["FailuresTopicArn"],
    )
    recorder = FailureReporter(config, store=outcomes.store, topic=stack.sns)
    for maker in (second, first):
        recorder.delete_undescribed_results({"keys": {"result": key, "sidecar": sidecar_key}}, maker)
    assert stack.result(key) == b"first"


@pytest.mark.parametrize("foreign", [b"\xff", b"[]", b"{}", b'{"source": {"key": 3}}'])
def test_a_foreign_file_in_place_of_a_sidecar_is_not_a_result(stack: Deployed, foreign: bytes) -> None:
    outcomes = of(stack)
    outcomes.store.put(outcomes.bucket, "results/foreign.png.png.json", foreign, "text/plain")
    assert not outcomes.has_result(ObjectVersion(bucket="uploads", key="foreign.png", version_id="1"))


@pytest.mark.parametrize("key", ["results/old.json", "results/old.png.webp.json"], ids=["of version 0.2", "webp"])
def test_a_sidecar_of_any_format_or_earlier_version_is_a_result_of_its_source_only(stack: Deployed, key: str) -> None:
    outcomes, subject = of(stack), ObjectVersion(bucket="uploads", key="old.png", version_id="1")
    sidecar = {"source": vars(subject), "execution": vars(execution("first")), "options": {}}
    outcomes.store.put(outcomes.bucket, key, json.dumps(sidecar).encode(), "application/json")
    assert outcomes.has_result(subject)
    assert not outcomes.has_result(subject.model_copy(update={"key": "old.jpg"}))
