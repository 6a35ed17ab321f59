"""Estimate a cut-out's quality without ground truth, and whether a person should review it."""

import math
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from core.types import Mask, Matte

_SOFT: Final = (0.02, 0.98)
"""Alpha strictly between these counts as uncertain in ``uncertain_share``."""

_MIN_REGION_SHARE: Final = 0.0005
"""Smallest region that counts, as a share of the mask's pixels."""

_REVIEW_BELOW: Final = 0.7
"""Threshold of the score's terms: one below it is a reason for review."""


@dataclass(frozen=True)
class Quality:
    """Quality of a cut-out, estimated without ground truth.

    ``score`` is the product of five terms in [0, 1], each of which is 1 for a sound cut-out. "Soft" means
    4 alpha (1 - alpha): 1 where alpha is 0.5, 0 where it is 0 or 1.

    - decided: the mask is decided about the subject. Mean of abs(2 mask - 1) over the mask's pixels above 0.05;
      from 0.75 on the term is 1, at 0.45 it is 0. Noise and a washed-out mask lower it.
    - supported: the image has an edge where the mask has one: ``Matte.disagreement`` is small. Up to 0.06 the
      term is 1, at 0.15 it is 0. Half a subject or a displaced mask lowers it.
    - whole: the subject has one or a few regions. 1 / sum(share of each region squared) is the number of
      regions, small ones counting little; up to 4 the term is 1, then 4 / number.
    - sized: the subject is neither a speck nor the whole image. 1 if it covers 1 to 95 % of the
      image; below, share / 1 %; above, (100 % - share) / 5 %.
    - framed: the subject does not run along the image's border. Up to 50 % of the border the term is 1, at
      100 % it is 0. A portrait cut by the bottom edge keeps 1; a mask of the background does not.

    ``reasons`` names each term below 0.7 by a code, and ``review`` is true if there is one:
    ``mostly_uncertain``, ``mask_and_picture_disagree``, ``fragmented``, ``tiny_subject`` or
    ``fills_picture``, ``cut_by_border``.

    Attributes:
        score: 0 to 1; about 0.8 and more if no review is needed.
        uncertain_share: share of the image with 0.02 < alpha < 0.98.
        foreground_share: mean of alpha.
        regions: number of separate regions of alpha above 0.5 of at least 0.05 % of the image.
        touches_border: the sides that the subject touches, of top, right, bottom, left.
        reasons: codes of what a person should review; may be empty.
    """

    score: float
    uncertain_share: float
    foreground_share: float
    regions: int
    touches_border: tuple[str, ...]
    reasons: tuple[str, ...]

    @property
    def review(self) -> bool:
        """Whether a person should review the result."""
        return bool(self.reasons)

    def facts(self) -> dict[str, Any]:
        """Return a JSON object with rounded numbers."""
        return {
            "score": round(self.score, 3),
            "review": self.review,
            "reasons": list(self.reasons),
            "uncertain_share": round(self.uncertain_share, 4),
            "foreground_share": round(self.foreground_share, 4),
            "regions": self.regions,
            "touches_border": list(self.touches_border),
        }


def assess(mask: Mask, matte: Matte) -> Quality:
    """Estimate the quality of a mask and its refined alpha.

    Args:
        mask: h x w float32 in [0, 1], at the network's size.
        matte: from ``core.matting.refine``; alpha is H x W float32 in [0, 1], at the image's size.
    """
    alpha = matte.alpha
    size = (min(mask.shape[1], alpha.shape[1]), min(mask.shape[0], alpha.shape[0]))
    coarse = _shrink_to(mask, size)
    refined = _shrink_to(alpha, size)
    subject = refined >= 0.5
    areas = _region_shares(subject)
    foreground_share = float(alpha.mean(dtype=np.float64))
    border = np.concatenate([subject[0], subject[-1], subject[:, 0], subject[:, -1]])
    sides = {"top": subject[0], "right": subject[:, -1], "bottom": subject[-1], "left": subject[:, 0]}
    terms = {
        "mostly_uncertain": _rise(_decidedness(coarse), 0.45, 0.75),
        "mask_and_picture_disagree": _rise(-matte.disagreement, -0.15, -0.06),
        "fragmented": min(1.0, 4 * math.fsum((area / sum(areas)) ** 2 for area in areas)) if areas else 1.0,
        "tiny_subject": _rise(foreground_share, 0.0, 0.01),
        "fills_picture": _rise(-foreground_share, -1.0, -0.95),
        "cut_by_border": _rise(-float(border.mean()), -1.0, -0.5),
    }
    low, high = _SOFT
    return Quality(
        score=math.prod(terms.values()),
        uncertain_share=float(np.count_nonzero((alpha > low) & (alpha < high)) / alpha.size),
        foreground_share=foreground_share,
        regions=sum(area >= _MIN_REGION_SHARE for area in areas),
        touches_border=tuple(side for side, pixels in sides.items() if pixels.any()),
        reasons=tuple(code for code, term in terms.items() if term < _REVIEW_BELOW),
    )


def _shrink_to(plane: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.float32)


def _rise(value: float, zero: float, one: float) -> float:
    """Return 0 up to ``zero``, 1 from ``one`` on, and the straight line in between."""
    return min(1.0, max(0.0, (value - zero) / (one - zero)))


def _decidedness(mask: Mask) -> float:
    subject = mask[mask > 0.05]
    return float(np.abs(2 * subject - 1).mean()) if subject.size else 0.0


def _region_shares(subject: NDArray[np.bool_]) -> list[float]:
    _, _, boxes, _ = cv2.connectedComponentsWithStats(subject.astype(np.uint8))
    areas = np.asarray(boxes)[1:, cv2.CC_STAT_AREA]  # the first is the background
    return [float(area) / subject.size for area in areas]
