"""What to show behind transparent pixels, so that the visible ones can be seen."""

import math
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from core.arrays import Picture, Rgb

WHITE: Final = 255
_LEVELS: Final = (WHITE, 128, 0)
"""Candidates; of equals the first is taken. u2netp finds more of white text on gray than on black."""

_SIMILAR: Final = 48
"""Levels by which every channel may differ from the backdrop in a pixel that does not stand out."""

_TOLERATED: Final = 0.25
"""Share of the visible pixels that may resemble white; beyond it, another backdrop is considered."""

_SAMPLES: Final = 250_000
_VISIBLE: Final = 128
_BAND_PIXELS: Final = 1_000_000


def contrasting(rgb: Rgb, opacity: NDArray[np.uint8]) -> int:
    """Return the gray level, 0 to 255, from which an image's visible pixels stand out.

    It is white, as in most viewers, unless too many of the visible pixels resemble white and fewer resemble another.

    Args:
        rgb: H x W x 3 uint8, sRGB, straight.
        opacity: H x W uint8, 255 is opaque.
    """
    step = max(1, math.isqrt(opacity.size // _SAMPLES))
    seen = rgb[::step, ::step][opacity[::step, ::step] >= _VISIBLE].astype(np.int16)
    if not seen.size:
        return WHITE
    shares = {level: float(np.mean(np.abs(seen - level).max(axis=1) <= _SIMILAR)) for level in _LEVELS}
    return WHITE if shares[WHITE] <= _TOLERATED else min(_LEVELS, key=lambda level: shares[level])


def composed(picture: Picture, level: int | None = None) -> Rgb:
    """Return an image as it looks on gray of a level; None for the level that its transparent pixels have.

    Returns:
        H x W x 3 uint8; the image's own array if it is opaque.
    """
    if picture.alpha is None:
        return picture.rgb
    backdrop = picture.backdrop if level is None else level
    shown = np.empty_like(picture.rgb)
    rows = max(1, _BAND_PIXELS // shown.shape[1])
    for top in range(0, len(shown), rows):
        band = slice(top, top + rows)
        alpha = cv2.merge([picture.alpha[band]] * 3)
        over = picture.rgb[band].astype(np.float32)
        over -= backdrop
        over *= alpha
        over += backdrop + 0.5
        shown[band] = over.astype(np.uint8)
    return shown
