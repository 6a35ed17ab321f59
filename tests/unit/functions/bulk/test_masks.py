"""Masks of a transform job: what is requested, what the bulk function makes of them, and what it does without them."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from core.errors import InvalidOptionsError, TooManyPixelsError
from functions.bulk.batch import Batch, BatchProcessor
from functions.bulk.image import Progress
from functions.bulk.items import BatchInput
from functions.bulk.masks import MaskPlanner
from functions.bulk.objects import BulkObjects
from functions.runtime.inspection import Inspector
from functions.segment.sagemaker.handlers import JobContext, Segmenter, input_fn, predict_fn
from functions.segment.task_tokens import TaskTokens
from functions.validate.upload import Upload
from tests.conftest import disc
from tests.unit.functions.bulk.test_image import DRAFT, LARGE, RUN, Account, transparent, without_run

ENGINE = "batch-transform"
QUICK = {**DRAFT, "model": "classical"}


@pytest.fixture(scope="module")
def inspector() -> Iterator[Inspector]:
    inspector = Inspector()
    yield inspector
    inspector.close()


@pytest.fixture
def account(inspector: Inspector) -> Account:
    account = Account(inspector, segmentation_hosts=("lambda",))
    account.objects.add("uploads", "a.png", disc())
    return account


def upload(key: str = "a.png", **options: Any) -> Upload:
    return Upload(bucket="uploads", key=key, options={**QUICK, **options})


def requests(account: Account, *items: dict[str, Any], overwrite: bool = False, **options: Any) -> list[dict[str, Any]]:
    """Return the requests that a batch writes."""
    shared = BatchInput(run=RUN, bucket="uploads", overwrite=overwrite, options={**QUICK, **options})
    MaskPlanner(account.images, BulkObjects(account.objects), "work").plan(list(items), shared)
    files = [key for key in account.objects.keys("work") if key.startswith("bulk/run/transform/requests/")]
    return [json.loads(line) for key in files for line in account.objects.data("work", key).splitlines()]


def transform(account: Account, *items: dict[str, Any], **options: Any) -> None:
    """Do what the container of a transform job does with each line."""
    context = JobContext("work", account.store, TaskTokens(object()))
    container = Segmenter(account.networks, "u2netp", context)
    for request in requests(account, *items, **options):
        assert "mask_key" in predict_fn(input_fn(json.dumps(request), "application/json"), container)


def process(account: Account, given: Upload, engine: Any = ENGINE) -> dict[str, Any]:
    return account.images.process(given, RUN, Progress(), engine=engine).document


@pytest.mark.parametrize(
    ("data", "options"),
    [
        pytest.param(disc(), {"model": "u2netp"}, id="network"),
        pytest.param(LARGE, {"format": "webp", "crop": True}, id="large", marks=pytest.mark.slow),
        pytest.param(transparent(), {"precision_level": "high"}, id="transparent", marks=pytest.mark.slow),
    ],
)
def test_a_mask_of_a_transform_job_gives_the_result_of_a_run_without_it(
    inspector: Inspector, data: bytes, options: dict[str, Any]
) -> None:
    account, other = Account(inspector), Account(inspector)
    for one in (account, other):
        one.objects.add("uploads", "a.png", data)
    transform(account, {"Key": "a.png"}, **options)
    document = process(account, upload(**options))
    expected = process(other, upload(**options), "host")
    key = expected["result"]["key"]
    assert account.objects.data("results", key) == other.objects.data("results", key)
    assert (document["model"]["host"], document["degraded"]) == ("sagemaker", False)
    same = {"model": expected["model"] | {"host": "sagemaker"}}
    same["options"] = {**expected["options"], "segmentation_host": "sagemaker"}
    assert without_run(document) == without_run({**expected, **same})


@pytest.mark.parametrize(
    "changed", [{"model": "u2netp"}, {"roi": "0 0 90% 90%"}, {"precision_level": "standard"}, {"content": 5}]
)
def test_a_mask_of_other_options_or_of_another_version_is_not_used(account: Account, changed: dict[str, Any]) -> None:
    transform(account, {"Key": "a.png"})
    if seed := changed.pop("content", None):
        account.objects.add("uploads", "a.png", disc(seed=seed))
    document = process(account, upload(**changed))
    assert (document["model"]["host"], document["degraded"]) == ("lambda", True)
    assert "segmented on lambda: SegmentOnBatchTransform failed with MaskNotFoundError" in document["warnings"]


def test_a_mask_without_valid_facts_is_not_used(account: Account) -> None:
    transform(account, {"Key": "a.png"})
    [key] = [key for key in account.objects.keys("work") if key.startswith("masks/")]
    account.objects.add("work", key, account.objects.data("work", key), {"pbr-mask": "{}"})
    assert process(account, upload())["degraded"]


def test_only_images_without_their_result_are_requested(account: Account) -> None:
    account.objects.add("uploads", "b.png", disc(seed=2))
    account.objects.add("uploads", "lambda.png", disc(seed=3), {"pbr-segmentation-host": "lambda"})
    process(account, upload(), "host")
    keys = ("a.png", "b.png", "lambda.png", "missing.png", "folder/")
    [request] = requests(account, *({"Key": key} for key in keys))
    assert (request["mask_of"]["key"], request["options"]["model"]) == ("b.png", "classical")
    assert request["mask_of"]["version_id"] == account.objects.versions["uploads", "b.png"][-1][0]


@pytest.mark.parametrize("made", ["mask", "result"])
def test_the_mask_of_a_known_content_is_not_requested_if_it_or_a_cached_result_exists(
    account: Account, made: str
) -> None:
    if made == "mask":
        transform(account, {"Key": "a.png"})
        for key in account.objects.keys("work"):
            if key.startswith("bulk/"):
                del account.objects.versions["work", key]
    else:
        process(account, upload(), "host")
    account.objects.add("uploads", "copy.png", disc())
    assert [one["mask_of"]["key"] for one in requests(account, {"Key": "copy.png"})] == ["copy.png"]
    account.objects.checked, known = {"copy.png", "new.png"}, account.objects.keys("work")
    account.objects.add("uploads", "new.png", disc(seed=8))
    requests(account, {"Key": "copy.png"})
    assert account.objects.keys("work") == known, "nothing is written"
    assert "new.png" in str(requests(account, {"Key": "copy.png"}, {"Key": "new.png"}))
    account.objects.suffix = "-2"
    assert "copy.png" in str(requests(account, {"Key": "copy.png"})), "a checksum of parts is not that of the content"


def test_an_image_whose_result_is_overwritten_needs_a_mask(account: Account) -> None:
    process(account, upload(), "host")
    account.objects.checked = {"a.png"}
    assert requests(account, {"Key": "a.png"}) == []
    [request] = requests(account, {"Key": "a.png"}, overwrite=True)
    assert request["mask_of"]["key"] == "a.png"


def test_no_file_is_written_without_requests(account: Account) -> None:
    assert requests(account, {"Key": "missing.png"}) == []
    assert account.objects.keys("work") == []


def test_an_image_that_asks_for_lambda_is_segmented_there_and_not_degraded(account: Account) -> None:
    document = process(account, upload(segmentation_host="lambda"))
    assert (document["model"]["host"], document["degraded"]) == ("lambda", False)


@pytest.mark.parametrize("escalation_model", [None, "u2netp"])
def test_a_model_that_does_not_fit_lambda_needs_its_mask(inspector: Inspector, escalation_model: str | None) -> None:
    account = Account(inspector, segmentation_hosts=("lambda",), escalation_model=escalation_model)
    account.objects.add("uploads", "a.png", disc())
    with pytest.raises(InvalidOptionsError) as caught:
        process(account, upload(model="birefnet-general"))
    assert caught.value.message.startswith("The transform job made no mask of this image, and Lambda cannot segment it")
    assert "BulkMemory" in caught.value.remedy


def test_a_second_attempt_must_fit_lambda_with_its_model(inspector: Inspector) -> None:
    values = {"default_model": "classical", "escalation_model": "birefnet-general"}
    account = Account(inspector, segmentation_hosts=("lambda",), **values)
    account.objects.add("uploads", "a.png", disc())
    with pytest.raises(TooManyPixelsError):
        process(account, upload(model="auto"))


def test_the_seconds_of_an_image_are_those_of_functions(account: Account) -> None:
    transform(account, {"Key": "a.png"})
    event = {"Items": [{"Key": "a.png"}], "BatchInput": {"run": RUN, "bucket": "uploads", "options": QUICK}}
    event["BatchInput"]["engine"] = ENGINE
    [item] = BatchProcessor(account.images, 265).process(Batch.model_validate(event)).items
    timings = account.objects.json("results", "results/a.png.png.json")["timings_s"]
    assert item.seconds == pytest.approx(sum(timings.values()) - timings["segment"], abs=1e-3)
    assert timings["segment"] > 0 and not item.degraded
