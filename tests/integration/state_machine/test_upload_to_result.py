"""An upload in the deployed state machine: its result, its sidecar, and the host that segments it."""

import hashlib
import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.header import Header
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from client.overview import NAMESPACE
from core.segmentation.registry import BUNDLED, MODELS
from functions.contracts.metrics import METRICS
from tests.conftest import client, disc, file_of
from tests.integration.deployment import Deployed, until

STAGES = ["Validate", "ClaimWork", "ChooseSegmenter"]
REST = ["Refine", "NeedsEscalation?", "Encode", "SaveCache", "PublishMetrics", "Outcome?", "Done"]


def made_by(model: str, weights_sha256: str | None, host: str) -> dict[str, Any]:
    """Return the sidecar's model of a mask that was made from one look."""
    looks = {"looks": ["first"], "rejected_looks": []}
    return {"name": model, "weights_sha256": weights_sha256, "host": host, **looks}


def test_an_upload_becomes_a_cut_out_with_a_sidecar(stack: Deployed) -> None:
    data = disc(seed=1)
    ended = stack.process("photos/disc.png", data)
    assert ended.status == "SUCCEEDED"
    assert ended.states == [*STAGES, "SegmentOnLambda", *REST]

    picture = Image.open(io.BytesIO(stack.result("results/photos/disc.png.png")))
    alpha = np.asarray(picture.getchannel("A"))
    assert picture.mode == "RGBA" and picture.size == (320, 240)
    assert alpha[120, 160] == 255, "the disc's centre is opaque"
    assert not alpha[:10].any() and not alpha[:, :10].any(), "the border is transparent"

    sidecar = json.loads(stack.result("results/photos/disc.png.png.json"))
    assert sidecar == ended.output
    assert sidecar["source"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert sidecar["image"]["sha256"] == hashlib.sha256(stack.result("results/photos/disc.png.png")).hexdigest()
    assert sidecar["cache"]["hit"] is False
    assert sidecar["degraded"] is False and sidecar["escalation"] is None
    assert sidecar["timings_s"].keys() == {"validate", "segment", "refine", "encode"}
    assert 0 <= sidecar["quality"]["score"] <= 1
    assert sidecar["model"] == made_by(BUNDLED, MODELS[BUNDLED].sha256, "lambda")
    assert sidecar["warnings"] == []


@pytest.mark.slow
def test_an_undecided_mask_is_made_from_three_looks_at_the_highest_level(stack: Deployed) -> None:
    coins = file_of(Image.fromarray(photographs.coins()).convert("RGB"), "PNG")
    ended = stack.process("photos/coins.png", coins, {"pbr-precision-level": "ultra_high"})
    assert ended.status == "SUCCEEDED", ended.cause
    model = json.loads(stack.result("results/photos/coins.png.png.json"))["model"]
    assert (model["looks"], model["rejected_looks"]) == (["first", "mirrored", "brightened"], [])


@pytest.mark.parametrize(
    ("metadata", "key", "format_", "mode", "size"),
    [
        ({"pbr-format": "webp"}, "results/o0/a.png.webp", "WEBP", "RGBA", None),
        pytest.param({"pbr-format": "jpeg"}, "results/o1/a.png.jpg", "JPEG", "RGB", None, marks=pytest.mark.slow),
        pytest.param(
            {"pbr-background-color": "#00ff00"}, "results/o2/a.png.png", "PNG", "RGB", None, marks=pytest.mark.slow
        ),
        pytest.param({"pbr-output": "mask"}, "results/o3/a.png.png", "PNG", "L", None, marks=pytest.mark.slow),
        pytest.param({"pbr-background-blur": "2%"}, "results/o6/a.png.png", "PNG", "RGB", None, marks=pytest.mark.slow),
        ({"pbr-crop": "true", "pbr-precision-level": "draft"}, "results/o4/a.png.png", "PNG", "RGBA", (140, 170)),
        pytest.param(
            {"pbr-scale": "50%", "pbr-max-megapixels": "0.0192"},
            *("results/o5/a.png.png", "PNG", "RGBA", (119, 161)),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["webp", "jpeg", "colour", "mask", "blur", "crop", "scale"],
)
def test_options_are_read_from_the_metadata_of_the_upload(
    stack: Deployed,
    metadata: dict[str, str],
    key: str,
    format_: str,
    mode: str,
    size: tuple[int, int] | None,
) -> None:
    ended = stack.process(key.removeprefix("results/").rpartition(".")[0], disc(seed=2), metadata)
    assert ended.status == "SUCCEEDED", ended.cause
    picture = Image.open(io.BytesIO(stack.result(key)))
    assert (picture.format, picture.mode) == (format_, mode)
    if size:
        assert all(size[0] < side < size[1] for side in picture.size), "about the disc's diameter"


def test_an_upload_with_a_preset_of_the_stack_has_its_options_and_shares_the_cache(stack: Deployed) -> None:
    data = disc(seed=21)
    ended = stack.process("presets/a.png", data, {"pbr-preset": "card", "pbr-quality": "80"})
    assert ended.status == "SUCCEEDED", ended.cause
    picture = Image.open(io.BytesIO(stack.result("results/presets/a.png.jpg")))
    assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (300, 300))
    pixels = np.asarray(picture)
    assert (pixels[:10] == 255).all() and (pixels[:, :10] == 255).all(), "exactly white"
    shown = np.flatnonzero((pixels.min(axis=2) < 128).any(axis=0))
    assert shown[-1] - shown[0] + 1 == pytest.approx(0.85 * 300, abs=4)
    options = ended.output["options"]
    assert (options["preset"], options["canvas"], options["scale"]) == ("card", "300x300", "85%")
    assert (options["format"], options["quality"]) == ("jpeg", 80)

    stated = {name: options[name] for name in ("canvas", "scale", "background_color", "format", "quality")}
    metadata = {f"pbr-{name.replace('_', '-')}": str(value) for name, value in stated.items()}
    again = stack.process("presets/b.png", data, metadata)
    assert again.output["cache"] == {"key": ended.output["cache"]["key"], "hit": True}
    assert "preset" not in again.output["options"]


def test_an_unknown_preset_is_reported_with_those_that_exist(stack: Deployed) -> None:
    ended = stack.process("presets/unknown.png", disc(seed=22), {"pbr-preset": "amazon"})
    assert (ended.status, ended.error) == ("FAILED", "InvalidOptionsError")
    report = json.loads(stack.result("failed/presets/unknown.png.json"))
    assert (report["field"], report["value"]) == ("options.preset", "amazon")
    assert "white-square" in report["remedy"] and "card" in report["remedy"]


@pytest.mark.slow
def test_a_zip_of_a_region_holds_the_colors_and_an_alpha_that_is_zero_outside(stack: Deployed) -> None:
    asked = {"pbr-roi": "50% 0px 320px 100%", "pbr-format": "zip", "pbr-precision-level": "draft"}
    ended = stack.process("region/a.png", disc(seed=2), asked)
    assert ended.status == "SUCCEEDED", ended.cause
    archive = zipfile.ZipFile(io.BytesIO(stack.result("results/region/a.png.zip")))
    alpha = np.asarray(Image.open(io.BytesIO(archive.read("alpha.png"))))
    assert not alpha[:, :160].any() and alpha[120, 160] == 255
    assert ended.output["image"]["content_type"] == "application/zip"
    assert ended.output["image"]["foreground"]["left"] == 160


@pytest.mark.slow
def test_neither_a_background_in_the_uploads_bucket_nor_a_folder_starts_an_execution(stack: Deployed) -> None:
    green = file_of(Image.new("RGB", (64, 64), (0, 200, 0)), "PNG")
    version = stack.upload("backgrounds/grün.png", green)
    folders = [(key, stack.upload(key, b"")) for key in ("photos/", "photos_$folder$")]
    key_in_metadata = Header("backgrounds/grün.png", "utf-8").encode()
    ended = stack.process("on-green.png", disc(seed=3), {"pbr-background-key": key_in_metadata})
    assert ended.status == "SUCCEEDED", ended.cause
    picture = Image.open(io.BytesIO(stack.result("results/on-green.png.png")))
    assert picture.mode == "RGB" and picture.getpixel((3, 3)) == (0, 200, 0)
    for key, uploaded in (("backgrounds/grün.png", version), *folders):
        with pytest.raises(TimeoutError):
            stack.execution_of(key, uploaded, timeout_s=0.5)


def test_the_same_image_again_is_served_from_the_cache(stack: Deployed) -> None:
    first = stack.process("first.png", disc(seed=4))
    again = stack.process("again.png", disc(seed=4))
    assert again.states == [
        "Validate",
        "ClaimWork",
        "LookUpCache",
        "CacheHit?",
        "ServeCached",
        "DescribeHit",
        "ComposeSidecar",
        "SaveSidecar",
        "PublishMetrics",
        "Outcome?",
        "Done",
    ]
    assert stack.result("results/again.png.png") == stack.result("results/first.png.png")
    sidecar = json.loads(stack.result("results/again.png.png.json"))
    assert sidecar == again.output
    assert sidecar["cache"] == {"key": first.output["cache"]["key"], "hit": True}
    assert sidecar["source"]["key"] == "again.png" and sidecar["result"]["key"] == "results/again.png.png"
    for ended in (first, again):
        key, version_id = (ended.output["result"][name] for name in ("key", "version_id"))
        assert stack.s3.head_object(Bucket=stack.outputs["ResultsBucket"], Key=key)["VersionId"] == version_id
    assert sidecar["quality"] == first.output["quality"] and sidecar["warnings"] == first.output["warnings"]


def test_sources_and_formats_of_one_name_keep_their_results_and_sidecars(stack: Deployed) -> None:
    uploads = [("shoe.png", {}), ("shoe.jpg", {}), ("shoe.png", {"pbr-format": "webp"}), ("shoe.png", {})]
    ended = [stack.process(key, disc(seed=20 + n), metadata) for n, (key, metadata) in enumerate(uploads)]
    expected = ["shoe.png.png", "shoe.jpg.png", "shoe.png.webp", "shoe.png.png"]
    assert [one.output["result"]["key"] for one in ended] == [f"results/{name}" for name in expected]
    for one in ended[1:]:  # the last one replaced the first
        assert json.loads(stack.result(one.output["result"]["sidecar_key"])) == one.output
    for one in ended:
        location = {name: one.output["result"][field] for name, field in (("Key", "key"), ("VersionId", "version_id"))}
        data = stack.s3.get_object(Bucket=stack.outputs["ResultsBucket"], **location)["Body"].read()
        assert hashlib.sha256(data).hexdigest() == one.output["image"]["sha256"]


@pytest.mark.slow
def test_other_options_are_processed_separately(stack: Deployed) -> None:
    stack.process("png.png", disc(seed=5))
    webp = stack.process("webp.png", disc(seed=5), {"pbr-format": "webp"})
    assert "SegmentOnLambda" in webp.states and webp.output["cache"]["hit"] is False


@pytest.mark.slow
def test_the_sidecar_warns_about_a_result_without_a_network(stack: Deployed) -> None:
    ended = stack.process("classical.png", disc(seed=5), {"pbr-model": "classical"})
    assert ended.output["model"] == made_by("classical", None, "lambda")
    assert any("neural network" in warning for warning in ended.output["warnings"])


@pytest.mark.slow
def test_ten_simultaneous_uploads_of_one_image_are_segmented_once(stack: Deployed) -> None:
    data = disc(seed=6)

    def process(number: int) -> list[str]:
        ended = stack.process(f"ten/{number}.png", data)
        assert ended.status == "SUCCEEDED", ended.cause
        return ended.states

    with ThreadPoolExecutor(10) as pool:
        histories = list(pool.map(process, range(10)))
    assert sum("SegmentOnLambda" in states for states in histories) == 1
    assert len({stack.result(f"results/ten/{number}.png.png") for number in range(10)}) == 1


@pytest.mark.parametrize(("host", "state"), [("ecs", "SegmentOnEcs"), ("sagemaker", "SegmentOnSageMaker")])
def test_the_other_hosts_segment_as_lambda_does(stack: Deployed, host: str, state: str) -> None:
    data = disc(seed=8 + len(host))
    ended = stack.process(f"{host}.png", data, {"pbr-segmentation-host": host})
    assert ended.status == "SUCCEEDED", ended.cause
    assert state in ended.states and "SegmentOnLambda" not in ended.states
    assert ended.output["model"] == made_by(BUNDLED, MODELS[BUNDLED].sha256, host)
    assert ended.output["degraded"] is False


@pytest.mark.slow
def test_a_worker_reports_that_the_upload_was_deleted(stack: Deployed) -> None:
    with stack.no_workers():
        version = stack.upload("vanished.png", disc(seed=14), {"pbr-segmentation-host": "ecs"})
        execution = stack.execution_of("vanished.png", version)
        until(lambda: "SegmentOnEcs" in stack.states_of(execution))
        stack.s3.delete_object(Bucket=stack.outputs["UploadsBucket"], Key="vanished.png", VersionId=version)
    assert stack.wait(execution).error == "SourceNotFoundError"
    assert stack.report("vanished.png")["stage"] == "SegmentOnEcs"


@pytest.mark.slow
def test_lambda_replaces_workers_that_crash_and_the_sidecar_records_it(stack: Deployed) -> None:
    data = disc(seed=15)
    with stack.no_workers():
        execution = stack.execution_of(
            "crash/1.png", stack.upload("crash/1.png", data, {"pbr-segmentation-host": "ecs"})
        )
        stack.sfn.send_task_failure(taskToken=stack.receive_token(), error="WorkerCrashedError", cause="{}")
        ended = stack.wait(execution)
    assert ended.status == "SUCCEEDED", ended.cause
    assert ended.states[3:5] == ["SegmentOnEcs", "SegmentOnLambda"]
    assert ended.output["degraded"] is True and ended.output["model"]["host"] == "lambda"
    assert any("SegmentOnEcs" in warning and "WorkerCrashedError" in warning for warning in ended.output["warnings"])
    again = stack.process("crash/2.png", data)
    assert again.output["cache"]["hit"] is True and again.output["degraded"] is False, (
        "Lambda was not the fallback this time"
    )


@pytest.mark.slow
def test_the_version_that_was_uploaded_is_the_one_that_is_processed(stack: Deployed) -> None:
    first, second = disc(seed=20), disc(seed=21)
    version = stack.upload("replaced.png", first)
    stack.upload("replaced.png", second)
    ended = stack.wait(
        stack.start({"bucket": stack.outputs["UploadsBucket"], "key": "replaced.png", "version_id": version})
    )
    assert ended.output["source"]["sha256"] == hashlib.sha256(first).hexdigest()
    by_event = stack.wait(stack.execution_of("replaced.png", version))
    assert by_event.output["source"]["sha256"] == hashlib.sha256(first).hexdigest()


@pytest.mark.slow
def test_a_claim_whose_owner_was_stopped_is_taken_over(stack: Deployed) -> None:
    data = disc(seed=30)
    ended = stack.process("owned/1.png", data)
    [item] = [item for item in stack.cached() if item["cache_key"]["S"] == ended.output["cache"]["key"]]
    del item["document"]
    stack.dynamodb.put_item(TableName=stack.outputs["CacheTable"], Item={**item, "status": {"S": "IN_PROGRESS"}})

    after = stack.process("owned/2.png", data)
    assert after.status == "SUCCEEDED"
    assert after.states[3:7] == ["CacheHit?", "CheckOwner", "OwnerRunning?", "TakeOverClaim"]


@pytest.mark.slow
def test_a_cached_item_without_its_sidecar_is_processed_again(stack: Deployed) -> None:
    data = disc(seed=32)
    ended = stack.process("half/1.png", data)
    [item] = [item for item in stack.cached() if item["cache_key"]["S"] == ended.output["cache"]["key"]]
    del item["document"]
    stack.dynamodb.put_item(TableName=stack.outputs["CacheTable"], Item=item)

    after = stack.process("half/2.png", data)
    assert after.status == "SUCCEEDED", after.cause
    assert after.states[3:7] == ["CacheHit?", "CheckOwner", "OwnerRunning?", "TakeOverClaim"]


@pytest.mark.slow
def test_a_cached_copy_that_expired_before_its_item_is_processed_again(stack: Deployed) -> None:
    data = disc(seed=31)
    key = stack.process("expired/1.png", data).output["cache"]["key"]
    stack.s3.delete_object(Bucket=stack.outputs["WorkBucket"], Key=f"cache/{key}.png")
    after = stack.process("expired/2.png", data)
    assert after.status == "SUCCEEDED", after.cause
    assert after.states[4:6] == ["ServeCached", "TakeOverClaim"]
    assert stack.process("expired/3.png", data).output["cache"]["hit"] is True


def test_cloudwatch_has_the_metrics_of_uploads(stack: Deployed) -> None:
    for key, data in (("metrics/a.png", disc(seed=31)), ("metrics/b.png", disc(seed=31)), ("metrics/c.png", b"none")):
        stack.process(key, data)
    stack.process("metrics/d.png", disc(seed=32), {"pbr-segmentation-host": "ecs"})
    cloudwatch = client("cloudwatch", stack.cloud.endpoint_url, stack.cloud.region)
    namespace = NAMESPACE.format(stack=stack.cloud.stack_name)

    def listed() -> set[tuple[str, frozenset[str]]]:
        metrics = cloudwatch.list_metrics(Namespace=namespace)["Metrics"]
        return {(one["MetricName"], frozenset(item["Name"] for item in one["Dimensions"])) for one in metrics}

    known = {(one.name, frozenset(names)) for one in METRICS.values() for names in one.dimension_sets}
    expected = {"Processed", "CacheHit", "Failed", "Review", "QualityScore", "ProcessingTime", "Segmented"}
    expected |= {"EstimatedCost"}
    until(lambda: {one for one in known if one[0] in expected} <= listed() <= known, timeout_s=5)
    now = datetime.now(UTC)
    metric = {"Namespace": namespace, "MetricName": "ProcessingTime"}
    dimensions = [{"Name": "Stage", "Value": "refine"}, {"Name": "ImageSize", "Value": "<=1MP"}]
    [point] = cloudwatch.get_metric_statistics(
        **metric,
        Dimensions=dimensions,
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(minutes=1),
        Period=7200,
        Statistics=["Average"],
    )["Datapoints"]
    assert 1 < point["Average"] < 60_000 and point["Unit"] == "Milliseconds"
