"""A doubtful mask and its second attempt: the project's template with a heavier model that finds red objects."""

import json
from collections.abc import Iterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from embedded_cloud.cloud import EmbeddedCloud
from tests.conftest import ROOT, disc, file_of
from tests.integration.deployment import Deployed
from tests.integration.state_machine.test_bulk import json_lines, manifest, run

pytestmark = pytest.mark.slow  # a cloud of its own; tests/integration/state_machine mocks an escalation, too

HEAVIER = "reddest"
MISSING = "missing"
DOWNLOADED = {host: f"{host}-{uuid4().hex[:8]}" for host in ("lambda", "ecs", "sagemaker", "bulk")}
"""Models by the host that downloads them."""

SIDE = 320
GREEN, RED = (60, 200, 80), (210, 60, 50)
ATTEMPT = ["ChooseSegmenter", "SegmentOnLambda", "Refine", "NeedsEscalation?"]


def red_finder() -> bytes:
    """A network whose logits are high where red is well above blue, and low elsewhere."""
    red_over_blue = np.array([40, 0, -40], np.float32).reshape(1, 3, 1, 1)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weights", "bias"], ["logits"])],
        "red",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1, SIDE, SIDE])],
        [numpy_helper.from_array(red_over_blue, "weights"), numpy_helper.from_array(np.float32([-10]), "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return model.SerializeToString()


def ten_discs(*, red_radius: int = 0, seed: int = 1) -> bytes:
    """Ten discs, too many for one subject: all green, unless the fifth is to be red and of that radius."""
    rgb = np.full((240, 320, 3), (60, 70, 110), np.uint8)
    for number in range(10):
        centre = 60 + 50 * (number % 5), 50 + 70 * (number // 5)
        red = red_radius and number == 4
        cv2.circle(rgb, centre, red_radius if red else 20, RED if red else GREEN, -1, cv2.LINE_AA)
    grain = np.random.default_rng(seed).normal(0, 4, rgb.shape)
    return file_of(Image.fromarray((rgb + grain).clip(0, 255).astype(np.uint8)), "PNG")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """A stack that tries a doubtful mask of the classical segmenter once more.

    Its functions, its worker and its endpoint download weights from the bucket ``weights`` into one directory of this
    machine, so there is a model for each of them.
    """
    weights, content = tmp_path_factory.mktemp("models") / f"{HEAVIER}.onnx", red_finder()
    weights.write_bytes(content)
    facts = {
        "sha256": sha256(content).hexdigest(),
        "bytes": len(content),
        "input_px": SIDE,
        "logits": True,
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
    }
    custom = [
        {"name": HEAVIER, "uri": weights.as_uri(), **facts},
        *({"name": name, "uri": f"s3://weights/{name}.onnx", **facts} for name in (*DOWNLOADED.values(), MISSING)),
    ]
    parameters = {
        "DefaultModel": "classical",
        "EscalateOnReview": "true",
        "EscalationModel": HEAVIER,
        "ModelDirectory": str(weights.parent),
        "ModelBucket": "weights",
        "CustomModels": json.dumps(custom),
        "WorkerImageUri": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/background-remover:1",
        "SageMakerImageUri": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/background-remover:1",
        "SageMakerMode": "async",
    }
    with EmbeddedCloud(ROOT / "template.yaml", parameters, retry_pace=0.01) as cloud:
        deployed = Deployed(cloud)
        deployed.s3.create_bucket(Bucket="weights", CreateBucketConfiguration={"LocationConstraint": cloud.region})
        for name in DOWNLOADED.values():
            deployed.s3.put_object(Bucket="weights", Key=f"{name}.onnx", Body=content)
        yield deployed
    for name in DOWNLOADED.values():
        Path("/tmp/models", f"{name}.onnx").unlink(missing_ok=True)


def objects(stack: Deployed, cache_key: str) -> set[str]:
    listed = stack.s3.list_objects_v2(Bucket=stack.outputs["WorkBucket"], Prefix=f"work/{cache_key}/")
    return {entry["Key"].removeprefix(f"work/{cache_key}/") for entry in listed["Contents"]}


def alpha(stack: Deployed, key: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(BytesIO(stack.result(key))).getchannel("A"))


def test_a_better_second_attempt_becomes_the_result(stack: Deployed) -> None:
    ended = stack.process("second.png", ten_discs(red_radius=20))
    assert ended.status == "SUCCEEDED", ended.cause
    assert ended.states[2:] == [
        *ATTEMPT,
        "Escalate",
        *ATTEMPT,
        *("Encode", "SaveCache", "PublishMetrics", "Outcome?", "Done"),
    ]
    escalation = ended.output["escalation"]
    assert (escalation["model"], escalation["kept"], escalation["error"]) == (HEAVIER, "second", None)
    assert escalation["score"]["second"] == ended.output["quality"]["score"] > escalation["score"]["first"]
    assert ended.output["model"]["name"] == HEAVIER and ended.output["options"]["model"] == "classical"
    assert ended.output["timings_s"].keys() == {"validate", "segment", "refine", "escalation", "encode"}
    assert not any("neural network" in warning for warning in ended.output["warnings"]), "that was the first attempt"
    assert objects(stack, ended.output["cache"]["key"]) == {
        *("mask.png", "alpha.png"),
        *("second/mask.png", "second/alpha.png"),
    }, "neither attempt overwrites the other"
    cut_out = alpha(stack, "results/second.png.png")
    assert cut_out[50, 260] == 255 and cut_out[50, 60] == 0, "the red disc, and no green one"


def test_a_second_attempt_that_is_no_better_is_discarded_and_there_is_no_third(stack: Deployed) -> None:
    ended = stack.process("first.png", ten_discs(red_radius=8))
    assert ended.status == "SUCCEEDED", ended.cause
    assert ended.states.count("Escalate") == 1
    escalation = ended.output["escalation"]
    assert (escalation["model"], escalation["kept"], escalation["error"]) == (HEAVIER, "first", None)
    assert ended.output["quality"]["review"] is True
    assert escalation["score"]["first"] == ended.output["quality"]["score"] > escalation["score"]["second"]
    assert ended.output["model"]["name"] == "classical"
    assert alpha(stack, "results/first.png.png")[50, 60] == 255, "a green disc"


def test_a_second_attempt_that_fails_leaves_the_first_to_be_delivered(stack: Deployed) -> None:
    ended = stack.process("fails.png", ten_discs())
    assert ended.status == "SUCCEEDED", ended.cause
    assert ended.states[ended.states.index("Escalate") + 1 :][:5] == [
        *("ChooseSegmenter", "SegmentOnLambda", "SecondAttempt?", "KeepFirstAttempt", "Encode"),
    ]
    assert ended.output["escalation"] == {
        "model": HEAVIER,
        "kept": "first",
        "score": {"first": ended.output["quality"]["score"]},
        "error": {"stage": "SegmentOnLambda", "error": "UnknownForegroundError"},
    }
    assert ended.output["model"]["name"] == "classical" and ended.output["degraded"] is False
    assert any(HEAVIER in warning and "UnknownForegroundError" in warning for warning in ended.output["warnings"])
    assert alpha(stack, "results/fails.png.png")[50, 60] == 255, "a green disc"


def test_both_attempts_run_on_the_requested_host(stack: Deployed) -> None:
    ended = stack.process("host.png", ten_discs(red_radius=20, seed=5), {"pbr-segmentation-host": "sagemaker"})
    assert ended.status == "SUCCEEDED", ended.cause
    assert ended.states.count("SegmentOnSageMakerAsync") == 2 and "SegmentOnLambda" not in ended.states
    assert (ended.output["model"]["name"], ended.output["model"]["host"]) == (HEAVIER, "sagemaker")
    assert ended.output["escalation"]["kept"] == "second" and ended.output["degraded"] is False


def test_the_result_of_two_attempts_is_served_from_the_cache(stack: Deployed) -> None:
    first = stack.process("cached/1.png", ten_discs(red_radius=20, seed=2))
    again = stack.process("cached/2.png", ten_discs(red_radius=20, seed=2))
    assert again.output["cache"]["hit"] is True
    assert again.output["escalation"] == first.output["escalation"]


def test_a_good_mask_is_not_tried_again(stack: Deployed) -> None:
    ended = stack.process("sound.png", disc(seed=50))
    assert "Escalate" not in ended.states
    assert ended.output["escalation"] is None


def test_the_heavier_model_is_used_at_once_if_requested(stack: Deployed) -> None:
    ended = stack.process("at-once.png", ten_discs(red_radius=20, seed=4), {"pbr-model": HEAVIER})
    assert ended.output["model"]["name"] == HEAVIER
    assert ended.states.count("SegmentOnLambda") == 1


def test_an_explicitly_requested_model_is_never_escalated(stack: Deployed) -> None:
    ended = stack.process("named.png", ten_discs(seed=3), {"pbr-model": "classical"})
    assert ended.output["quality"]["review"] is True
    assert "Escalate" not in ended.states
    assert ended.output["escalation"] is None


@pytest.mark.parametrize("host", ["lambda", "ecs", "sagemaker"])
def test_each_host_downloads_weights_from_the_model_bucket(stack: Deployed, host: str) -> None:
    options = {"pbr-model": DOWNLOADED[host], "pbr-segmentation-host": host}
    ended = stack.process(f"downloaded/{host}.png", ten_discs(red_radius=20, seed=6), options)
    assert ended.status == "SUCCEEDED", ended.cause
    assert (ended.output["model"]["name"], ended.output["model"]["host"]) == (DOWNLOADED[host], host)


@pytest.mark.parametrize("host", ["ecs", "sagemaker"])
def test_weights_that_are_not_in_the_model_bucket_are_named(stack: Deployed, host: str) -> None:
    options = {"pbr-model": MISSING, "pbr-segmentation-host": host}
    ended = stack.process(f"missing/{host}.png", ten_discs(red_radius=20, seed=7), options)
    assert (ended.error, ended.states.count("SegmentOnLambda")) == ("WeightsUnavailableError", 1)
    failed = [event["taskFailedEventDetails"]["cause"] for event in ended.events if "taskFailedEventDetails" in event]
    causes = [cause for cause in failed if "WeightsUnavailableError" in cause]
    assert len(causes) >= 2, "of the host, and of Lambda"
    assert all(f"s3://weights/{MISSING}.onnx: NoSuchKey" in cause for cause in causes), causes
    assert f"s3://weights/{MISSING}.onnx: NoSuchKey" in stack.report(f"missing/{host}.png")["message"]


def test_a_bulk_run_downloads_weights_from_the_model_bucket(stack: Deployed) -> None:
    for name in ("there", "missing"):
        stack.upload(f"bulk/{name}.png", ten_discs(red_radius=20, seed=8))
    models = {"bulk/there.png": DOWNLOADED["bulk"], "bulk/missing.png": MISSING}
    rows = json_lines(*({"key": key, "options": {"model": model}} for key, model in models.items()))
    ended = run(stack, manifest(stack, "list.jsonl", rows), child="express", options={"segmentation_host": "lambda"})
    assert ended.statuses == {"bulk/there.png": "done", "bulk/missing.png": "failed"}
    assert f"s3://weights/{MISSING}.onnx: NoSuchKey" in ended.rows["bulk/missing.png"]["message"]
