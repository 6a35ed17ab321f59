"""``pbr doctor`` on an embedded cloud whose stack is broken in several ways."""

from collections.abc import Iterator

import pytest

from client.doctor.examination import examine
from client.doctor.findings import Finding
from client.resources import Resource
from client.resources import read as read_resources
from client.stack import Stack
from embedded_cloud.cloud import EmbeddedCloud
from tests.conftest import ROOT

BROKEN = {"events", "dead letters", "endpoint", "weights", "parameters", "storage", "log groups"}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    parameters = {
        "DefaultModel": "u2netp",
        "EscalateOnReview": "true",
        "EscalationModel": "no-such-model",
        "ModelBucket": "weights",
        "SageMakerImageUri": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/background-remover:1",
    }
    with EmbeddedCloud(ROOT / "template.yaml", parameters) as cloud:
        yield Stack.connect(cloud.stack_name, region=cloud.region, endpoint_url=cloud.endpoint_url)


def break_it(stack: Stack, resources: list[Resource]) -> None:
    [rule] = [one.id for one in resources if one.logical_id == "RemoveBackgroundUpload"]
    stack.client("events").disable_rule(Name=rule.rpartition("/")[2])
    stack.sqs.send_message(QueueUrl=stack.outputs["UploadsDeadLetterQueueUrl"], MessageBody="{}")
    stack.client("sagemaker").delete_endpoint(EndpointName=stack.outputs["SageMakerEndpoint"])
    stack.s3.create_bucket(Bucket="weights", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    stack.s3.put_object(Bucket="weights", Key="u2netp.onnx", Body=b"truncated")
    stack.s3.put_bucket_versioning(
        Bucket=stack.outputs["UploadsBucket"], VersioningConfiguration={"Status": "Suspended"}
    )
    stack.client("logs").delete_log_group(logGroupName=f"/aws/lambda/{stack.name}-refine")


def test_each_fault_of_a_broken_stack_is_found_with_its_remedy(stack: Stack) -> None:
    sound = {finding.check for finding in examine(stack) if finding.result in ("problem", "warning")}
    assert sound == {"parameters", "weights"}
    break_it(stack, read_resources(stack))
    findings = examine(stack)
    faults: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.result in ("problem", "warning"):
            faults.setdefault(finding.check, []).append(finding)
    assert faults.keys() - {"alarms"} == BROKEN  # the dead letter raises one after a while
    assert all(finding.remedy for found in faults.values() for finding in found)
    remedies = {check: found[0].remedy for check, found in faults.items()}
    assert remedies["events"].startswith("aws events enable-rule --name ")
    assert remedies["dead letters"] == "pbr replay-dlq uploads"
    assert remedies["weights"] == "pbr models fetch u2netp --to s3://weights"
    assert "no-such-model" in faults["parameters"][0].found
    skipped = {finding.check for finding in findings if finding.result == "not checked"}
    assert {"worker quota", "service-linked roles", "template"} <= skipped
