"""From a network's small mask to an alpha at the picture's size."""

import math
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np

from core import closed_form, guided_filter
from core.errors import UnknownForegroundError
from core.guided_filter import Coefficients, Guide, LocalLinearModel, Plane
from core.tiles import enlarge, shrink
from core.trimap import CERTAIN_FOREGROUND, Band, find_band
from core.types import Alpha, Mask, Matte, Precision, Rgb

_TILE_PX: Final = 512
"""Side of the tiles in which the band is worked on; at reduced scale, where they need less, it is twice that."""

_MAX_CELLS: Final = 1_600_000
"""Largest grid that is held whole: it bounds the memory whatever the size of the picture."""

# The guided filter. Lengths in pixels of the mask, since it is the mask that is unsharp and off.
_PSF_SIGMA: Final = 0.9  # a network's mask is the true alpha, blurred by about so much
_RADIUS: Final = 2.5  # windows must reach from the mask's edge to the true one
_BAND_MARGIN: Final = 3.0  # hair leaves the mask by about so much
_EPSILON: Final = 3e-5  # noise of 1.4 of 255 levels is no edge
_SHRINKAGE: Final = 0.03  # the ridge keeps alpha by about so much away from 0 and 1

# The closed form.
_CONFIDENCE: Final = (0.05, 4.0)  # of the prior where it contradicts the mask, and where it explains it
_CONTRADICTION: Final = 0.05  # difference in alpha at which confidence is lost
_MARGIN_CELLS: Final = 16  # beyond a tile; with a prior everywhere, influence ends sooner than that
_MAX_ITERATIONS: Final = 40
_MAX_WORK: Final = 2_000_000_000  # cells times iterations: some minutes on one core


@dataclass(frozen=True)
class _Grid:
    """The coarse grid on which the guided filter is fitted.

    ``radius`` and ``psf_sigma`` (down, across; 0: no blur) are in cells, ``margin_px`` of the band in pixels.
    """

    cell_px: int
    radius: int
    psf_sigma: tuple[float, float]
    margin_px: int


def refine(rgb: Rgb, mask: Mask, *, precision: Precision = Precision.HIGH) -> Matte:
    """Solve for alpha in the uncertain band around the mask's edge; outside it the mask decides.

    Each level goes on from the one before:

    - draft: the mask, guided by the picture on a coarse grid (He and Sun, Fast Guided Filter, 2015);
    - standard: on a finer grid, fitted to the picture *blurred as the mask is* and applied to the sharp one,
      so that the mask's blur does not end up in alpha;
    - high: then closed-form matting (see ``core.closed_form``) at reduced scale, with standard's alpha as a
      prior that is trusted where, blurred, it gives the mask back;
    - ultra_high: then the closed form at full scale, with high's alpha as prior.

    Args:
        rgb: H x W x 3 uint8, sRGB, EXIF rotation applied.
        mask: h x w float32 in [0, 1]; any size, it is the network's and shows the whole picture.
        precision: how much work goes into the edge.

    Returns:
        Matte whose ``alpha`` is H x W float32 in [0, 1], 1 opaque. Its ``report`` has ``precision``,
        ``grid_px``, ``radius`` and ``psf_sigma`` (down and across; both in cells of that grid), ``band_share``
        (share of the picture that was solved for), ``tiles``, ``closed_form`` (for each scale its tiles and the
        most iterations that one took) and ``warnings``, which is empty unless a budget cut the work short.

    Raises:
        UnknownForegroundError: the mask holds no certain foreground.
    """
    if not (mask >= CERTAIN_FOREGROUND).any():
        raise UnknownForegroundError(
            "The mask is nowhere certain of a subject",
            field="mask",
            value=round(float(mask.max()), 3),
            remedy="Send a picture with a clear subject, or choose another model.",
        )
    shape = (rgb.shape[0], rgb.shape[1])
    grid = _grid(shape, mask.shape, precision)
    alpha = _resize(mask, shape)
    coarse = shrink(alpha, grid.cell_px).copy()
    band = find_band(coarse, cell_px=grid.cell_px, shape=shape, margin_px=grid.margin_px)
    np.copyto(alpha, alpha >= 0.5)
    report: dict[str, Any] = {
        "precision": precision.value,
        "grid_px": grid.cell_px,
        "radius": grid.radius,
        "psf_sigma": [round(sigma, 3) for sigma in grid.psf_sigma],
        "band_share": round(band.share, 4),
        "tiles": _apply(_fit(rgb, coarse, grid), rgb, alpha, band),
        "closed_form": [],
        "warnings": [],
    }
    for scale in _closed_form_scales(shape, precision):
        cells = round(band.share * alpha.size / scale**2)
        limit = min(_MAX_ITERATIONS, _MAX_WORK // max(1, cells))
        facts = _closed_form(rgb, alpha, coarse, band, grid, scale, limit)
        report["closed_form"].append({"scale": f"1/{scale}", **facts})
        if facts["iterations"] == limit:
            report["warnings"].append(f"The closed form at 1/{scale} was stopped after {limit} iterations")
    return Matte(alpha, report)


def _resize(mask: Mask, shape: tuple[int, int]) -> Alpha:
    """Return the mask at the picture's size, as a new array."""
    enlarging = mask.shape[0] <= shape[0] and mask.shape[1] <= shape[1]
    method = cv2.INTER_CUBIC if enlarging else cv2.INTER_AREA
    resized = np.array(cv2.resize(mask, shape[::-1], interpolation=method), np.float32)
    return resized.clip(0, 1, out=resized)


def _grid(shape: tuple[int, int], mask_shape: tuple[int, ...], precision: Precision) -> _Grid:
    """Choose the grid by the size of a mask's pixel in the picture, which has two to four cells to a side."""
    down, across = (max(1.0, side / mask_side) for side, mask_side in zip(shape, mask_shape, strict=True))
    side_px = math.sqrt(down * across)
    cell_px: int = 2 ** max(0, math.floor(math.log2(side_px / 2)))
    if precision is Precision.DRAFT:
        cell_px *= 2
    while math.prod(shape) > _MAX_CELLS * cell_px**2:
        cell_px *= 2
    sigma = 0.0 if precision is Precision.DRAFT else _PSF_SIGMA / cell_px
    return _Grid(
        cell_px,
        radius=max(2, round(_RADIUS * side_px / cell_px)),
        psf_sigma=(sigma * down, sigma * across),
        margin_px=math.ceil(_BAND_MARGIN * side_px),
    )


def _closed_form_scales(shape: tuple[int, int], precision: Precision) -> list[int]:
    scale = 2
    while math.prod(shape) > _MAX_CELLS * scale**2:
        scale *= 2
    return {Precision.HIGH: [scale], Precision.ULTRA_HIGH: [scale, 1]}.get(precision, [])


def _fit(rgb: Rgb, coarse: Plane, grid: _Grid) -> Coefficients:
    """Fit the local linear model, on the grid, to a mask and a picture that are equally blurred."""
    guide = _guide(shrink(rgb, grid.cell_px))
    return LocalLinearModel(_blur(guide, grid), grid.radius, _EPSILON).fit_mean(coarse)


def _apply(coefficients: Coefficients, rgb: Rgb, alpha: Alpha, band: Band) -> int:
    """Write the model's alpha of the sharp picture into the band; return the number of tiles."""
    tiles = list(band.tiles(max(_TILE_PX, band.cell_px)))
    for tile in tiles:
        around = tile.grown(band.cell_px, band.cell_px, band.shape)
        enlarged = enlarge(coefficients[around.cells(band.cell_px)], band.cell_px)[tile.inside(around)]
        solved = guided_filter.apply(enlarged, _guide(rgb[tile.window]))
        solved = (solved - _SHRINKAGE) / (1 - 2 * _SHRINKAGE)
        np.copyto(alpha[tile.window], solved.clip(0, 1), where=band.within(tile))
    return len(tiles)


def _closed_form(
    rgb: Rgb, alpha: Alpha, coarse: Plane, band: Band, grid: _Grid, scale: int, iterations: int
) -> dict[str, Any]:
    """Solve the closed form on the band at ``1 / scale``, with ``alpha`` as prior, in place; return the facts."""
    confidence = _confidence(alpha, coarse, grid)
    prior = shrink(alpha, scale).copy()
    cell_px = max(scale, band.cell_px)
    tiles = list(band.tiles(max(_TILE_PX * min(scale, 2), cell_px)))
    most = 0
    for tile in tiles:
        around = tile.grown(_MARGIN_CELLS * scale, cell_px, band.shape)
        unknown = band.within(around)
        trust = enlarge(confidence[around.cells(band.cell_px)], band.cell_px)
        guide = _guide(shrink(rgb[around.window], scale))
        solved, used = closed_form.solve(
            guide,
            prior[around.cells(scale)],
            shrink(unknown.astype(np.float32), scale) > 0,
            confidence=shrink(trust[: unknown.shape[0], : unknown.shape[1]], scale),
            max_iterations=iterations,
        )
        if scale > 1:
            coefficients = enlarge(closed_form.local_model(guide).fit_mean(solved), scale)
            solved = guided_filter.apply(coefficients[tile.inside(around)], _guide(rgb[tile.window]))
        else:
            solved = solved[tile.inside(around)]
        np.copyto(alpha[tile.window], solved.clip(0, 1), where=unknown[tile.inside(around)])
        most = max(most, used)
    return {"tiles": len(tiles), "iterations": most}


def _confidence(alpha: Alpha, coarse: Plane, grid: _Grid) -> Plane:
    """Return, on the grid, the weight of ``alpha`` as prior: high where, blurred, it gives the mask back."""
    error = _blur(shrink(alpha, grid.cell_px), grid) - coarse
    low, high = _CONFIDENCE
    confidence: Plane = low + (high - low) * np.exp(-np.square(error / _CONTRADICTION))
    return confidence


def _blur(plane: Plane, grid: _Grid) -> Plane:
    down, across = grid.psf_sigma
    if not (down and across):
        return plane
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigmaX=across, sigmaY=down), np.float32)


def _guide(rgb: Rgb) -> Guide:
    return rgb * np.float32(1 / 255)
