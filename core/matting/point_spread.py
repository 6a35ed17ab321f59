"""How a mask came about: through what blur its network saw the picture, and how well that explains the mask.

A network's mask is the true alpha seen through the network's own blur, its point spread function. A picture
that is blurred alike then explains the mask, window by window, as a linear function of its colours; the blur
for which it does so best is the network's, and what remains unexplained says how far the mask is to be trusted:
nothing but noise for a sound mask, a few hundredths for one that was sharpened or thresholded, a tenth and more
for one whose edge lies beside the picture's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import cv2
import numpy as np

from core.matting.guided_filter import Guide, LocalLinearModel, Plane
from core.matting.tiles import Tile, split
from core.matting.trimap import find_edge

_SIGMAS: Final = (0.3, 0.6, 0.9, 1.3, 1.8, 2.5, 3.5)
"""Tried, in pixels of the mask, the usual one first and then downhill."""

_USUAL: Final = 2

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


class _Shares(NamedTuple):
    """The share that one blur leaves unexplained, at two percentiles of the edge's windows."""

    quartile: float
    lowest: float


def measure(guide: Guide, mask: Plane, pixel_cells: tuple[float, float], epsilon: float) -> PointSpread | None:
    """Measure on up to twelve tiles, evenly spread over those that hold an edge of the mask.

    Args:
        guide: the picture on a grid, channels of h x w float32 in [0, 1].
        mask: the mask on the same grid, h x w float32 in [0, 1].
        pixel_cells: height and width of one of the mask's own pixels, in cells of the grid.
        epsilon: the variance of the guide below which a window counts as flat.

    Returns:
        The measurement, or None if the mask is more blurred than that, or has no edge.
    """
    tiles = list(_edge_tiles(mask))
    tiles = tiles[:: -(-len(tiles) // _MAX_TILES) or 1]
    tried: dict[int, _Shares] = {}
    best = _USUAL
    while True:
        for candidate in range(max(0, best - 1), min(len(_SIGMAS), best + 2)):
            if candidate not in tried:
                shares = _shares(guide, mask, tiles, pixel_cells, epsilon, _SIGMAS[candidate])
                if shares is None:
                    return None
                tried[candidate] = shares
        lowest = min(tried, key=tried.__getitem__)
        if lowest == len(_SIGMAS) - 1:
            return None
        if lowest == best:
            return PointSpread(_vertex(best, tried), tried[best].lowest)
        best = lowest


def _edge_tiles(mask: Plane) -> Iterator[Tile]:
    edge = find_edge(mask)
    height, width = mask.shape
    return (tile for tile in split((height, width), _TILE_CELLS) if edge[tile.window].any())


def _shares(
    guide: Guide, mask: Plane, tiles: list[Tile], pixel_cells: tuple[float, float], epsilon: float, sigma: float
) -> _Shares | None:
    """Return what a blur leaves unexplained in the windows that hold an edge, or None if there are none."""
    height, width = mask.shape
    down, across = (sigma * cells for cells in pixel_cells)
    radius = max(1, round(_RADIUS * (pixel_cells[0] * pixel_cells[1]) ** 0.5))
    margin = radius + int(np.ceil(3 * max(down, across)))
    found = []
    for tile in tiles:
        around = tile.grown(margin, 1, (height, width))
        red, green, blue = (
            np.asarray(cv2.GaussianBlur(channel[around.window], (0, 0), sigmaX=across, sigmaY=down), np.float32)
            for channel in guide
        )
        fit = LocalLinearModel((red, green, blue), radius, epsilon).fit_with_misfit(mask[around.window])
        inside = tile.inside(around)
        variance, misfit = fit.variance[inside], fit.misfit[inside]
        edge = variance > _EDGE_VARIANCE
        found.append(misfit[edge] / variance[edge])
    share = np.concatenate(found) if found else np.empty(0, np.float32)
    if not share.size:
        return None
    quartile, lowest = np.percentile(share, _PERCENTILES)
    return _Shares(float(quartile), float(lowest))


def _vertex(best: int, tried: dict[int, _Shares]) -> float:
    """Return the sigma at the vertex of the parabola, over its logarithm, through the best and its neighbours."""
    around = [best - 1, best, best + 1]
    if not all(candidate in tried for candidate in around):
        return _SIGMAS[best]
    logarithms = np.log([_SIGMAS[candidate] for candidate in around])
    curve, slope, _ = np.polyfit(logarithms, [tried[candidate].quartile for candidate in around], 2)
    return float(np.exp(-slope / (2 * curve)))
