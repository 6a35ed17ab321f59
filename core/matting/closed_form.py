"""Closed-form matting by conjugate gradients.

Source: Levin, Lischinski, Weiss, A Closed-Form Solution to Natural Image Matting (2008).
"""

from typing import Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from core.arrays import Rgb
from core.matting import compiled
from core.matting.guided_filter import Coefficients, Guide, LocalLinearModel, Plane, apply, box_mean

_RADIUS: Final = 1
_EPSILON: Final = 1e-5
_EPSILON_NATIVE: Final = 1e-6
"""At full scale neighbors differ less, so the threshold for flat is lower."""

_TOLERANCE: Final = 1e-2
"""Norm of the residual, relative to the first one, at which the solver has converged: the average error of alpha is
then less than one of 255 levels."""


class Laplacian(Protocol):
    """A matting Laplacian, divided by a window's area: its diagonal is about 1."""

    def apply(self, plane: Plane) -> Plane:
        """Return its product with a plane, h x w float32."""
        ...


def solve(
    laplacian: Laplacian,
    prior: Plane,
    unknown: NDArray[np.bool_],
    *,
    confidence: Plane,
    max_iterations: int,
    start: Plane | None = None,
) -> tuple[Plane, int]:
    """Minimize the closed-form energy plus ``confidence * (alpha - prior)^2`` over the unknown pixels.

    Args:
        laplacian: of the image.
        prior: h x w float32 in [0, 1]: soft prior where unknown, kept as it is elsewhere.
        unknown: h x w, the pixels to solve for.
        confidence: h x w float32 above 0, the weight of the prior.
        max_iterations: limit of the solver.
        start: h x w float32 in [0, 1], the first guess where unknown; None for the prior.

    Returns:
        Alpha, h x w float32 in [0, 1], and the number of iterations.
    """
    free = unknown.astype(np.float32)
    alpha = prior.copy()
    if start is not None:
        alpha[unknown] = start[unknown]
    residual = (confidence * (prior - alpha) - laplacian.apply(alpha)) * free
    direction = residual.copy()
    energy = _square(residual)
    enough = _TOLERANCE**2 * energy
    iterations = 0
    while energy > enough and iterations < max_iterations:
        product = laplacian.apply(direction)
        cv2.accumulateProduct(confidence, direction, product)
        product *= free
        step = np.float32(energy / _dot(direction, product))
        alpha += step * direction
        residual -= step * product
        energy, previous = _square(residual), energy
        direction *= np.float32(energy / previous)
        direction += residual
        iterations += 1
    return alpha.clip(0, 1), iterations


class MatrixFreeLaplacian:
    """The Laplacian of a guide, applied by box filters and never built.

    Only windows inside the guide count, which keeps it symmetric and positive semidefinite.
    Source: He, Sun, Tang, Fast Matting Using Large Kernel Matting Laplacian Matrices (2010).
    """

    def __init__(self, guide: Guide) -> None:
        self._guide = guide
        self._model = LocalLinearModel(guide, _RADIUS, _EPSILON)
        inside = np.ones_like(guide[0])
        _clear_border(inside)
        self._windows = box_mean(inside, _RADIUS, cv2.BORDER_CONSTANT)

    def apply(self, plane: Plane) -> Plane:
        """Return its product with a plane, h x w float32."""
        models = self._model.fit(plane)
        for coefficient in models:
            _clear_border(coefficient)
        a0, a1, a2, b = (box_mean(coefficient, _RADIUS, cv2.BORDER_CONSTANT) for coefficient in models)
        return self._windows * plane - apply((a0, a1, a2, b), self._guide)

    def upsampling_model(self, alpha: Plane) -> Coefficients:
        """Return the model that carries an alpha, solved on this guide, over to a finer image."""
        return self._model.fit_mean(alpha).coefficients


def _clear_border(plane: Plane) -> None:
    """Set to 0 where a window would reach beyond the plane."""
    plane[:_RADIUS] = plane[-_RADIUS:] = 0
    plane[:, :_RADIUS] = plane[:, -_RADIUS:] = 0


class SparseLaplacian:
    """The Laplacian as pymatting builds it, which takes 600 bytes per pixel.

    Args:
        rgb: h x w x 3 uint8.
        unknown: h x w, the pixels to solve for: elsewhere products are 0.
    """

    def __init__(self, rgb: Rgb, unknown: NDArray[np.bool_]) -> None:
        self._unknown = unknown
        whole = compiled.pymatting().cf_laplacian(rgb / 255, epsilon=_EPSILON_NATIVE, radius=_RADIUS, is_known=~unknown)
        self._rows = (whole[unknown.ravel()] / (2 * _RADIUS + 1) ** 2).astype(np.float32)

    def apply(self, plane: Plane) -> Plane:
        """Return its product with a plane, h x w float32."""
        product = np.zeros_like(plane)
        product[self._unknown] = self._rows @ plane.ravel()
        return product


def _dot(left: Plane, right: Plane) -> float:
    # numpy's own sum, not BLAS: its order does not depend on the number of threads.
    return float(np.multiply(left, right, dtype=np.float64).sum())


def _square(plane: Plane) -> float:
    return float(cv2.norm(plane, cv2.NORM_L2SQR))
