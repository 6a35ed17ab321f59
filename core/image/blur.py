"""Blurred backgrounds: the photo's own background without its subject, as in the portrait mode of a phone."""

from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from core.arrays import Alpha, Rgb


@dataclass(frozen=True)
class BlurShape:
    """How a background is blurred. Chosen by eye on photographs with hair, fur and spokes.

    Attributes:
        side_px: longer side of the copy in which the background is separated from the subject.
        reach: distance from the subject, as a share of the longer side, within which pixels do not count as background:
            lenses, JPEG and errors of the alpha put the subject's colors there.
        steepness: exponent of ``1 - alpha`` in the weight of a pixel, so that soft edges and hair do not count.
            With 16, a soft edge over a fifth of the image tinted the background by 43 levels; with 64, by 5.
        cells: standard deviation of the blur on the grid that is blurred, which bounds time and memory.
        near: weight sum, as a share of that of a pixel far from the subject, at which the background nearby and the
            one farther away count alike.
    """

    side_px: int = 1024
    reach: float = 0.004
    steepness: int = 64
    cells: float = 4.0
    near: float = 0.01


_Number = TypeVar("_Number", np.uint8, np.float32)

_SHAPE: Final = BlurShape()

_FALLBACK: Final = np.float32(1e-6)
"""Least weight of a pixel, so that an image without any background is blurred as it is."""

_Planes: TypeAlias = NDArray[np.float32]


def blurred(rgb: Rgb, alpha: Alpha, share: float) -> Rgb:
    """Return an image without its subject, blurred.

    The blur is a mean of the pixels of the background alone, weighted by distance (normalized convolution; Knutsson and
    Westin, Normalized and Differential Convolution, 1993), so that the subject's colors do not spread. Where no
    background is near, that of wider blurs takes its place.

    Args:
        rgb: H x W x 3 uint8 sRGB.
        alpha: H x W float32 in [0, 1], of the subject.
        share: standard deviation of the blur as a share of the longer side, above 0.

    Returns:
        H x W x 3 uint8 sRGB.
    """
    planes = _shrunk(_weighted(rgb, alpha), _SHAPE.cells / share)
    means = _means(planes, share * max(planes.shape[:2]))
    result = np.empty_like(rgb)
    for channel in range(3):  # one at a time: the whole in floats would be four times the image
        cv2.insertChannel(_enlarged(means[..., channel], *alpha.shape), result, channel)
    return result


def _enlarged(means: NDArray[np.float32], height: int, width: int) -> NDArray[np.uint8]:
    plane = np.asarray(cv2.resize(means, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
    return np.asarray(cv2.convertScaleAbs(plane.clip(0, 255, out=plane)), np.uint8)


def _weighted(rgb: Rgb, alpha: Alpha) -> _Planes:
    """Return a small copy, h x w x 4: the colors times their weights as background, and the weights."""
    opacity = _shrunk(alpha, _SHAPE.side_px)
    reach = max(1, round(_SHAPE.reach * max(opacity.shape)))
    around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    weights = (1 - np.asarray(cv2.dilate(opacity, around), np.float32).clip(0, 1)) ** _SHAPE.steepness + _FALLBACK
    weights /= weights.max()  # the clearest background counts in full, even in haze
    return np.dstack([_shrunk(rgb, _SHAPE.side_px) * weights[..., None], weights])


def _means(planes: _Planes, sigma: float) -> _Planes:
    """Return the blurred colors, h x w x 3, of weighted ones, h x w x 4."""
    sums = np.asarray(cv2.GaussianBlur(planes, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT), np.float32)
    if max(planes.shape[:2]) == 1:
        return np.asarray(sums[..., :3] / sums[..., 3:], np.float32)
    height, width = planes.shape[:2]
    wider = _means(_shrunk(planes, -(-max(height, width) // 2)), sigma)
    wider = np.asarray(cv2.resize(wider, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    near = np.float32(_SHAPE.near)
    return np.asarray((sums[..., :3] + near * wider) / (sums[..., 3:] + near), np.float32)


def _shrunk(pixels: NDArray[_Number], longer_px: float) -> NDArray[_Number]:
    """Return an image whose longer side is at most ``longer_px``."""
    height, width = pixels.shape[:2]
    factor = min(1.0, longer_px / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    if factor == 1:
        return pixels
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), pixels.dtype)
