"""Refine a network's small mask to an alpha at the image's size.

Each precision level continues from the one before:

- draft: a guided filter, fitted on a coarse grid to the mask and to the image *blurred as the mask is*, and applied
  to the sharp image, so that alpha does not inherit the mask's blur (He and Sun, Fast Guided Filter, 2015). It
  assumes the blur of a sound network.
- standard: the blur and the trust in the mask are measured (see :mod:`core.matting.point_spread`); the lower the
  trust, the wider are windows and band. The filter's alpha is then weighed against that of closed-form matting on a
  small grid (see :mod:`core.matting.prior`).
- high: also closed-form matting (see :mod:`core.matting.closed_form`) at reduced scale, with that alpha as a prior.
- ultra_high: also the closed form at full scale.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np

from core.arrays import Alpha, Mask, Matte, Rgb
from core.errors import UnknownForegroundError
from core.matting import closed_form, guided_filter, point_spread, prior
from core.matting.guided_filter import Coefficients, Guide, LocalLinearModel, Plane, as_guide
from core.matting.point_spread import PointSpread
from core.matting.tiles import Tile, enlarge, on_each, shrink
from core.matting.trimap import CERTAIN_FOREGROUND, Band, find_band, find_edge
from core.types import Precision

_TILE_PX: Final = 512
"""Least side of the band's tiles."""

_NATIVE_TILE_PX: Final = 256
"""The same for the closed form at full scale, which takes 600 bytes per pixel."""

_MAX_CELLS: Final = 4_000_000
"""Largest grid: bounds the memory for masks of any size."""

# The guided filter. Lengths are in pixels of the mask, because the mask is what is blurred or displaced.
_SOUND: Final = PointSpread(sigma=0.8, unexplained=0.0)  # assumed by draft
_ENLARGED: Final = (1, 2, 4, 8, 16)  # factors by which a caller may have enlarged the mask
_UNCERTAIN: Final = 0.01  # distance of the prior from 0 and 1, or a tenth from the mask's decision, that is solved for
_STRETCH: Final = 0.04  # distance from 0 and 1 below which alpha is rounded: solved alphas rarely reach either
_EXPLAINED: Final = 0.0045  # unexplained share up to which a mask is sound: only the filter is needed
_UNEXPLAINED: Final = ((0.005, 0.02), (0.008, 0.02))  # full trust up to the first, none from the second
_CAMOUFLAGE: Final = 0.2  # unexplained share from which the image shows no edge: the mask is kept
_RADIUS: Final = 2.5  # of a trusted mask: windows must reach from the mask's edge to the true one
_RADIUS_OF_DOUBT: Final = (3.5, 12.0)  # of a mask sharper than any network's blur, and of a displaced one
_SHARP_SIGMA: Final = (0.6, 0.9)  # blur at which a mask counts as one or the other
_BAND_MARGIN: Final = 3.0  # hair extends beyond a trusted mask by about this
_MARGIN_PER_RADIUS: Final = 0.35  # and beyond a displaced mask by this much more
_SHRINKAGE: Final = (0.03, 0.06, 0.1)  # distance of the fitted alpha from 0 and 1: trusted, too sharp, displaced
_FLAT: Final = 0.003  # variance of the mask below which it has no edge
_EPSILON: Final = 3e-5  # noise of 1.4 of 255 levels is not an edge

# The closed form.
_CONFIDENCE: Final = 0.01  # of the prior at reduced scale
_CONFIDENCE_NATIVE: Final = 0.003
_MAX_REDUCED: Final = 1_600_000  # pixels of the image at reduced scale
_MARGIN_CELLS: Final = 16  # beyond a tile; with a prior everywhere, influence ends before that
_MAX_ITERATIONS: Final = 40
_MAX_UNCERTAIN: Final = 30_000_000  # pixels at one scale, not seconds: the same input must give the same bytes


@dataclass(frozen=True)
class _Plan:
    """Parameters of the refinement, from the sizes and the measured blur.

    Attributes:
        cell_px: side of a cell of the guided filter's grid, in pixels.
        sigma: of the mask's blur, down and across, in cells.
        radius: of the filter's windows, in cells.
        margin_px: extent of the band beyond the mask's uncertain values, in pixels.
        shrinkage: distance of the fitted alpha from 0 and 1.
    """

    cell_px: int
    sigma: tuple[float, float]
    radius: int
    margin_px: int
    shrinkage: float


def report_of_none(precision: Precision) -> dict[str, Any]:
    """Return the report of :func:`refine` for an alpha that was not refined."""
    numbers = {"grid_px": 0, "unexplained": 0.0, "radius_px": 0, "band_share": 0.0, "tiles": 0}
    return {"precision": precision.value, **numbers, "psf_sigma_px": [0.0, 0.0], "closed_form": [], "warnings": []}


def refine(rgb: Rgb, mask: Mask, *, precision: Precision = Precision.HIGH) -> Matte:
    """Solve for alpha in the uncertain band around the mask's edge; outside it the mask decides.

    Args:
        rgb: H x W x 3 uint8, sRGB, EXIF rotation applied.
        mask: h x w float32 in [0, 1], of any size; shows the whole image.
        precision: the work put into the edge.

    Returns:
        Matte whose ``alpha`` is H x W float32 in [0, 1], 1 opaque. Its ``report`` has ``precision``,
        ``grid_px``, ``psf_sigma_px`` of the mask's blur (down and across), ``unexplained`` (see ``PointSpread``),
        ``radius_px`` of the windows, ``band_share`` (share of the picture that was solved for), ``tiles``,
        ``closed_form`` (for each scale its tiles and the most iterations that one took) and ``warnings``, which is
        empty unless a budget cut the work short, the mask could not be measured, or the image shows no edge.

    Raises:
        UnknownForegroundError: the mask holds no certain foreground.
    """
    if not (mask >= CERTAIN_FOREGROUND).any():
        raise UnknownForegroundError(
            "The mask has no certain foreground",
            field="mask",
            value=round(float(mask.max()), 3),
            remedy="Use an image with a clear subject, or another model.",
        )
    shape = (rgb.shape[0], rgb.shape[1])
    filtered = _filter(rgb, mask, precision)
    plan, spread, band = filtered.plan, filtered.spread, filtered.band
    scales = _closed_form_scales(shape, precision)
    warnings = [] if filtered.measured else ["The mask is too blurred for its blur to be measured"]
    if spread.unexplained > _CAMOUFLAGE:
        warnings.append("The image shows no edge where the mask has one, so the alpha is the enlarged mask")
        alpha, scales = _enlarged(mask, shape), []
    elif precision is Precision.DRAFT or filtered.sound:
        alpha = _carried(rgb, filtered.model, filtered.mask, band)
    else:
        alpha, band = _weighed(rgb, _inputs(rgb, mask, filtered))
    report: dict[str, Any] = {
        "precision": precision.value,
        "grid_px": plan.cell_px,
        "psf_sigma_px": [round(sigma * plan.cell_px, 2) for sigma in plan.sigma],
        "unexplained": round(spread.unexplained, 4),
        "radius_px": plan.radius * plan.cell_px,
        "band_share": round(band.share, 4),
        "tiles": filtered.tiles,
        "closed_form": [],
        "warnings": warnings,
    }
    for scale in scales:
        report["closed_form"] += _closed_form_within_budget(rgb, alpha, band, scale, warnings)
    if precision is not Precision.DRAFT:
        alpha -= _STRETCH
        alpha *= 1 / (1 - 2 * _STRETCH)
        alpha.clip(0, 1, out=alpha)
    return Matte(alpha, report)


def prior_inputs(rgb: Rgb, mask: Mask) -> prior.Inputs | None:
    """Return what ``standard`` gives to :mod:`core.matting.prior`; None if it does not use it for this mask."""
    filtered = _filter(rgb, mask, Precision.STANDARD)
    unused = filtered.sound or filtered.spread.unexplained > _CAMOUFLAGE
    return None if unused else _inputs(rgb, mask, filtered)


@dataclass(frozen=True)
class _Filtered:
    """The guided filter's models, on its grid, and what was measured on the way.

    Attributes:
        measured: whether the mask's blur could be measured.
        mask: the mask on the grid.
        model: alpha as a linear function of the image's colors.
        unexplained: per cell, the share of the mask's variance that the models do not explain.
    """

    plan: _Plan
    spread: PointSpread
    measured: bool
    mask: Plane
    band: Band
    model: Coefficients
    unexplained: Plane
    tiles: int

    @property
    def sound(self) -> bool:
        """Whether the mask is the true alpha, blurred, so that the filter suffices."""
        return self.measured and self.spread.unexplained <= _EXPLAINED


def _filter(rgb: Rgb, mask: Mask, precision: Precision) -> _Filtered:
    """Measure the mask, and fit the guided filter's models in its band."""
    shape = (rgb.shape[0], rgb.shape[1])
    size_px = (max(1.0, shape[0] / mask.shape[0]), max(1.0, shape[1] / mask.shape[1]))
    grid, measured = _measure(rgb, mask, size_px, precision)
    spread = measured or _SOUND
    plan = _plan(spread, grid.pixel_px, grid.cell_px)
    band = find_band(grid.coarse, cell_px=grid.cell_px, shape=shape, margin_px=plan.margin_px)
    model, unexplained, tiles = _fit(grid, band, plan)
    return _Filtered(plan, spread, measured is not None, grid.coarse, band, model, unexplained, tiles)


@dataclass(frozen=True)
class _Grid:
    """The mask and the image on the grid, with the size of the mask's own pixels in the image."""

    cell_px: int
    pixel_px: tuple[float, float]
    coarse: Plane
    guide: Guide


def _measure(
    rgb: Rgb, mask: Mask, size_px: tuple[float, float], precision: Precision
) -> tuple[_Grid, PointSpread | None]:
    """Choose the grid and measure the mask's blur; None if it is too blurred to be measured."""
    shape = (rgb.shape[0], rgb.shape[1])
    for enlarged in _ENLARGED:
        pixel_px = (enlarged * size_px[0], enlarged * size_px[1])
        cell_px = _cell_px(shape, pixel_px, precision)
        coarse = _on_grid(mask, shape, cell_px)
        guide = as_guide(shrink(rgb, cell_px))
        unmeasured = precision is Precision.DRAFT or not find_edge(coarse).any()
        pixel_cells = (pixel_px[0] / cell_px, pixel_px[1] / cell_px)
        spread = _SOUND if unmeasured else point_spread.measure(guide, coarse, pixel_cells, _EPSILON)
        if spread:
            break
    return _Grid(cell_px, pixel_px, coarse, guide), spread


def _closed_form_within_budget(
    rgb: Rgb, alpha: Alpha, band: Band, scale: int, warnings: list[str]
) -> list[dict[str, Any]]:
    """Solve the closed form at one scale and return its facts, or add a warning where a budget ends it."""
    uncertain = round(band.share * alpha.size / scale**2)
    if uncertain > _MAX_UNCERTAIN:
        warnings.append(
            f"The closed form at 1/{scale} was skipped: {uncertain} pixels are uncertain, the limit is {_MAX_UNCERTAIN}"
        )
        return []
    facts = _closed_form(rgb, alpha, band, scale)
    if facts["iterations"] == _MAX_ITERATIONS:
        warnings.append(f"The closed form at 1/{scale} was stopped after {_MAX_ITERATIONS} iterations")
    return [{"scale": f"1/{scale}", **facts}]


def _cell_px(shape: tuple[int, int], pixel_px: tuple[float, float], precision: Precision) -> int:
    """Return a power of two such that a mask's pixel in the image has one or two cells per side."""
    cell_px: int = 2 ** math.floor(math.log2(1.05 * math.sqrt(math.prod(pixel_px))))
    if precision is Precision.DRAFT:
        cell_px *= 2
    while math.prod(shape) > _MAX_CELLS * cell_px**2:
        cell_px *= 2
    return cell_px


def _on_grid(mask: Mask, shape: tuple[int, int], cell_px: int) -> Plane:
    """Return the mean of the mask in every cell."""
    return shrink(_enlarged(mask, shape), cell_px)


def _enlarged(mask: Mask, shape: tuple[int, int]) -> Alpha:
    enlarging = mask.shape[0] <= shape[0] and mask.shape[1] <= shape[1]
    method = cv2.INTER_CUBIC if enlarging else cv2.INTER_AREA
    return np.asarray(cv2.resize(mask, shape[::-1], interpolation=method), np.float32).clip(0, 1)


def _plan(spread: PointSpread, pixel_px: tuple[float, float], cell_px: int) -> _Plan:
    off = _ramp(spread.sigma, *_SHARP_SIGMA)
    low, high = (sharp + off * (unsharp - sharp) for sharp, unsharp in zip(*_UNEXPLAINED, strict=True))
    doubt = _ramp(math.log(max(spread.unexplained, low)), math.log(low), math.log(high))
    sharpened, displaced = _RADIUS_OF_DOUBT
    furthest = sharpened * (displaced / sharpened) ** off
    radius = _RADIUS * (furthest / _RADIUS) ** doubt
    trusted, too_sharp, beside = _SHRINKAGE
    side_px = math.sqrt(math.prod(pixel_px))
    return _Plan(
        cell_px=cell_px,
        sigma=(spread.sigma * pixel_px[0] / cell_px, spread.sigma * pixel_px[1] / cell_px),
        radius=max(2, round(radius * side_px / cell_px)),
        margin_px=math.ceil((_BAND_MARGIN + _MARGIN_PER_RADIUS * (radius - _RADIUS)) * side_px),
        shrinkage=trusted + doubt * (too_sharp + off * (beside - too_sharp) - trusted),
    )


def _ramp(value: float, zero: float, one: float) -> float:
    return min(1.0, max(0.0, (value - zero) / (one - zero)))


def _fit(grid: _Grid, band: Band, plan: _Plan) -> tuple[Coefficients, Plane, int]:
    """Fit to the mask, tile by tile.

    Returns:
        The model in the band, the share of the mask's variance that it does not explain, and the number of tiles.
    """
    a0, a1, a2, b, unexplained = (np.zeros_like(grid.coarse) for _ in range(5))
    blurred = [_blur(channel, plan) for channel in grid.guide]
    cell_px = plan.cell_px
    reach_px = 2 * plan.radius * cell_px
    stretch = np.float32(1 / (1 - 2 * plan.shrinkage))

    def solve(tile: Tile) -> None:
        around = tile.grown(reach_px, cell_px, band.shape)
        cells, here, mine = around.cells(cell_px), tile.cells(cell_px), _cells(tile.inside(around), cell_px)
        red, green, blue = (channel[cells] for channel in blurred)
        fitted = LocalLinearModel((red, green, blue), plan.radius, _EPSILON).fit_mean(grid.coarse[cells])
        for plane, values in zip((a0, a1, a2, b), fitted.coefficients, strict=True):
            plane[here] = values[mine] * stretch
        b[here] -= plan.shrinkage * stretch
        unexplained[here] = fitted.misfit[mine] / (fitted.variance[mine] + _FLAT)

    tile_px = max(_TILE_PX, 2 ** math.ceil(math.log2(2 * reach_px)))
    # The band's pixels are interpolated from the models of neighboring cells, too.
    neighbors = cv2.dilate(band.cells.view(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return (a0, a1, a2, b), unexplained, len(on_each(Band(neighbors, cell_px, band.shape).tiles(tile_px), solve))


def _carried(rgb: Rgb, model: Coefficients, mask: Plane, band: Band) -> Alpha:
    """Return the alpha of a model on a sharper image: in the band the model's, elsewhere what the mask decides.

    Args:
        rgb: the image.
        model: one per cell of the band.
        mask: one value per cell.
        band: of the image.
    """
    cell_px, shape = band.cell_px, band.shape
    decided = (mask >= 0.5).astype(np.float32)
    size = (decided.shape[1] * cell_px, decided.shape[0] * cell_px)
    whole = np.asarray(cv2.resize(decided, size, interpolation=cv2.INTER_NEAREST), np.float32)
    alpha = np.ascontiguousarray(whole[: shape[0], : shape[1]])

    def carry(tile: Tile) -> None:
        near = tile.grown(cell_px, cell_px, shape)
        a0, a1, a2, b = (plane[near.cells(cell_px)] for plane in model)
        sharp = _sharp((a0, a1, a2, b), cell_px, tile.inside(near), rgb[tile.window])
        cv2.copyTo(sharp.clip(0, 1, out=sharp), band.within(tile), alpha[tile.window])

    on_each(band.tiles(max(_TILE_PX, cell_px)), carry)
    return alpha


def _inputs(rgb: Rgb, mask: Mask, filtered: _Filtered) -> prior.Inputs:
    shape = (rgb.shape[0], rgb.shape[1])
    cell_px, filter_px = prior.cell_px(shape), filtered.plan.cell_px
    fine_px = min(cell_px, filter_px)
    fine = shrink(rgb, fine_px)
    band = Band(filtered.band.cells, filter_px // fine_px, (fine.shape[0], fine.shape[1]))
    alpha = _carried(fine, filtered.model, filtered.mask, band)
    return prior.Inputs(
        rgb=shrink(fine, cell_px // fine_px),
        mask=shrink(filtered.mask, cell_px // filter_px) if cell_px >= filter_px else _on_grid(mask, shape, cell_px),
        filtered=shrink(alpha, cell_px // fine_px),
        unexplained=filtered.unexplained,
        spread=filtered.spread,
    )


def _weighed(rgb: Rgb, inputs: prior.Inputs) -> tuple[Alpha, Band]:
    """Return the alpha of :mod:`core.matting.prior`, carried over to the sharp image, and its uncertain band."""
    shape = (rgb.shape[0], rgb.shape[1])
    estimate = prior.estimate(inputs)
    uncertain = (estimate > _UNCERTAIN) & (estimate < 1 - _UNCERTAIN)
    uncertain |= np.abs(estimate - (inputs.mask >= 0.5)) > 0.1
    reach = cv2.dilate(uncertain.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    band = Band(reach, prior.cell_px(shape), shape)
    model = closed_form.MatrixFreeLaplacian(as_guide(inputs.rgb)).upsampling_model(estimate)
    return _carried(rgb, model, inputs.mask, band), band


def _sharp(coarse: Coefficients, cell_px: int, inside: tuple[slice, slice], rgb: Rgb) -> Plane:
    """Apply a coarse model to the part of the sharp image inside it."""
    a0, a1, a2, b = (enlarge(plane, cell_px)[inside] for plane in coarse)
    return guided_filter.apply((a0, a1, a2, b), as_guide(rgb))


def _cells(window: tuple[slice, slice], cell_px: int) -> tuple[slice, slice]:
    rows, columns = window
    return (
        slice(rows.start // cell_px, -(-rows.stop // cell_px)),
        slice(columns.start // cell_px, -(-columns.stop // cell_px)),
    )


def _closed_form_scales(shape: tuple[int, int], precision: Precision) -> list[int]:
    scale = 2
    while math.prod(shape) > _MAX_REDUCED * scale**2:
        scale *= 2
    return {Precision.HIGH: [scale], Precision.ULTRA_HIGH: [scale, 1]}.get(precision, [])


def _closed_form(rgb: Rgb, alpha: Alpha, band: Band, scale: int) -> dict[str, Any]:
    """Solve the closed form on the band at ``1 / scale``, with ``alpha`` as prior, in place; return the facts."""
    before = shrink(alpha, scale).copy()
    cell_px = max(scale, band.cell_px)

    def solve(tile: Tile) -> int:
        around = tile.grown(_MARGIN_CELLS * scale, cell_px, band.shape)
        unknown = band.within(around)
        near = shrink(rgb[around.window], scale)
        free = shrink(unknown * np.float32(1), scale) > 0
        reduced = closed_form.MatrixFreeLaplacian(as_guide(near)) if scale > 1 else None
        solved, used = closed_form.solve(
            reduced or closed_form.SparseLaplacian(near, free),
            before[around.cells(scale)],
            free,
            confidence=np.full(free.shape, _CONFIDENCE if scale > 1 else _CONFIDENCE_NATIVE, np.float32),
            max_iterations=_MAX_ITERATIONS,
        )
        inside = tile.inside(around)
        if reduced:
            solved = _sharp(reduced.upsampling_model(solved), scale, inside, rgb[tile.window]).clip(0, 1)
        else:
            solved = solved[inside]
        cv2.copyTo(solved, unknown[inside], alpha[tile.window])
        return used

    used = on_each(band.tiles(max(_TILE_PX if scale > 1 else _NATIVE_TILE_PX, cell_px), scale), solve)
    return {"tiles": len(used), "iterations": max(used, default=0)}


def _blur(plane: Plane, plan: _Plan) -> Plane:
    down, across = plan.sigma
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigmaX=across, sigmaY=down), np.float32)
