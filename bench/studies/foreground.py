"""Compare the errors and cost of the estimated foreground colors with published estimators.

Each picture composes one photograph over another with an alpha of bench-matting, so that the true colors are known. A
dataset with ``foreground/NAME.png`` supplies its own pictures and colors. Every method runs with the true alpha, and
with an alpha refined from a mask of 320 px. Usage:

    python -m bench.studies.foreground [--dataset folder] [--megapixels 12]

Prints the table and writes it to ``out/bench-foreground/``.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import data as photographs

from bench import platform_info
from bench.canvas import cover
from bench.composites import Half, composites
from bench.masks import Fault, mask
from bench.measure import Case, Failure, Measurement, measure
from bench.pictures import dataset
from bench.speed import portrait
from core.arrays import Alpha, Rgb
from core.matting import compiled, foreground, refine
from core.types import Precision

OUT: Final = Path(__file__).parent.parent / "out" / "bench-foreground"

_MASK_PX: Final = 320
_NOISE: Final = 1.5  # rms, of 255
_SMOOTH: Final = 0.006  # blur of every other foreground, sigma as a share of the longer side: resembles skin and cloth
_NEW: Final = (np.array([30, 200, 60]), np.array([230, 220, 240]))
_CHECK_PX: Final = 64

Estimator: TypeAlias = Callable[[Rgb, Alpha], Rgb]


@dataclass(frozen=True)
class Composite:
    """A picture, its alpha, and the true foreground colors, H x W x 3 uint8."""

    name: str
    rgb: Rgb
    alpha: Alpha
    colors: Rgb


@dataclass(frozen=True)
class Errors:
    """Root mean square errors in 8-bit levels.

    Attributes:
        colors: error of the foreground, over pixels where the given alpha is soft, weighted by the true alpha.
        composite: error of a composite over a checkerboard, over pixels where either alpha is soft.
    """

    colors: float
    composite: float


def blur_fusion(rgb: Rgb, alpha: Alpha) -> Rgb:
    """Estimate the foreground by blur fusion with windows of 90 and 6 px.

    Source: Forte, Approximate Fast Foreground Colour Estimation (2021).
    """
    image = np.asarray(rgb, np.float32) / 255
    shown = alpha[..., None]
    near, far = image, image
    for width in (90, 6):
        weight = cv2.blur(alpha, (width, width))[..., None]
        near = cv2.blur(near * shown, (width, width)) / (weight + 1e-5)
        far = cv2.blur(far * (1 - shown), (width, width)) / (1 - weight + 1e-5)
        near = np.clip(near + shown * (image - shown * near - (1 - shown) * far), 0, 1)
    return np.asarray(np.rint(near * 255), np.uint8)


def multi_level(rgb: Rgb, alpha: Alpha, **parameters: float) -> Rgb:
    """Estimate the foreground with pymatting: Germer et al., Fast Multi-Level Foreground Estimation (2020)."""
    estimated = compiled.pymatting().estimate_foreground_ml(rgb / np.float32(255), alpha, **parameters)
    return np.asarray(np.rint(estimated * 255), np.uint8)


METHODS: Final[Mapping[str, Estimator]] = {
    "none": lambda rgb, _alpha: rgb,
    "blur fusion, twice": blur_fusion,
    "pymatting, multi-level": multi_level,
    "pymatting, 8 iterations, regularization 0.01, gradient weight 0.1": partial(
        multi_level, n_big_iterations=8, n_small_iterations=30, regularization=0.01, gradient_weight=0.1
    ),
    **{
        f"`{level}`": partial(foreground.decontaminate, precision=level)
        for level in (Precision.STANDARD, Precision.HIGH, Precision.ULTRA_HIGH)
    },
}


def main() -> None:
    """Run the study, print the table, and write all files."""
    parser = argparse.ArgumentParser(prog="bench.studies.foreground", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--dataset",
        type=Path,
        help="Folder with input/, alpha/ and, optionally, foreground/. Default: composites.",
    )
    parser.add_argument("--megapixels", type=float, default=12, help="Size of the timed picture, e.g. 12.")
    arguments = parser.parse_args()
    composites = list(_composites(arguments.dataset))
    errors: dict[str, dict[str, list[Errors]]] = {name: {"true": [], "refined": []} for name in METHODS}
    for composite in composites:
        hint = mask(composite.alpha, _MASK_PX, Fault.CLEAN)
        alphas = {"true": composite.alpha, "refined": refine.refine(composite.rgb, hint).alpha}
        for name, method in METHODS.items():
            for kind, alpha in alphas.items():
                errors[name][kind].append(evaluate(composite, alpha, method(composite.rgb, alpha)))
    costs = measure({name: Case(_prepare, (name, arguments.megapixels)) for name in METHODS if name != "none"})
    report = _report(errors, costs, len(composites), arguments.megapixels)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "foreground.md").write_text(f"{report}\n")
    (OUT / "foreground.json").write_text(
        json.dumps(
            {
                "platform": platform_info.describe(),
                "pictures": [composite.name for composite in composites],
                "errors": {
                    name: {kind: [asdict(one) for one in of_all] for kind, of_all in kinds.items()}
                    for name, kinds in errors.items()
                },
                "costs": {name: asdict(cost) for name, cost in costs.items()},
            }
        )
    )
    print(report)


def _composites(directory: Path | None) -> Iterator[Composite]:
    scenery = [photographs.chelsea(), photographs.coffee(), photographs.astronaut(), photographs.rocket()]
    for number, truth in enumerate(dataset(directory) if directory else composites(Half.TEST, count=8)):
        height, width = truth.alpha.shape
        own = directory / "foreground" / f"{truth.name}.png" if directory else None
        if own and own.is_file():
            colors = np.ascontiguousarray(np.asarray(cv2.imread(str(own)), np.uint8)[..., ::-1])
            yield Composite(truth.name, truth.rgb, truth.alpha, colors)
            continue
        near, far = (cover(scenery[(number + offset) % len(scenery)], width, height) for offset in (0, 1 + number % 3))
        if number % 2 == 0:
            near = np.asarray(cv2.GaussianBlur(near, (0, 0), _SMOOTH * max(height, width)), np.uint8)
        noise = np.random.default_rng(number).normal(0, _NOISE, near.shape)
        seen = _over(near, truth.alpha, far) + noise
        yield Composite(truth.name, np.rint(seen.clip(0, 255)).astype(np.uint8), truth.alpha, near)


def _over(colors: Rgb, alpha: Alpha, behind: NDArray[Any]) -> NDArray[np.float64]:
    shown = alpha[..., None].astype(np.float64)
    return np.asarray(shown * colors + (1 - shown) * behind, np.float64)


def evaluate(truth: Composite, alpha: Alpha, colors: Rgb) -> Errors:
    """Return the errors of estimated colors and the alpha that they were estimated with."""
    soft = (alpha > 0) & (alpha < 1)
    squares = np.square(colors.astype(np.float64) - truth.colors).mean(axis=2)
    y, x = np.indices(alpha.shape) // _CHECK_PX
    new = np.where(((x + y) % 2 == 0)[..., None], *_NEW)
    wrong = np.square(_over(colors, alpha, new) - _over(truth.colors, truth.alpha, new)).mean(axis=2)
    either = soft | ((truth.alpha > 0) & (truth.alpha < 1))
    return Errors(
        colors=float(np.sqrt(np.average(squares[soft], weights=truth.alpha[soft]))),
        composite=float(np.sqrt(wrong[either].mean())),
    )


def _prepare(name: str, megapixels: float) -> Callable[[], None]:
    rgb, alpha = portrait(megapixels)
    METHODS[name](rgb[:64, :64], alpha[:64, :64])

    def run() -> None:
        METHODS[name](rgb, alpha)

    return run


def _report(
    errors: Mapping[str, Mapping[str, list[Errors]]], costs: Mapping[str, Measurement], count: int, megapixels: float
) -> str:
    _, alpha = portrait(megapixels)
    soft = ((alpha > 0) & (alpha < 1)).mean()
    lines = [
        f"Platform: {platform_info.describe()}. {count} pictures; cost at {megapixels:g} MP, {soft:.0%} of them soft.",
        "",
        "| | colors, true alpha | composite | colors, refined alpha | composite | s | CPU s | MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, kinds in errors.items():
        cells = [
            f"{fmean(getattr(one, what) for one in of_all):.1f}"
            for of_all in kinds.values()
            for what in ("colors", "composite")
        ]
        lines.append(f"| {name} | {' | '.join(cells)} | {_cost(costs.get(name))} |")
    return "\n".join(lines)


def _cost(cost: Measurement | None) -> str:
    if cost is None:
        return " | | "
    if isinstance(cost, Failure):
        return f"{cost.reason} | | "
    return f"{cost.wall_s:.2f} | {cost.cpu_s:.2f} | {cost.peak_bytes / 1e6:.0f}"


if __name__ == "__main__":
    main()
