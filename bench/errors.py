"""Standard error metrics of image matting: SAD, MSE and gradient error.

Source: Rhemann et al., A Perceptually Motivated Online Benchmark for Image Matting (2009), with the parameters of its
authors' code. Each is 0 for equal alphas and grows with the visible difference.
"""

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from core.arrays import Alpha

_GRADIENT_SIGMA: Final = 1.4


@dataclass(frozen=True)
class Errors:
    """The errors of an alpha over the whole picture.

    Attributes:
        sad: sum of absolute differences, in thousands.
        mse: mean squared difference.
        gradient: sum of squared differences of gradient magnitudes, in thousands.
    """

    sad: float
    mse: float
    gradient: float


def compare(alpha: Alpha, truth: Alpha) -> Errors:
    """Compute the errors of an alpha. Both are H x W float32 in [0, 1]."""
    difference = (alpha - truth).astype(np.float64)
    gradient = np.square(_gradient_magnitude(alpha) - _gradient_magnitude(truth))
    return Errors(
        sad=float(np.abs(difference).sum()) / 1000,
        mse=float(np.square(difference).mean()),
        gradient=float(gradient.sum(dtype=np.float64)) / 1000,
    )


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
