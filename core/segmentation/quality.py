"""Estimate, without ground truth, the probability that a mask gives a usable cut-out."""

import math
from typing import Final

import numpy as np

from core.types import Mask, Quality, Rgb

_REVIEW_BELOW: Final = 0.7
_DOUBTFUL: Final = (0.3, 0.85)


def assess(rgb: Rgb, mask: Mask, mirrored: Mask | None = None) -> Quality:
    """Estimate the quality of a network's mask.

    Args:
        rgb: H x W x 3 uint8, the picture that the mask was made of; any size.
        mask: h x w float32 in [0, 1].
        mirrored: the mask of the mirrored picture, mirrored back; same size as ``mask``. It makes the score more
            accurate.
    """
    area = float(mask.sum(dtype=np.float64))
    ambiguity = float((4 * mask * (1 - mask)).sum(dtype=np.float64)) / area if area else 1.0
    score = 1 / (1 + math.exp(min(50.0, 10 * (ambiguity - 0.4))))
    if mirrored is not None:
        union = float(np.maximum(mask, mirrored).sum(dtype=np.float64))
        score *= float(np.minimum(mask, mirrored).sum(dtype=np.float64)) / union if union else 0.0
    return Quality(score, ("mostly_uncertain",) if score < _REVIEW_BELOW else ())


def doubtful(quality: Quality) -> bool:
    """Return whether a score without a mirrored look is uncertain enough to make a mirrored look worth its time."""
    low, high = _DOUBTFUL
    return low <= quality.score < high
