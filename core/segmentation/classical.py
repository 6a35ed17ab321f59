"""Segment without weights: a plausible mask of one subject that stands out by its colors.

Regions that differ from those along the image's border, and are not connected to it, are salient (Zhu,
Liang, Wei, Sun, Saliency Optimization from Robust Background Detection, 2014). From there the
colors of subject and background are learned, first region by region, then by GrabCut (Rother, Kolmogorov,
Blake, 2004) pixel by pixel. The constants were chosen on photographs with known masks.
"""

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from core.arrays import Mask, Rgb

Floats: TypeAlias = NDArray[np.float64]
Bits: TypeAlias = NDArray[np.uint8]

INPUT_PX: Final = 512
"""Longer side of the input: a larger image is reduced to it."""

_COARSE_PX: Final = 288
_REGIONS_PER_SIDE: Final = 20

_LEAST_CONTRAST: Final = 12.0
"""Least color change along a subject's outline, in CIELAB units. Noise and shading reach 8."""

_PSF_PX: Final = 0.9
"""Blur of the mask's edge, like that of networks' masks."""


def segment(rgb: Rgb) -> Mask:
    """Return the mask of an image's one subject; deterministic.

    Args:
        rgb: H x W x 3 uint8, sRGB.

    Returns:
        h x w float32 in [0, 1], the longer side at most 512 px; all 0 if nothing stands out.
    """
    fine = reduced(rgb)
    coarse = _shrink(fine, _COARSE_PX)
    regions = _divide(coarse)
    probability = _learn_colors(regions, _saliency(regions))
    if _edge_contrast(regions, probability > 0.5) < _LEAST_CONTRAST:
        return np.zeros(fine.shape[:2], np.float32)
    likely = probability[regions.labels]
    subject = _grab_cut(coarse, _marks(likely > 0.5, certain=likely > 0.95), iterations=2)
    height, width = fine.shape[:2]
    soft = cv2.GaussianBlur(
        cv2.resize(subject.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR), (0, 0), 1.5
    )
    subject = _without_small_parts((soft > 0.5).astype(np.uint8), 0.1)
    subject = 1 - _without_small_parts(1 - subject, 0.001)
    subject = _grab_cut(fine, _band(subject), iterations=2)
    return np.asarray(cv2.GaussianBlur(subject.astype(np.float32), (0, 0), _PSF_PX), np.float32)


@dataclass(frozen=True)
class _Regions:
    """An image divided into n regions of even color.

    ``labels`` is h x w; ``areas`` and ``borders`` (length along the image's border) are in units of a regular
    region; ``colors`` is n x n, the CIELAB distances; ``distances`` n x n, the spatial ones as a share of the
    longer side; ``offsets`` n, squared distance from the centre; ``touching`` n x n.
    """

    labels: NDArray[np.int32]
    areas: Floats
    borders: Floats
    colors: Floats
    distances: Floats
    offsets: Floats
    touching: NDArray[np.bool_]

    @property
    def contrasts(self) -> Floats:
        """Color distances, n x n, less the mean distance of the most similar neighbors."""
        nearest = np.where(self.touching, self.colors, np.inf).min(axis=1)
        unevenness = nearest[np.isfinite(nearest)].mean() if len(nearest) > 1 else 0.0
        contrasts: Floats = np.maximum(self.colors - unevenness, 0)
        return contrasts


def _divide(rgb: Rgb) -> _Regions:
    """Grow regions from a regular grid of seeds (Machairas et al., Waterpixels, 2015)."""
    height, width = rgb.shape[:2]
    longer = max(height, width)
    step = max(4, round(longer / _REGIONS_PER_SIDE))
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).astype(np.float64)
    rows, columns = np.meshgrid(
        np.arange(min(step, height) // 2, height, step), np.arange(min(step, width) // 2, width, step), indexing="ij"
    )
    seeds = np.zeros((height, width), np.int32)
    seeds[rows, columns] = np.arange(1, rows.size + 1).reshape(rows.shape)
    seeds = cv2.dilate(seeds.astype(np.float32), np.ones((3, 3), np.uint8)).astype(np.int32)
    # watershed() assigns the outermost pixels to no region: add a frame and remove it afterwards.
    even = cv2.GaussianBlur(_as_bytes(lab), (0, 0), 1.0)
    grown = cv2.watershed(
        cv2.copyMakeBorder(even, 1, 1, 1, 1, cv2.BORDER_REPLICATE),
        cv2.copyMakeBorder(seeds, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0),
    )[1:-1, 1:-1]
    while (between := grown < 1).any():
        grown = np.where(between, cv2.dilate(grown.astype(np.float32), np.ones((3, 3), np.uint8)), grown)
    labels = np.unique(grown, return_inverse=True)[1].reshape(height, width).astype(np.int32)

    count = int(labels.max()) + 1
    pixels = np.bincount(labels.ravel(), minlength=count).astype(np.float64)
    means = [np.bincount(labels.ravel(), lab[..., c].ravel(), count) / pixels for c in range(3)]
    y, x = (np.bincount(labels.ravel(), axis.ravel(), count) / pixels for axis in np.mgrid[:height, :width])
    touching = np.zeros((count, count), np.bool_)
    touching[labels[:, 1:], labels[:, :-1]] = True
    touching[labels[1:], labels[:-1]] = True
    touching |= touching.T
    np.fill_diagonal(touching, False)
    # A portrait is cut off by the lower edge: the middle of that edge says little about the background.
    lower = 1 - 0.7 * np.exp(-(np.linspace(-2, 2, width) ** 2))
    borders = np.bincount(labels[-1], lower, minlength=count)
    for edge in (labels[0], labels[:, 0], labels[:, -1]):
        borders = borders + np.bincount(edge, minlength=count)
    return _Regions(
        labels,
        pixels / step**2,
        borders / step,
        _pairwise(*means),
        _pairwise(y, x) / longer,
        (2 * y / height - 1) ** 2 + (2 * x / width - 1) ** 2,
        touching,
    )


def _saliency(regions: _Regions) -> Floats:
    """Return each region's saliency against the regions along the border, 0 to 1."""
    contrasts = regions.contrasts
    at_border = regions.borders > 0
    joined = regions.touching | (at_border[:, None] & at_border)
    np.fill_diagonal(joined, False)
    paths = np.where(joined, contrasts, np.inf)
    np.fill_diagonal(paths, 0)
    for via in range(len(paths)):
        np.minimum(paths, paths[:, via : via + 1] + paths[via], out=paths)
    # Border length of similar regions, relative to their size: 1 and more is background.
    alike = _bell(paths, 7.0)
    background = 1 - _bell((alike @ regions.borders) / np.sqrt(alike @ regions.areas), 1.0)
    near = _bell(regions.distances, 0.25)
    foreground = (regions.colors * near) @ (background * regions.areas) * np.exp(-0.35 * regions.offsets)
    foreground = _unit(foreground)
    foreground[foreground < np.average(foreground, weights=regions.areas)] = 0
    linked = joined | (regions.touching.astype(np.float64) @ regions.touching > 0)
    np.fill_diagonal(linked, False)
    ties = np.where(linked, _bell(contrasts, 10.0) + 0.1, 0)
    return _unit(np.linalg.solve(np.diag(5 * background + foreground) + _laplacian(ties), foreground))


def _learn_colors(regions: _Regions, saliency: Floats) -> Floats:
    """Return each region's probability of being subject, by the colors of the salient ones."""
    levels = (saliency * 255).astype(np.uint8)[regions.labels]
    middle = 0.6 * max(cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)[0] / 255, 0.03)
    prior = np.clip(saliency / (2 * middle), 0.02, 0.98)
    kernel = _bell(regions.colors, 5.0) * _bell(regions.distances, 0.35) * regions.areas
    ties = np.where(regions.touching, _bell(regions.contrasts, 8.0) + 0.05, 0)
    smoothing = np.linalg.inv(np.eye(len(prior)) + _laplacian(ties))
    subject = prior
    for _ in range(6):
        alike = (kernel @ subject + 1e-3) / (kernel @ (1 - subject) + 1e-3)
        # Half way between counting pixels, where a large background swallows a small subject, and densities,
        # where a small subject spreads over what little resembles it.
        balance = (regions.areas @ (1 - subject)) / (regions.areas @ subject)
        odds = alike * np.sqrt(balance * prior / (1 - prior))
        subject = np.clip(smoothing @ (odds / (1 + odds)), 0.01, 0.99)
    return subject


def _edge_contrast(regions: _Regions, inside: NDArray[np.bool_]) -> float:
    """Return the mean color change across the outline, 0 if there is none."""
    across = regions.touching & inside[:, None] & ~inside
    return float(regions.colors[across].mean()) if across.any() else 0.0


def _marks(likely: NDArray[np.bool_], *, certain: NDArray[np.bool_]) -> Bits:
    marks = np.where(likely, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    marks[certain] = cv2.GC_FGD
    return marks


def _band(subject: Bits) -> Bits:
    """Return GrabCut marks that leave the pixels within 5 px of the outline undecided."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (11, 11))
    marks = _marks(subject > 0, certain=cv2.erode(subject, disc) > 0)
    marks[cv2.dilate(subject, disc) == 0] = cv2.GC_BGD
    return marks


def _grab_cut(rgb: Rgb, marks: Bits, *, iterations: int) -> Bits:
    """Decide the undecided pixels; 1 is subject."""
    clusters = 5
    if clusters <= np.count_nonzero(marks & 1) <= marks.size - clusters:
        cv2.setRNGSeed(0)
        model, other = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(rgb, marks, (0, 0, 0, 0), model, other, iterations, cv2.GC_INIT_WITH_MASK)
    return (marks & 1).astype(np.uint8)


def _without_small_parts(mask: Bits, share: float) -> Bits:
    """Remove connected parts smaller than ``share`` of the largest one."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    areas = np.append(0, stats[1:, cv2.CC_STAT_AREA])
    return np.isin(parts, np.flatnonzero(areas >= max(1, share * areas.max()))).astype(np.uint8)


def _laplacian(ties: Floats) -> Floats:
    laplacian: Floats = np.diag(ties.sum(axis=1)) - ties
    return laplacian


def _pairwise(*coordinates: Floats) -> Floats:
    """Return the n x n Euclidean distances of n points."""
    points = np.stack(coordinates, axis=1)
    distances: Floats = np.linalg.norm(points[:, None] - points, axis=2)
    return distances


def _bell(distance: Floats, width: float) -> Floats:
    bell: Floats = np.exp(-(distance**2) / (2 * width**2))
    return bell


def _unit(values: NDArray[np.floating[Any]]) -> Floats:
    unit: Floats = (values - values.min()) / max(float(np.ptp(values)), 1e-9)
    return unit


def _as_bytes(lab: Floats) -> Rgb:
    return np.clip(lab * (2.55, 1, 1) + (0, 128, 128), 0, 255).astype(np.uint8)


def reduced(rgb: Rgb) -> Rgb:
    """Return the image at the segmenter's input size."""
    return _shrink(rgb, INPUT_PX)


def _shrink(rgb: Rgb, longer_px: int) -> Rgb:
    height, width = rgb.shape[:2]
    scale = min(1.0, longer_px / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
