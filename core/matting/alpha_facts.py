"""Facts of an alpha that a caller can act on."""

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np

from core.arrays import Alpha

_SOFT: Final = (0.02, 0.98)
_SIDE_PX: Final = 512
_MIN_REGION_SHARE: Final = 0.0005
"""Smallest region that counts, as a share of the image."""


@dataclass(frozen=True)
class AlphaFacts:
    """Facts of an alpha.

    Attributes:
        uncertain_share: share of the image with 0.02 < alpha < 0.98.
        foreground_share: mean of alpha.
        regions: number of separate regions of alpha of at least 0.5, of at least 0.05 % of the image.
        touches_border: the sides that the subject touches, of top, right, bottom, left.
    """

    uncertain_share: float
    foreground_share: float
    regions: int
    touches_border: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """Return a JSON object with rounded numbers."""
        return {
            "uncertain_share": round(self.uncertain_share, 4),
            "foreground_share": round(self.foreground_share, 4),
            "regions": self.regions,
            "touches_border": list(self.touches_border),
        }


def describe(alpha: Alpha) -> AlphaFacts:
    """Return the facts of an alpha, H x W float32 in [0, 1]. Regions and sides come from a copy of at most 512 px."""
    height, width = alpha.shape
    scale = min(1.0, _SIDE_PX / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    subject = np.asarray(cv2.resize(alpha, size, interpolation=cv2.INTER_AREA)) >= 0.5
    _, _, boxes, _ = cv2.connectedComponentsWithStats(subject.astype(np.uint8))
    areas = np.asarray(boxes)[1:, cv2.CC_STAT_AREA]  # the first is the background
    sides = {"top": subject[0], "right": subject[:, -1], "bottom": subject[-1], "left": subject[:, 0]}
    low, high = _SOFT
    return AlphaFacts(
        uncertain_share=float(np.count_nonzero((alpha > low) & (alpha < high)) / alpha.size),
        foreground_share=float(alpha.mean(dtype=np.float64)),
        regions=int(np.count_nonzero(areas >= _MIN_REGION_SHARE * subject.size)),
        touches_border=tuple(side for side, pixels in sides.items() if pixels.any()),
    )
