"""Simulate the masks of segmentation networks from a true alpha: small, blurred, and with one known fault each."""

from enum import StrEnum
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from core.arrays import Alpha, Mask

# Lengths in pixels of the mask, because faults scale with the network's resolution, not with the picture's.
_PSF_SIGMA: Final = 0.8
_BLURRED_SIGMA: Final = 1.8
_JITTER_RMS: Final = 2.0
_JITTER_CORRELATION: Final = 6.0
_SIGMOID_SLOPE: Final = 20.0
_SOLID: Final = 0.99


class Fault(StrEnum):
    """The fault of a simulated mask. Lengths are in pixels of the mask.

    - clean: no fault; the true alpha with a network's usual blur (Gaussian, sigma 0.8 px);
    - blurred: a stronger blur, sigma 1.8 px;
    - jittered: edges displaced by a smooth random field with a root mean square of 2 px;
    - overconfident: values pushed towards 0 and 1 by a steep sigmoid, which removes thin hair and hardens edges;
    - holed: holes in the solid interior of the subject, and a few islands in the background.
    """

    CLEAN = "clean"
    BLURRED = "blurred"
    JITTERED = "jittered"
    OVERCONFIDENT = "overconfident"
    HOLED = "holed"


def mask(alpha: Alpha, side_px: int, fault: Fault, seed: int = 0) -> Mask:
    """Return a simulated mask.

    Args:
        alpha: the true alpha, H x W float32 in [0, 1].
        side_px: longer side of the mask; may exceed the picture's.
        fault: the fault to simulate.
        seed: seed of the random faults. Equal arguments give equal masks.

    Returns:
        h x w float32 in [0, 1], quantized to 1/255, with max(h, w) equal to ``side_px``.
    """
    rng = np.random.default_rng([seed, side_px])
    small = _resize(alpha, side_px)
    if fault is Fault.JITTERED:
        small = _displace(small, rng)
    if fault is Fault.HOLED:
        small = _puncture(small, rng)
    sigma = _BLURRED_SIGMA if fault is Fault.BLURRED else _PSF_SIGMA
    seen = cv2.GaussianBlur(small, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    if fault is Fault.OVERCONFIDENT:
        seen = 1 / (1 + np.exp(-_SIGMOID_SLOPE * (seen - 0.5)))
    return np.asarray(np.rint(seen * 255) / 255, np.float32)


def _resize(alpha: Alpha, side_px: int) -> Mask:
    height, width = alpha.shape
    scale = side_px / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(alpha, size, interpolation=method), np.float32)


def _displace(small: Mask, rng: np.random.Generator) -> Mask:
    height, width = small.shape
    field = cv2.GaussianBlur(rng.standard_normal((height, width, 2)), (0, 0), _JITTER_CORRELATION)
    field *= _JITTER_RMS / np.sqrt(np.square(field).sum(axis=2).mean())
    y, x = np.mgrid[0:height, 0:width]
    across, down = ((at + field[..., axis]).astype(np.float32) for axis, at in enumerate((x, y)))
    return np.asarray(cv2.remap(small, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _puncture(small: Mask, rng: np.random.Generator) -> Mask:
    holes = _blobs(small >= _SOLID, 4, rng)
    islands = _blobs(small <= 1 - _SOLID, 2, rng)
    punctured: Mask = np.maximum(small * (1 - holes), islands)
    return punctured


def _blobs(where: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw ellipses with centers and most of their area deep inside a region."""
    drawn: NDArray[Any] = np.zeros(where.shape, np.float32)
    depth = cv2.distanceTransform(np.pad(where, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    centers = np.argwhere(depth >= max(2.0, 0.4 * depth.max()))
    for y, x in rng.permutation(centers)[:count]:
        radius = max(1, round(float(depth[y, x] * rng.uniform(0.25, 0.5))))
        cv2.ellipse(
            drawn, (int(x), int(y)), (radius, max(1, radius * 2 // 3)), float(rng.uniform(0, 180)), 0, 360, 1.0, -1
        )
    return drawn
