"""The local linear model of matting, on a color guide: in every window, alpha = a . I + b.

Fitted to a mask, it is the guided filter (He, Sun, Tang, Guided Image Filtering, 2013); its residual for an alpha is
the matting Laplacian (Levin, Lischinski, Weiss, A Closed-Form Solution to Natural Image Matting, 2008).
"""

from typing import NamedTuple, TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

Plane: TypeAlias = NDArray[np.float32]
"""h x w, float32."""

Guide: TypeAlias = tuple[Plane, Plane, Plane]
"""The image's channels, float32 in [0, 1]; planar, because the filters are faster on planes."""

Coefficients: TypeAlias = tuple[Plane, Plane, Plane, Plane]
"""``a``, one plane per channel, and ``b`` of alpha = a . I + b."""

_Real = TypeVar("_Real", np.float32, np.float64)

_DOUBT: float = 0.03
"""Variance of a window's misfit at which its model has a quarter of a perfect one's weight."""


def as_guide(rgb: NDArray[np.uint8]) -> Guide:
    """Return the channels of an H x W x 3 uint8 image, in [0, 1]."""
    red, green, blue = (channel * np.float32(1 / 255) for channel in cv2.split(rgb))
    return red, green, blue


def apply(coefficients: Coefficients, guide: Guide) -> Plane:
    """Return a . I + b, as a new plane."""
    alpha = coefficients[3].copy()
    for a, channel in zip(coefficients, guide, strict=False):
        cv2.accumulateProduct(a, channel, alpha)
    return alpha


def box_mean(values: NDArray[_Real], radius: int, border: int = cv2.BORDER_REFLECT) -> NDArray[_Real]:
    """Return the mean over the (2 radius + 1)^2 window around every pixel."""
    side = 2 * radius + 1
    if side == 3:  # faster than running sums
        third = np.full(side, 1 / side, values.dtype)
        return np.asarray(cv2.sepFilter2D(values, -1, third, third, borderType=border), values.dtype)
    mean = cv2.boxFilter(values, -1, (side, side), normalize=True, borderType=border)
    return np.asarray(mean, values.dtype)


class Fit(NamedTuple):
    """The models of all windows, each at its window's center, or their means.

    ``variance`` is the target's in the window, ``misfit`` the part of it that the model does not explain.
    """

    coefficients: Coefficients
    variance: Plane
    misfit: Plane


class LocalLinearModel:
    """Least-squares fits of a plane to a guide, in every window; the guide's statistics are computed once.

    Args:
        guide: the channels, each h x w float32 in [0, 1].
        radius: of the windows, in pixels of the guide.
        epsilon: ridge on ``a``: the variance of the guide below which a window counts as flat.
    """

    def __init__(self, guide: Guide, radius: int, epsilon: float) -> None:
        self._radius = radius
        self._guide = guide
        # In float32 the 3 x 3 determinant cancels visibly on gray edges.
        i = [channel.astype(np.float64) for channel in guide]
        mean = [box_mean(channel, radius) for channel in i]
        self._minus_mean: list[Plane] = [(-plane).astype(np.float32) for plane in mean]

        def covariance(m: int, n: int) -> NDArray[np.float64]:
            return box_mean(i[m] * i[n], radius) - mean[m] * mean[n] + (epsilon if m == n else 0.0)

        c00, c01, c02 = covariance(0, 0), covariance(0, 1), covariance(0, 2)
        c11, c12, c22 = covariance(1, 1), covariance(1, 2), covariance(2, 2)
        cofactors = {
            (0, 0): c11 * c22 - c12 * c12,
            (0, 1): c02 * c12 - c01 * c22,
            (0, 2): c01 * c12 - c02 * c11,
            (1, 1): c00 * c22 - c02 * c02,
            (1, 2): c01 * c02 - c00 * c12,
            (2, 2): c00 * c11 - c01 * c01,
        }
        determinant = c00 * cofactors[0, 0] + c01 * cofactors[0, 1] + c02 * cofactors[0, 2]
        upper: dict[tuple[int, int], Plane] = {
            index: (cofactor / determinant).astype(np.float32) for index, cofactor in cofactors.items()
        }
        self._inverse = [[upper[min(m, n), max(m, n)] for n in range(3)] for m in range(3)]

    def fit(self, target: Plane) -> Coefficients:
        """Return the model of the window centered on every pixel.

        Args:
            target: h x w float32, the plane to fit.
        """
        mean = box_mean(target, self._radius)
        return self._solve(mean, self._covariances(target, mean))

    def fit_with_misfit(self, target: Plane) -> Fit:
        """Return the same models with the variance and misfit of each window."""
        mean = box_mean(target, self._radius)
        covariances = self._covariances(target, mean)
        coefficients = self._solve(mean, covariances)
        variance = box_mean(target * target, self._radius) - mean * mean
        misfit = variance.copy()
        for a, covariance in zip(coefficients, covariances, strict=False):
            misfit -= a * covariance
        return Fit(coefficients, variance, misfit.clip(0, None, out=misfit))

    def fit_mean(self, target: Plane) -> Fit:
        """Return, for every pixel, the mean of the models of all windows that contain it.

        Windows with a larger misfit have less weight: a window across two subjects fits neither.
        """
        coefficients, variance, misfit = self.fit_with_misfit(target)
        weight = 1 / np.square(misfit + np.float32(_DOUBT))
        total = box_mean(weight, self._radius)
        a0, a1, a2, b = (box_mean(plane * weight, self._radius) / total for plane in coefficients)
        return Fit((a0, a1, a2, b), box_mean(variance, self._radius), box_mean(misfit, self._radius))

    def _covariances(self, target: Plane, mean: Plane) -> list[Plane]:
        covariances = []
        for channel, minus_mean in zip(self._guide, self._minus_mean, strict=True):
            covariance = box_mean(channel * target, self._radius)
            cv2.accumulateProduct(minus_mean, mean, covariance)
            covariances.append(covariance)
        return covariances

    def _solve(self, mean: Plane, covariances: list[Plane]) -> Coefficients:
        offset = mean.copy()
        slopes: list[Plane] = []
        for row, minus_mean in zip(self._inverse, self._minus_mean, strict=True):
            a = row[0] * covariances[0]
            cv2.accumulateProduct(row[1], covariances[1], a)
            cv2.accumulateProduct(row[2], covariances[2], a)
            cv2.accumulateProduct(a, minus_mean, offset)
            slopes.append(a)
        return slopes[0], slopes[1], slopes[2], offset
