"""The benchmark's network equals the published one except for its weights."""

import numpy as np
import onnx
import onnxruntime
import pytest

from bench.segmentation import u2net


@pytest.fixture(scope="module")
def small() -> onnx.ModelProto:
    return u2net.build("u2netp")


def run(model: onnx.ModelProto, batch: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": batch})


def test_u2netp_has_as_many_parameters_as_published(small: onnx.ModelProto) -> None:
    assert u2net.parameters(small) == u2net.PARAMETERS["u2netp"] == 1_131_181


def test_u2net_has_as_many_parameters_as_published() -> None:
    assert u2net.parameters(u2net.build("u2net")) == u2net.PARAMETERS["u2net"] == 44_009_869


def test_file_size_matches_rembgs_within_one_percent(small: onnx.ModelProto) -> None:
    from core.segmentation.registry import MODELS

    assert small.ByteSize() == pytest.approx(MODELS["u2netp"].bytes, rel=0.01)


def test_batch_gives_the_same_predictions_as_single_pictures(small: onnx.ModelProto) -> None:
    batch = np.random.default_rng(1).normal(0, 1, (2, 3, u2net.INPUT_PX, u2net.INPUT_PX)).astype(np.float32)
    together = run(small, batch)
    assert [output.shape for output in together] == [(2, 1, u2net.INPUT_PX, u2net.INPUT_PX)] * 7
    alone = run(small, batch[1:])
    assert np.abs(together[0][1] - alone[0][0]).max() < 1e-3


def test_equal_seeds_give_equal_networks_with_varied_predictions(small: onnx.ModelProto) -> None:
    assert u2net.build("u2netp").SerializeToString() == small.SerializeToString()
    picture = np.random.default_rng(2).normal(0, 1, (1, 3, 5, 5)).astype(np.float32).repeat(64, 2).repeat(64, 3)
    [answer, *_] = run(small, picture)
    assert 0 <= answer.min() < 0.3
    assert 0.7 < answer.max() <= 1
