"""Resources of a template get the configuration that AWS would give them."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from embedded_cloud.cloud import EmbeddedCloud
from tests.integration.embedded_cloud.services.testbed import Machines, client

pytestmark = pytest.mark.slow  # the state machine's tests run on these services


def test_buckets_keep_their_configuration(cloud: EmbeddedCloud) -> None:
    s3, bucket = client(cloud, "s3"), cloud.outputs["Bucket"]
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    assert s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]["BlockPublicAcls"]
    expiry, deleted, unfinished, archived = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert (expiry["Filter"], expiry["Expiration"]) == ({"Prefix": "old/"}, {"Days": 3})
    assert deleted["Expiration"] == {"ExpiredObjectDeleteMarker": True}
    assert unfinished["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    assert archived["Transitions"] == [{"Days": 30, "StorageClass": "STANDARD_IA"}]


def test_tables_keep_their_configuration(cloud: EmbeddedCloud) -> None:
    dynamodb, table = client(cloud, "dynamodb"), cloud.outputs["Table"]
    assert dynamodb.describe_time_to_live(TableName=table)["TimeToLiveDescription"]["TimeToLiveStatus"] == "ENABLED"
    backups = dynamodb.describe_continuous_backups(TableName=table)["ContinuousBackupsDescription"]
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"


def test_resource_types_unknown_to_moto_are_created(cloud: EmbeddedCloud) -> None:
    cloudwatch = client(cloud, "cloudwatch")
    [alarm] = cloudwatch.describe_alarms(AlarmNames=["dead-letters"])["MetricAlarms"]
    assert alarm["MetricName"] == "ApproximateNumberOfMessagesVisible"
    [composite] = cloudwatch.describe_alarms(AlarmTypes=["CompositeAlarm"])["CompositeAlarms"]
    assert composite["AlarmActions"] == [cloud.outputs["TopicArn"]]
    assert client(cloud, "logs").describe_metric_filters(logGroupName=cloud.outputs["Logs"])["metricFilters"]
    assert client(cloud, "sns").list_subscriptions()["Subscriptions"][0]["Endpoint"] == "nobody@example.com"
    attributes = client(cloud, "sqs").get_queue_attributes(
        QueueUrl=cloud.outputs["QueueUrl"], AttributeNames=["Policy"]
    )
    assert "sqs:SendMessage" in attributes["Attributes"]["Policy"]
    retries = client(cloud, "lambda").get_function_event_invoke_config(FunctionName=cloud.outputs["Echo"])
    assert retries["MaximumRetryAttempts"] == 1


def test_a_secret_is_generated(cloud: EmbeddedCloud) -> None:
    secret = client(cloud, "secretsmanager").get_secret_value(SecretId=cloud.outputs["Secret"])["SecretString"]
    assert len(secret) == 40
    assert secret.isalnum()


def test_ignored_resources_and_properties_are_recorded(cloud: EmbeddedCloud) -> None:
    skipped = {(logical_id, what): why for logical_id, what, why in cloud.skipped}
    assert ("ApiApiGatewayDefaultStage", "DefaultRouteSettings") in skipped
    assert "TLS-only" in skipped["BucketPolicy", "AWS::S3::BucketPolicy"]
    assert skipped["WebAcl", "AWS::WAFv2::WebACL"] == "moto has no such type"
    assert ("MachineUpload", "Targets.RetryPolicy") in skipped
    assert ("ShapedRule", "Targets.RetryPolicy") not in skipped
    assert ("Bucket", "BucketEncryption") not in skipped
    assert ("PlainBucket", "BucketEncryption") not in skipped, "it has no value"
    assert not any(logical_id == "NeverBucket" for logical_id, _ in skipped)


def test_state_machines_keep_substitutions_and_configuration(cloud: EmbeddedCloud, machines: Machines) -> None:
    machine = machines.api.describe_state_machine(stateMachineArn=cloud.outputs["MachineArn"])
    assert cloud.outputs["Echo"] in machine["definition"]
    assert machine["type"] == "STANDARD"
    assert machine["loggingConfiguration"]["level"] == "ALL"
    assert machine["tracingConfiguration"] == {"enabled": True}


@pytest.mark.parametrize(
    ("service", "call", "arguments"),
    [
        ("cloudformation", "detect_stack_drift", {"StackName": "a"}),
        ("stepfunctions", "get_activity_task", {"activityArn": "arn:a"}),
        ("logs", "test_metric_filter", {"filterPattern": "a", "logEventMessages": ["a"]}),
        ("cloudwatch", "describe_alarm_history", {}),
    ],
)
def test_a_call_that_moto_lacks_is_an_error(cloud: EmbeddedCloud, service: str, call: str, arguments: Any) -> None:
    with pytest.raises(ClientError, match=f"NotImplemented.*does not implement .* of {service}"):
        getattr(client(cloud, service), call)(**arguments)


def test_event_patterns_can_be_tested(cloud: EmbeddedCloud) -> None:
    event = dict.fromkeys(("id", "account", "source", "region", "detail-type"), "a")
    text = json.dumps({**event, "time": "2026-01-01T00:00:00Z", "resources": [], "detail": {}})
    matches = client(cloud, "events").test_event_pattern
    assert matches(EventPattern='{"source": ["a"]}', Event=text)["Result"] is True
    assert matches(EventPattern='{"source": ["b"]}', Event=text)["Result"] is False
