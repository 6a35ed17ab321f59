"""SageMaker's four functions with fakes of store and state machine. Segmentation is real."""

import hashlib
import io
import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from botocore.exceptions import ClientError
from PIL import Image

from core.arrays import Mask, Picture
from core.errors import (
    CorruptImageError,
    DecodingLimitError,
    GpuUnavailableError,
    InvalidRequestError,
    SourceNotFoundError,
    UnsupportedFormatError,
)
from core.image import decode
from core.options import Options
from core.segmentation.registry import BUNDLED, CLASSICAL, MODELS
from core.segmentation.segment import segment
from core.segmentation.sessions import Networks
from functions.contracts.job import Job, StoredObject
from functions.contracts.masks import MASK_FACTS, mask_key, read_facts
from functions.runtime.bundled import DIRECTORY
from functions.runtime.inspection import Inspector, Limits
from functions.runtime.store import Store
from functions.runtime.weights import ModelSource
from functions.segment.sagemaker import handlers
from functions.segment.sagemaker.handlers import (
    AsyncRequest,
    JobContext,
    NotAcceptableError,
    Segmenter,
    input_fn,
    model_fn,
    output_fn,
    predict_fn,
)
from functions.segment.task_tokens import TaskTokens
from tests.conftest import ROOT, file_of
from tests.fakes import tiny_networks
from tests.fakes.s3_in_memory import Objects

JOB = json.loads((ROOT / "events/segment.json").read_text())
JSON, PNG = "application/json", "image/png"


class Machine:
    """Step Functions: records the calls. The tokens in ``expired`` have timed out."""

    def __init__(self, *, expired: tuple[str, ...] = ()) -> None:
        self.expired = expired
        self.heartbeats = threading.Semaphore(0)
        self.successes: dict[str, dict[str, Any]] = {}
        self.failures: dict[str, tuple[str, str]] = {}

    def _check(self, token: str) -> None:
        if token in self.expired:
            raise ClientError({"Error": {"Code": "TaskTimedOut"}}, "SendTask")

    def send_task_heartbeat(self, *, taskToken: str) -> None:  # noqa: N803
        self._check(taskToken)
        self.heartbeats.release()

    def send_task_success(self, *, taskToken: str, output: str) -> None:  # noqa: N803
        self._check(taskToken)
        self.successes[taskToken] = json.loads(output)

    def send_task_failure(self, *, taskToken: str, error: str, cause: str) -> None:  # noqa: N803
        self._check(taskToken)
        self.failures[taskToken] = (error, cause)


class FakeStore:
    """A store with one image. It records the masks that are written."""

    def __init__(self, data: bytes | None) -> None:
        self.data = data
        self.masks: dict[str, Mask] = {}
        self.scale: float | None = None  # by which the image was reduced

    def picture(self, source: StoredObject, *, at_least_px: int | None = None) -> Picture:
        if self.data is None:
            raise SourceNotFoundError("Gone", field="source.key", value=source.key, remedy="Upload it again.")
        picture = decode.decode(self.data, at_least_px=at_least_px)
        self.scale = picture.info.width / picture.rgb.shape[1]
        return picture

    def put_plane(self, _bucket: str, key: str, plane: Mask) -> None:
        self.masks[key] = plane


def segmenter(store: Any = None, machine: Any = None, *, heartbeat_s: float = 30.0) -> Segmenter:
    networks = Networks(ModelSource(()), threads=1)
    task_tokens = TaskTokens(machine or Machine())
    return Segmenter(networks, CLASSICAL, store and JobContext("work", store, task_tokens, heartbeat_s))


def transform(model: Segmenter, body: bytes, content_type: str, accept: str | None = None) -> tuple[bytes, str]:
    """Process a request as the toolkits do: JSON is passed to ``input_fn`` as text."""
    request = body.decode() if content_type == JSON else body
    return output_fn(predict_fn(input_fn(request, content_type), model), accept)


def async_request(job: Any = JOB) -> bytes:
    return json.dumps({"token": "token", "job": job}).encode()


def test_the_response_to_a_job_has_the_key_of_its_mask(disc_png: bytes) -> None:
    store = FakeStore(disc_png)
    body, media_type = transform(segmenter(store), json.dumps(JOB).encode(), JSON)
    part = json.loads(body)
    assert media_type == JSON
    assert (part["host"], part["model"], part["key"]) == ("sagemaker", BUNDLED, JOB["keys"]["mask"])
    assert part["weights_sha256"] == MODELS[BUNDLED].sha256
    assert store.masks[part["key"]].shape == (part["height"], part["width"])


def test_an_undecided_mask_of_the_highest_level_is_looked_at_three_times(disc_png: bytes, tmp_path: Path) -> None:
    entry = tiny_networks.install(tmp_path, "undecided", tiny_networks.network())
    networks = Networks(ModelSource((tmp_path,), registry={entry.name: entry}), threads=1)
    model = Segmenter(networks, entry.name, JobContext("work", FakeStore(disc_png), TaskTokens(Machine())))
    job = {**JOB, "options": {**JOB["options"], "model": entry.name, "precision_level": "ultra_high"}}
    body, _ = transform(model, json.dumps(job).encode(), JSON)
    assert json.loads(body)["looks"] == ["first", "mirrored", "brightened"]


def test_a_job_with_a_region_gets_the_mask_of_that_region_at_any_decoded_size(tmp_path: Path) -> None:
    entry = tiny_networks.install(tmp_path, "brightness", tiny_networks.network())
    networks = Networks(ModelSource((tmp_path,), registry={entry.name: entry}), threads=1)
    rgb = np.zeros((480, 1280, 3), np.uint8)
    rgb[100:300, 100:200] = rgb[150:250, 900:1000] = 250
    store = FakeStore(file_of(Image.fromarray(rgb), "JPEG", quality=95))
    job = {
        **JOB,
        "source": {**JOB["source"], "width": 1280, "height": 480},
        "options": {**JOB["options"], "model": entry.name, "roi": "50% 100px 1280px 300px"},
    }
    model = Segmenter(networks, entry.name, JobContext("work", store, TaskTokens(Machine())))
    body, _ = transform(model, json.dumps(job).encode(), JSON)
    expected = segment(rgb[100:300, 640:], entry.name, networks).mask
    found = store.masks[json.loads(body)["key"]]
    assert store.scale == 2, "and not 4, which is enough for the whole picture alone"
    assert found.shape == expected.shape == (10, 32)
    assert np.abs(found - expected).max() < 0.03


def test_a_task_token_is_completed_with_the_mask(disc_png: bytes) -> None:
    store, machine = FakeStore(disc_png), Machine()
    body, _ = transform(segmenter(store, machine), async_request(), JSON)
    assert json.loads(body) == {}
    assert machine.successes["token"]["key"] in store.masks
    assert not machine.failures


def test_a_task_token_is_completed_with_the_error() -> None:
    machine = Machine()
    body, _ = transform(segmenter(FakeStore(None), machine), async_request(), JSON)
    error, cause = machine.failures["token"]
    assert json.loads(body) == {}
    assert error == "SourceNotFoundError"
    assert json.loads(cause)["remedy"] == "Upload it again."


def test_an_invalid_job_fails_its_token_with_the_invalid_field(disc_png: bytes) -> None:
    machine = Machine()
    transform(segmenter(FakeStore(disc_png), machine), async_request({**JOB, "keys": {}}), JSON)
    error, cause = machine.failures["token"]
    assert error == "InvalidRequestError"
    assert json.loads(cause)["field"] == "keys.mask"


def test_an_unexpected_error_fails_the_token_by_its_class() -> None:
    class Broken(FakeStore):
        def picture(self, *_: Any, **__: Any) -> Picture:
            raise MemoryError("x" * 40_000)

    machine = Machine()
    transform(segmenter(Broken(None), machine), async_request(), JSON)
    error, cause = machine.failures["token"]
    assert error == "MemoryError"
    assert len(cause) == 32_768, "Step Functions takes no longer one"


def test_a_job_with_an_expired_token_is_not_processed(disc_png: bytes) -> None:
    store = FakeStore(disc_png)
    transform(segmenter(store, Machine(expired=("token",))), async_request(), JSON)
    assert not store.masks


def test_a_token_that_expires_during_the_job_is_no_error(disc_png: bytes) -> None:
    machine = Machine()

    class Slow(FakeStore):
        def put_plane(self, *args: Any) -> None:
            super().put_plane(*args)
            machine.expired = ("token",)

    body, _ = transform(segmenter(Slow(disc_png), machine), async_request(), JSON)
    assert json.loads(body) == {}
    assert not machine.successes


def test_a_token_gets_heartbeats_while_its_job_is_in_progress(disc_png: bytes) -> None:
    machine = Machine()

    class UntilThirdHeartbeat(FakeStore):
        def picture(self, *args: Any, **kwargs: Any) -> Picture:
            assert all(machine.heartbeats.acquire(timeout=60) for _ in range(3))
            return super().picture(*args, **kwargs)

    transform(segmenter(UntilThirdHeartbeat(disc_png), machine, heartbeat_s=0.01), async_request(), JSON)
    assert "token" in machine.successes


@pytest.mark.parametrize("content_type", ["image/png", "application/x-image", "Application/Octet-Stream; x=1"])
def test_the_response_to_an_image_is_its_mask(content_type: str, disc_png: bytes) -> None:
    body, media_type = transform(segmenter(), disc_png, content_type)
    mask = Image.open(io.BytesIO(body))
    assert (media_type, mask.format, mask.mode, mask.size) == (PNG, "PNG", "L", (320, 240))
    assert mask.getpixel((160, 120)) == 255
    assert mask.getpixel((4, 4)) == 0


def test_a_mask_has_the_size_of_the_upright_image_at_any_decoded_size(disc_png: bytes) -> None:
    sideways = Image.open(io.BytesIO(disc_png)).resize((2001, 1501)).rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate clockwise
    body, _ = transform(segmenter(), file_of(sideways, "JPEG", exif=exif), "image/jpeg")
    mask = np.asarray(Image.open(io.BytesIO(body)))
    rows, columns = np.nonzero(mask > 127)
    assert mask.shape == (1501, 2001)
    assert (columns.mean(), rows.mean()) == pytest.approx((1000, 750), abs=10)
    assert np.ptp(rows) == pytest.approx(2 * 1501 / 3.2, rel=0.03)


def test_a_damaged_image_is_rejected(disc_png: bytes) -> None:
    with pytest.raises(CorruptImageError):
        transform(segmenter(), disc_png[:5000], "image/png")


def test_decoding_an_image_is_limited(disc_png: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "INSPECTOR", Inspector(Limits(wall_s=0.001)))
    with pytest.raises(DecodingLimitError):
        transform(segmenter(), disc_png, "image/png")


def test_the_type_of_an_image_is_detected_from_its_content() -> None:
    with pytest.raises(UnsupportedFormatError):
        transform(segmenter(), b"%PDF-1.7", "image/png")


@pytest.mark.parametrize("content_type", ["text/csv", "", None, "imagine/png", "application/json-lines"])
def test_a_request_of_another_type_is_rejected(content_type: str | None, disc_png: bytes) -> None:
    with pytest.raises(UnsupportedFormatError) as caught:
        input_fn(disc_png, content_type)
    assert caught.value.field == "Content-Type"


@pytest.mark.parametrize(
    ("body", "field"),
    [(b"{", "body"), (b"\xff", "body"), (b"[]", ""), (b"{}", "execution"), (b'{"token": "t"}', "job")],
)
def test_json_other_than_a_job_is_rejected_with_the_invalid_field(body: bytes, field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        input_fn(body, JSON)
    assert caught.value.field == field


def test_json_is_a_job_or_an_async_request() -> None:
    assert isinstance(input_fn(json.dumps(JOB), f"{JSON}; charset=utf-8"), Job)
    assert isinstance(input_fn(async_request(), JSON), AsyncRequest)


@pytest.mark.parametrize("accept", [None, "", "*/*", "image/*", PNG, "text/html, image/png;q=0.5"])
def test_an_accepted_type_is_returned(accept: str | None) -> None:
    _, media_type = output_fn(np.zeros((20, 30), np.uint8), accept)
    assert media_type == PNG


@pytest.mark.parametrize(
    ("prediction", "accept"),
    [(np.zeros((20, 30), np.uint8), JSON), (np.zeros((20, 30), np.uint8), "text/*"), ({}, PNG)],
)
def test_a_type_that_is_not_accepted_is_an_error(prediction: Any, accept: str) -> None:
    with pytest.raises(NotAcceptableError) as caught:
        output_fn(prediction, accept)
    assert caught.value.value == accept


# ---- model_fn


def brightness() -> bytes:
    """A network of 32 x 32 pixels whose prediction is the mean of the normalized channels."""
    tensor = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("ReduceMean", ["image"], ["mask"], axes=[1], keepdims=1)],
        "brightness",
        [onnx.helper.make_tensor_value_info("image", tensor, ["n", 3, 32, 32])],
        [onnx.helper.make_tensor_value_info("mask", tensor, ["n", 1, 32, 32])],
    )
    opset = [onnx.helper.make_opsetid("", 13)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """The environment of a container without region, credentials, work bucket and weights."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "PBR_")) or name in {"WORK_BUCKET", "DEFAULT_MODEL"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("PBR_MODEL_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("PBR_MODEL_TIMEOUT_S", "0")
    return monkeypatch


def describe_network(environment: pytest.MonkeyPatch, content: bytes) -> None:
    custom = {
        "name": "brightness",
        "uri": "https://localhost/brightness.onnx",
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "input_px": 32,
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
    }
    environment.setenv("PBR_CUSTOM_MODELS", json.dumps([custom]))
    environment.setenv("DEFAULT_MODEL", "brightness")


def test_weights_among_the_models_own_files_are_used_and_loaded_at_the_start(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = brightness()
    describe_network(environment, content)
    weights = tmp_path / "brightness.onnx"
    weights.write_bytes(content)
    model = model_fn(str(tmp_path))
    weights.unlink()
    half = np.zeros((64, 64, 3), np.uint8)
    half[:, 32:] = 255
    body, _ = transform(model, file_of(Image.fromarray(half), "PNG"), PNG)
    mask = np.asarray(Image.open(io.BytesIO(body)))
    assert mask[:, :28].max() == 0
    assert mask[:, 36:].min() == 255


def test_an_endpoint_without_a_work_bucket_accepts_images_and_rejects_jobs(
    environment: pytest.MonkeyPatch, tmp_path: Path, disc_png: bytes
) -> None:
    environment.setenv("DEFAULT_MODEL", CLASSICAL)
    model = model_fn(str(tmp_path))
    assert transform(model, disc_png, PNG)
    for body in (json.dumps(JOB).encode(), async_request()):
        with pytest.raises(InvalidRequestError) as caught:
            transform(model, body, JSON)
        assert caught.value.field == "WORK_BUCKET"


def test_a_missing_gpu_is_an_error_at_the_start(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("DEFAULT_MODEL", BUNDLED)
    environment.setenv("PBR_DEVICE", "cuda")
    environment.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(GpuUnavailableError):
        model_fn(str(tmp_path))


def mask_request(**changes: Any) -> dict[str, Any]:
    options = Options(model=BUNDLED, precision_level="draft").set_or_known()
    source = {"bucket": "uploads", "key": "a.png"}
    return {"mask_of": source, "options": options, "model_identity": MODELS[BUNDLED].identity, **changes}


def uploaded(data: bytes | None) -> Objects:
    objects = Objects()
    if data is not None:
        objects.add("uploads", "a.png", data)
    return objects


def batch_segmenter(objects: Any) -> Segmenter:
    networks = Networks(ModelSource((DIRECTORY,)), threads=1)
    return Segmenter(networks, BUNDLED, JobContext("work", Store(objects), TaskTokens(Machine())), pause_s=0.0)


def answer(model: Segmenter, request: dict[str, Any]) -> dict[str, Any]:
    body, media_type = transform(model, json.dumps(request).encode() + b"\n", JSON, JSON)
    assert media_type == JSON
    return json.loads(body)


def test_a_mask_of_a_bulk_run_is_that_of_a_job_with_its_facts(disc_png: bytes) -> None:
    objects = uploaded(disc_png)
    model = batch_segmenter(objects)
    options = Options.parse(mask_request()["options"])
    given = answer(model, mask_request())
    key = mask_key(hashlib.sha256(disc_png).hexdigest(), options, MODELS[BUNDLED].identity)
    assert given["mask_key"] == given["key"] == key
    source = {**JOB["source"], "bucket": "uploads", "key": "a.png", "version_id": None, "etag": None}
    transform(model, json.dumps({**JOB, "source": source, "options": options.set_or_known()}).encode(), JSON)
    assert objects.data("work", key) == objects.data("work", JOB["keys"]["mask"])
    part = read_facts(objects.versions["work", key][-1][2][MASK_FACTS])
    assert part is not None
    assert (part.host, part.model, part.weights_sha256) == ("sagemaker", BUNDLED, MODELS[BUNDLED].sha256)


def test_a_mask_of_a_bulk_run_is_made_once(disc_png: bytes) -> None:
    objects = uploaded(disc_png)
    model = batch_segmenter(objects)
    first = answer(model, mask_request())
    assert answer(model, mask_request()) == {"source": first["source"], "mask_key": first["key"]}
    assert len(objects.versions["work", first["key"]]) == 1


@pytest.mark.parametrize(
    ("data", "changes", "error"),
    [
        (b"no image", {}, "UnsupportedFormatError"),
        (None, {}, "SourceNotFoundError"),
        (b"", {"model_identity": "0" * 64}, "InvalidOptionsError"),
    ],
)
def test_an_image_of_a_bulk_run_that_fails_does_not_fail_the_request(
    data: bytes | None, changes: dict[str, Any], error: str
) -> None:
    objects = uploaded(data)
    given = answer(batch_segmenter(objects), mask_request(**changes))
    assert (given["error"], given["source"]["key"]) == (error, "a.png")
    assert not objects.keys("work")


@pytest.mark.parametrize(("failures", "outcome"), [(2, "key"), (3, "error")])
def test_a_passing_error_of_an_image_of_a_bulk_run_is_tried_again(disc_png: bytes, failures: int, outcome: str) -> None:
    class Throttled(Objects):
        def get_object(self, **request: Any) -> dict[str, Any]:
            self.unavailable = {"a.png"} if self.calls["get"] < failures else set()
            return super().get_object(**request)

    objects = Throttled()
    objects.add("uploads", "a.png", disc_png)
    assert outcome in answer(batch_segmenter(objects), mask_request())
