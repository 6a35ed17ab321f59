import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.matting.tiles import Tile
from core.matting.trimap import find_band


@pytest.mark.parametrize("value", [0.0, 0.04, 0.96, 1.0])
def test_a_certain_mask_has_no_band(value: float) -> None:
    band = find_band(np.full((9, 9), value, np.float32), cell_px=4, shape=(36, 36), margin_px=8)
    assert band.share == 0
    assert list(band.tiles(16)) == []


@pytest.mark.parametrize("value", [0.05, 0.3, 0.49])
def test_the_band_reaches_the_margin_around_what_is_uncertain(value: float) -> None:
    mask = np.zeros((15, 15), np.float32)
    mask[7, 7] = value
    band = find_band(mask, cell_px=4, shape=(60, 60), margin_px=10)  # three cells, the last not in full
    expected = np.zeros((15, 15), np.bool_)
    expected[4:11, 4:11] = True
    np.testing.assert_array_equal(band.cells, expected)
    assert band.share == pytest.approx(49 / 225)


def test_a_hard_edge_between_two_cells_is_uncertain() -> None:
    mask = np.zeros((9, 9), np.float32)
    mask[:, 5:] = 1
    assert find_band(mask, cell_px=1, shape=(9, 9), margin_px=0).cells[4, 4:6].all()


@settings(deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), cell_px=st.integers(1, 5), seed=st.integers(0, 9))
def test_the_tiles_hold_every_uncertain_pixel_and_say_which(height: int, width: int, cell_px: int, seed: int) -> None:
    cells = (-(-height // cell_px), -(-width // cell_px))
    mask = (np.random.default_rng(seed).uniform(0, 1, cells) > 0.97).astype(np.float32) / 2
    band = find_band(mask, cell_px=cell_px, shape=(height, width), margin_px=1)
    whole = np.kron(band.cells, np.ones((cell_px, cell_px), np.uint8))[:height, :width]
    np.testing.assert_array_equal(band.within(Tile(0, height, 0, width)), whole)
    for tile in band.tiles(2 * cell_px):
        assert band.within(tile).any()
        np.testing.assert_array_equal(band.within(tile), whole[tile.window])
        whole[tile.window] = 0
    assert not whole.any()
