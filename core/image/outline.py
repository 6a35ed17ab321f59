"""Outlines around subjects, as on die-cut stickers."""

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from core.arrays import Alpha, Rgb
from core.layout import main_parts


@dataclass(frozen=True)
class OutlineShape:
    """How an outline follows its subject. Chosen by eye on 8 photographs with masks of u2netp, at 512 and 1,024 px.

    Attributes:
        solid: alpha from which a pixel belongs to the subject: hair is enclosed, haze is not.
        smoothing: radius, in widths of the outline, up to which gaps and notches of the outline are filled.
        calm: standard deviation of the blur that calms a ragged edge, in widths of the outline.
        cells: width of the outline on the grid that distances are measured on.
        most_cells: size of that grid, which bounds time and memory. It has at most twice the result's resolution.
    """

    solid: float = 0.3
    smoothing: float = 1.0
    calm: float = 0.4
    cells: float = 24.0
    most_cells: int = 16_000_000


_SHAPE: Final = OutlineShape()

_HALF: Final = np.float32(0.5)
"""Distance from a pixel's center to its edge."""

_LEAST_SIGMA: Final = 0.6
"""Least standard deviation of a blur, in pixels: OpenCV rejects 0."""


def draw(rgb: Rgb, alpha: Alpha, width_px: float, color: str) -> tuple[Rgb, Alpha]:
    """Return colors and alpha of a subject on a silhouette of one color, which is wider than the subject.

    What is outside the silhouette, such as specks and haze, is removed.

    Args:
        rgb: H x W x 3 uint8, the subject's own colors.
        alpha: H x W float32 in [0, 1].
        width_px: width of the outline in pixels.
        color: of the outline, ``#rrggbb``.
    """
    covered = silhouette(alpha, width_px)
    plain = np.empty_like(rgb)
    plain[:] = np.frombuffer(bytes.fromhex(color[1:]), np.uint8)
    return np.asarray(cv2.blendLinear(rgb, plain, alpha, 1 - alpha), np.uint8), covered


def silhouette(alpha: Alpha, width_px: float) -> Alpha:
    """Return the opacity of a subject and its outline together, with an antialiased edge.

    Args:
        alpha: H x W float32 in [0, 1].
        width_px: width of the outline in pixels.
    """
    height, width = alpha.shape
    scale = min(2.0, _SHAPE.cells / width_px, math.sqrt(_SHAPE.most_cells / alpha.size))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    kernel = cv2.INTER_LINEAR if scale >= 1 else cv2.INTER_AREA
    solid = (np.asarray(cv2.resize(alpha, size, interpolation=kernel)) >= _SHAPE.solid).view(np.uint8)
    reach, filled = width_px * scale, _SHAPE.smoothing * width_px * scale
    around = math.ceil(reach + filled) + 2  # the canvas's border must not count as an edge
    solid = np.asarray(cv2.copyMakeBorder(main_parts(solid), *(around,) * 4, cv2.BORDER_CONSTANT, value=0), np.uint8)
    # Grown by more than the outline and shrunk again: what is narrower than the excess stays filled.
    calm = max(_SHAPE.calm * reach, _LEAST_SIGMA)
    grown = (_calmed(_distance(1 - solid), calm) - _HALF <= reach + filled).view(np.uint8)
    inside = _calmed(_distance(grown), calm / 2)[around:-around, around:-around] - _HALF - np.float32(filled)
    if scale >= 1:
        covered = cv2.resize((inside + _HALF).clip(0, 1), (width, height), interpolation=cv2.INTER_AREA)
    else:
        covered = cv2.resize(inside, (width, height), interpolation=cv2.INTER_LINEAR) / np.float32(scale) + _HALF
    return np.asarray(covered, np.float32).clip(0, 1)


def _calmed(distance: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    """Smooth distances, which moves their contours only where these are ragged."""
    return np.asarray(cv2.GaussianBlur(distance, (0, 0), sigma_px), np.float32)


def _distance(mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return each pixel's distance to the nearest zero, in pixels."""
    return np.asarray(cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)
