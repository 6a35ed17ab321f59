"""Uploads send EventBridge events, which start state machines."""

import base64
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

from embedded_cloud.cloud import EmbeddedCloud
from tests.integration.embedded_cloud.services.testbed import ROLE, Machines, client, task, until

pytestmark = pytest.mark.slow  # the state machine's tests run on these services


def executions_with(cloud: EmbeddedCloud, machines: Machines, key: str, count: int = 1) -> list[Any]:
    """Return the inputs of executions that contain the key, once there are ``count``."""

    def inputs() -> list[Any]:
        listed = machines.api.list_executions(stateMachineArn=cloud.outputs["MachineArn"])["executions"]
        described = [machines.api.describe_execution(executionArn=item["executionArn"]) for item in listed]
        return [json.loads(item["input"]) for item in described if key in item["input"]]

    found: list[Any] = until(lambda: inputs() if len(inputs()) >= count else None)
    return found


def test_an_upload_starts_the_state_machine_with_the_full_event(cloud: EmbeddedCloud, machines: Machines) -> None:
    s3, bucket, key = client(cloud, "s3"), cloud.outputs["Bucket"], "in/a b+ü.jpg"
    put = s3.put_object(Bucket=bucket, Key=key, Body=b"four")
    (event,) = executions_with(cloud, machines, "in/a b")
    assert event["detail"]["bucket"] == {"name": bucket}
    assert event["detail"]["reason"] == "PutObject"
    subject = event["detail"]["object"]
    assert subject.pop("sequencer")
    assert subject == {"key": key, "size": 4, "etag": put["ETag"].strip('"'), "version-id": put["VersionId"]}
    assert event["source"] == "aws.s3"
    assert event["region"] == cloud.region


def test_events_have_unique_ids_and_sequencers(cloud: EmbeddedCloud, machines: Machines) -> None:
    s3 = client(cloud, "s3")
    for _ in range(2):
        s3.put_object(Bucket=cloud.outputs["Bucket"], Key="in/twice", Body=b"")
    one, other = executions_with(cloud, machines, "in/twice", count=2)
    assert one["id"] != other["id"]
    assert one["detail"]["object"]["sequencer"] != other["detail"]["object"]["sequencer"]


def test_events_of_an_unversioned_bucket_have_no_version(cloud: EmbeddedCloud, machines: Machines) -> None:
    client(cloud, "s3").put_object(Bucket=cloud.outputs["PlainBucket"], Key="in/plain", Body=b"")
    (event,) = executions_with(cloud, machines, "in/plain")
    assert "version-id" not in event["detail"]["object"]


def test_the_version_in_an_event_stays_readable(cloud: EmbeddedCloud) -> None:
    s3, bucket = client(cloud, "s3"), cloud.outputs["Bucket"]
    first = s3.put_object(Bucket=bucket, Key="versions", Body=b"first")["VersionId"]
    s3.put_object(Bucket=bucket, Key="versions", Body=b"second")
    s3.delete_object(Bucket=bucket, Key="versions")
    assert s3.get_object(Bucket=bucket, Key="versions", VersionId=first)["Body"].read() == b"first"


def test_an_event_is_sent_after_the_metadata_is_stored(cloud: EmbeddedCloud, machines: Machines) -> None:
    head = task("aws-sdk:s3:headObject", {"Bucket.$": "$.detail.bucket.name", "Key.$": "$.detail.object.key"})
    head["OutputPath"] = "$.Metadata"
    machine = machines.create({"Head": head})
    events = client(cloud, "events")
    pattern = {"source": ["aws.s3"], "detail": {"object": {"key": [{"prefix": "described/"}]}}}
    events.put_rule(Name="described", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="described", Targets=[{"Id": "1", "Arn": machine, "RoleArn": ROLE}])
    s3, count = client(cloud, "s3"), 20
    for number in range(count):
        s3.put_object(
            Bucket=cloud.outputs["Bucket"], Key=f"described/{number}", Body=b"x" * 100_000, Metadata={"pbr-a": "1"}
        )
    listed = until(
        lambda: (e := machines.api.list_executions(stateMachineArn=machine)["executions"]) and len(e) == count and e
    )
    outputs = [machines.end(item["executionArn"])["output"] for item in listed]
    assert [json.loads(output) for output in outputs] == [{"pbr-a": "1"}] * count


def test_targets_get_transformed_events(cloud: EmbeddedCloud, machines: Machines) -> None:
    bucket, key = cloud.outputs["Bucket"], 'shaped/"it"'
    client(cloud, "s3").put_object(Bucket=bucket, Key=key, Body=b"123")
    given = executions_with(cloud, machines, "shaped/", count=2)
    assert {"uri": f"s3://{bucket}/{key}", "size": 3, "key": key} in given
    assert key in [item.get("key") for item in given if "etag" in item]
    assert {"constant": True} in executions_with(cloud, machines, "constant")


def test_the_configuration_of_a_bucket_says_whether_it_sends_events(cloud: EmbeddedCloud) -> None:
    s3, bucket = client(cloud, "s3"), {"Bucket": "without-events"}
    s3.create_bucket(**bucket, CreateBucketConfiguration={"LocationConstraint": cloud.region})
    configurations: tuple[dict[str, Any], ...] = ({"EventBridgeConfiguration": {}}, {})
    for events in configurations:
        s3.put_bucket_notification_configuration(**bucket, NotificationConfiguration=events)
        configured = s3.get_bucket_notification_configuration(**bucket)
        assert ("EventBridgeConfiguration" in configured) == bool(events)


def test_each_of_many_concurrent_uploads_starts_an_execution(cloud: EmbeddedCloud, machines: Machines) -> None:
    s3, bucket = client(cloud, "s3"), cloud.outputs["Bucket"]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: s3.put_object(Bucket=bucket, Key=f"in/many-{number}", Body=b""), range(24)))
    assert len(executions_with(cloud, machines, "in/many-", count=24)) == 24


def test_the_checksum_of_an_upload_is_compared_and_kept(cloud: EmbeddedCloud) -> None:
    s3, checksum = client(cloud, "s3"), base64.b64encode(hashlib.sha256(b"abc").digest()).decode()
    where = {"Bucket": cloud.outputs["PlainBucket"], "Key": "checked"}
    with pytest.raises(ClientError, match="BadDigest"):
        s3.put_object(**where, Body=b"abd", ChecksumSHA256=checksum)
    s3.put_object(**where, Body=b"abc", ChecksumSHA256=checksum)
    assert s3.head_object(**where, ChecksumMode="ENABLED")["ChecksumSHA256"] == checksum
    assert "ChecksumSHA256" not in s3.head_object(**where)


def test_versions_are_listed_under_any_key(cloud: EmbeddedCloud) -> None:
    s3, bucket = client(cloud, "s3"), cloud.outputs["Bucket"]
    keys = ["listed/\x01\x1b.png", "listed/a+b c%20&.png", "listed/ü.png"]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key)
    s3.delete_object(Bucket=bucket, Key=keys[0])
    pages = list(s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix="listed/", MaxKeys=1))
    assert [one["Key"] for page in pages for one in page.get("Versions", [])] == keys
    assert [one["Key"] for page in pages for one in page.get("DeleteMarkers", [])] == keys[:1]
    [folder] = s3.list_object_versions(Bucket=bucket, Prefix="listed", Delimiter="/")["CommonPrefixes"]
    assert folder == {"Prefix": "listed/"}


def test_the_checksum_of_a_form_is_kept(cloud: EmbeddedCloud) -> None:
    s3, checksum = client(cloud, "s3"), base64.b64encode(hashlib.sha256(b"abc").digest()).decode()
    where, fields = {"Bucket": cloud.outputs["PlainBucket"], "Key": "form"}, {"x-amz-checksum-sha256": checksum}
    form = s3.generate_presigned_post(**where, Fields=dict(fields), Conditions=[fields])
    httpx.post(form["url"], data=form["fields"], files={"file": b"abc"}).raise_for_status()
    assert s3.head_object(**where, ChecksumMode="ENABLED")["ChecksumSHA256"] == checksum
