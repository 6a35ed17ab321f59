"""Fit the quality score of ``core.segmentation.quality`` to masks with known errors, and judge it.

A cut-out is bad if the MSE of its alpha at ``high`` is above 0.02. The fit uses u2netp's masks of the composites of the
tune half, of some of their subjects on a white or light background, some masks made from the true alpha and, if a
dataset folder is given, all networks' masks of its pictures. Masks of photographs without a true alpha are judged by
eye. Photographed subjects count more than drawn ones. Cross-validation leaves out foregrounds. Usage:

    python -m bench.studies.fit_quality [--dataset folder] [--masks folder] [--photographs folder] [--count 200]
        [--half test]

Prints the constants and the cross-validated figures; with ``--half test``, figures of the constants in the code.
"""

import argparse
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench import errors
from bench.composites import COUNT, Half, composites
from bench.intervals import auc, estimate, share
from bench.markdown import table
from bench.masks import Fault
from bench.masks import mask as made
from bench.pictures import GroundTruth, dataset, network_masks
from client import local_models
from core.arrays import Mask, Rgb
from core.errors import UnknownForegroundError
from core.matting.refine import refine
from core.segmentation import quality
from core.segmentation.quality import Features
from core.segmentation.segment import segment
from core.segmentation.sessions import Networks
from core.types import Quality
from functions.runtime import cgroup
from functions.runtime.weights import ModelSource

NETWORK: Final = "u2netp"
BAD_MSE: Final = 0.02
FOUND: Final = 0.9
"""Share of the bad masks of photographed subjects that the threshold must find."""

DOUBTFUL_SHARE: Final = 0.15
"""Share of the masks that a mirrored look is worth its time for: those with the highest scores below the threshold."""

_RIDGE: Final = 2.0
_FOLDS: Final = 10
_BINS: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)

_DRAWN: Final = "drawn subjects"
_PHOTOGRAPHED: Final = "photographed subjects"
_FLAT: Final = "subjects on a light background"
_MADE: Final = "masks made from the true alpha"
_WEIGHTS: Final = {_DRAWN: 0.15, _PHOTOGRAPHED: 0.65, _FLAT: 0.1, _MADE: 0.1}
"""Weight of each group in the fit, all its masks together."""

_BAD_BY_EYE: Final = {"girl-1.u2netp"}
_UNCLEAR: Final = {"bike.u2netp", "im_14.u2netp", "im_14.isnet"}
"""Masks of photographs; all others are usable."""

_EVERY: Final = 4
"""Every how many composites one is put on a light background, and one gets a made mask."""

_LIGHT: Final = (255, 250, 255, 235)
_MADE_PX: Final = (320, 1024)

ONE_LOOK: Final = tuple(field.name for field in fields(Features))[:-1]
TWO_LOOKS: Final = (*ONE_LOOK, "looks_differ")


@dataclass(frozen=True)
class Sample:
    """A mask and the error of its cut-out.

    Attributes:
        group: a row of the tables.
        kind: a key of ``_WEIGHTS``.
        foreground: samples of one foreground are never on both sides of the cross-validation.
        one_look: score of the constants in the code; ``two_looks`` with a mirrored look, None without one.
    """

    group: str
    kind: str
    foreground: str
    features: Features
    bad: bool
    one_look: float
    two_looks: float | None


def main() -> None:
    """Fit, or judge, and print the result."""
    parser = argparse.ArgumentParser(prog="bench.studies.fit_quality", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", type=Path, help="Folder with input/NAME.png and alpha/NAME.png.")
    parser.add_argument("--masks", type=Path, help="Folder with masks of the dataset's pictures, NAME.NETWORK.png.")
    parser.add_argument("--photographs", type=Path, help="Folder with photographs NAME.jpg that have masks.")
    parser.add_argument("--count", type=int, default=COUNT, help="Drawn composites, e.g. 20.")
    parser.add_argument("--half", type=Half, default=Half.TUNE, help="Composites: tune or test. Default: tune.")
    arguments = parser.parse_args()
    samples = list(collect(arguments.half, arguments.count, arguments.dataset, arguments.masks))
    if arguments.photographs and arguments.masks:
        samples += by_eye(arguments.photographs, arguments.masks)
    print(fitted(samples) if arguments.half is Half.TUNE else judged(samples))


def collect(half: Half, count: int, folder: Path | None, masks: Path | None) -> Iterator[Sample]:
    """Yield the samples of the dataset's pictures and of a half's composites."""
    source = ModelSource(local_models.directories(), registry=local_models.registry())
    networks = Networks(source, threads=cgroup.cpus())
    truths = list(dataset(folder)) if folder else []
    for truth in truths:
        given = network_masks(masks, truth.name) if masks else {}
        for network, mask in ({NETWORK: look(truth.rgb, networks)} | given).items():
            mirrored = look_mirrored(truth.rgb, networks) if network == NETWORK else None
            yield from sample(_PHOTOGRAPHED, truth, mask, mirrored, group=f"pictures of the dataset, {network}")
    for number, truth in enumerate(composites(half, count=count, subjects=truths)):
        kind = _PHOTOGRAPHED if truth.kind == "photograph" else _DRAWN
        yield from sample(kind, truth, look(truth.rgb, networks), look_mirrored(truth.rgb, networks))
        turn, place = divmod(number, _EVERY)
        if half is Half.TUNE and place == 1:
            light = on_light(truth, _LIGHT[turn % len(_LIGHT)])
            yield from sample(_FLAT, light, look(light.rgb, networks), look_mirrored(light.rgb, networks))
        if half is Half.TUNE and place == 2:
            fault = (Fault.CLEAN, Fault.JITTERED)[turn % 2]
            yield from sample(_MADE, truth, made(truth.alpha, _MADE_PX[turn % 2], fault), None)


def by_eye(photographs: Path, masks: Path) -> Iterator[Sample]:
    """Yield the samples of photographs without a true alpha."""
    for path in sorted(photographs.iterdir()):
        rgb = np.ascontiguousarray(np.asarray(Image.open(path).convert("RGB")))
        for network, mask in network_masks(masks, path.stem).items():
            name = f"{path.stem}.{network}"
            if name not in _UNCLEAR:
                score = quality.assess(rgb, mask).score
                features = quality.measure(rgb, mask)
                group = f"photographs judged by eye, {network}"
                yield Sample(group, _PHOTOGRAPHED, path.stem, features, name in _BAD_BY_EYE, score, None)


def on_light(truth: GroundTruth, level: int) -> GroundTruth:
    """Put the subject of a composite on a gray background."""
    foreground = truth.rgb if truth.foreground is None else truth.foreground
    rgb = foreground * truth.alpha[..., None] + level * (1 - truth.alpha[..., None])
    return replace(truth, rgb=np.rint(rgb).astype(np.uint8))


def look(rgb: Rgb, networks: Networks) -> Mask | None:
    """Return the network's mask; None if it finds no subject."""
    try:
        return segment(rgb, NETWORK, networks).mask
    except UnknownForegroundError:
        return None


def look_mirrored(rgb: Rgb, networks: Networks) -> Mask | None:
    """Return the mask of the mirrored picture, mirrored back; None if the network finds no subject in it."""
    mask = look(np.ascontiguousarray(rgb[:, ::-1]), networks)
    return None if mask is None else np.ascontiguousarray(mask[:, ::-1])


def sample(
    kind: str, truth: GroundTruth, mask: Mask | None, mirrored: Mask | None, group: str = ""
) -> Iterator[Sample]:
    """Measure a mask and the error of its cut-out; yields nothing if there is no mask."""
    if mask is not None:
        yield Sample(
            group=group or f"composites, {kind}",
            kind=kind,
            foreground=truth.name.split("-")[1] if truth.kind == "photograph" and "-" in truth.name else truth.name,
            features=quality.measure(truth.rgb, mask, mirrored),
            bad=errors.compare(refine(truth.rgb, mask).alpha, truth.alpha).mse > BAD_MSE,
            one_look=quality.assess(truth.rgb, mask).score,
            two_looks=None if mirrored is None else quality.assess(truth.rgb, mask, mirrored).score,
        )


def fitted(samples: Sequence[Sample]) -> str:
    """Return constants for the code, and figures of the cross-validation."""
    typical = {
        name: np.mean([value for one in samples if not one.bad and (value := getattr(one.features, name)) is not None])
        for name in TWO_LOOKS
    }
    lines = ["TYPICAL = {" + ", ".join(f'"{name}": {value:.3f}' for name, value in typical.items()) + "}"]
    for title, names in (("ONE_LOOK", ONE_LOOK), ("TWO_LOOKS", TWO_LOOKS)):
        bias, weights = logistic(samples, names, typical)
        scores = cross_validated(samples, names, typical)
        threshold = finding(samples, scores)
        terms = ", ".join(f'"{name}": {weight:.3f}' for name, weight in zip(names, weights, strict=True))
        lines += [f"{title} = Model({bias:.3f}, {{{terms}}}, {threshold:.3f})", figures(samples, scores, threshold)]
        if names == ONE_LOOK:
            low = np.quantile(scores, max(0.0, float(np.mean(scores < threshold)) - DOUBTFUL_SHARE))
            lines.append(f"Doubtful: {low:.3f} to {threshold:.3f}")
    return "\n\n".join(lines)


def finding(samples: Sequence[Sample], scores: NDArray[np.float64]) -> float:
    """Return the threshold below which ``FOUND`` of the bad masks of photographed subjects are."""
    bad = np.sort(scores[[one.bad and one.kind == _PHOTOGRAPHED for one in samples]])
    return float(bad[math.ceil(FOUND * len(bad)) - 1]) + 1e-3


def judged(samples: Sequence[Sample]) -> str:
    """Return figures of the constants in the code."""
    two = [one for one in samples if one.two_looks is not None]
    used = [one.two_looks if doubts(one) and one.two_looks is not None else one.one_look for one in samples]
    parts = [
        ("One look", samples, [one.one_look for one in samples], quality.ONE_LOOK.review_below),
        ("Two looks", two, [one.two_looks for one in two], quality.TWO_LOOKS.review_below),
        ("A mirrored look where the first leaves doubt", samples, used, quality.ONE_LOOK.review_below),
    ]
    doubtful = np.mean([doubts(one) for one in samples])
    return (
        "\n\n".join(
            f"{title}\n\n{figures(chosen, np.array(scores), threshold)}" for title, chosen, scores, threshold in parts
        )
        + f"\n\nDoubtful: {doubtful:.1%}"
    )


def doubts(one: Sample) -> bool:
    """Return whether a mirrored look is worth its time."""
    return quality.doubtful(Quality(one.one_look, ()))


def matrix(samples: Sequence[Sample], names: Sequence[str], typical: dict[str, Any]) -> NDArray[np.float64]:
    """Return one row per sample: its features' distance from typical ones, 0 for a missing mirrored look."""
    values = ([getattr(one.features, name) for name in names] for one in samples)
    usual = [typical[name] for name in names]
    return np.array([[0 if v is None else v - u for v, u in zip(row, usual, strict=True)] for row in values])


def logistic(samples: Sequence[Sample], names: Sequence[str], typical: dict[str, Any]) -> tuple[float, list[float]]:
    """Return the log-odds of a usable cut-out with typical features, and the loss of log-odds per unit of each."""
    x = matrix(samples, names, typical)
    spread = x.std(axis=0)
    x = np.column_stack([np.ones(len(x)), x / spread])
    bad = np.array([one.bad for one in samples], float)
    weight = weights_of(samples)
    ridge = np.diag([1e-6] + [_RIDGE] * len(names))
    beta = np.zeros(x.shape[1])
    for _ in range(50):  # Newton's method
        chance = 1 / (1 + np.exp(-x @ beta))
        slope = x.T @ (weight * (bad - chance)) - ridge @ beta
        beta += np.linalg.solve((x.T * (weight * chance * (1 - chance))) @ x + ridge, slope)
    return -float(beta[0]), list(beta[1:] / spread)


def weights_of(samples: Sequence[Sample]) -> NDArray[np.float64]:
    """Return the weight of each sample, 1 on average."""
    counts = Counter(one.kind for one in samples)
    weight = np.array([_WEIGHTS[one.kind] / counts[one.kind] for one in samples])
    return np.asarray(weight / weight.mean())


def cross_validated(samples: Sequence[Sample], names: Sequence[str], typical: dict[str, Any]) -> NDArray[np.float64]:
    """Return each sample's score from a fit without its foreground and some others."""
    foregrounds = sorted({one.foreground for one in samples})
    np.random.default_rng(0).shuffle(foregrounds)
    fold = np.array([foregrounds.index(one.foreground) % _FOLDS for one in samples])
    x, scores = matrix(samples, names, typical), np.zeros(len(samples))
    for left_out in range(_FOLDS):
        rest = [one for one, number in zip(samples, fold, strict=True) if number != left_out]
        bias, weights = logistic(rest, names, typical)
        scores[fold == left_out] = 1 / (1 + np.exp(x[fold == left_out] @ np.array(weights) - bias))
    return scores


def figures(samples: Sequence[Sample], scores: NDArray[np.float64], threshold: float) -> str:
    """Return the table of detection rates by group, and the reliability table."""
    groups = [("all", np.ones(len(samples), bool))]
    groups += [
        (name, np.array([one.group == name for one in samples])) for name in sorted({one.group for one in samples})
    ]
    bad = np.array([one.bad for one in samples])
    rows = [
        [
            name, str(inside.sum()), str(bad[inside].sum()), str(estimate(auc, scores[inside], bad[inside])),
            str(estimate(share, scores[inside] < threshold, bad[inside])),
            str(estimate(share, scores[inside] < threshold, ~bad[inside])),
        ]
        for name, inside in groups
    ]  # fmt: skip
    heads = ["", "masks", "bad", "AUC", "bad with review", "good with review"]
    reliability = []
    for low, high in pairwise(_BINS):
        inside = (scores >= low) & (scores <= high if high == 1 else scores < high)
        cells = [f"{scores[inside].mean():.2f}", f"{1 - bad[inside].mean():.2f}"] if inside.any() else ["-", "-"]
        reliability.append([f"{low:.1f} to {high:.1f}", str(inside.sum()), *cells])
    return "\n\n".join([
        table("Detection", heads, rows),
        table("Reliability", ["score", "masks", "mean score", "share of usable cut-outs"], reliability),
    ])  # fmt: skip


if __name__ == "__main__":
    main()
