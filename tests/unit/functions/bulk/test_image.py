"""A bulk run and the state machine give an image the same result, and a bulk run respects claims."""

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from core.errors import BackgroundRemoverError
from core.image.backdrop import WHITE, composed
from core.segmentation.registry import BUNDLED
from embedded_cloud import embedded_metrics
from functions.bulk.batch import Batch, BatchProcessor
from functions.bulk.cache import Cache
from functions.bulk.config import BulkConfig
from functions.bulk.endpoint import Endpoint
from functions.bulk.image import ImageProcessor, Progress
from functions.contracts.bulk import BatchOutcome
from functions.contracts.errors import StorageUnavailableError
from functions.contracts.job import Execution, Job, RefinedJob, SegmentedJob
from functions.contracts.prices import bulk_image_usd
from functions.encode.work import Delivery
from functions.refine.work import refine
from functions.runtime.bundled import DIRECTORY
from functions.runtime.inspection import Inspector
from functions.runtime.outcomes import Outcomes
from functions.runtime.reviews import Reviews
from functions.runtime.store import Store
from functions.segment.work import segment_job
from functions.validate.job import Validator
from functions.validate.upload import Upload
from tests.conftest import disc, file_of
from tests.fakes.reviews_in_memory import Requests
from tests.fakes.s3_in_memory import Objects, Table, refusal

RUN = Execution(id="arn:aws:states:eu-west-1:123456789012:execution:bulk:run", name="run", started_at="now")
SINGLE = Execution(id="arn:aws:states:eu-west-1:123456789012:execution:main:one", name="one", started_at="then")


DRAFT = {"precision_level": "draft"}


def upload_of(key: str) -> Upload:
    return Upload(bucket="uploads", key=key, options=DRAFT)


def config(**values: Any) -> BulkConfig:
    given = {
        "uploads_bucket": "uploads",
        "results_bucket": "results",
        "work_bucket": "work",
        "cache_table": "cache",
        "reviews_table": "reviews",
        "default_model": BUNDLED,
        "segmentation_host": "lambda",
        "segmentation_hosts": ("lambda", "sagemaker"),
        "aws_region": "eu-west-1",
        "bulk_memory_mb": 3008,
        "cache_days": 1,
        "pbr_model_dir": str(DIRECTORY),
    }
    return BulkConfig(**{**given, **values})


@pytest.fixture(scope="module")
def inspector() -> Iterator[Inspector]:
    inspector = Inspector()
    yield inspector
    inspector.close()


class Account:
    """A stack in memory: its buckets, its cache, and both ways of processing an image."""

    def __init__(self, inspector: Inspector, endpoint: Any = None, **values: Any) -> None:
        self.objects, self.table, self.config = Objects(), Table(), config(**values)
        self.store, self.networks = Store(self.objects), self.config.networks()
        self.validator = Validator(self.config, self.store, inspector)
        cache = Cache("cache", self.table)
        self.reviews = Requests()
        self.images = ImageProcessor(
            self.config,
            self.store,
            cache,
            self.networks,
            inspector,
            Reviews("reviews", self.reviews),
            Endpoint("e", endpoint) if endpoint else None,
        )

    def in_bulk(self, upload: Upload, execution: Execution = RUN) -> dict[str, Any]:
        return self.images.process(upload, execution, Progress()).document

    def in_steps(self, upload: Upload) -> dict[str, Any]:
        """What Validate, Segment, Refine and Encode do, with masks and alphas in the work bucket."""
        state = self.validator.accept(upload, SINGLE).job
        mask = segment_job(Job.model_validate(state), self.store, "work", self.networks, host="lambda")
        state["segment"] = {"mask": mask}
        job = SegmentedJob.model_validate(state)
        alpha, part = refine(
            job, self.store.picture(job.source), self.store.plane("work", mask["key"]), time.perf_counter()
        )
        self.store.put_plane("work", part["key"], alpha)
        refined = RefinedJob.model_validate({**state, "refine": {"alpha": part}})
        background = composed(self.store.picture(refined.background), WHITE) if refined.background else None
        delivery = Delivery(Outcomes(self.store, "results"), "work")
        return delivery.deliver(
            refined,
            self.store.picture(job.source),
            self.store.plane("work", part["key"]),
            background,
            time.perf_counter(),
        )

    def batch(self, *items: dict[str, Any], attempt: int = 0, **shared: Any) -> BatchOutcome:
        event = {
            "Items": list(items),
            "BatchInput": {"run": RUN, "bucket": "uploads", "options": DRAFT, **shared},
            "attempt": attempt,
        }
        return BatchProcessor(self.images, 265).process(Batch.model_validate(event))


@pytest.fixture
def account(inspector: Inspector) -> Account:
    """An account without a network, which would take most of the time."""
    return Account(inspector, default_model="classical")


def small(seed: int = 0) -> bytes:
    return disc(width=96, height=72, seed=seed)


def without_run(document: dict[str, Any]) -> dict[str, Any]:
    """A sidecar without what differs from run to run."""
    result = {name: value for name, value in document["result"].items() if name != "version_id"}
    return {**document, "execution": None, "result": result, "timings_s": sorted(document["timings_s"])}


LARGE = file_of(Image.open(io.BytesIO(disc(width=1600, height=1200))), "JPEG", quality=90)


def transparent() -> bytes:
    rgba = Image.open(io.BytesIO(disc(seed=3))).convert("RGBA")
    rgba.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 320).astype(np.uint8), (240, 1))))
    return file_of(rgba, "PNG")


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (disc(), {"model": BUNDLED}),
        (disc(), {"precision_level": "draft", "format": "webp", "crop": "true"}),
        pytest.param(disc(), {"precision_level": "ultra_high", "output": "mask"}, marks=pytest.mark.slow),
        (disc(), {"background_key": "backgrounds/green.png", "format": "jpeg", **DRAFT}),
        (disc(), {"roi": "10% 0 90% 100%", "format": "zip", "scale": "50%", **DRAFT}),
        pytest.param(LARGE, {"precision_level": "standard", "model": BUNDLED}, marks=pytest.mark.slow),
        (transparent(), {"precision_level": "standard"}),
    ],
    ids=["defaults", "webp", "mask", "background", "region", "large jpeg", "transparent"],
)
def test_a_bulk_run_gives_the_result_of_the_stages(account: Account, data: bytes, options: dict[str, Any]) -> None:
    account.objects.add("uploads", "backgrounds/green.png", file_of(Image.new("RGB", (64, 64), (0, 200, 0)), "PNG"))
    account.objects.add("uploads", "a.png", data, {"pbr-quality": "80"})
    upload = Upload(bucket="uploads", key="a.png", options=options)
    single = account.in_steps(upload)
    result = account.objects.data("results", single["result"]["key"])
    account.objects.versions = {
        where: versions for where, versions in account.objects.versions.items() if where[0] == "uploads"
    }
    bulk = account.in_bulk(upload)
    assert account.objects.data("results", bulk["result"]["key"]) == result
    assert without_run(bulk) == without_run(single)
    assert account.objects.json("results", bulk["result"]["sidecar_key"]) == bulk
    assert account.objects.keys("work") == [f"cache/{bulk['cache']['key']}.{bulk['result']['key'].rpartition('.')[2]}"]


@pytest.mark.parametrize(
    ("data", "options", "error"),
    [
        (b"", {}, "EmptyImageError"),
        (b"text", {}, "UnsupportedFormatError"),
        (disc()[:5000], {}, "CorruptImageError"),
        (disc(), {"colour": "red"}, "InvalidOptionsError"),
        (disc(), {"roi": "0 0 900px 10px"}, "InvalidOptionsError"),
        (file_of(Image.new("RGB", (64, 64)), "PNG"), {"precision_level": "draft"}, "UnknownForegroundError"),
        (None, {}, "SourceNotFoundError"),
    ],
    ids=["empty", "text", "damaged", "option", "region", "no subject", "absent"],
)
def test_a_bulk_run_fails_with_the_error_of_the_stages(
    account: Account, data: bytes | None, options: dict[str, Any], error: str
) -> None:
    if data is not None:
        account.objects.add("uploads", "a.png", data)
    upload = Upload(bucket="uploads", key="a.png", options=options)
    with pytest.raises(BackgroundRemoverError) as single:
        account.in_steps(upload)
    outcome = account.batch({"key": "a.png", "options": options})
    [item] = outcome.items
    report = account.objects.json("results", "failed/a.png.json")
    assert item.status == "failed" and item.error == error and item.report_key == "failed/a.png.json"
    assert (outcome.succeeded, outcome.failed) == (0, 1)
    assert {name: report[name] for name in single.value.facts()} == single.value.facts()
    assert report["execution"] == RUN.model_dump()
    assert account.objects.keys("results") == ["failed/a.png.json"]


def test_an_image_that_failed_does_not_fail_the_batch_and_its_report_goes_when_it_has_a_result(
    account: Account,
) -> None:
    account.objects.add("uploads", "bad.png", b"text")
    account.objects.add("uploads", "good.png", small())
    outcome = account.batch({"Key": "bad.png", "Size": 4}, {"Key": "good.png", "Size": 9}, {"Key": "folder/"})
    assert [(item.key, item.status) for item in outcome.items] == [("bad.png", "failed"), ("good.png", "done")]
    account.objects.add("uploads", "bad.png", small(seed=2))
    assert [item.status for item in account.batch({"Key": "bad.png"}, {"Key": "good.png"}).items] == ["done", "done"]
    assert not [key for key in account.objects.keys("results") if key.startswith("failed/")]


def test_an_image_with_its_result_is_not_read_again(account: Account) -> None:
    account.objects.add("uploads", "a.png", small())
    document = account.in_bulk(upload_of("a.png"), SINGLE)
    account.table.items.clear()
    account.objects.calls.clear()
    [item] = account.batch({"Key": "a.png"}).items
    assert item.status == "cached" and item.score == document["quality"]["score"]
    assert account.objects.calls == {"head": 1, "get": 1}, "the version and the sidecar"
    assert [item.status for item in account.batch({"key": "a.png", "options": {"quality": 5}}).items] == ["done"]
    account.objects.add("uploads", "a.png", small(seed=9))
    assert [item.status for item in account.batch({"Key": "a.png"}).items] == ["done"], "another version"


def test_overwrite_computes_results_again_but_once_per_run(account: Account) -> None:
    account.objects.add("uploads", "a.png", small())
    account.in_bulk(upload_of("a.png"), SINGLE)
    assert [item.status for item in account.batch({"Key": "a.png"}, overwrite=True).items] == ["done"]
    document = account.objects.json("results", "results/a.png.png.json")
    assert document["execution"] == RUN.model_dump() and document["cache"]["hit"] is False
    version = document["result"]["version_id"]
    assert [item.status for item in account.batch({"Key": "a.png"}, overwrite=True, attempt=1).items] == ["done"]
    assert account.objects.json("results", "results/a.png.png.json")["result"]["version_id"] == version


def test_a_copy_of_an_image_is_served_from_the_cache(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    for key in ("a.png", "b.png"):
        account.objects.add("uploads", key, small())
    statuses = [item.status for item in account.batch({"Key": "a.png"}, {"Key": "b.png"}).items]
    assert statuses == ["done", "cached"]
    assert account.reviews.updates == []
    first, second = (account.objects.json("results", f"results/{key}.png.json") for key in ("a.png", "b.png"))
    assert account.objects.data("results", "results/b.png.png") == account.objects.data("results", "results/a.png.png")
    assert second["cache"] == {"key": first["cache"]["key"], "hit": True}
    assert second["source"]["key"] == "b.png" and second["timings_s"].keys() == {"validate"}
    published = [one for line in capsys.readouterr().out.splitlines() for one in embedded_metrics.extract(line)]
    costs = [one.values[0] for one in published if one.name == "EstimatedCost"]
    assert costs == [
        bulk_image_usd(first["timings_s"], 3008, "eu-west-1", cached=False),
        bulk_image_usd(second["timings_s"], 3008, "eu-west-1", cached=True),
    ]


def test_a_copy_that_expired_before_its_entry_is_made_again(account: Account) -> None:
    account.objects.add("uploads", "a.png", small())
    document = account.in_bulk(upload_of("a.png"))
    for where in [("work", f"cache/{document['cache']['key']}.png"), ("results", "results/a.png.png.json")]:
        del account.objects.versions[where]
    assert account.in_bulk(upload_of("a.png"))["cache"]["hit"] is False
    assert f"cache/{document['cache']['key']}.png" in account.objects.keys("work")


def test_the_claim_of_an_upload_stays(account: Account) -> None:
    account.objects.add("uploads", "a.png", small())
    key = account.validator.accept(upload_of("a.png"), SINGLE).job["cache_key"]
    claim = {"cache_key": {"S": key}, "status": {"S": "IN_PROGRESS"}, "owner": {"S": SINGLE.id}}
    account.table.items[key] = claim
    assert [item.status for item in account.batch({"Key": "a.png"}).items] == ["done"]
    assert account.table.items[key] is claim


def test_a_transient_error_raises_after_the_other_images_until_the_last_attempt(account: Account) -> None:
    for key in ("a.png", "b.png"):
        account.objects.add("uploads", key, small(seed=len(key)))
    account.objects.unavailable.add("a.png")
    with pytest.raises(StorageUnavailableError):
        account.batch({"Key": "a.png"}, {"Key": "b.png"})
    assert account.objects.keys("results") == ["results/b.png.png", "results/b.png.png.json"]
    outcome = account.batch({"Key": "a.png"}, {"Key": "b.png"}, attempt=3)
    assert {item.key: (item.status, item.error) for item in outcome.items} == {
        "a.png": ("failed", "StorageUnavailableError"),
        "b.png": ("done", None),
    }


def test_images_in_other_buckets_have_names_of_their_own(account: Account) -> None:
    account.objects.add("theirs", "a b.png", small())
    account.objects.add("theirs", "bad.png", b"text")
    done, failed = account.batch(
        {"bucket": "theirs", "key": "a b.png", "version_id": "v0"},
        {"bucket": "theirs", "key": "bad.png"},
    ).items
    assert done.result_key == "results/s3/theirs/a b.png.png" and done.version_id == "v0"
    assert failed.report_key == "failed/s3/theirs/bad.png.json"


class FailingEndpoint:
    def invoke_endpoint(self, **request: Any) -> Any:
        assert Job.model_validate_json(request["Body"]).host == "sagemaker"
        raise refusal("ModelError", 424)


def test_lambda_replaces_an_endpoint_that_fails_and_the_sidecar_records_it(inspector: Inspector) -> None:
    account = Account(inspector, FailingEndpoint(), segmentation_host="sagemaker")
    account.objects.add("uploads", "a.png", small())
    document = account.in_bulk(upload_of("a.png"))
    assert document["degraded"] is True and document["model"]["host"] == "lambda"
    assert document["warnings"] == ["segmented on lambda: SegmentOnSageMaker failed with SageMakerRuntime.ModelError"]


def test_the_endpoint_s_mask_is_used(inspector: Inspector) -> None:
    account = Account(inspector, segmentation_host="sagemaker")
    account.objects.add("uploads", "a.png", small())

    def invoke_endpoint(**request: Any) -> Any:
        job = Job.model_validate_json(request["Body"])
        part = segment_job(job, account.store, "work", account.networks, host="sagemaker")
        return {"Body": io.BytesIO(json.dumps(part).encode())}

    account.images._endpoint = Endpoint("e", SimpleNamespace(invoke_endpoint=invoke_endpoint))
    document = account.in_bulk(upload_of("a.png"))
    assert document["degraded"] is False and document["model"]["host"] == "sagemaker"


def test_a_doubtful_mask_gets_a_second_attempt(inspector: Inspector) -> None:
    account = Account(inspector, default_model="classical", escalation_model=BUNDLED)
    account.objects.add("uploads", "a.png", file_of(Image.fromarray(photographs.coins()).convert("RGB"), "PNG"))
    document = account.in_bulk(upload_of("a.png"))
    assert document["escalation"]["model"] == BUNDLED
    assert set(document["escalation"]["score"]) == {"first", "second"} or document["escalation"]["error"]
    assert document["escalation"]["kept"] in ("first", "second")


def test_a_doubtful_result_opens_a_review_and_again_when_it_comes_from_the_cache(inspector: Inspector) -> None:
    account = Account(inspector, default_model="classical")
    coins = file_of(Image.fromarray(photographs.coins()).convert("RGB"), "PNG")
    for key in ("a.png", "b.png"):
        account.objects.add("uploads", key, coins)
        account.in_bulk(upload_of(key))
    account.in_bulk(upload_of("b.png"))  # it has its result
    assert [update["ExpressionAttributeValues"][":source_key"]["S"] for update in account.reviews.updates] == [
        "a.png",
        "b.png",
    ]
    assert len({update["Key"]["review_id"]["S"] for update in account.reviews.updates}) == 1


def test_images_for_which_the_time_does_not_suffice_are_not_done(account: Account) -> None:
    for number in range(4):
        account.objects.add("uploads", f"{number}.png", b"text")
    now = [0.0]

    def clock() -> float:
        now[0] += 30
        return now[0]

    event = {"Items": [{"Key": f"{n}.png"} for n in range(4)], "BatchInput": {"run": RUN, "bucket": "uploads"}}
    outcome = BatchProcessor(account.images, 200, clock).process(Batch.model_validate(event))
    assert [item.status for item in outcome.items] == ["failed", "failed", "not_done", "not_done"]
    assert (outcome.succeeded, outcome.failed) == (0, 2)


def test_the_second_attempt_goes_backwards(account: Account) -> None:
    for key in ("a.png", "b.png"):
        account.objects.add("uploads", key, b"text")
    assert [item.key for item in account.batch({"Key": "a.png"}, {"Key": "b.png"}, attempt=1).items] == [
        "b.png",
        "a.png",
    ]


def test_a_large_image_is_refused_if_one_process_cannot_hold_it(inspector: Inspector, tmp_path: Path) -> None:
    account = Account(inspector, bulk_memory_mb=700)
    account.objects.add("uploads", "a.png", file_of(Image.new("RGB", (5000, 4000)), "PNG"))
    [item] = account.batch({"Key": "a.png"}).items
    assert item.error == "TooManyPixelsError" and "BulkMemory" in str(item.remedy)


def test_a_model_that_is_too_large_names_the_parameter_of_the_bulk_function(account: Account) -> None:
    account.objects.add("uploads", "a.png", small())
    [item] = account.batch({"Key": "a.png"}, options={"model": "birefnet-general"}).items
    assert item.error == "InvalidOptionsError" and "BulkMemory" in str(item.remedy)


def test_a_batch_knows_the_presets_of_the_stack(account: Account) -> None:
    account.store.put("uploads", "a.png", small(), "image/png")
    [item] = account.batch(
        {"Key": "a.png"}, options={**DRAFT, "preset": "card"}, pbr_presets='{"card": {"canvas": "64x48"}}'
    ).items
    sidecar = json.loads(account.store.fetch("results", f"{item.result_key}.json").data)
    assert (sidecar["image"]["width"], sidecar["image"]["height"]) == (64, 48)
    assert sidecar["options"]["preset"] == "card"
