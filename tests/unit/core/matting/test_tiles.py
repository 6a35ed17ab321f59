import threading

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.matting.tiles import Tile, enlarge, on_each, shrink, split

SIDES = st.integers(1, 60)
CELLS = st.integers(1, 9)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)


@settings(deadline=None)
@given(height=SIDES, width=SIDES, tile_px=st.integers(1, 70))
def test_tiles_cover_every_pixel_once(height: int, width: int, tile_px: int) -> None:
    covered = np.zeros((height, width), int)
    for tile in split((height, width), tile_px):
        covered[tile.window] += 1
        assert tile.bottom - tile.top <= tile_px and tile.right - tile.left <= tile_px
    assert (covered == 1).all()


@settings(max_examples=30, deadline=None)
@given(height=SIDES, width=SIDES, tile_cells=st.integers(1, 5), cell_px=CELLS, margin_px=st.integers(0, 20))
def test_a_grown_tile_holds_its_margin_in_whole_cells(
    height: int, width: int, tile_cells: int, cell_px: int, margin_px: int
) -> None:
    picture = noise(height, width)
    for tile in split(picture.shape, tile_cells * cell_px):
        grown = tile.grown(margin_px, cell_px, picture.shape)
        assert grown.top % cell_px == 0 and grown.left % cell_px == 0
        assert grown.top <= max(0, tile.top - margin_px) and grown.bottom >= min(height, tile.bottom + margin_px)
        assert grown.left <= max(0, tile.left - margin_px) and grown.right >= min(width, tile.right + margin_px)
        np.testing.assert_array_equal(picture[grown.window][tile.inside(grown)], picture[tile.window])


@settings(max_examples=30, deadline=None)
@given(height=SIDES, width=SIDES, tile_cells=st.integers(1, 5), cell_px=CELLS)
def test_a_tile_of_the_grid_is_the_grid_of_the_tile(height: int, width: int, tile_cells: int, cell_px: int) -> None:
    picture = noise(height, width)
    grid = shrink(picture, cell_px)
    for tile in split(picture.shape, tile_cells * cell_px):
        np.testing.assert_allclose(grid[tile.cells(cell_px)], shrink(picture[tile.window], cell_px), atol=1e-6)


@settings(deadline=None)
@given(rows=st.integers(1, 150), columns=SIDES, cell_px=st.integers(1, 5))
def test_a_cell_holds_the_mean_of_its_pixels(rows: int, columns: int, cell_px: int) -> None:
    picture = noise(rows * cell_px, columns * cell_px, 3)
    means = picture.reshape(rows, cell_px, columns, cell_px, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(shrink(picture, cell_px), means, atol=1e-5)
    levels = np.rint(picture * 255).astype(np.uint8)
    assert shrink(levels, cell_px).dtype == np.uint8
    np.testing.assert_allclose(shrink(levels, cell_px), 255 * means, atol=1.1)


@settings(deadline=None)
@given(height=SIDES, width=SIDES, cell_px=CELLS)
def test_cells_that_the_edge_cuts_are_filled_with_its_last_pixels(height: int, width: int, cell_px: int) -> None:
    picture = noise(height, width)
    filled = np.pad(picture, [(0, -height % cell_px), (0, -width % cell_px)], mode="edge")
    small = shrink(picture, cell_px)
    assert small.shape == (-(-height // cell_px), -(-width // cell_px))
    np.testing.assert_allclose(small, shrink(filled, cell_px), atol=1e-6)


def test_a_cell_of_one_pixel_is_no_copy() -> None:
    picture = noise(5, 7)
    assert shrink(picture, 1) is picture
    assert enlarge(picture, 1) is picture


@settings(deadline=None)
@given(height=SIDES, width=SIDES, cell_px=CELLS)
def test_enlarging_stays_between_the_cells_values(height: int, width: int, cell_px: int) -> None:
    grid = noise(height, width)
    large = enlarge(grid, cell_px)
    assert large.shape == (height * cell_px, width * cell_px)
    assert grid.min() - 1e-6 <= large.min() and large.max() <= grid.max() + 1e-6
    np.testing.assert_allclose(large.mean(), grid.mean(), atol=1e-5)


@settings(deadline=None)
@given(height=st.integers(3, 40), width=st.integers(3, 40), cell_px=CELLS, slope=st.floats(-1, 1))
def test_a_ramp_survives_shrinking_and_enlarging(height: int, width: int, cell_px: int, slope: float) -> None:
    y, x = np.mgrid[0 : height * cell_px, 0 : width * cell_px]
    ramp = ((x + slope * y) / 100).astype(np.float32)
    inner = slice(cell_px, -cell_px)
    np.testing.assert_allclose(enlarge(shrink(ramp, cell_px), cell_px)[inner, inner], ramp[inner, inner], atol=1e-4)


def test_results_come_in_the_order_of_the_tiles() -> None:
    tiles = list(split((90, 70), 10))
    later = threading.Event()

    def work(tile: Tile) -> Tile:
        if tile is tiles[0] and cv2.getNumThreads() > 1:
            assert later.wait(timeout=30)
        later.set()
        return tile

    assert on_each(iter(tiles), work) == tiles
    assert on_each([], work) == []


def test_what_the_work_raises_comes_out() -> None:
    def work(tile: Tile) -> int:
        if tile.top == 20:
            raise MemoryError("of the third row")
        return tile.top

    with pytest.raises(MemoryError, match="of the third row"):
        on_each(split((40, 10), 10), work)
