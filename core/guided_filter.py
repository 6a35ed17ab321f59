"""The local linear model of matting, on a colour guide: in every window, alpha = a . I + b.

It is the base of both refinements: fitted to a mask it is the guided filter (He, Sun, Tang, Guided Image
Filtering, 2013); asked how far an alpha is from being such a model, it is the matting Laplacian (Levin,
Lischinski, Weiss, A Closed-Form Solution to Natural Image Matting, 2008).
"""

from typing import TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

Plane: TypeAlias = NDArray[np.float32]
"""h x w, float32."""

Guide: TypeAlias = NDArray[np.float32]
"""h x w x 3, float32 in [0, 1]."""

Coefficients: TypeAlias = NDArray[np.float32]
"""h x w x 4, float32: a (three channels) and b of alpha = a . I + b."""

_Real = TypeVar("_Real", np.float32, np.float64)


def box_mean(values: NDArray[_Real], radius: int, border: int = cv2.BORDER_REFLECT) -> NDArray[_Real]:
    """Return the mean over the (2 radius + 1)^2 window around every pixel, channel by channel."""
    side = 2 * radius + 1
    mean = cv2.boxFilter(values, -1, (side, side), normalize=True, borderType=border)
    return np.asarray(mean, values.dtype)


class LocalLinearModel:
    """Least-squares fits of a plane to a guide, in every window; the guide's statistics are computed once.

    Args:
        guide: h x w x 3 float32 in [0, 1].
        radius: of the windows, in pixels of the guide.
        epsilon: ridge on ``a``: the variance of the guide below which a window counts as flat.
    """

    def __init__(self, guide: Guide, radius: int, epsilon: float) -> None:
        self._radius = radius
        self._channels: tuple[Plane, ...] = tuple(np.ascontiguousarray(guide[..., c]) for c in range(3))
        # In float32 the 3 x 3 determinant cancels on grey edges, and the result shows it.
        i = [channel.astype(np.float64) for channel in self._channels]
        mean = [box_mean(channel, radius) for channel in i]
        self._mean: list[Plane] = [plane.astype(np.float32) for plane in mean]

        def covariance(m: int, n: int) -> NDArray[np.float64]:
            return box_mean(i[m] * i[n], radius) - mean[m] * mean[n] + (epsilon if m == n else 0.0)

        c00, c01, c02 = covariance(0, 0), covariance(0, 1), covariance(0, 2)
        c11, c12, c22 = covariance(1, 1), covariance(1, 2), covariance(2, 2)
        cofactors = (
            (c11 * c22 - c12 * c12, c02 * c12 - c01 * c22, c01 * c12 - c02 * c11),
            (c02 * c12 - c01 * c22, c00 * c22 - c02 * c02, c01 * c02 - c00 * c12),
            (c01 * c12 - c02 * c11, c01 * c02 - c00 * c12, c00 * c11 - c01 * c01),
        )
        determinant = c00 * cofactors[0][0] + c01 * cofactors[0][1] + c02 * cofactors[0][2]
        upper = {(m, n): (cofactors[m][n] / determinant).astype(np.float32) for m in range(3) for n in range(m, 3)}
        self._inverse = [[upper[min(m, n), max(m, n)] for n in range(3)] for m in range(3)]

    def fit(self, target: Plane) -> Coefficients:
        """Return the model of the window centred on every pixel.

        Args:
            target: h x w float32, the plane to be explained by the guide.
        """
        mean = box_mean(target, self._radius)
        with_guide = [
            box_mean(channel * target, self._radius) - channel_mean * mean
            for channel, channel_mean in zip(self._channels, self._mean, strict=True)
        ]
        fitted: Coefficients = np.empty((*target.shape, 4), np.float32)
        offset = mean
        for c, (row, channel_mean) in enumerate(zip(self._inverse, self._mean, strict=True)):
            a = row[0] * with_guide[0] + row[1] * with_guide[1] + row[2] * with_guide[2]
            offset = offset - a * channel_mean
            fitted[..., c] = a
        fitted[..., 3] = offset
        return fitted

    def fit_mean(self, target: Plane) -> Coefficients:
        """Return, for every pixel, the mean of the models of all windows that hold it."""
        return box_mean(self.fit(target), self._radius)


def apply(coefficients: Coefficients, guide: Guide) -> Plane:
    """Return a . I + b.

    Args:
        coefficients: h x w x 4.
        guide: h x w x 3, on the scale of the guide that was fitted.
    """
    alpha = guide[..., 0] * coefficients[..., 0]
    alpha += guide[..., 1] * coefficients[..., 1]
    alpha += guide[..., 2] * coefficients[..., 2]
    alpha += coefficients[..., 3]
    return alpha
