"""The rules' patterns, and the executions that uploads start."""

import json
import time
import uuid
from typing import Any

import pytest

from tests.integration.embedded_cloud.services.testbed import until
from tests.localstack.conftest import REGION, STACK, Account


def matches(aws: Account, rule: str, source: str, detail_type: str, detail: dict[str, Any]) -> bool:
    """Return whether the pattern of a deployed rule matches the event."""
    events = aws.client("events")
    pattern = events.describe_rule(Name=aws.ids[rule].rpartition("/")[2])["EventPattern"]
    event = {
        "id": "1",
        "account": "000000000000",
        "source": source,
        "time": "2026-01-05T10:00:00Z",
        "region": REGION,
        "resources": [],
        "detail-type": detail_type,
        "detail": detail,
    }
    return events.test_event_pattern(EventPattern=pattern, Event=json.dumps(event))["Result"]


def upload(aws: Account, key: str, bucket: str = "UploadsBucket", detail_type: str = "Object Created") -> bool:
    detail = {"bucket": {"name": aws.ids[bucket]}, "object": {"key": key}}
    return matches(aws, "RemoveBackgroundUpload", "aws.s3", detail_type, detail)


@pytest.mark.parametrize(
    "key", ["cup.jpg", "photos/ü b+c.jpg", "photos/api/cup.jpg", "apiary.jpg", "_$folder$/cup.jpg"]
)
def test_an_upload_matches_the_rule(aws: Account, key: str) -> None:
    assert upload(aws, key)


@pytest.mark.parametrize("key", ["backgrounds/sky.jpg", "api/1/cup.jpg", "bulk/a/b", "photos/", "photos_$folder$"])
def test_a_key_that_is_no_upload_does_not(aws: Account, key: str) -> None:
    assert not upload(aws, key)


def test_other_buckets_and_deletions_do_not(aws: Account) -> None:
    assert not upload(aws, "cup.jpg", bucket="ResultsBucket")
    assert not upload(aws, "cup.jpg", detail_type="Object Deleted")


@pytest.mark.parametrize(
    ("machine", "status", "expected"),
    [
        (STACK, "FAILED", True),
        (STACK, "TIMED_OUT", True),
        (STACK, "ABORTED", True),
        (STACK, "SUCCEEDED", False),
        (STACK, "RUNNING", False),
        (f"{STACK}-bulk", "FAILED", False),
        ("another", "FAILED", False),
    ],
)
def test_executions_to_reconcile_match_the_rule(aws: Account, machine: str, status: str, expected: bool) -> None:
    account = aws.ids["RemoveBackground"].split(":")[4]
    detail = {"executionArn": f"arn:aws:states:{REGION}:{account}:execution:{machine}:one", "status": status}
    found = matches(aws, "ReconcileFunctionEnded", "aws.states", "Step Functions Execution Status Change", detail)
    assert found == expected


def test_an_upload_starts_an_execution_with_its_event(aws: Account) -> None:
    bucket, key = aws.ids["UploadsBucket"], f"{uuid.uuid4()}/cup.jpg"
    put = aws.client("s3").put_object(Bucket=bucket, Key=key, Body=b"four")
    (event,) = until(lambda: inputs_with(aws, key))
    assert (event["source"], event["detail-type"], event["region"]) == ("aws.s3", "Object Created", REGION)
    assert event["detail"]["bucket"] == {"name": bucket}
    assert event["detail"]["reason"] == "PutObject"
    stored = event["detail"]["object"]
    assert (stored["key"], stored["size"], stored["version-id"]) == (key, 4, put["VersionId"])
    assert stored["etag"] == put["ETag"].strip('"')
    assert stored["sequencer"]


def test_an_object_that_is_no_upload_starts_none(aws: Account) -> None:
    s3, bucket, prefix = aws.client("s3"), aws.ids["UploadsBucket"], str(uuid.uuid4())
    s3.put_object(Bucket=bucket, Key=f"api/{prefix}", Body=b"")
    s3.put_object(Bucket=bucket, Key=f"{prefix}.jpg", Body=b"")
    (event,) = until(lambda: inputs_with(aws, prefix))
    time.sleep(0.5)
    assert inputs_with(aws, prefix) == [event]
    assert event["detail"]["object"]["key"] == f"{prefix}.jpg"


def inputs_with(aws: Account, text: str) -> list[dict[str, Any]]:
    """Return the inputs of the executions of the state machine that contain a text."""
    sfn = aws.client("stepfunctions")
    executions = sfn.list_executions(stateMachineArn=aws.ids["RemoveBackground"])["executions"]
    described = (sfn.describe_execution(executionArn=one["executionArn"]) for one in executions)
    inputs = (json.loads(one["input"]) for one in described)
    return [one for one in inputs if text in json.dumps(one, ensure_ascii=False)]
