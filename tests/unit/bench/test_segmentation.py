"""The segmentation benchmark measures real work, and its masks match rembg's."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from bench.pictures import DatasetError
from bench.segmentation import inputs, masks, stages, worker
from bench.segmentation.inputs import Network, enlarged, half, jpeg, jpegs, photographs_of
from core.segmentation.registry import MODELS
from core.segmentation.segment import prepare
from tests.fakes.scenes import disc


@pytest.fixture(scope="module")
def network() -> Network:
    return inputs.network("u2netp")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(jpeg(disc(240, 320).rgb))
    return folder


def test_photographs_have_the_requested_size(tmp_path: Path) -> None:
    files = sorted(jpegs(0.5, None, tmp_path).iterdir())
    assert len(files) >= 12
    for file in files[:4]:
        height, width = cv2.imread(str(file)).shape[:2]
        assert height * width == pytest.approx(0.5e6, rel=0.01)
    assert len({file.read_bytes() for file in files[:4]}) == 4


def test_photographs_are_read_from_a_folder_and_an_empty_folder_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(np.full((20, 30, 3), 99, np.uint8)))
    (tmp_path / "notes.txt").write_text("none")
    [(name, rgb)] = photographs_of(tmp_path)
    assert (name, rgb.shape) == ("a.jpg", (20, 30, 3))
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(DatasetError, match="no photographs"):
        list(photographs_of(tmp_path))


@pytest.mark.parametrize("batch", [1, 2])
def test_every_call_of_the_worker_processes_all_jobs(network: Network, folder: Path, batch: int) -> None:
    call = worker.prepare(network, folder, 5, batch)
    call()
    call()


def test_failed_job_stops_the_measurement(network: Network, folder: Path) -> None:
    for file in folder.iterdir():
        file.write_bytes(jpeg(np.zeros((100, 100, 3), np.uint8))[:-100])
    with pytest.raises(worker.JobFailedError, match="image"):
        worker.prepare(network, folder, 5)


@pytest.mark.parametrize("batch", [1, 2])
def test_all_stages_of_our_segmentation_are_timed(network: Network, folder: Path, batch: int) -> None:
    took = stages.ours(network, folder, 3, batch)()
    assert min(took) > 0
    assert took.total == pytest.approx(sum(took))


def test_all_stages_of_rembgs_segmentation_are_timed(network: Network, folder: Path) -> None:
    assert min(stages.rembgs(network, folder, 2, only_mask=True)()) > 0


def test_half_precision_network_predicts_nearly_the_same(network: Network, tmp_path: Path) -> None:
    batch = np.stack([prepare(rgb, network.name, MODELS).pixels for _, rgb in photographs_of(None)])
    whole, halved = (one.loaded().predict(one.name, batch) for one in (network, half(network, tmp_path)))
    assert halved.dtype == np.float32
    assert np.abs(whole - halved).mean() < 0.005


@pytest.mark.parametrize("megapixels", [None, 6.0])
def test_masks_of_photographs_match_rembgs_within_a_tolerance(network: Network, megapixels: float | None) -> None:
    """docs/explanation/performance.md states the tolerance. The larger photographs use reduced JPEG decoding."""
    comparison = masks.Comparison(network)
    for name, rgb in photographs_of(None):
        found = comparison.differences(jpeg(enlarged(rgb, megapixels) if megapixels else rgb))
        assert found.input_mean < 2, name
        assert found.mask_mean < 0.03, name
