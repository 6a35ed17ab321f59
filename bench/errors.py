"""The four standard error metrics of image matting: SAD, MSE, gradient, and connectivity.

Source: Rhemann et al., A Perceptually Motivated Online Benchmark for Image Matting (2009), with the parameters
of its authors' code. Each is 0 for equal alphas and grows with the visible difference.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from core.types import Alpha

Region: TypeAlias = NDArray[np.bool_]
"""H x W: True for the pixels to compare."""

_GRADIENT_SIGMA: Final = 1.4
_CONNECTIVITY_STEP: Final = 0.1
_CONNECTIVITY_TOLERANCE: Final = 0.15
_SOFT: Final = (0.02, 0.98)
_UNKNOWN: Final = 128


@dataclass(frozen=True)
class Errors:
    """The errors of an alpha.

    Attributes:
        sad: sum of absolute differences, in thousands.
        mse: mean squared difference.
        gradient: sum of squared differences of gradient magnitudes, in thousands.
        connectivity: sum of differences in the degree of connectedness to the subject, in thousands.
    """

    sad: float
    mse: float
    gradient: float
    connectivity: float


def compare(alpha: Alpha, truth: Alpha, regions: Mapping[str, Region]) -> dict[str, Errors]:
    """Compute the errors of an alpha in each region. Gradients and connectivity come from the whole picture.

    Args:
        alpha: H x W float32 in [0, 1], the estimate.
        truth: H x W float32 in [0, 1].
        regions: H x W bool by name. The errors of an empty region are 0.

    Returns:
        The errors by region name.
    """
    difference = np.abs(alpha - truth)
    gradient = np.square(_gradient_magnitude(alpha) - _gradient_magnitude(truth))
    connectivity = _connectivity_error(alpha, truth)
    return {
        name: Errors(
            sad=_sum(difference[region]) / 1000,
            mse=_sum(np.square(difference[region])) / max(1, int(np.count_nonzero(region))),
            gradient=_sum(gradient[region]) / 1000,
            connectivity=_sum(connectivity[region]) / 1000,
        )
        for name, region in regions.items()
    }


def band(truth: Alpha, mask: Alpha, trimap: NDArray[np.uint8] | None = None) -> Region:
    """Return the pixels where alpha is uncertain: the truth or the mask is soft, or the trimap is unknown (128)."""
    low, high = _SOFT
    uncertain = ((truth > low) & (truth < high)) | ((mask > low) & (mask < high))
    return uncertain if trimap is None else uncertain | (trimap == _UNKNOWN)


def _sum(values: NDArray[Any]) -> float:
    return float(values.sum(dtype=np.float64))


def _gradient_magnitude(alpha: Alpha) -> NDArray[np.float32]:
    """Return the gradient magnitude from Gaussian derivatives; the 2-D kernels have unit L2 norm."""
    smooth, derivative = _gaussian_kernels(_GRADIENT_SIGMA)
    across, down = (
        cv2.sepFilter2D(alpha, cv2.CV_32F, kernel_x, kernel_y, borderType=cv2.BORDER_REPLICATE)
        for kernel_x, kernel_y in ((derivative, smooth), (smooth, derivative))
    )
    return np.hypot(across, down, dtype=np.float32)


def _gaussian_kernels(sigma: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a Gaussian and its derivative, truncated where the density falls below 0.01."""
    reach = math.ceil(sigma * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * sigma * 0.01)))
    x = np.arange(-reach, reach + 1)
    gaussian = np.exp(-np.square(x) / (2 * sigma**2))
    derivative = x * gaussian
    return gaussian / np.linalg.norm(gaussian), derivative / np.linalg.norm(derivative)


def _connectivity_error(alpha: Alpha, truth: Alpha) -> NDArray[np.float32]:
    """Return, per pixel, the difference between the degrees of connectedness of both alphas."""
    connected = _connected_level(np.minimum(alpha, truth))
    error: NDArray[np.float32] = np.abs(_connectedness(alpha, connected) - _connectedness(truth, connected))
    return error


def _connectedness(alpha: Alpha, connected: NDArray[np.float32]) -> NDArray[np.float32]:
    excess = alpha - connected
    return np.asarray(1 - np.where(excess >= _CONNECTIVITY_TOLERANCE, excess, 0), np.float32)


def _connected_level(lower: Alpha) -> NDArray[np.float32]:
    """Return, per pixel, the highest level at which it belongs to the largest 4-connected region of both alphas."""
    level = np.zeros_like(lower)
    inside = np.ones(lower.shape, bool)
    for step in range(1, round(1 / _CONNECTIVITY_STEP) + 1):
        threshold = np.float32(step * _CONNECTIVITY_STEP)
        inside &= _largest_component(lower >= threshold)
        level[inside] = threshold
    return level


def _largest_component(region: Region) -> Region:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=4)
    if count == 1:
        return region
    largest: Region = labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return largest
