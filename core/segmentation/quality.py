"""Estimate, without ground truth, the probability that a mask gives a usable cut-out.

A logistic model of a few features, with and without a mirrored look. Features and fit are described in
docs/explanation/quality.md; ``python -m bench.studies.fit_quality`` fits the constants.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from core.arrays import Mask, Rgb
from core.types import Quality

Plane: TypeAlias = NDArray[np.float32]

_SIDE_PX: Final = 160
"""Longer side of the grid on which features are measured, so that they mean the same for a mask of any size."""

_REACH_PX: Final = (25.0, 12.0, 6.0, 3.0)
"""Blurs, from coarse to fine, that extend the colors of the subject and of the background over the picture."""

_LEAST_PIXELS: Final = 20
_LEAST_CONTRAST: Final = 12.0
"""CIELAB units. Less contrast does not lower the score further: a light product on white is no fault."""

_NOISE: Final = 10.0
"""Variance of a color in CIELAB that is not a difference."""

_CERTAIN: Final = 8.0  # largest log-likelihood ratio of a pixel

_PALETTE: Final = (10.0, 24)  # CIELAB units per bin, and bins per color axis

_REASON_FROM: Final = 0.5
"""Loss of log-odds from which a group of features is a reason for review."""


@dataclass(frozen=True)
class Features:
    """What the score depends on; all but edge_fit are natural logarithms.

    "Excess" is what exceeds the share of mixed pixels that an edge of this length has anyway.

    Attributes:
        uncertainty: excess of 4m(1 - m) per unit of the mask's area; 4m(1 - m) is 1 where the mask m is 0.5.
        background_inside: excess share of the mask's area whose colors are more like the background nearby.
        color_overlap: excess error, per unit of area, if the mask is predicted from each pixel's color alone.
        contrast: color difference between the two sides of the mask's edge.
        outline: length of the edge, relative to the square root of the area.
        subject_outside: share of the picture outside the mask whose colors are more like the subject nearby.
        edge_fit: gradient of the picture along the mask's edge, relative to the largest one nearby; 0 to 1.
        looks_differ: 1.02 - IoU with the mask of the mirrored picture; None without it.
    """

    uncertainty: float
    background_inside: float
    color_overlap: float
    contrast: float
    outline: float
    subject_outside: float
    edge_fit: float
    looks_differ: float | None = None


_REASONS: Final = {
    "uncertainty": "mostly_uncertain",
    "background_inside": "similar_colors",
    "color_overlap": "similar_colors",
    "contrast": "mask_and_picture_disagree",
    "looks_differ": "looks_differ",
}
"""Reason for review by feature. The other features only correct these: mixed pixels of a long outline, for example, are
no fault."""


@dataclass(frozen=True)
class Model:
    """A logistic model.

    Attributes:
        bias: log-odds of a usable cut-out if all features are typical.
        weights: loss of log-odds per unit of a feature, by name.
        review_below: score below which a person should review the result.
    """

    bias: float
    weights: Mapping[str, float]
    review_below: float


TYPICAL: Final[Mapping[str, float]] = {
    "uncertainty": -3.356,
    "background_inside": -3.682,
    "color_overlap": -2.879,
    "contrast": 3.313,
    "outline": 1.863,
    "subject_outside": -3.895,
    "edge_fit": 0.842,
    "looks_differ": -3.023,
}
"""Mean of each feature over usable masks."""

ONE_LOOK: Final = Model(
    bias=3.100,
    weights={
        "uncertainty": 0.789,
        "background_inside": 1.195,
        "color_overlap": 1.360,
        "contrast": -2.646,
        "outline": -1.530,
        "subject_outside": -1.444,
        "edge_fit": 19.367,
    },
    review_below=0.761,
)
TWO_LOOKS: Final = Model(
    bias=3.220,
    weights={
        "uncertainty": 0.425,
        "background_inside": 1.536,
        "color_overlap": 1.132,
        "contrast": -3.073,
        "outline": -1.519,
        "subject_outside": -1.396,
        "edge_fit": 23.028,
        "looks_differ": 1.310,
    },
    review_below=0.563,
)

_DOUBTFUL: Final = (0.523, 0.761)
"""Scores of one look that ask for a review and that 15 % of the masks of the fit have: the highest ones."""


def assess(rgb: Rgb, mask: Mask, mirrored: Mask | None = None) -> Quality:
    """Estimate the quality of a network's mask.

    Args:
        rgb: H x W x 3 uint8, the picture that the mask was made of; any size.
        mask: h x w float32 in [0, 1].
        mirrored: the mask of the mirrored picture, mirrored back; same size as ``mask``.
    """
    features = measure(rgb, mask, mirrored)
    model = ONE_LOOK if mirrored is None else TWO_LOOKS
    losses = {name: weight * (getattr(features, name) - TYPICAL[name]) for name, weight in model.weights.items()}
    terms = _rules(mask)
    score = math.prod(terms.values()) / (1 + math.exp(max(-50.0, min(50.0, sum(losses.values()) - model.bias))))
    return Quality(score, _reasons(losses, terms) if score < model.review_below else ())


def doubtful(quality: Quality) -> bool:
    """Return whether a score without a mirrored look is uncertain enough to make a mirrored look worth its time."""
    low, high = _DOUBTFUL
    return low <= quality.score < high


def measure(rgb: Rgb, mask: Mask, mirrored: Mask | None = None) -> Features:
    """Return the features of a mask; arguments as for :func:`assess`."""
    scale = min(1.0, _SIDE_PX / max(mask.shape))
    size = max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale))
    small = _shrink(mask, size)
    lab = _blur(np.asarray(cv2.cvtColor(_shrink(rgb, size) / np.float32(255), cv2.COLOR_RGB2LAB), np.float32), 0.7)
    area = float(small.sum(dtype=np.float64)) + 1
    edge, subject = _gradient(small), _looks_like_subject(lab, small)
    length = float(edge.sum()) + 1e-3

    def excess(pixels: Plane, usual: float) -> float:
        return math.log(max(0.0, float(pixels.sum()) - usual * length) / area + 0.02)

    return Features(
        uncertainty=excess(4 * small * (1 - small), 2.0),
        background_inside=excess((1 - subject) * small, 0.6),
        color_overlap=excess(np.abs(_by_color(lab, small) - small), 0.6),
        contrast=math.log(max(_LEAST_CONTRAST, float((edge * _difference(lab, small)).sum()) / length)),
        outline=math.log(length / math.sqrt(area) + 0.1),
        subject_outside=math.log(float((subject * (1 - small)).mean()) + 0.005),
        edge_fit=float((edge * _relative_strength(lab)).sum()) / length,
        looks_differ=None if mirrored is None else math.log(1.02 - overlap(small, _shrink(mirrored, size))),
    )


def _relative_strength(lab: Plane) -> Plane:
    """Return the largest gradient within 1 pixel, relative to the largest one within 3 pixels."""
    strength = np.max([_gradient(np.asarray(channel, np.float32)) for channel in cv2.split(lab)], axis=0)
    near, around = (cv2.dilate(strength, np.ones((side, side), np.uint8)) for side in (3, 7))
    return np.asarray(near / (around + 0.5), np.float32)


def _difference(lab: Plane, mask: Plane) -> Plane:
    """Return the color difference between subject and background around each pixel."""
    inside, outside = (
        _blur(lab * weight[..., None], 2.0) / (_blur(weight, 2.0)[..., None] + 1e-3) for weight in (mask, 1 - mask)
    )
    return np.asarray(np.linalg.norm(inside - outside, axis=-1), np.float32)


def overlap(one: Plane, other: Plane) -> float:
    """Return the intersection over union of two masks."""
    return float(np.minimum(one, other).sum()) / (float(np.maximum(one, other).sum()) + 1e-6)


def _looks_like_subject(lab: Plane, mask: Plane) -> Plane:
    """Return the probability that a pixel belongs to the subject, from the colors nearby that surely do or do not."""
    surely = cv2.erode(mask, np.ones((3, 3), np.uint8)) > 0.7
    surely_not = cv2.dilate(mask, np.ones((5, 5), np.uint8)) < 0.3
    subject, subject_spread = _distance(lab, surely if surely.sum() >= _LEAST_PIXELS else mask > 0.5)
    around, around_spread = _distance(lab, surely_not if surely_not.sum() >= _LEAST_PIXELS else mask < 0.5)
    ratio = (around / around_spread - subject / subject_spread + 1.5 * np.log(around_spread / subject_spread)) / 2
    return np.asarray(1 / (1 + np.exp(-ratio.clip(-_CERTAIN, _CERTAIN))), np.float32)


def _distance(lab: Plane, where: NDArray[np.bool_]) -> tuple[Plane, Plane]:
    """Return each pixel's squared distance from the mean color of the nearest part of a region, and its mean there."""
    weight = where.astype(np.float32)
    color = np.zeros_like(lab)
    for step, sigma in enumerate(_REACH_PX):
        density = _blur(weight, sigma)[..., None]
        here = _blur(lab * weight[..., None], sigma) / (density + 1e-4)
        share = np.minimum(4 * density, 1) if step else np.float32(1)
        color += share * (here - color)
    squared = np.asarray(np.square(lab - color).sum(axis=-1), np.float32)
    spread = _blur(squared * weight, 12.0) / (_blur(weight, 12.0) + np.float32(1e-4)) + np.float32(_NOISE)
    return squared, spread


def _by_color(lab: Plane, mask: Plane) -> Plane:
    """Return the mean of the mask over all pixels of a similar color."""
    unit, bins = _PALETTE
    light, red, blue = (
        ((channel + shift) / unit).astype(int) for channel, shift in zip(cv2.split(lab), (0, 120, 120), strict=True)
    )
    color = ((light * bins + red) * bins + blue).ravel()
    inside, all_ = np.bincount(color, weights=mask.ravel()), np.bincount(color)
    return np.asarray((inside / np.maximum(all_, 1))[color].reshape(mask.shape), np.float32)


def _rules(mask: Mask) -> dict[str, float]:
    """Return a factor of the score, 1 for a sound mask, by reason, for faults that no mask of the fit has."""
    subject = mask >= 0.5
    _, _, boxes, _ = cv2.connectedComponentsWithStats(subject.astype(np.uint8))
    areas = np.asarray(boxes)[1:, cv2.CC_STAT_AREA].astype(float)  # the first is the background
    share = float(mask.mean(dtype=np.float64))
    border = np.concatenate([subject[0], subject[-1], subject[:, 0], subject[:, -1]])
    return {
        "fragmented": min(1.0, 4 * float(np.square(areas / areas.sum()).sum())) if areas.size else 1.0,
        "tiny_subject": _rise(share, 0.0, 0.01),
        "fills_picture": _rise(-share, -1.0, -0.95),
        "cut_by_border": _rise(-float(border.mean()), -1.0, -0.5),
    }


def _reasons(losses: Mapping[str, float], terms: Mapping[str, float]) -> tuple[str, ...]:
    """Return what lowers the score, at least one reason, the worst first."""
    total: dict[str, float] = {reason: -math.log(max(term, 1e-6)) for reason, term in terms.items()}
    for name, loss in losses.items():
        if name in _REASONS:
            total[_REASONS[name]] = total.get(_REASONS[name], 0.0) + loss
    worst = sorted(total, key=total.__getitem__, reverse=True)
    return tuple(reason for reason in worst if total[reason] >= _REASON_FROM) or (worst[0],)


def _rise(value: float, zero: float, one: float) -> float:
    """Return 0 up to ``zero``, 1 from ``one`` on, and the straight line in between."""
    return min(1.0, max(0.0, (value - zero) / (one - zero)))


def _shrink(plane: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA))


def _blur(plane: Plane, sigma: float) -> Plane:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), np.float32)


def _gradient(plane: Plane) -> Plane:
    return np.hypot(*(cv2.Sobel(plane, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1))))
