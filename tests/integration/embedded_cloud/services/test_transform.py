"""SageMaker transform jobs run their containers, alone and from a state machine."""

import json
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from embedded_cloud.cloud import EmbeddedCloud
from tests.integration.embedded_cloud.services.testbed import Machines, client, task, until

pytestmark = pytest.mark.slow  # tests/integration/test_batch_transform.py runs one job


def job(cloud: EmbeddedCloud, prefix: str, **changes: Any) -> dict[str, Any]:
    bucket = cloud.outputs["PlainBucket"]
    settings = {
        "TransformJobName": f"job-{uuid.uuid4().hex}",
        "ModelName": cloud.outputs["EndpointModel"],
        "BatchStrategy": "SingleRecord",
        "MaxConcurrentTransforms": 2,
        "MaxPayloadInMB": 1,
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/{prefix}"}},
            "ContentType": "application/json",
            "SplitType": "Line",
        },
        "TransformOutput": {"S3OutputPath": f"s3://{bucket}/out/{prefix}", "AssembleWith": "Line"},
        "TransformResources": {"InstanceType": "ml.c6i.2xlarge", "InstanceCount": 1},
    }
    return settings | changes


def put(cloud: EmbeddedCloud, prefix: str, **objects: bytes) -> None:
    for name, data in objects.items():
        client(cloud, "s3").put_object(Bucket=cloud.outputs["PlainBucket"], Key=f"{prefix}{name}", Body=data)


def outputs(cloud: EmbeddedCloud, prefix: str) -> dict[str, bytes]:
    s3, bucket = client(cloud, "s3"), cloud.outputs["PlainBucket"]
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=f"out/{prefix}").get("Contents", [])
    found = {one["Key"]: s3.get_object(Bucket=bucket, Key=one["Key"])["Body"].read() for one in listed}
    return {key.removeprefix(f"out/{prefix}"): data for key, data in found.items()}


def ended(cloud: EmbeddedCloud, name: str) -> dict[str, Any]:
    sagemaker = client(cloud, "sagemaker")

    def described() -> dict[str, Any] | None:
        found: dict[str, Any] = sagemaker.describe_transform_job(TransformJobName=name)
        return found if found["TransformJobStatus"] not in ("InProgress", "Stopping") else None

    result: dict[str, Any] = until(described)
    return result


@pytest.fixture
def prefix() -> str:
    return f"in-{uuid.uuid4().hex}/"


def run(cloud: EmbeddedCloud, settings: dict[str, Any]) -> dict[str, Any]:
    client(cloud, "sagemaker").create_transform_job(**settings)
    return ended(cloud, settings["TransformJobName"])


def test_each_line_is_a_request_and_its_response_a_line(cloud: EmbeddedCloud, prefix: str) -> None:
    put(cloud, prefix, a=b'{"n": 1}\n{"n": 2}\n', b=b'{"n": 3}')
    found = run(cloud, job(cloud, prefix, Environment={"GREETING": "hello"}))
    assert (found["TransformJobStatus"], found["TransformEndTime"] >= found["TransformStartTime"]) == (
        "Completed",
        True,
    )
    written = outputs(cloud, prefix)
    assert sorted(written) == ["a.out", "b.out"]
    lines = [json.loads(line) for line in written["a.out"].splitlines()]
    assert [line["got"] for line in lines] == [{"n": 1}, {"n": 2}]
    assert lines[0]["greeting"] == "hello", "the job's environment replaces that of the model"


def test_objects_are_sent_whole_without_a_split(cloud: EmbeddedCloud, prefix: str) -> None:
    put(cloud, prefix, **{"deep/a": b"abc"})
    settings = job(cloud, prefix)
    source = {**settings["TransformInput"], "ContentType": "application/octet-stream", "SplitType": "None"}
    assert run(cloud, {**settings, "TransformInput": source})["TransformJobStatus"] == "Completed"
    assert outputs(cloud, prefix)["deep/a.out"].strip() == b"cba"


def test_a_failed_request_fails_its_file_and_the_job(cloud: EmbeddedCloud, prefix: str) -> None:
    put(cloud, prefix, a=b'{"n": 1}\n{"status": 400}\n', b=b'{"n": 2}\n')
    found = run(cloud, job(cloud, prefix))
    assert found["TransformJobStatus"] == "Failed"
    assert f"{prefix}a" in found["FailureReason"]
    assert list(outputs(cloud, prefix)) == ["b.out"]


def test_a_job_can_be_listed_and_stopped(cloud: EmbeddedCloud, prefix: str) -> None:
    put(cloud, prefix, **{f"{number:03}": b'{"n": 1}\n' for number in range(200)})
    sagemaker, settings = client(cloud, "sagemaker"), job(cloud, prefix)
    name = settings["TransformJobName"]
    sagemaker.create_transform_job(**settings)
    listed = sagemaker.list_transform_jobs(NameContains=name, StatusEquals="InProgress")["TransformJobSummaries"]
    assert [one["TransformJobName"] for one in listed] == [name]
    sagemaker.stop_transform_job(TransformJobName=name)
    assert ended(cloud, name)["TransformJobStatus"] == "Stopped"
    assert len(outputs(cloud, prefix)) < 200


def test_names_are_unique_and_the_model_exists(cloud: EmbeddedCloud, prefix: str) -> None:
    put(cloud, prefix, a=b"{}\n")
    settings = job(cloud, prefix)
    run(cloud, settings)
    for changed, code in ((settings, "ResourceInUse"), (job(cloud, prefix, ModelName="none"), "ValidationException")):
        with pytest.raises(ClientError) as raised:
            client(cloud, "sagemaker").create_transform_job(**changed)
        assert raised.value.response["Error"]["Code"] == code


@pytest.mark.parametrize(
    ("line", "changes", "error"),
    [
        (b'{"n": 1}', {}, None),
        (b'{"status": 503}', {}, "States.TaskFailed"),
        (b"{}", {"ModelName": "none"}, "SageMaker.AmazonSageMakerException"),
    ],
)
def test_a_state_waits_for_the_end_of_a_job(
    cloud: EmbeddedCloud, machines: Machines, prefix: str, line: bytes, changes: dict[str, Any], error: str | None
) -> None:
    put(cloud, prefix, a=line)
    state = task("sagemaker:createTransformJob.sync", job(cloud, prefix, **changes))
    execution = machines.run({"Transform": state})
    if error is None:
        assert json.loads(execution["output"])["TransformJobStatus"] == "Completed"
        assert list(outputs(cloud, prefix)) == ["a.out"]
    else:
        assert (execution["status"], execution["error"]) == ("FAILED", error)
        assert error != "States.TaskFailed" or json.loads(execution["cause"])["TransformJobStatus"] == "Failed"


def test_a_job_ends_with_its_execution(cloud: EmbeddedCloud, machines: Machines, prefix: str) -> None:
    put(cloud, prefix, **{f"{number:03}": b'{"n": 1}\n' for number in range(300)})
    settings = job(cloud, prefix)
    machine = machines.create({"Transform": task("sagemaker:createTransformJob.sync", settings)})
    execution = machines.start(machine)
    sagemaker, name = client(cloud, "sagemaker"), settings["TransformJobName"]
    until(lambda: sagemaker.list_transform_jobs(NameContains=name)["TransformJobSummaries"])
    machines.api.stop_execution(executionArn=execution)
    assert ended(cloud, name)["TransformJobStatus"] == "Stopped"
