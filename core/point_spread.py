"""How a mask came about: through what blur its network saw the picture, and how well that explains the mask.

A network's mask is the true alpha seen through the network's own blur, its point spread function. A picture
that is blurred alike then explains the mask, window by window, as a linear function of its colours; the blur
for which it does so best is the network's, and what remains unexplained says how far the mask is to be trusted:
nothing but noise for a sound mask, a few hundredths for one that was sharpened or thresholded, a tenth and more
for one whose edge lies beside the picture's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from core.guided_filter import Guide, LocalLinearModel, Plane
from core.tiles import Tile, split

_SIGMAS: Final = (0.3, 0.6, 0.9, 1.3, 1.8, 2.5)
"""Tried, in pixels of the mask. Networks that are sound give 0.7 to 1."""

_RADIUS: Final = 2.5
"""Of the windows, in pixels of the mask."""

_EDGE_VARIANCE: Final = 0.02
"""Variance of the mask in a window from which on it holds an edge."""

_PERCENTILES: Final = (25, 5)
"""Of the edge's windows, for the blur and for trust; many may be of one colour on both sides, and say nothing."""

_TILE_CELLS: Final = 64
_MAX_TILES: Final = 12


@dataclass(frozen=True)
class PointSpread:
    """What was measured.

    Attributes:
        sigma: of the Gaussian nearest to the network's blur, in pixels of the mask.
        unexplained: share of the mask's variance along its edge that the picture, blurred so, does not explain.
    """

    sigma: float
    unexplained: float


def measure(guide: Guide, mask: Plane, pixel_cells: tuple[float, float], epsilon: float) -> PointSpread | None:
    """Measure on up to twelve tiles, evenly spread over those that hold an edge of the mask.

    Args:
        guide: the picture on a grid, channels of h x w float32 in [0, 1].
        mask: the mask on the same grid, h x w float32 in [0, 1].
        pixel_cells: height and width of one of the mask's own pixels, in cells of the grid.
        epsilon: the variance of the guide below which a window counts as flat.

    Returns:
        The measurement, or None if the mask has no edge.
    """
    radius = max(1, round(_RADIUS * (pixel_cells[0] * pixel_cells[1]) ** 0.5))
    tiles = list(_edge_tiles(mask))
    tiles = tiles[:: -(-len(tiles) // _MAX_TILES)] if tiles else []
    shares: list[tuple[float, float]] = []
    for sigma in _SIGMAS:
        down, across = (sigma * cells for cells in pixel_cells)
        found = [
            _unexplained(guide, mask, tile, radius, epsilon, sigma_down=down, sigma_across=across) for tile in tiles
        ]
        share = np.concatenate(found) if found else np.empty(0, np.float32)
        if not share.size:
            return None
        quartile, best = np.percentile(share, _PERCENTILES)
        shares.append((float(quartile), float(best)))
    return _lowest(shares)


def _edge_tiles(mask: Plane) -> Iterator[Tile]:
    edge = cv2.morphologyEx((mask >= 0.5).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    height, width = mask.shape
    return (tile for tile in split((height, width), _TILE_CELLS) if edge[tile.window].any())


def _unexplained(
    guide: Guide, mask: Plane, tile: Tile, radius: int, epsilon: float, *, sigma_down: float, sigma_across: float
) -> Plane:
    """Return, for the windows of a tile that hold an edge, the share of variance that is not explained."""
    height, width = mask.shape
    margin = radius + int(np.ceil(3 * max(sigma_down, sigma_across)))
    around = tile.grown(margin, 1, (height, width))
    red, green, blue = (
        np.asarray(cv2.GaussianBlur(channel[around.window], (0, 0), sigmaX=sigma_across, sigmaY=sigma_down))
        for channel in guide
    )
    fit = LocalLinearModel((red, green, blue), radius, epsilon).fit_with_misfit(mask[around.window])
    inside = tile.inside(around)
    variance, misfit = fit.variance[inside], fit.misfit[inside]
    edge = variance > _EDGE_VARIANCE
    share: Plane = misfit[edge] / variance[edge]
    return share


def _lowest(shares: list[tuple[float, float]]) -> PointSpread:
    """Return the vertex of the parabola, over the logarithm of sigma, through the lowest share and its neighbours."""
    lowest = shares.index(min(shares))
    sigma, unexplained = _SIGMAS[lowest], shares[lowest][1]
    if 0 < lowest < len(shares) - 1:
        around = slice(lowest - 1, lowest + 2)
        curve, slope, _ = np.polyfit(np.log(_SIGMAS[around]), [quartile for quartile, _ in shares[around]], 2)
        sigma = float(np.exp(-slope / (2 * curve)))
    return PointSpread(sigma, unexplained)
