"""The segmentation benchmark measures real work, and its masks match rembg's."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from bench.pictures import DatasetError
from bench.segmentation import masks, stages, worker
from bench.segmentation.inputs import Network, described, enlarged, jpeg, jpegs, photographs_of
from tests.fakes.scenes import disc


@pytest.fixture
def network(tmp_path: Path) -> Network:
    path = tmp_path / "networks" / "contrast.onnx"
    path.parent.mkdir()
    path.write_bytes(masks.contrast().SerializeToString())
    return described(path)


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
    from bench.segmentation.inputs import half

    batch = np.random.default_rng(1).normal(0, 1, (2, 3, 320, 320)).astype(np.float32)
    whole, halved = (one.loaded().predict(one.name, batch) for one in (network, half(network, tmp_path)))
    assert halved.dtype == np.float32
    assert np.abs(whole - halved).max() < 0.01


@pytest.mark.parametrize("megapixels", [None, 6.0])
@pytest.mark.parametrize(
    ("answer", "most"), [("brightness", (0.006, 0.045)), ("contrast", (0.004, 0.02))], ids=["brightness", "contrast"]
)
def test_masks_of_photographs_match_rembgs_within_a_tolerance(
    tmp_path: Path, answer: str, most: tuple[float, float], megapixels: float | None
) -> None:
    """docs/explanation/performance.md states these tolerances. The larger photographs use reduced JPEG decoding."""
    path = tmp_path / f"{answer}.onnx"
    path.write_bytes(masks.SMOOTH[answer]().SerializeToString())
    comparison = masks.Comparison(described(path))
    for name, rgb in photographs_of(None):
        found = comparison.differences(jpeg(enlarged(rgb, megapixels) if megapixels else rgb))
        assert found.input_mean < 2, name
        assert found.mask_mean < most[0], name
        assert found.mask_p99 < most[1], name
