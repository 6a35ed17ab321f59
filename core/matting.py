"""From a network's small mask to an alpha at the picture's size."""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from core import closed_form, guided_filter
from core.errors import UnknownForegroundError
from core.guided_filter import Coefficients, Guide, LocalLinearModel, Plane
from core.tiles import enlarge, shrink
from core.trimap import CERTAIN_FOREGROUND, Band, find_band
from core.types import Alpha, Mask, Matte, Precision, Rgb

_TILE_PX = 512
"""Side of the tiles on which coefficients meet the sharp picture."""

_MAX_CELLS = 1_600_000
"""Largest grid that is held at once: it bounds the memory whatever the size of the picture."""

_RADIUS_MASK_PX = 2.0
"""Radius of the guided filter's windows, in pixels of the mask: how far the mask is believed to be off."""

_BAND_MASK_PX = 3.0
"""Reach of the uncertain band beyond the mask's uncertain values, in pixels of the mask."""

_MASK_PSF = 0.9
"""Standard deviation of a network mask's blur, in pixels of the mask."""

_EPSILON = 3e-5
"""Ridge of the guided filter: noise of 1.4 of 255 levels."""

_SHRINKAGE = 0.04
"""The guided filter pulls alpha off 0 and 1 by about so much; the result is stretched by it."""

_PRIOR_CONFIDENCE = 0.03
_MAX_ITERATIONS = 40
_MAX_WORK = 1_500_000_000
"""Pixels times iterations of the closed form: about three minutes on one core."""


@dataclass(frozen=True)
class _Plan:
    """How one picture is refined: sides and radii of cells on the coarse grid."""

    grid_px: int
    radius: int
    psf_sigma: float
    margin_px: int


def refine(rgb: Rgb, mask: Mask, *, precision: Precision = Precision.HIGH) -> Matte:
    """Solve for alpha in the uncertain band around the mask's edge; outside it the mask decides.

    The levels build on each other. Draft: a guided filter on a coarse grid (He and Sun, Fast Guided Filter,
    2015). Standard: the same on a finer grid, fitted to the picture *as blurred as the mask is* and applied
    to the sharp one, so that the mask's blur does not end up in alpha. High: then the closed form at reduced
    scale with standard's alpha as soft prior. Ultra high: then the closed form at full scale.

    Args:
        rgb: H x W x 3 uint8, sRGB, EXIF rotation applied.
        mask: h x w float32 in [0, 1]; any size, it is the network's and shows the whole picture.
        precision: how much work goes into the edge.

    Returns:
        Matte whose ``alpha`` is H x W float32 in [0, 1], 1 opaque, and whose ``report`` says what was done;
        its ``warnings`` is empty unless a budget was hit.

    Raises:
        UnknownForegroundError: the mask holds no certain foreground.
    """
    _require_foreground(mask)
    height, width = rgb.shape[:2]
    plan = _plan((height, width), mask.shape, precision)
    enlarging = mask.shape[0] <= height and mask.shape[1] <= width
    alpha: Alpha = np.clip(
        cv2.resize(mask, (width, height), interpolation=cv2.INTER_CUBIC if enlarging else cv2.INTER_AREA),
        0,
        1,
    ).astype(np.float32, copy=False)
    coarse = shrink(alpha, plan.grid_px)
    band = find_band(coarse, cell_px=plan.grid_px, shape=(height, width), margin_px=plan.margin_px)
    coefficients = _fit(rgb, coarse, plan)
    np.copyto(alpha, alpha >= 0.5)
    tiles = _apply(coefficients, rgb, alpha, band)
    report: dict[str, Any] = {
        "precision": precision.value,
        "grid_px": plan.grid_px,
        "radius": plan.radius,
        "psf_sigma": round(plan.psf_sigma, 3),
        "band_share": round(band.share, 4),
        "tiles": tiles,
        "warnings": [],
    }
    if precision in (Precision.HIGH, Precision.ULTRA_HIGH):
        scale = _scale_for(height * width)
        report["closed_form"] = [_closed_form(rgb, alpha, band, scale, report["warnings"])]
        if precision is Precision.ULTRA_HIGH:
            report["closed_form"].append(_closed_form(rgb, alpha, band, 1, report["warnings"]))
    return Matte(alpha, report)


def _require_foreground(mask: Mask) -> None:
    if not (mask >= CERTAIN_FOREGROUND).any():
        raise UnknownForegroundError(
            "No subject was found: the mask is nowhere certain",
            field="mask",
            value=round(float(mask.max()), 3),
            remedy="Send a picture with a clear subject, or choose another model.",
        )


def _plan(shape: tuple[int, int], mask_shape: tuple[int, ...], precision: Precision) -> _Plan:
    ratio = max(1.0, max(shape) / max(mask_shape))
    grid_px = 2 ** max(0, math.floor(math.log2(ratio / 2)))
    if precision is Precision.DRAFT:
        grid_px *= 2
    while math.prod(shape) > _MAX_CELLS * grid_px**2:
        grid_px *= 2
    return _Plan(
        grid_px,
        radius=max(2, round(_RADIUS_MASK_PX * ratio / grid_px)),
        psf_sigma=0.0 if precision is Precision.DRAFT else _MASK_PSF * ratio / grid_px,
        margin_px=math.ceil(_BAND_MASK_PX * ratio),
    )


def _scale_for(pixels: int) -> int:
    scale = 2
    while pixels > _MAX_CELLS * scale**2:
        scale *= 2
    return scale


def _fit(rgb: Rgb, coarse: Plane, plan: _Plan) -> Coefficients:
    """Fit the local linear model, on the coarse grid, to a mask and a picture that are equally blurred."""
    guide = _guide(shrink(rgb, plan.grid_px))
    if plan.psf_sigma:
        guide = cv2.GaussianBlur(guide, (0, 0), plan.psf_sigma).astype(np.float32, copy=False)
    return LocalLinearModel(guide, plan.radius, _EPSILON).fit_mean(coarse)


def _apply(coefficients: Coefficients, rgb: Rgb, alpha: Alpha, band: Band) -> int:
    """Write the model's alpha of the sharp picture into the band; return the number of tiles."""
    grid_px = band.cell_px
    count = 0
    for tile in band.tiles(max(_TILE_PX, grid_px)):
        around = tile.grown(grid_px, grid_px, band.shape)
        enlarged = enlarge(coefficients[around.cells(grid_px)], grid_px)[tile.inside(around)]
        solved = guided_filter.apply(enlarged, _guide(rgb[tile.window]))
        solved = (solved - _SHRINKAGE) / (1 - 2 * _SHRINKAGE)
        np.copyto(alpha[tile.window], np.clip(solved, 0, 1), where=band.within(tile))
        count += 1
    return count


def _closed_form(rgb: Rgb, alpha: Alpha, band: Band, scale: int, warnings: list[str]) -> dict[str, Any]:
    """Solve the closed form on the band at ``1 / scale``, with ``alpha`` as prior; return the facts."""
    prior = shrink(alpha, scale) if scale > 1 else alpha.copy()
    tile_px = _TILE_PX * min(scale, 4)
    cell_px = max(scale, band.cell_px)
    tiles = list(band.tiles(tile_px))
    side = tile_px // scale + 32
    iterations = min(_MAX_ITERATIONS, max(4, _MAX_WORK // max(1, len(tiles) * side * side)))
    if iterations < _MAX_ITERATIONS:
        warnings.append(f"closed form at 1/{scale}: limited to {iterations} iterations, the uncertain band is large")
    used = []
    for tile in tiles:
        around = tile.grown(16 * scale, cell_px, band.shape)
        unknown = band.within(around)
        guide = _guide(shrink(rgb[around.window], scale))
        solution = closed_form.solve(
            guide,
            prior[around.cells(scale)],
            shrink(unknown.astype(np.uint8), scale) > 0,
            confidence=_PRIOR_CONFIDENCE,
            max_iterations=iterations,
        )
        solved = solution.alpha
        if scale > 1:
            coefficients = LocalLinearModel(guide, 1, 1e-5).fit_mean(solved)
            enlarged = enlarge(coefficients, scale)[tile.inside(around)]
            solved = np.clip(guided_filter.apply(enlarged, _guide(rgb[tile.window])), 0, 1)
        else:
            solved = solved[tile.inside(around)]
        np.copyto(alpha[tile.window], solved, where=unknown[tile.inside(around)])
        used.append(solution.iterations)
    return {"scale": scale, "tiles": len(tiles), "iterations": max(used, default=0)}


def _guide(rgb: Rgb) -> Guide:
    return rgb.astype(np.float32) * np.float32(1 / 255)
