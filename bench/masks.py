"""Masks as segmentation networks give them, made from a true alpha: small, unsharp, and wrong in one known way each."""

from enum import StrEnum
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from core.types import Alpha, Mask

# Lengths in pixels of the mask: a network's faults follow its own resolution, not the picture's.
_PSF_SIGMA: Final = 0.8
_BLURRED_SIGMA: Final = 1.8
_JITTER_RMS: Final = 2.0
_JITTER_CORRELATION: Final = 6.0
_SIGMOID_SLOPE: Final = 20.0
_SOLID: Final = 0.99


class Fault(StrEnum):
    """What is wrong with a mask beside its size.

    - clean: nothing; the true alpha through the network's own blur (Gaussian, sigma 0.8 px of the mask);
    - blurred: an undecided network, sigma 1.8 px;
    - jittered: edges in the wrong place, displaced by a smooth random field of 2 px root mean square;
    - overconfident: pushed towards 0 and 1 by a steep sigmoid, so that thin hair is gone and edges are hard;
    - holed: parts of the subject's solid inside are missing, and background is taken for subject in a few places.
    """

    CLEAN = "clean"
    BLURRED = "blurred"
    JITTERED = "jittered"
    OVERCONFIDENT = "overconfident"
    HOLED = "holed"


def mask(alpha: Alpha, side_px: int, fault: Fault, seed: int = 0) -> Mask:
    """Return what a network of a given size could make of a subject.

    Args:
        alpha: H x W float32 in [0, 1], the true one.
        side_px: the mask's longer side; it may exceed the picture's, as networks enlarge small pictures.
        fault: what goes wrong.
        seed: of the random faults; the same arguments give the same mask.

    Returns:
        h x w float32 in [0, 1], in 255ths as networks' masks are handed on; max(h, w) is ``side_px``.
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
    """Draw blobs whose centres and most of whose area lie deep inside a region."""
    drawn: NDArray[Any] = np.zeros(where.shape, np.float32)
    depth = cv2.distanceTransform(np.pad(where, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    centres = np.argwhere(depth >= max(2.0, 0.4 * depth.max()))
    for y, x in rng.permutation(centres)[:count]:
        radius = max(1, round(float(depth[y, x] * rng.uniform(0.25, 0.5))))
        cv2.ellipse(
            drawn, (int(x), int(y)), (radius, max(1, radius * 2 // 3)), float(rng.uniform(0, 180)), 0, 360, 1.0, -1
        )
    return drawn
