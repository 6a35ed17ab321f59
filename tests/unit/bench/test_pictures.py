"""Datasets and masks of networks are read and validated."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from bench.pictures import DatasetError, dataset, network_masks


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset of two pictures, 8 x 6, written in reverse order of their names."""
    for number, name in enumerate(("b.png", "a.png")):
        for part, shape in (("input", (6, 8, 3)), ("alpha", (6, 8))):
            (tmp_path / part).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / part / name), np.full(shape, 51 * (number + 1), np.uint8))
    return tmp_path


def test_dataset_is_read_in_the_order_of_names(folder: Path) -> None:
    first, second = dataset(folder)
    assert (first.name, second.name, first.kind) == ("a", "b", "photograph")
    np.testing.assert_allclose(first.alpha, 102 / 255)
    assert first.rgb.shape == (6, 8, 3)


def test_masks_of_a_picture_are_read_by_network(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.u2netp.png"), np.full((3, 4), 13107, np.uint16))
    cv2.imwrite(str(tmp_path / "a.isnet.png"), np.full((5, 6), 51, np.uint8))
    cv2.imwrite(str(tmp_path / "ab.u2netp.png"), np.full((3, 4), 0, np.uint16))
    masks = network_masks(tmp_path, "a")
    assert {name: mask.shape for name, mask in masks.items()} == {"u2netp": (3, 4), "isnet": (5, 6)}
    for mask in masks.values():
        assert mask.dtype == np.float32
        np.testing.assert_allclose(mask, 0.2)


def test_invalid_dataset_is_rejected_with_the_reason(folder: Path) -> None:
    with pytest.raises(DatasetError, match="no pictures"):
        dataset(folder / "alpha")
    (folder / "alpha" / "a.png").unlink()
    with pytest.raises(DatasetError, match=r"alpha lacks a\.png"):
        dataset(folder)
    (folder / "alpha" / "a.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"a\.png is not a picture"):
        list(dataset(folder))
    cv2.imwrite(str(folder / "alpha" / "a.png"), np.zeros((5, 5), np.uint8))
    with pytest.raises(DatasetError, match=r"alpha/a\.png is \(5, 5\), but input/a\.png is \(8, 6\)"):
        list(dataset(folder))
