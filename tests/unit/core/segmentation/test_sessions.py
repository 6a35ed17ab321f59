from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from core.errors import GpuUnavailableError, InvalidOptionsError, WeightsUnavailableError
from core.segmentation.sessions import Device, Networks
from tests.fakes.tiny_networks import SIDE, Directory, install, network


def networks(folder: Path, *, device: Device = Device.CPU, most: int = 1, **contents: bytes) -> Networks:
    registry = {name: install(folder, name, content) for name, content in contents.items()}
    return Networks(Directory(folder, registry), threads=1, device=device, most=most)


def pictures(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(count).normal(0, 1, (count, 3, SIDE, SIDE)).astype(np.float32)


@pytest.mark.parametrize("batch", ["n", 1, 2], ids=["of any size", "of one", "of two"])
@pytest.mark.parametrize("count", [2, 3])
def test_a_batch_is_predicted_picture_by_picture_whatever_the_network_was_exported_for(
    tmp_path: Path, batch: int | str, count: int
) -> None:
    found = networks(tmp_path, net=network(batch=batch, gain=2.0)).predict("net", pictures(count))
    assert found.shape == (count, SIDE, SIDE)
    assert found.dtype == np.float32
    assert np.allclose(found, 2.0 * pictures(count).mean(axis=1), atol=1e-6)


def test_a_network_in_half_precision_is_fed_it_and_gives_single_precision(tmp_path: Path) -> None:
    found = networks(tmp_path, net=network(dtype=TensorProto.FLOAT16)).predict("net", pictures(3))
    assert found.dtype == np.float32
    assert np.allclose(found, pictures(3).mean(axis=1), atol=2e-3)


@pytest.mark.parametrize(("most", "kept"), [(1, []), (2, ["first"]), (3, ["first", "second"])])
def test_the_last_used_networks_stay_in_memory_and_no_others(tmp_path: Path, most: int, kept: list[str]) -> None:
    contents = {name: network(gain=gain) for gain, name in enumerate(["first", "second", "third"])}
    loaded = networks(tmp_path, most=most, **contents)
    for name in ["second", "first", "third"]:
        loaded.load(name)
    for name in contents:
        (tmp_path / f"{name}.onnx").unlink()
    for name in ["third", *kept]:
        loaded.predict(name, pictures(1))
    for name in {"first", "second"} - set(kept):
        with pytest.raises(WeightsUnavailableError):
            loaded.predict(name, pictures(1))


def test_a_network_that_was_let_go_is_loaded_again(tmp_path: Path) -> None:
    loaded = networks(tmp_path, up=network(), down=network(gain=-1.0))
    expected = pictures(1).mean(axis=1)
    for name, sign in [("up", 1), ("down", -1), ("up", 1)]:
        assert np.allclose(loaded.predict(name, pictures(1)), sign * expected, atol=1e-6)


def test_threads_that_push_each_others_networks_out_each_get_their_own_prediction(tmp_path: Path) -> None:
    names = [f"net-{gain}" for gain in range(4)]
    loaded = networks(tmp_path, most=2, **{name: network(gain=float(name[-1])) for name in names})

    def predict(number: int) -> bool:
        batch = pictures(number % 3 + 1)
        gain = number % 4
        return np.allclose(loaded.predict(f"net-{gain}", batch), gain * batch.mean(axis=1), atol=1e-5)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(predict, range(64)))


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this build of ONNX Runtime has CUDA"
)
def test_a_gpu_that_is_not_there_is_an_error_and_no_reason_to_use_the_cpu(tmp_path: Path) -> None:
    promised = networks(tmp_path, device=Device.CUDA, net=network())
    for use in (lambda: promised.load("net"), lambda: promised.predict("net", pictures(1))):
        with pytest.raises(GpuUnavailableError) as caught:
            use()
        assert (caught.value.field, caught.value.value) == ("PBR_DEVICE", "cuda")


def test_a_network_that_is_not_in_the_registry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidOptionsError):
        networks(tmp_path, net=network()).load("other")
