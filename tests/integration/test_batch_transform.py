"""Bulk runs with the engine batch-transform: a transform job makes the masks, and Express children refine them."""

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from embedded_cloud.cloud import EmbeddedCloud
from tests.conftest import ROOT, client, disc
from tests.integration.deployment import Deployed
from tests.integration.embedded_cloud.services.testbed import until
from tests.integration.state_machine.test_bulk import Run, json_lines, listed, manifest, run

pytestmark = pytest.mark.slow  # a cloud of its own

KEY = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
ENGINE = {"engine": "batch-transform", "options": {"precision_level": "draft"}}


@pytest.fixture(scope="module")
def stack() -> Iterator[Deployed]:
    parameters = {
        "SageMakerImageUri": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/background-remover:1",
        "SageMakerMode": "transform",
        "KmsKeyArn": KEY,
        "SourceDays": "365",
        "ResultDays": "90",
        "ArchiveDays": "30",
    }
    with EmbeddedCloud(ROOT / "template.yaml", parameters) as cloud:
        yield Deployed(cloud)


def sidecar(stack: Deployed, key: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(stack.result(f"results/{key}.png.json"))
    return document


def upload(stack: Deployed, prefix: str, *seeds: int) -> list[str]:
    keys = [f"{prefix}{seed}.png" for seed in seeds]
    for key, seed in zip(keys, seeds, strict=True):
        stack.upload(key, disc(seed=2000 + seed))
    return keys


def states(stack: Deployed, ended: Run) -> list[str]:
    return stack.wait(ended.arn).states


def test_a_transform_job_makes_the_masks_that_are_missing(stack: Deployed) -> None:
    sagemaker = client("sagemaker", stack.cloud.endpoint_url, stack.cloud.region)
    [model] = sagemaker.list_models()["Models"]
    team = {"Key": "team", "Value": "photo"}
    of_the_stack = [{"Key": "aws:cloudformation:stack-name", "Value": "pbr"}, team]
    sagemaker.add_tags(ResourceArn=model["ModelArn"], Tags=of_the_stack)
    keys = upload(stack, "bulk/masks/", 1, 2)
    stack.upload("bulk/masks/broken.png", b"no image")
    ended = run(stack, listed(stack, "bulk/masks/"), **ENGINE)
    assert ended.status == "SUCCEEDED", ended.cause
    summary = ended.summary
    assert (summary.done, summary.failed, summary.degraded) == (2, 1, 0)
    assert summary.transform is not None and summary.transform.status == "Completed", "one bad image fails no job"
    assert {sidecar(stack, key)["model"]["host"] for key in keys} == {"sagemaker"}
    [job] = sagemaker.list_transform_jobs()["TransformJobSummaries"]
    assert sagemaker.list_tags(ResourceArn=job["TransformJobArn"])["Tags"] == [team]

    again = run(stack, listed(stack, "bulk/masks/"), **ENGINE)
    assert again.statuses == {**dict.fromkeys(keys, "cached"), "bulk/masks/broken.png": "failed"}


def test_nothing_is_transformed_if_no_mask_is_missing(stack: Deployed) -> None:
    keys = upload(stack, "bulk/done/", 3)
    assert run(stack, listed(stack, "bulk/done/"), options=ENGINE["options"]).status == "SUCCEEDED"
    ended = run(stack, listed(stack, "bulk/done/"), **ENGINE)
    assert ended.statuses == dict.fromkeys(keys, "cached")
    assert ended.summary.transform is None
    assert "MakeMasks" not in states(stack, ended)

    data, bucket = disc(seed=2003), stack.outputs["UploadsBucket"]
    checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
    stack.s3.put_object(Bucket=bucket, Key="bulk/copied/3.png", Body=data, ChecksumSHA256=checksum)
    copied = run(stack, listed(stack, "bulk/copied/"), **ENGINE)
    assert copied.statuses == {"bulk/copied/3.png": "cached"}
    assert "MakeMasks" not in states(stack, copied)


def test_results_are_those_of_a_run_without_the_engine(stack: Deployed) -> None:
    [key] = upload(stack, "bulk/same/", 4)
    rows = json_lines({"key": key, "options": {"crop": True}})
    assert run(stack, manifest(stack, "a.jsonl", rows), **ENGINE).status == "SUCCEEDED"
    transformed, facts = stack.result(f"results/{key}.png"), sidecar(stack, key)
    stack.upload(key, disc(seed=2004))
    stack.dynamodb.delete_item(TableName=stack.outputs["CacheTable"], Key={"cache_key": {"S": facts["cache"]["key"]}})
    assert run(stack, manifest(stack, "a.jsonl", rows), options=ENGINE["options"]).status == "SUCCEEDED"
    assert sidecar(stack, key)["model"]["host"] == "lambda"
    assert stack.result(f"results/{key}.png") == transformed


def test_a_run_that_was_stopped_with_its_job_is_redriven_with_another_job(stack: Deployed) -> None:
    sagemaker = client("sagemaker", stack.cloud.endpoint_url, stack.cloud.region)
    upload(stack, "bulk/redriven/", *range(10, 30))
    known = {one["TransformJobName"] for one in sagemaker.list_transform_jobs()["TransformJobSummaries"]}
    arn = stack.sfn.start_execution(
        stateMachineArn=stack.outputs["BulkMachineArn"],
        input=json.dumps({"source": listed(stack, "bulk/redriven/"), **ENGINE}),
    )["executionArn"]

    def jobs() -> dict[str, str]:
        found = sagemaker.list_transform_jobs()["TransformJobSummaries"]
        return {
            one["TransformJobName"]: one["TransformJobStatus"] for one in found if one["TransformJobName"] not in known
        }

    until(jobs, 60)
    stack.sfn.stop_execution(executionArn=arn)
    until(lambda: set(jobs().values()) == {"Stopped"})
    stack.sfn.redrive_execution(executionArn=arn)
    ended = Run(stack, arn)
    assert ended.status == "SUCCEEDED", ended.cause
    assert (ended.summary.done, ended.summary.degraded) == (20, 0)
    assert sorted(jobs().values()) == ["Completed", "Stopped"]


def test_images_are_segmented_on_lambda_if_the_job_fails(stack: Deployed) -> None:
    sagemaker = client("sagemaker", stack.cloud.endpoint_url, stack.cloud.region)
    keys = upload(stack, "bulk/failing/", 5)
    name = stack.outputs["SageMakerModelName"]
    model = sagemaker.describe_model(ModelName=name)
    broken = {**model["PrimaryContainer"], "Environment": {"DEFAULT_MODEL": "none"}}
    sagemaker.delete_model(ModelName=name)
    sagemaker.create_model(ModelName=name, PrimaryContainer=broken, ExecutionRoleArn=model["ExecutionRoleArn"])
    try:
        ended = run(stack, listed(stack, "bulk/failing/"), **ENGINE)
        sagemaker.delete_model(ModelName=name)
        rejected = run(stack, listed(stack, "bulk/failing/"), **{**ENGINE, "options": {"crop": True}})
    finally:
        sagemaker.create_model(
            ModelName=name, PrimaryContainer=model["PrimaryContainer"], ExecutionRoleArn=model["ExecutionRoleArn"]
        )
    assert ended.status == "SUCCEEDED", ended.cause
    summary = ended.summary
    assert (summary.done, summary.degraded) == (1, 1)
    assert summary.transform is not None and summary.transform.status == "Failed"
    assert "did not start" in str(summary.transform.reason)
    assert "SegmentOnBatchTransform failed" in str(sidecar(stack, keys[0])["warnings"])

    assert (rejected.status, rejected.error) == ("FAILED", "TransformNotStartedError")
    assert "Could not find model" in json.loads(str(rejected.cause))["message"]
