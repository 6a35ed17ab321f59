"""Segmentation on an asynchronous endpoint: requests and masks in S3, results by task token."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from embedded_cloud.cloud import EmbeddedCloud
from tests.conftest import ROOT, client, disc, file_of
from tests.integration.deployment import Deployed

pytestmark = pytest.mark.slow  # two clouds of its own; the state machine's tests use the endpoint, too


@pytest.fixture(scope="module")
def stack() -> Iterator[Deployed]:
    parameters = {
        "SegmentationHost": "sagemaker",
        "SageMakerImageUri": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/background-remover:1",
        "SageMakerMode": "async",
    }
    with EmbeddedCloud(ROOT / "template.yaml", parameters) as cloud:
        yield Deployed(cloud)


def test_an_asynchronous_endpoint_segments_an_upload(stack: Deployed) -> None:
    ended = stack.process("disc.png", disc(seed=31))
    assert ended.status == "SUCCEEDED", ended.cause
    assert "SegmentOnSageMakerAsync" in ended.states and "SegmentOnLambda" not in ended.states
    assert ended.output["model"]["host"] == "sagemaker"


def test_an_image_without_a_subject_fails_with_its_own_error(stack: Deployed) -> None:
    blank = file_of(Image.new("RGB", (320, 240), "white"), "PNG")
    ended = stack.process("blank.png", blank)
    assert (ended.status, ended.error) == ("FAILED", "UnknownForegroundError")
    assert stack.report("blank.png")["stage"] == "SegmentOnSageMakerAsync"


def test_an_image_in_s3_becomes_a_mask_in_s3(stack: Deployed) -> None:
    cloud, bucket = stack.cloud, stack.outputs["WorkBucket"]
    sagemaker, runtime = (client(name, cloud.endpoint_url, cloud.region) for name in ("sagemaker", "sagemaker-runtime"))
    [endpoint] = sagemaker.list_endpoints()["Endpoints"]
    stack.s3.put_object(Bucket=bucket, Key="work/disc.png", Body=disc())
    answer = runtime.invoke_endpoint_async(
        EndpointName=endpoint["EndpointName"], InputLocation=f"s3://{bucket}/work/disc.png", ContentType="image/png"
    )
    written = once_there(stack, answer["OutputLocation"])
    assert written["ContentType"] == "image/png"
    mask = Image.open(written["Body"])
    assert (mask.size, mask.mode, mask.getpixel((160, 120))) == ((320, 240), "L", 255)


def once_there(stack: Deployed, uri: str) -> Any:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    deadline = time.monotonic() + 60
    while not stack.s3.list_objects_v2(Bucket=bucket, Prefix=key).get("Contents"):
        assert time.monotonic() < deadline, f"{uri} is not written"
        time.sleep(0.1)
    return stack.s3.get_object(Bucket=bucket, Key=key)
