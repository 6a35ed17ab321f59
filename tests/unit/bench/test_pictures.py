"""Synthetic pictures match their descriptions; datasets are validated."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from bench.pictures import DatasetError, GroundTruth, dataset, synthetic


@pytest.fixture(scope="module")
def pictures() -> dict[str, GroundTruth]:
    return {truth.name: truth for truth in synthetic()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset of two pictures, 8 x 6, written in reverse order of their names."""
    for number, name in enumerate(("b.png", "a.png")):
        for part, shape in (("input", (6, 8, 3)), ("alpha", (6, 8)), ("trimap1", (6, 8)), ("trimap2", (6, 8))):
            (tmp_path / part).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / part / name), np.full(shape, 51 * (number + 1), np.uint8))
    return tmp_path


def test_synthetic_pictures_have_valid_alphas_and_trimaps(pictures: dict[str, GroundTruth]) -> None:
    assert len(pictures) >= 8
    for truth in pictures.values():
        assert truth.rgb.dtype == np.uint8
        assert truth.alpha.dtype == np.float32
        assert truth.rgb.shape == (*truth.alpha.shape, 3)
        assert 0.4e6 < truth.alpha.size < 1.1e6
        assert truth.alpha.min() == 0
        assert truth.alpha.max() == pytest.approx(1, abs=1e-6)
        trimap = truth.trimaps["trimap1"]
        assert set(np.unique(trimap)) == {0, 128, 255}
        np.testing.assert_allclose(truth.alpha[trimap == 255], 1, atol=0.01)
        np.testing.assert_allclose(truth.alpha[trimap == 0], 0, atol=0.01)


def test_equal_seeds_give_equal_pictures(pictures: dict[str, GroundTruth]) -> None:
    first = next(synthetic())
    np.testing.assert_array_equal(first.rgb, pictures[first.name].rgb)
    assert not np.array_equal(first.rgb, next(synthetic(seed=1)).rgb)


def test_scenes_have_the_structure_that_they_are_named_after(pictures: dict[str, GroundTruth]) -> None:
    soft = {name: ((truth.alpha > 0.02) & (truth.alpha < 0.98)).mean() for name, truth in pictures.items()}
    assert soft["smooth"] < 0.02 < 0.2 < soft["hair"]
    translucent = (pictures["glass"].alpha > 0.2) & (pictures["glass"].alpha < 0.65)
    assert translucent.mean() > 0.1
    background = (pictures["lattice"].alpha < 0.02).astype(np.uint8)
    assert cv2.connectedComponents(background, connectivity=4)[0] > 200


def test_background_is_unchanged_outside_the_subject(pictures: dict[str, GroundTruth]) -> None:
    one, other = next(synthetic(seed=2)), pictures["hair"]
    outside = (one.alpha == 0) & (other.alpha == 0)
    difference = one.rgb[outside].astype(int) - other.rgb[outside]
    assert difference.std() < 4  # noise of 0.006 * 255 in both pictures


def test_dataset_is_read_in_the_order_of_names(folder: Path) -> None:
    first, second = dataset(folder)
    assert (first.name, second.name, first.kind) == ("a", "b", "photograph")
    np.testing.assert_allclose(first.alpha, 102 / 255)
    assert first.rgb.shape == (6, 8, 3)
    assert first.trimaps.keys() == {"trimap1", "trimap2"}


def test_dataset_needs_no_trimaps(folder: Path) -> None:
    for part in ("trimap1", "trimap2"):
        (folder / part).rename(folder / f"no-{part}")
    assert [dict(truth.trimaps) for truth in dataset(folder)] == [{}, {}]


def test_invalid_dataset_is_rejected_with_the_reason(folder: Path) -> None:
    with pytest.raises(DatasetError, match="no pictures"):
        dataset(folder / "alpha")
    (folder / "trimap2" / "a.png").unlink()
    with pytest.raises(DatasetError, match=r"trimap2 lacks a\.png"):
        dataset(folder)
    (folder / "trimap2" / "a.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"a\.png is not a picture"):
        list(dataset(folder))
    cv2.imwrite(str(folder / "trimap2" / "a.png"), np.zeros((5, 5), np.uint8))
    with pytest.raises(DatasetError, match=r"trimap2/a\.png is \(5, 5\), but input/a\.png is \(8, 6\)"):
        list(dataset(folder))
