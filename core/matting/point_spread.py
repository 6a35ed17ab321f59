"""Measure the blur of a mask and how far the mask can be trusted.

A network's mask is the true alpha, blurred by the network's point spread function. In every window, the mask is then a
linear function of the colors of the image with the same blur. The blur with the best fit is the network's, and the
unexplained share measures trust: only noise for a sound mask, a few hundredths for one that was sharpened or
thresholded, a tenth and more for one whose edge is displaced.
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
"""Candidates, in pixels of the mask; the search starts at the usual one and goes downhill."""

_USUAL: Final = 2

_RADIUS: Final = 2.5
"""Of the windows, in pixels of the mask."""

_EDGE_VARIANCE: Final = 0.02
"""Least variance of the mask in a window with an edge."""

_PERCENTILES: Final = (25, 5)
"""Of the edge's windows, for blur and trust; many windows have the same color on both sides and are no evidence."""

_TILE_CELLS: Final = 64
_MAX_TILES: Final = 12


@dataclass(frozen=True)
class PointSpread:
    """Result of the measurement.

    Attributes:
        sigma: of the Gaussian closest to the network's blur, in pixels of the mask.
        unexplained: share of the mask's variance along its edge that the blurred image does not explain.
    """

    sigma: float
    unexplained: float


class _Shares(NamedTuple):
    """Unexplained share for one blur, at two percentiles of the edge's windows."""

    quartile: float
    lowest: float


def measure(guide: Guide, mask: Plane, pixel_cells: tuple[float, float], epsilon: float) -> PointSpread | None:
    """Measure on up to twelve tiles, evenly spread over those with an edge of the mask.

    Args:
        guide: the image on a grid, channels of h x w float32 in [0, 1].
        mask: the mask on the same grid, h x w float32 in [0, 1].
        pixel_cells: height and width of one of the mask's own pixels, in cells of the grid.
        epsilon: the variance of the guide below which a window counts as flat.

    Returns:
        The measurement, or None if the mask is too blurred or has no edge.
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
    """Return the unexplained shares for a blur in the windows with an edge, or None if there are none."""
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
