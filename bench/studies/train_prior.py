"""Train the perceptron of :mod:`core.matting.prior`, or measure it on pictures that it was not trained on.

It learns from masks of real networks: those of a dataset's pictures, read from a folder, and those that u2netp makes of
composites of the tuning half. Each foreground of the dataset is in composites, too. Simulated masks with displaced or
hardened edges keep it from relying on what only u2netp does. Usage:

    python -m bench.studies.train_prior DATASET MASKS            writes core/matting/prior.npz
    python -m bench.studies.train_prior DATASET MASKS --folds 5  leaves out a fifth of the dataset's pictures at a time

With ``--folds`` nothing is written. The table has the errors on the pictures that were left out, with all their
composites, relative to rembg's alpha matting with the same mask.
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, TypeAlias
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from bench import errors, matting_methods
from bench.composites import Half, composites
from bench.intervals import geometric_mean
from bench.markdown import table
from bench.masks import Fault
from bench.masks import mask as simulated
from bench.matting import OUT, looking
from bench.pictures import GroundTruth, dataset, network_masks
from client import local_models
from core.arrays import Mask
from core.errors import UnknownForegroundError
from core.matting import prior, refine
from core.matting.tiles import shrink
from core.matting.trimap import CERTAIN_FOREGROUND
from core.segmentation.sessions import Networks
from core.types import Precision
from functions.runtime.weights import ModelSource

_NETWORK: Final = "u2netp"
_DRAWN: Final = 110
_SEEDS: Final = (0, 3)
"""Of the drawn composites, and of those with the dataset's foregrounds."""

_HIDDEN: Final = (32, 32)
_EPOCHS: Final = 10
_BATCH: Final = 8192
_RATE: Final = 3e-3
_DECAY: Final = 1e-5
_ABSOLUTE: Final = 0.15
"""Share of the absolute error in the loss, which is else the squared error."""

_NOISE: Final = 0.1
"""Of the inputs, in standard deviations; half of it on the three alphas."""

_LEAST_ROWS: Final = 50
_SMALL_ERROR: Final = 0.002
_MOST_WEIGHT: Final = 20.0
"""Of a row, relative to the mean."""

_Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Kind:
    """How much a kind of example counts: cells taken from each picture, and the weight of a picture."""

    cells: int
    weight: float


_PHOTOGRAPHED: Final = Kind(6000, 3)
_COMPOSED: Final = Kind(3000, 1)
_DREW: Final = Kind(2000, 0.7)
_SIMULATED: Final = 0.2
"""Factor on the weight of a picture with a simulated mask."""


@dataclass(frozen=True)
class Example:
    """A picture, a mask of it, and what is learned from them.

    Attributes:
        group: the foreground's name.
        rows: the perceptron's inputs, see :func:`core.matting.prior.features`.
        truth: the true alpha of each row.
        weight: of each row.
    """

    group: str
    picture: GroundTruth
    mask: Mask
    rows: NDArray[np.float32]
    truth: NDArray[np.float32]
    weight: float


def main() -> None:
    """Train, and write or measure."""
    parser = argparse.ArgumentParser(prog="bench.studies.train_prior", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dataset", type=Path, help="Folder with input/NAME.png and alpha/NAME.png.")
    parser.add_argument("masks", type=Path, help="Folder with masks of the dataset's pictures, NAME.NETWORK.png.")
    parser.add_argument("--folds", type=int, default=0, help="Measure: parts to leave out one after the other.")
    arguments = parser.parse_args()
    truths = list(dataset(arguments.dataset))
    photographed = [
        (network, example)
        for truth in truths
        for network, mask in network_masks(arguments.masks, truth.name).items()
        if (example := examine(truth, mask, truth.name, _PHOTOGRAPHED))
    ]
    everything = [*(example for _, example in photographed), *_composed(truths)]
    if not arguments.folds:
        _write(fit(everything), Path(prior.__file__).with_name("prior.npz"))
        return
    ratios = defaultdict(list)
    for first in range(arguments.folds):
        held = {truth.name for truth in truths[first :: arguments.folds]}
        fitted = fit([example for example in everything if example.group not in held])
        with patch.object(prior, "layers", lambda fitted=fitted: fitted):
            for network, example in photographed:
                if example.group in held:
                    for precision in Precision:
                        ratios[network, precision.value].append(_ratios(example, precision))
    rows = [(*key, *(f"{geometric_mean(errors):.2f}" for errors in np.array(found).T)) for key, found in ratios.items()]
    print(table("Errors relative to rembg's, left out", ("Network", "Level", "SAD", "MSE", "Gradient"), rows))


def _write(fitted: prior.Layers, path: Path) -> None:
    planes = {
        f"{name}{layer}": plane for name in ("weights", "biases") for layer, plane in enumerate(getattr(fitted, name))
    }
    np.savez(path, mean=fitted.mean, scale=fitted.scale, **planes)
    print(f"{path}: {path.stat().st_size} bytes")


def _ratios(example: Example, precision: Precision) -> list[float]:
    """Return the logarithms of SAD, MSE and gradient error relative to rembg's with the same mask."""
    rgb, truth = example.picture.rgb, example.picture.alpha
    ours, theirs = (
        errors.compare(output.alpha, truth)
        for output in (
            matting_methods.refined(rgb, example.mask, precision),
            matting_methods.rembg(rgb, example.mask, OUT / "peer"),
        )
    )
    return [math.log(getattr(ours, name) / getattr(theirs, name)) for name in ("sad", "mse", "gradient")]


def _composed(truths: Sequence[GroundTruth]) -> Iterator[Example]:
    """Yield the examples of composites, with the masks of the network and simulated ones."""
    networks = Networks(ModelSource(local_models.directories(), registry=local_models.registry()), threads=1)
    look = looking(networks, _NETWORK)
    drawn = composites(Half.TUNE, count=_DRAWN, seed=_SEEDS[0])
    twice = [truth for truth in truths for _ in range(2)]  # a half has every second one
    for number, picture in enumerate((*drawn, *composites(Half.TUNE, count=0, subjects=twice, seed=_SEEDS[1]))):
        kind = _COMPOSED if picture.kind == "photograph" else _DREW
        group = picture.name.split("-")[1] if kind is _COMPOSED else picture.kind
        with suppress(UnknownForegroundError):
            yield from _examined(picture, look(picture.rgb, Precision.DRAFT).mask, group, kind)
        fault = (Fault.JITTERED, Fault.OVERCONFIDENT, Fault.BLURRED)[number % 3]
        side_px = min((320, 1024)[number % 2], max(picture.alpha.shape))
        made = simulated(picture.alpha, side_px, fault, number)
        yield from _examined(picture, made, group, Kind(kind.cells, kind.weight * _SIMULATED))


def _examined(picture: GroundTruth, mask: Mask, group: str, kind: Kind) -> Iterator[Example]:
    if example := examine(picture, mask, group, kind):
        yield example


def examine(picture: GroundTruth, mask: Mask, group: str, kind: Kind) -> Example | None:
    """Return what is learned from a picture with a mask; None if the prior is not used for it.

    An error counts for more in a picture on which the guided filter is good.

    Args:
        picture: and its true alpha.
        mask: of the picture.
        group: the foreground's name.
        kind: how much it counts.
    """
    inputs = refine.prior_inputs(picture.rgb, mask) if (mask >= CERTAIN_FOREGROUND).any() else None
    if inputs is None:
        return None
    rows, uncertain = prior.features(inputs)
    if len(rows) < _LEAST_ROWS:
        return None
    truth = shrink(picture.alpha, prior.cell_px((picture.alpha.shape[0], picture.alpha.shape[1])))[uncertain]
    mean_squared_error = float(np.square(rows[:, 1] - truth).sum() / uncertain.size)
    chosen = np.random.default_rng(0).choice(len(rows), min(len(rows), kind.cells), replace=False)
    share = len(rows) / len(chosen) / uncertain.size
    weight = kind.weight / (mean_squared_error + _SMALL_ERROR) * share
    return Example(group, picture, mask, rows[chosen], truth[chosen], weight)


def fit(examples: Sequence[Example]) -> prior.Layers:
    """Train on examples, with Adam and a rate that falls along a cosine."""
    rng = np.random.default_rng(0)
    rows = np.concatenate([example.rows for example in examples])
    target = np.concatenate([example.truth for example in examples]) - rows[:, 0]
    weight = np.concatenate([np.full(len(example.rows), example.weight, np.float32) for example in examples])
    weight = np.minimum(weight / weight.mean(), _MOST_WEIGHT)
    mean, scale = rows.mean(axis=0), 1 / (rows.std(axis=0) + 1e-6)
    noise = np.full(rows.shape[1], _NOISE, np.float32)
    noise[:3] /= 2
    shares, normalized = prior.share(rows), (rows - mean) * scale
    network = _Perceptron(rows.shape[1], rng)
    steps = _EPOCHS * (len(rows) // _BATCH)
    for step in range(steps):
        if step % (len(rows) // _BATCH) == 0:
            order = rng.permutation(len(rows))
        batch = order[step % (len(rows) // _BATCH) * _BATCH :][:_BATCH]
        noisy = normalized[batch] + rng.standard_normal((_BATCH, rows.shape[1]), np.float32) * noise
        network.learn(
            noisy, shares[batch], target[batch], weight[batch], _RATE * (1 + math.cos(math.pi * step / steps)) / 2
        )
    return prior.Layers(mean, scale, tuple(network.weights), tuple(network.biases))


class _Perceptron:
    """Layers of rectified linear units, and Adam's moments of each of their parameters."""

    def __init__(self, inputs: int, rng: np.random.Generator) -> None:
        sides = list(pairwise((inputs, *_HIDDEN, 1)))
        gains = [*[1.0] * len(_HIDDEN), 0.1]  # starts close to the closed form
        self.weights = [
            np.asarray(rng.standard_normal(side) * math.sqrt(2 / side[0]) * gain, np.float32)
            for side, gain in zip(sides, gains, strict=True)
        ]
        self.biases = [np.zeros(side[1], np.float32) for side in sides]
        self._moments = [(np.zeros_like(plane), np.zeros_like(plane)) for plane in (*self.weights, *self.biases)]
        self._steps = 0

    def learn(self, rows: _Floats, shares: _Floats, target: _Floats, weight: _Floats, rate: float) -> None:
        """Take one step down the gradient of the loss on a batch."""
        values = [rows]
        for weights, biases in zip(self.weights[:-1], self.biases[:-1], strict=True):
            values.append(np.maximum(values[-1] @ weights + biases, 0))
        off = shares * (values[-1] @ self.weights[-1] + self.biases[-1])[:, 0] - target
        slope = ((2 * off + _ABSOLUTE * np.sign(off)) * shares * weight / len(rows))[:, None].astype(np.float32)
        slopes_of_weights: list[_Floats] = []
        slopes_of_biases: list[_Floats] = []
        for layer in reversed(range(len(self.weights))):
            slopes_of_weights.insert(0, values[layer].T @ slope + _DECAY * self.weights[layer])
            slopes_of_biases.insert(0, slope.sum(axis=0))
            slope = (slope @ self.weights[layer].T) * (values[layer] > 0)
        self._steps += 1
        parameters = (*self.weights, *self.biases)
        for plane, slopes, (first, second) in zip(
            parameters, (*slopes_of_weights, *slopes_of_biases), self._moments, strict=True
        ):
            first += 0.1 * (slopes - first)
            second += 0.001 * (np.square(slopes) - second)
            unbiased = first / (1 - 0.9**self._steps), second / (1 - 0.999**self._steps)
            plane -= rate * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)


if __name__ == "__main__":
    main()
