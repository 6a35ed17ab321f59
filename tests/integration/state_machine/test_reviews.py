"""Doubtful results in the deployed stack: their reviews, and retries."""

import json

import pytest
from PIL import Image
from skimage import data as photographs

from client.reviews import Reviews, to_manifest
from client.stack import Stack
from tests.conftest import file_of
from tests.integration.deployment import Deployed, until
from tests.integration.state_machine.test_bulk import DRAFT, listed, manifest, run

ROUGH = {"pbr-model": "classical", "pbr-precision-level": "draft"}


def doubtful() -> bytes:
    return file_of(Image.fromarray(photographs.coins()).convert("RGB"), "PNG")


@pytest.fixture
def reviews(stack: Deployed) -> Reviews:
    cloud = stack.cloud
    return Reviews(Stack.connect(cloud.stack_name, region=cloud.region, endpoint_url=cloud.endpoint_url))


@pytest.mark.slow
def test_a_doubtful_result_is_reviewed_once_and_retried(stack: Deployed, reviews: Reviews) -> None:
    ended = stack.process("reviews/a.png", doubtful(), ROUGH)
    assert ended.output["quality"]["review"], "choose another picture"
    assert stack.process("reviews/b.png", doubtful(), ROUGH).output["cache"]["hit"]
    [review] = [one for one in reviews.all("open") if one.key.startswith("reviews/")]
    assert [key for _, key in review.sources] == ["reviews/a.png", "reviews/b.png"]
    assert (review.score, review.model) == (ended.output["quality"]["score"], "classical")

    reviews.retry(review, {"precision_level": "standard"}, "jo")
    [(_, now)] = until(reviews.settle)
    assert now.is_retry and now.precision == "standard" and now.sources == review.sources
    until(lambda: json.loads(stack.result("results/reviews/b.png.png.json"))["cache"]["key"] == now.id)


@pytest.mark.slow
def test_a_bulk_run_opens_reviews_and_accepts_the_manifest_of_the_rejected(stack: Deployed, reviews: Reviews) -> None:
    stack.upload("bulk/reviews/a.png", doubtful())
    options = {**DRAFT, "crop": True}
    assert run(stack, listed(stack, "bulk/reviews/"), options=options).statuses == {"bulk/reviews/a.png": "done"}
    [review] = [one for one in reviews.all("open") if one.key == "bulk/reviews/a.png"]
    rejected = reviews.decide(review, "reject", "jo")
    rows = to_manifest([rejected], {"precision_level": "standard"}, stack.outputs["UploadsBucket"])
    again = run(stack, manifest(stack, "rejected.jsonl", rows), options={"model": "classical"})
    assert again.statuses == {"bulk/reviews/a.png": "done"}
    used = json.loads(stack.result("results/bulk/reviews/a.png.png.json"))["options"]
    assert (used["precision_level"], used["crop"], used["model"]) == ("standard", True, "classical")
