"""Coarse grids and tiles, to process an image of any size in bounded memory.

A grid has square cells of ``cell_px`` pixels and starts at the image's top left corner; the cells at the right and
bottom may extend beyond the image.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

_Scalar = TypeVar("_Scalar", np.uint8, np.float32)
_Result = TypeVar("_Result")

_MAX_THREADS = 8
"""More threads hardly help, and each holds a tile's arrays."""

# glibc reuses freed memory only up to twice the largest block freed so far (mallopt(3), M_MMAP_THRESHOLD; 32 MiB at
# most). Without this untouched block, each tile's arrays would be new pages and take twice the time.
np.empty(31 * 2**20, np.uint8)


@dataclass(frozen=True)
class Tile:
    """A rectangle of pixels: ``top:bottom, left:right``."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Index of the rectangle in an array of the image's size."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def cells(self, cell_px: int) -> tuple[slice, slice]:
        """Index of the cells that cover the rectangle, which starts on a cell, in an array with one entry per cell."""
        return (
            slice(self.top // cell_px, -(-self.bottom // cell_px)),
            slice(self.left // cell_px, -(-self.right // cell_px)),
        )

    def grown(self, margin_px: int, cell_px: int, shape: tuple[int, int]) -> "Tile":
        """Return the rectangle with a margin of whole cells on each side, clipped to an image of ``shape``."""
        margin_px = -(-margin_px // cell_px) * cell_px
        return Tile(
            max(0, self.top - margin_px),
            min(shape[0], self.bottom + margin_px),
            max(0, self.left - margin_px),
            min(shape[1], self.right + margin_px),
        )

    def part(self, marked: NDArray[np.uint8], entry_px: int, cell_px: int) -> "Tile":
        """Return the smallest part on whole cells with all that is marked, or to the end of this tile.

        Args:
            marked: not 0 for at least one entry.
            entry_px: side of an entry of ``marked``.
            cell_px: side of a cell, a multiple of ``entry_px``; this tile starts on one.
        """
        left, top, width, height = (entry_px * side for side in cv2.boundingRect(marked))
        return Tile(
            self.top + top // cell_px * cell_px,
            min(self.bottom, self.top - (-(top + height) // cell_px) * cell_px),
            self.left + left // cell_px * cell_px,
            min(self.right, self.left - (-(left + width) // cell_px) * cell_px),
        )

    def inside(self, outer: "Tile") -> tuple[slice, slice]:
        """Index of this rectangle in an array that covers ``outer``."""
        return (
            slice(self.top - outer.top, self.bottom - outer.top),
            slice(self.left - outer.left, self.right - outer.left),
        )


def split(shape: tuple[int, int], tile_px: int) -> Iterator[Tile]:
    """Yield squares of ``tile_px`` that cover an image of that height and width, clipped to it."""
    height, width = shape
    for top in range(0, height, tile_px):
        for left in range(0, width, tile_px):
            yield Tile(top, min(top + tile_px, height), left, min(left + tile_px, width))


def on_each(tiles: Iterable[Tile], work: Callable[[Tile], _Result]) -> list[_Result]:
    """Call ``work`` with every tile, on as many threads as OpenCV uses; return the results in order.

    Calls run in any order, so none may read what another writes.
    """
    with ThreadPoolExecutor(min(cv2.getNumThreads(), _MAX_THREADS)) as pool:
        return list(pool.map(work, tiles))


def shrink(image: NDArray[_Scalar], cell_px: int) -> NDArray[_Scalar]:
    """Return the mean of every cell; cells at the image's edge are filled by repeating its last pixels.

    Args:
        image: H x W or H x W x channels; returned itself, not a copy, if ``cell_px`` is 1.
        cell_px: side of a cell.
    """
    if cell_px == 1:
        return image
    height, width = image.shape[:2]
    columns = -(-width // cell_px)
    small: NDArray[_Scalar] = np.empty((-(-height // cell_px), columns, *image.shape[2:]), image.dtype)
    strip_px = 64 * cell_px  # in strips, so that filling never copies the whole image
    for top in range(0, height, strip_px):
        rows = image[top : top + strip_px]
        bottom_px, right_px = -rows.shape[0] % cell_px, -width % cell_px
        if bottom_px or right_px:
            rows = np.asarray(cv2.copyMakeBorder(rows, 0, bottom_px, 0, right_px, cv2.BORDER_REPLICATE), image.dtype)
        count = rows.shape[0] // cell_px
        first = top // cell_px
        small[first : first + count] = cv2.resize(rows, (columns, count), interpolation=cv2.INTER_AREA)
    return small


def enlarge(coarse: NDArray[np.float32], cell_px: int) -> NDArray[np.float32]:
    """Return an array ``cell_px`` times as high and wide, interpolated linearly between the cells' centers."""
    if cell_px == 1:
        return coarse
    size = (coarse.shape[1] * cell_px, coarse.shape[0] * cell_px)
    return np.asarray(cv2.resize(coarse, size, interpolation=cv2.INTER_LINEAR), np.float32)
