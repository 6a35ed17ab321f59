"""Estimate alpha on a small grid from the mask of a network.

Where a network's mask has middle values, it does not say "half transparent" but "I do not know", and its edge is one to
three of its pixels off. So two alphas are solved for that err in different ways: closed-form matting, which fills
what is unknown from what is certain, and the guided filter, which stays close to the mask. A small perceptron weighs
them, pixel by pixel, by what the mask and the image look like around. ``bench/studies/train_prior.py`` trained it.
"""

import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from core.arrays import Rgb
from core.matting import closed_form
from core.matting.guided_filter import Coefficients, Guide, Plane, apply, as_guide
from core.matting.point_spread import PointSpread
from core.matting.tiles import enlarge, shrink
from core.matting.trimap import CERTAIN_BACKGROUND, CERTAIN_FOREGROUND

Rows: TypeAlias = NDArray[np.float32]
"""n x 22 float32: what the perceptron sees of n cells."""

_GRID_CELLS: Final = 120_000
"""Size of the grid, at most twice or half of it. Lengths below are in cells."""

_REACH: Final = 7.0
"""Beyond this distance from the uncertain values, the mask is certain."""

_CONFIDENCE: Final = 1e-2
"""Weight of the mask in the closed form at that distance."""

_LEVELS: Final = ((4, 300), (2, 40), (1, 5))
"""Of the closed form, coarse to fine: side of a cell, and the most iterations. More of them make alphas no better."""

_DECIDED: Final = (0.02, 0.08)
"""Where all alphas are this close to 0, or to 1, the perceptron counts less and less."""

_HELD: Final = (3.0, 7.0)
"""From the first distance inside the certain foreground on, alpha is held more and more, from the second on at 1.

Highlights and reflections of a rigid subject have the colors of the background, so that closed forms open holes there.
"""

_FAR: Final = 40.0
_LEAST_UNEXPLAINED: Final = 0.002
_CHUNK: Final = 1 << 14


class Layers(NamedTuple):
    """Weights and biases of the perceptron; ``mean`` and ``scale`` normalize its inputs."""

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    weights: tuple[NDArray[np.float32], ...]
    biases: tuple[NDArray[np.float32], ...]


@dataclass(frozen=True)
class Inputs:
    """What an estimate is made from, on the grid.

    Attributes:
        rgb: h x w x 3 uint8, the image.
        mask: h x w float32 in [0, 1], the network's.
        filtered: h x w float32 in [0, 1], the guided filter's alpha.
        unexplained: in [0, 1], of any size: the share of the mask's variance that the filter does not explain.
        spread: of the whole mask.
    """

    rgb: Rgb
    mask: Plane
    filtered: Plane
    unexplained: Plane
    spread: PointSpread


def cell_px(shape: tuple[int, int]) -> int:
    """Return the side of a cell of the grid, a power of two of pixels, for an image of that height and width."""
    return int(2 ** max(0, round(math.log2(math.prod(shape) / _GRID_CELLS) / 2)))


def estimate(inputs: Inputs) -> Plane:
    """Return the most likely alpha on the grid, h x w float32 in [0, 1]."""
    rows, uncertain = features(inputs)
    alpha = (inputs.mask >= 0.5).astype(np.float32)
    alpha[uncertain] = (rows[:, 0] + share(rows) * _apply(layers(), rows)).clip(0, 1)
    free, held = _HELD
    alpha += (1 - alpha) * ((_depth(inputs.mask > CERTAIN_FOREGROUND) - free) / (held - free)).clip(0, 1)
    return alpha


def share(rows: Rows) -> NDArray[np.float32]:
    """Return how much of the perceptron's output counts, 0 to 1, for each row of :func:`features`."""
    alphas, (decided, open_) = rows[:, :3], _DECIDED
    undecided = np.minimum(alphas.max(axis=1), 1 - alphas.min(axis=1))
    return np.asarray(((undecided - decided) / (open_ - decided)).clip(0, 1), np.float32)


def features(inputs: Inputs) -> tuple[Rows, NDArray[np.bool_]]:
    """Return what the perceptron sees, one row per uncertain cell, and which cells are uncertain, h x w.

    The first three columns are alphas: of the closed form, of the filter, and the mask.
    """
    rgb, mask, filtered = inputs.rgb, inputs.mask, inputs.filtered
    solved = _closed_form(rgb, mask)
    stacked = np.stack([solved, filtered, mask])
    uncertain = (stacked.max(axis=0) > _DECIDED[0]) & (stacked.min(axis=0) < 1 - _DECIDED[0])
    doubt = 4 * mask * (1 - mask)
    gray = rgb.sum(axis=2, dtype=np.float32) / 765
    across, down = cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)
    contrast = np.sqrt(across * across + down * down)  # cv2.magnitude rounds by where its arguments are
    blurred: list[tuple[NDArray[Any], tuple[float, ...]]] = [
        (doubt, (2, 8, 24)),
        (mask, (2, 8, 24)),
        (contrast, (0.8, 4)),
        (np.abs(solved - filtered), (4,)),
        (np.abs(solved - mask), (4,)),
    ]
    planes = [solved, filtered, mask]
    planes += [
        np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma), np.float32) for plane, sigmas in blurred for sigma in sigmas
    ]
    for region in (
        mask > CERTAIN_FOREGROUND, mask < CERTAIN_BACKGROUND, mask > 0.5, mask < 0.5,
        mask < CERTAIN_FOREGROUND, mask > CERTAIN_BACKGROUND,
    ):  # fmt: skip
        planes.append(np.sqrt(np.minimum(_depth(region), _FAR)))
    planes.append(np.asarray(cv2.resize(inputs.unexplained, mask.shape[::-1]), np.float32))
    least, sigma = max(inputs.spread.unexplained, _LEAST_UNEXPLAINED), inputs.spread.sigma
    planes += [np.full_like(mask, fact) for fact in (math.log(least), sigma)]
    return np.stack([plane[uncertain] for plane in planes], axis=1), uncertain


def _closed_form(rgb: Rgb, mask: Plane) -> Plane:
    """Solve for alpha with the mask's certain parts as a soft trimap: the deeper inside them, the firmer."""
    inside, outside = _depth(mask > CERTAIN_FOREGROUND), _depth(mask < CERTAIN_BACKGROUND)
    depth = np.maximum(inside, outside).clip(0, _REACH)
    known = (depth == _REACH).astype(np.float32)
    confidence = np.float32(1e-8) + np.square(depth / np.float32(_REACH)) * np.float32(_CONFIDENCE)
    binary = (mask >= 0.5).astype(np.float32)
    alpha = shrink(binary, _LEVELS[0][0])
    coarser: closed_form.MatrixFreeLaplacian | None = None
    for cell, iterations in _LEVELS:
        guide = as_guide(shrink(rgb, cell))
        if coarser:
            alpha = _upsampled(coarser.upsampling_model(alpha), guide)
        laplacian = closed_form.MatrixFreeLaplacian(guide)
        alpha, _ = closed_form.solve(
            laplacian,
            shrink(binary, cell),
            shrink(known, cell) < 0.999,
            confidence=shrink(confidence, cell),
            max_iterations=iterations,
            start=alpha,
        )
        coarser = laplacian
    return alpha


def _upsampled(model: Coefficients, guide: Guide) -> Plane:
    """Apply a model to a guide of up to twice its size."""
    height, width = guide[0].shape
    a0, a1, a2, b = (enlarge(plane, 2)[:height, :width] for plane in model)
    return apply((a0, a1, a2, b), guide).clip(0, 1)


def _depth(region: NDArray[np.bool_]) -> Plane:
    """Return the distance of every cell of a region from the rest."""
    return np.asarray(cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, 5), np.float32)


def _apply(layers: Layers, rows: Rows) -> NDArray[np.float32]:
    outputs = np.empty(len(rows), np.float32)
    for first in range(0, len(rows), _CHUNK):  # bounds the memory
        # In double precision, so that the rounding of BLAS, which depends on threads and addresses, does not show.
        values = (rows[first : first + _CHUNK].astype(np.float64) - layers.mean) * layers.scale
        for weights, bias in zip(layers.weights[:-1], layers.biases[:-1], strict=True):
            values = np.maximum(values @ weights + bias, 0)
        outputs[first : first + _CHUNK] = (values @ layers.weights[-1] + layers.biases[-1])[:, 0]
    return outputs


@cache
def layers() -> Layers:
    """Return the trained perceptron."""
    with (files("core.matting") / "prior.npz").open("rb") as file:
        stored = np.load(file)
        count = sum(name.startswith("weights") for name in stored)
        return Layers(
            stored["mean"],
            stored["scale"],
            tuple(stored[f"weights{layer}"] for layer in range(count)),
            tuple(stored[f"biases{layer}"] for layer in range(count)),
        )
