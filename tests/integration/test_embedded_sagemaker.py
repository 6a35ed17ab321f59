"""Segmentation on an asynchronous endpoint: requests and masks go through S3, answers by task token."""

from collections.abc import Iterator

import pytest
from PIL import Image

from local.cloud import EmbeddedCloud
from tests.conftest import ROOT, disc, file_of
from tests.integration.machine.conftest import Deployed


@pytest.fixture(scope="module")
def stack() -> Iterator[Deployed]:
    parameters = {
        "DefaultModel": "classical",
        "SegmentationHost": "sagemaker",
        "SageMakerImageUri": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/background-remover:1",
        "SageMakerMode": "async",
    }
    with EmbeddedCloud(ROOT / "template.yaml", parameters) as cloud:
        yield Deployed(cloud)


def test_an_asynchronous_endpoint_answers_for_its_jobs(stack: Deployed) -> None:
    ended = stack.process("disc.png", disc(seed=31))
    assert ended.status == "SUCCEEDED", ended.cause
    assert "SegmentOnSageMakerAsync" in ended.states and "SegmentOnLambda" not in ended.states
    assert ended.output["model"]["host"] == "sagemaker"


def test_what_it_cannot_segment_fails_by_its_own_name(stack: Deployed) -> None:
    blank = file_of(Image.new("RGB", (320, 240), "white"), "PNG")
    ended = stack.process("blank.png", blank)
    assert (ended.status, ended.error) == ("FAILED", "UnknownForegroundError")
    assert stack.report("blank.png")["stage"] == "SegmentOnSageMakerAsync"
