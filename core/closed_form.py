"""Closed-form matting by conjugate gradients, without ever building the Laplacian.

Sources: Levin, Lischinski, Weiss, A Closed-Form Solution to Natural Image Matting (2008), for the energy;
He, Sun, Tang, Fast Matting Using Large Kernel Matting Laplacian Matrices (2010), for applying its Laplacian
by box filters.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from core.guided_filter import Guide, LocalLinearModel, Plane, apply, box_mean

_RADIUS = 1
_EPSILON = 1e-5


@dataclass(frozen=True)
class Solution:
    """The alpha, h x w float32 in [0, 1], the iterations that it took, and whether they sufficed."""

    alpha: Plane
    iterations: int
    converged: bool


def solve(
    guide: Guide,
    prior: Plane,
    unknown: NDArray[np.bool_],
    *,
    confidence: float,
    max_iterations: int,
    tolerance: float = 1e-2,
) -> Solution:
    """Minimise the closed-form energy plus ``confidence * (alpha - prior)^2`` over the unknown pixels.

    Args:
        guide: h x w x 3 float32 in [0, 1].
        prior: h x w float32 in [0, 1]: start and soft prior where unknown, kept as it is elsewhere.
        unknown: h x w, the pixels to solve for.
        confidence: weight of the prior against the Laplacian of windows of unit mass.
        max_iterations: after which the solver stops, converged or not.
        tolerance: norm of the residual, relative to the first one, at which it has converged.
    """
    laplacian = _Laplacian(guide)
    free = unknown.astype(np.float32)
    alpha = prior.copy()
    residual = -laplacian.apply(alpha) * free
    direction = residual.copy()
    energy = first = _dot(residual, residual)
    iterations = 0
    while energy > tolerance**2 * first and iterations < max_iterations:
        step = laplacian.apply(direction)
        step += np.float32(confidence) * direction
        step *= free
        length = np.float32(energy / _dot(direction, step))
        alpha += length * direction
        residual -= length * step
        energy, previous = _dot(residual, residual), energy
        direction *= np.float32(energy / previous)
        direction += residual
        iterations += 1
    return Solution(np.clip(alpha, 0, 1), iterations, energy <= tolerance**2 * first)


class _Laplacian:
    """The matting Laplacian, divided by a window's area, as an operator.

    Only windows that lie inside the guide count, which keeps it symmetric and positive semidefinite.
    """

    def __init__(self, guide: Guide) -> None:
        self._guide = guide
        self._model = LocalLinearModel(guide, _RADIUS, _EPSILON)
        self._inside = np.zeros((*guide.shape[:2], 1), np.float32)
        self._inside[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS] = 1
        self._windows = box_mean(self._inside[..., 0], _RADIUS, cv2.BORDER_CONSTANT)

    def apply(self, plane: Plane) -> Plane:
        models = self._model.fit(plane) * self._inside
        explained = apply(box_mean(models, _RADIUS, cv2.BORDER_CONSTANT), self._guide)
        return self._windows * plane - explained


def _dot(left: Plane, right: Plane) -> float:
    # numpy's own sum, not BLAS: its order does not depend on the number of threads.
    return float(np.multiply(left, right, dtype=np.float64).sum())
