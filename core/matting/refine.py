"""Refine a network's small mask to an alpha at the image's size.

A network's mask is the true alpha, blurred by the network. Each precision level continues from the one before:

- draft: a guided filter, fitted on a coarse grid to the mask and to the image *blurred as the mask is*, and applied
  to the sharp image, so that alpha does not inherit the mask's blur (He and Sun, Fast Guided Filter, 2015). It
  assumes the blur of a sound network.
- standard: the blur and the trust in the mask are measured (see :mod:`core.matting.point_spread`); the lower the
  trust, the wider are windows and band. Then alpha is corrected until, blurred, it reproduces the mask where that is
  trusted or where the image does not show the mask's edge (back-projection; Irani and Peleg, Improving Resolution by
  Image Registration, 1991).
- high: between the two, closed-form matting (see :mod:`core.matting.closed_form`) at reduced scale, with the filter's
  alpha as a prior that is trusted where, blurred, it reproduces the mask.
- ultra_high: also the closed form at full scale.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np

from core.errors import UnknownForegroundError
from core.matting import closed_form, guided_filter, point_spread
from core.matting.guided_filter import Coefficients, Guide, LocalLinearModel, Plane, as_guide
from core.matting.point_spread import PointSpread
from core.matting.tiles import Tile, enlarge, on_each, shrink
from core.matting.trimap import CERTAIN_FOREGROUND, Band, find_band, find_edge
from core.types import Alpha, Mask, Matte, Precision, Rgb

_TILE_PX: Final = 512
"""Least side of the band's tiles; twice that at reduced scale, where a tile needs less memory."""

_NATIVE_TILE_PX: Final = 256
"""The same for the closed form at full scale, which takes 600 bytes per pixel."""

_MAX_CELLS: Final = 4_000_000
"""Largest grid: bounds the memory for masks of any size."""

# The guided filter. Lengths are in pixels of the mask, because the mask is what is blurred or displaced.
_SOUND: Final = PointSpread(sigma=0.8, unexplained=0.0)  # assumed by draft
_ENLARGED: Final = (1, 2, 4, 8, 16)  # factors by which a caller may have enlarged the mask
_UNEXPLAINED: Final = ((0.005, 0.02), (0.008, 0.02))  # full trust up to the first, none from the second
_CAMOUFLAGE: Final = (0.15, 0.2)  # unexplained share where the image shows no edge: the mask is kept
_RADIUS: Final = 2.5  # of a trusted mask: windows must reach from the mask's edge to the true one
_RADIUS_OF_DOUBT: Final = (3.5, 12.0)  # of a mask sharper than any network's blur, and of a displaced one
_SHARP_SIGMA: Final = (0.6, 0.9)  # blur at which a mask counts as one or the other
_BAND_MARGIN: Final = 3.0  # hair extends beyond a trusted mask by about this
_MARGIN_PER_RADIUS: Final = 0.35  # and beyond a displaced mask by this much more
_SHRINKAGE: Final = (0.03, 0.06, 0.1)  # distance of the fitted alpha from 0 and 1: trusted, too sharp, displaced
_EPSILON: Final = 3e-5  # noise of 1.4 of 255 levels is not an edge

# The back-projection.
_BLIND: Final = (0.35, 0.65)  # the same share in one place: there the mask is kept, whatever its trust
_FLAT: Final = 0.003  # variance of the mask below which it has no edge
_PROJECTIONS: Final = 3
_HOLE_SIGMA: Final = 2.0  # pixels of the mask: errors of the fit cancel out over this distance,
_HOLE: Final = 0.15  # and a remaining difference in alpha is an error of the mask
_HOLE_UNSEEN: Final = 0.3  # the same, where the image does not show the edge

# The closed form.
_CONFIDENCE: Final = (0.001, 0.2)  # of the prior where it contradicts the mask, and where it explains it
_CONTRADICTION: Final = 0.05  # difference in alpha at which confidence drops
_MAX_REDUCED: Final = 1_600_000  # pixels of the image at reduced scale
_MARGIN_CELLS: Final = 16  # beyond a tile; with a prior everywhere, influence ends before that
_MAX_ITERATIONS: Final = 40
_MAX_UNCERTAIN: Final = 30_000_000  # pixels at one scale, not seconds: the same input must give the same bytes


@dataclass(frozen=True)
class _Plan:
    """Parameters of the refinement, from the sizes and the measured blur.

    Attributes:
        cell_px: side of a cell of the guided filter's grid, in pixels.
        pixel_cells: side of a pixel of the mask, in cells.
        sigma: of the mask's blur, down and across, in cells.
        radius: of the filter's windows, in cells.
        margin_px: extent of the band beyond the mask's uncertain values, in pixels.
        shrinkage: distance of the fitted alpha from 0 and 1.
        trust: in the mask where it contradicts alpha, 0 to 1.
    """

    cell_px: int
    pixel_cells: float
    sigma: tuple[float, float]
    radius: int
    margin_px: int
    shrinkage: float
    trust: float


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
        empty unless a budget cut the work short or the mask could not be measured.

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
    size_px = (max(1.0, shape[0] / mask.shape[0]), max(1.0, shape[1] / mask.shape[1]))
    warnings = []
    grid, measured = _measure(rgb, mask, size_px, precision)
    spread = measured or _SOUND
    if measured is None:
        warnings.append("The mask is too blurred for its blur to be measured")
    cell_px, coarse, guide = grid.cell_px, grid.coarse, grid.guide
    plan = _plan(spread, grid.pixel_px, cell_px)
    band = find_band(coarse, cell_px=cell_px, shape=shape, margin_px=plan.margin_px)
    alpha = _decided(coarse, cell_px, shape)
    tiles, unexplained = _filter(rgb, guide, coarse, alpha, band, plan)
    report: dict[str, Any] = {
        "precision": precision.value,
        "grid_px": cell_px,
        "psf_sigma_px": [round(sigma * cell_px, 2) for sigma in plan.sigma],
        "unexplained": round(spread.unexplained, 4),
        "radius_px": plan.radius * cell_px,
        "band_share": round(band.share, 4),
        "tiles": tiles,
        "closed_form": [],
        "warnings": warnings,
    }
    for scale in _closed_form_scales(shape, precision):
        report["closed_form"] += _closed_form_within_budget(rgb, coarse, alpha, band, plan, scale, warnings)
    given = shrink(alpha, cell_px)
    seen = _blur(given, plan)  # alpha as the network saw it
    if precision is not Precision.DRAFT:
        _project_back(coarse, given, seen, unexplained, alpha, band, plan)
    return Matte(alpha, report)


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
    rgb: Rgb, coarse: Plane, alpha: Alpha, band: Band, plan: _Plan, scale: int, warnings: list[str]
) -> list[dict[str, Any]]:
    """Solve the closed form at one scale and return its facts, or add a warning where a budget ends it."""
    uncertain = round(band.share * alpha.size / scale**2)
    if uncertain > _MAX_UNCERTAIN:
        warnings.append(
            f"The closed form at 1/{scale} was skipped: {uncertain} pixels are uncertain, the limit is {_MAX_UNCERTAIN}"
        )
        return []
    facts = _closed_form(rgb, coarse, alpha, band, plan, scale)
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
    enlarging = mask.shape[0] <= shape[0] and mask.shape[1] <= shape[1]
    method = cv2.INTER_CUBIC if enlarging else cv2.INTER_AREA
    resized = np.asarray(cv2.resize(mask, shape[::-1], interpolation=method), np.float32)
    return shrink(resized, cell_px).clip(0, 1)


def _plan(spread: PointSpread, pixel_px: tuple[float, float], cell_px: int) -> _Plan:
    off = _ramp(spread.sigma, *_SHARP_SIGMA)
    low, high = (sharp + off * (unsharp - sharp) for sharp, unsharp in zip(*_UNEXPLAINED, strict=True))
    blind = _ramp(spread.unexplained, *_CAMOUFLAGE)
    doubt = (1 - blind) * _ramp(math.log(max(spread.unexplained, low)), math.log(low), math.log(high))
    sigma = spread.sigma + blind * (_SOUND.sigma - spread.sigma)
    sharpened, displaced = _RADIUS_OF_DOUBT
    furthest = sharpened * (displaced / sharpened) ** off
    radius = _RADIUS * (furthest / _RADIUS) ** doubt
    trusted, too_sharp, beside = _SHRINKAGE
    side_px = math.sqrt(math.prod(pixel_px))
    return _Plan(
        cell_px=cell_px,
        pixel_cells=side_px / cell_px,
        sigma=(sigma * pixel_px[0] / cell_px, sigma * pixel_px[1] / cell_px),
        radius=max(2, round(radius * side_px / cell_px)),
        margin_px=math.ceil((_BAND_MARGIN + _MARGIN_PER_RADIUS * (radius - _RADIUS)) * side_px),
        shrinkage=trusted + doubt * (too_sharp + off * (beside - too_sharp) - trusted),
        trust=1 - doubt,
    )


def _ramp(value: float, zero: float, one: float) -> float:
    return min(1.0, max(0.0, (value - zero) / (one - zero)))


def _decided(coarse: Plane, cell_px: int, shape: tuple[int, int]) -> Alpha:
    """Return the mask's decision for every pixel: 0 or 1."""
    size = (coarse.shape[1] * cell_px, coarse.shape[0] * cell_px)
    decided = cv2.resize((coarse >= 0.5).astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
    return np.ascontiguousarray(decided[: shape[0], : shape[1]], np.float32)


def _filter(rgb: Rgb, guide: Guide, coarse: Plane, alpha: Alpha, band: Band, plan: _Plan) -> tuple[int, Plane]:
    """Fit on the grid, and write the model's alpha of the sharp image into the band.

    Returns:
        The number of tiles, and per cell the share of the mask's variance that the models do not explain.
    """
    blurred = [_blur(channel, plan) for channel in guide]
    unexplained = np.zeros_like(coarse)
    cell_px = plan.cell_px
    reach_px = 2 * plan.radius * cell_px

    def solve(tile: Tile) -> None:
        around, near = (tile.grown(margin_px, cell_px, band.shape) for margin_px in (reach_px + cell_px, cell_px))
        cells = around.cells(cell_px)
        red, green, blue = (channel[cells] for channel in blurred)
        fitted = LocalLinearModel((red, green, blue), plan.radius, _EPSILON).fit_mean(coarse[cells])
        mine = _cells(tile.inside(around), cell_px)
        unexplained[tile.cells(cell_px)] = fitted.misfit[mine] / (fitted.variance[mine] + _FLAT)
        here = _cells(near.inside(around), cell_px)
        a0, a1, a2, b = (plane[here] for plane in fitted.coefficients)
        solved = _sharp((a0, a1, a2, b), cell_px, tile.inside(near), rgb[tile.window])
        solved -= plan.shrinkage
        solved *= 1 / (1 - 2 * plan.shrinkage)
        cv2.copyTo(solved.clip(0, 1, out=solved), band.within(tile), alpha[tile.window])

    tile_px = max(_TILE_PX, 2 ** math.ceil(math.log2(2 * reach_px)))
    return len(on_each(band.tiles(tile_px), solve)), unexplained


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


def _project_back(
    coarse: Plane, given: Plane, seen: Plane, unexplained: Plane, alpha: Alpha, band: Band, plan: _Plan
) -> None:
    """Add to alpha, in the band, the difference between the mask and the blurred alpha.

    The difference is weighted by the trust in the mask; where the image does not show the mask's edge, the mask is
    kept. ``given`` is alpha on the grid, ``seen`` the same, blurred as by the network.
    """
    cell_px = plan.cell_px
    hole = cv2.GaussianBlur(coarse - seen, (0, 0), _HOLE_SIGMA * plan.pixel_cells)
    low, high = _BLIND
    blind = ((unexplained - low) / (high - low)).clip(0, 1)
    trust = np.maximum(plan.trust * np.exp(-np.square(hole / _HOLE)), blind * np.exp(-np.square(hole / _HOLE_UNSEEN)))
    trust *= band.cells
    found = given
    for _ in range(_PROJECTIONS):
        found = np.clip(found + trust * (coarse - seen), 0, 1)
        seen = _blur(found, plan)
    correction = found - given

    def add(tile: Tile) -> None:
        near = tile.grown(cell_px, cell_px, band.shape)
        more = enlarge(correction[near.cells(cell_px)], cell_px)[tile.inside(near)]
        target = alpha[tile.window]
        cv2.copyTo((target + more).clip(0, 1), band.within(tile), target)

    on_each(band.tiles(max(_TILE_PX, cell_px)), add)


def _closed_form_scales(shape: tuple[int, int], precision: Precision) -> list[int]:
    scale = 2
    while math.prod(shape) > _MAX_REDUCED * scale**2:
        scale *= 2
    return {Precision.HIGH: [scale], Precision.ULTRA_HIGH: [scale, 1]}.get(precision, [])


def _closed_form(rgb: Rgb, coarse: Plane, alpha: Alpha, band: Band, plan: _Plan, scale: int) -> dict[str, Any]:
    """Solve the closed form on the band at ``1 / scale``, with ``alpha`` as prior, in place; return the facts."""
    confidence = _confidence(coarse, alpha, plan)
    prior = shrink(alpha, scale).copy()
    cell_px = max(scale, band.cell_px)

    def solve(tile: Tile) -> int:
        around = tile.grown(_MARGIN_CELLS * scale, cell_px, band.shape)
        unknown = band.within(around)
        trust = enlarge(confidence[around.cells(band.cell_px)], band.cell_px)
        near = shrink(rgb[around.window], scale)
        free = shrink(unknown * np.float32(1), scale) > 0
        guide = as_guide(near)
        solved, used = closed_form.solve(
            closed_form.MatrixFreeLaplacian(guide) if scale > 1 else closed_form.SparseLaplacian(near, free),
            prior[around.cells(scale)],
            free,
            confidence=shrink(trust[: unknown.shape[0], : unknown.shape[1]], scale),
            max_iterations=_MAX_ITERATIONS,
        )
        inside = tile.inside(around)
        if scale > 1:
            solved = _sharp(closed_form.upsampling_model(guide, solved), scale, inside, rgb[tile.window]).clip(0, 1)
        else:
            solved = solved[inside]
        cv2.copyTo(solved, unknown[inside], alpha[tile.window])
        return used

    used = on_each(band.tiles(max(_TILE_PX * 2 if scale > 1 else _NATIVE_TILE_PX, cell_px)), solve)
    return {"tiles": len(used), "iterations": max(used, default=0)}


def _confidence(coarse: Plane, alpha: Alpha, plan: _Plan) -> Plane:
    """Return, on the grid, the weight of ``alpha`` as prior: high where, blurred, it reproduces the mask."""
    error = _blur(shrink(alpha, plan.cell_px), plan) - coarse
    low, high = _CONFIDENCE
    confidence: Plane = low + (high - low) * np.exp(-np.square(error / _CONTRADICTION))
    return confidence


def _blur(plane: Plane, plan: _Plan) -> Plane:
    down, across = plan.sigma
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigmaX=across, sigmaY=down), np.float32)
