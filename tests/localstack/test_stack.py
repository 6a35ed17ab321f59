"""The stack as CloudFormation creates it: each service returns the configuration that the template has."""

import json

import pytest
import yaml

from tests.conftest import ROOT
from tests.localstack.conftest import Account
from tests.localstack.part import TYPES


def test_every_unconditional_resource_is_created(on_localstack: Account) -> None:
    resources = on_localstack.template["Resources"].items()
    expected = {name for name, resource in resources if resource["Type"] in TYPES and "Condition" not in resource}
    assert expected <= set(on_localstack.ids)


def test_the_lifecycle_rules_of_the_buckets_are_valid(on_embedded_cloud: Account, on_localstack: Account) -> None:
    embedded, s3 = on_embedded_cloud.client("s3"), on_localstack.client("s3")
    for name in on_localstack.deployed("AWS::S3::Bucket"):
        expected = embedded.get_bucket_lifecycle_configuration(Bucket=on_embedded_cloud.ids[name])["Rules"]
        bucket = on_localstack.ids[name]
        s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": expected})
        rules = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
        assert {rule["ID"]: rule for rule in rules} == {rule["ID"]: rule for rule in expected}


def test_the_buckets_are_encrypted_and_private(aws: Account) -> None:
    s3 = aws.client("s3")
    for name, properties in aws.deployed("AWS::S3::Bucket").items():
        bucket = aws.ids[name]
        (default,) = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
        assert default["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
        blocked = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
        assert blocked == properties["PublicAccessBlockConfiguration"]


def test_the_buckets_own_their_objects(on_localstack: Account) -> None:
    s3 = on_localstack.client("s3")
    for name, properties in on_localstack.deployed("AWS::S3::Bucket").items():
        bucket = on_localstack.ids[name]
        assert s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"] == properties["OwnershipControls"]


def test_uploads_and_results_are_versioned_and_send_events(aws: Account) -> None:
    s3 = aws.client("s3")
    for name in ("UploadsBucket", "ResultsBucket"):
        assert s3.get_bucket_versioning(Bucket=aws.ids[name])["Status"] == "Enabled"
        configured = s3.get_bucket_notification_configuration(Bucket=aws.ids[name])
        assert configured["EventBridgeConfiguration"] == {}


def test_the_queues_have_their_attributes(aws: Account) -> None:
    sqs = aws.client("sqs")
    for name, properties in aws.deployed("AWS::SQS::Queue").items():
        attributes = sqs.get_queue_attributes(QueueUrl=aws.ids[name], AttributeNames=["All"])["Attributes"]
        assert int(attributes["MessageRetentionPeriod"]) == properties["MessageRetentionPeriod"]
        assert attributes.get("SqsManagedSseEnabled") == "true"


def test_the_requests_of_workers_are_redriven_to_their_dead_letter_queue(aws: Account) -> None:
    sqs = aws.client("sqs")
    source, target = aws.ids["SegmentationQueue"], aws.ids["SegmentationDeadLetterQueue"]
    properties = aws.template["Resources"]["SegmentationQueue"]["Properties"]
    attributes = sqs.get_queue_attributes(QueueUrl=source, AttributeNames=["All"])["Attributes"]
    arn = sqs.get_queue_attributes(QueueUrl=target, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = json.loads(attributes["RedrivePolicy"])
    assert int(attributes["VisibilityTimeout"]) == properties["VisibilityTimeout"]
    assert redrive["deadLetterTargetArn"] == arn
    assert int(redrive["maxReceiveCount"]) == properties["RedrivePolicy"]["maxReceiveCount"]


def test_the_uploads_rule_delivers_as_its_role_with_retries_and_a_dead_letter_queue(aws: Account) -> None:
    sqs = aws.client("sqs")
    rule = aws.ids["RemoveBackgroundUpload"]
    (expected,) = aws.template["Resources"]["RemoveBackgroundUpload"]["Properties"]["Targets"]
    (target,) = aws.client("events").list_targets_by_rule(Rule=rule.rpartition("/")[2])["Targets"]
    queue = aws.ids["UploadsDeadLetterQueue"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    role = aws.client("iam").get_role(RoleName=aws.ids["RemoveBackgroundUploadRole"])["Role"]
    assert target["RoleArn"] == role["Arn"]
    assert target["RetryPolicy"] == expected["RetryPolicy"]
    assert target["DeadLetterConfig"] == {"Arn": arn}


@pytest.mark.parametrize("machine", ["remove_background.asl.yaml", "deliver_webhook.asl.yaml"])
def test_a_definition_is_valid(on_localstack: Account, machine: str) -> None:
    definition = json.dumps(yaml.safe_load((ROOT / "statemachine" / machine).read_text()))
    text = definition.replace("${Partition}", "aws")
    validated = on_localstack.client("stepfunctions").validate_state_machine_definition(definition=text)
    assert validated["result"] == "OK", validated["diagnostics"]
