"""Trimap of a mask: known foreground, known background, and the uncertain band between them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from core.arrays import Mask
from core.matting.tiles import Tile, split

CERTAIN_FOREGROUND: Final = 0.96
"""Least value of a mask that is certainly foreground."""

CERTAIN_BACKGROUND: Final = 0.04
"""Largest value of a mask that is certainly background."""


@dataclass(frozen=True)
class Band:
    """The uncertain band, on a grid.

    ``cells`` is bool, one per cell of ``cell_px`` pixels; ``shape`` is the image's height and width.
    """

    cells: NDArray[np.bool_]
    cell_px: int
    shape: tuple[int, int]

    @property
    def share(self) -> float:
        """Share of the image that is uncertain, 0 to 1."""
        return float(self.cells.mean())

    def tiles(self, tile_px: int, aligned_px: int = 1) -> Iterator[Tile]:
        """Yield the uncertain pixels' parts of the squares of ``tile_px``, a multiple of ``cell_px``.

        Args:
            tile_px: side of a square.
            aligned_px: parts start on multiples of it, and of ``cell_px``; both are powers of two.
        """
        for tile in split(self.shape, tile_px):
            cells = self.cells[tile.cells(self.cell_px)]
            if cells.any():
                yield tile.part(cells.view(np.uint8), self.cell_px, max(aligned_px, self.cell_px))

    def within(self, tile: Tile) -> NDArray[np.uint8]:
        """Return 1 for each uncertain pixel of a tile that starts on a cell, else 0."""
        cells = self.cells[tile.cells(self.cell_px)].view(np.uint8)
        size = (cells.shape[1] * self.cell_px, cells.shape[0] * self.cell_px)
        pixels = np.asarray(cv2.resize(cells, size, interpolation=cv2.INTER_NEAREST), np.uint8)
        return pixels[: tile.bottom - tile.top, : tile.right - tile.left]


def find_band(mask: Mask, *, cell_px: int, shape: tuple[int, int], margin_px: int) -> Band:
    """Return the uncertain band of a mask.

    Args:
        mask: values in [0, 1], one per cell.
        cell_px: side of a cell, in pixels of the image.
        shape: the image's height and width, in pixels.
        margin_px: extent of the band beyond the mask's uncertain values, in pixels of the image.
    """
    uncertain = (mask > CERTAIN_BACKGROUND) & (mask < CERTAIN_FOREGROUND)
    # A hard edge between two cells leaves no value in between.
    uncertain |= find_edge(mask)
    side = 2 * max(1, -(-margin_px // cell_px)) + 1
    reach = cv2.dilate(uncertain.astype(np.uint8), np.ones((side, side), np.uint8))
    return Band(reach > 0, cell_px, shape)


def find_edge(mask: Mask) -> NDArray[np.bool_]:
    """Return the values on both sides of where a mask crosses 0.5."""
    neighbours = np.ones((3, 3), np.uint8)
    return np.asarray(cv2.morphologyEx((mask >= 0.5).astype(np.uint8), cv2.MORPH_GRADIENT, neighbours) > 0)
