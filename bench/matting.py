"""Compare errors and cost of the refined alpha with the bare mask, rembg's alpha matting, and pymatting.

Every method processes every picture with every mask of ``bench.masks``. Methods that need a trimap process each picture
once, with its ``trimap1``. Each method runs in a separate process per picture, so that peak memory can be measured.
Usage:

    make bench-matting [DATASET=folder] [PICTURES="GT01 GT04"] [SIDES="96 320"] [FAULTS="clean"] [METHODS="rembg high"]

Without DATASET, the benchmark uses synthetic pictures, fewer masks, and only one pymatting estimator. It writes alphas,
contact sheets, ``matting.json`` and ``matting.md`` to ``out/bench-matting/``.
"""

import argparse
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench import errors, matting_report, platform_info, sheet
from bench.errors import Errors, Region
from bench.masks import Fault, mask
from bench.matting_methods import BARE, MASK_METHODS, REMBG, TRIMAP_METHODS, Method, warm_up
from bench.matting_report import BAND, PICTURE, Result
from bench.measure import Case, Cost, Failure, Measurement, measure
from bench.pictures import GroundTruth, dataset, synthetic
from core.types import Alpha, Rgb

OUT: Final = Path(__file__).parent.parent / "out" / "bench-matting"

_SIDES_PX: Final = (96, 160, 320, 1024)
_FEW_SIDES_PX: Final = (96, 320)
"""Mask sizes for synthetic pictures, which take rembg and pymatting three times as long as real ones."""

_TIME_LIMIT_S: Final = 120.0
"""Per mask."""

_TRIMAP_TIME_LIMIT_S: Final = 30.0
"""Per trimap; shorter, because pymatting's slowest estimator would otherwise dominate the run time."""

_TRIMAP: Final = "trimap1"
_SHEET_SIDE_PX: Final = 320
_SHEET_METHODS: Final = (BARE, REMBG, "standard", "high", "ultra_high")

Hints: TypeAlias = dict[str, NDArray[Any]]
"""Masks and trimaps by name."""


@dataclass(frozen=True)
class CallResult:
    """Cost and warnings of one call; ``failed`` is the error if the call raised one and produced no alpha."""

    wall_s: float
    cpu_s: float
    notes: tuple[str, ...] = ()
    fell_back: bool = False
    failed: str | None = None


def main() -> None:
    """Run the benchmark, print the report, and write all files."""
    arguments = _arguments()
    OUT.mkdir(parents=True, exist_ok=True)
    truths = [
        truth
        for truth in (dataset(arguments.dataset) if arguments.dataset else synthetic())
        if not arguments.pictures or truth.name in arguments.pictures
    ]
    results = run(truths, arguments.sides, arguments.faults, {BARE, *arguments.methods}, OUT)
    where = platform_info.describe()
    report = matting_report.markdown(results, where)
    (OUT / "matting.md").write_text(f"{report}\n")
    (OUT / "matting.json").write_text(json.dumps({"platform": where, "results": [asdict(one) for one in results]}))
    if _SHEET_SIDE_PX in arguments.sides:
        for fault in arguments.faults:
            _contact_sheet(truths, _name(_SHEET_SIDE_PX, fault)).save(OUT / f"contact-sheet-{fault}.png")
    print(report)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.matting", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--dataset",
        type=Path,
        help="Folder with input/, alpha/ and, optionally, trimap1/. Default: synthetic pictures.",
    )
    parser.add_argument("--pictures", nargs="+", help="Names of pictures. Default: all.")
    parser.add_argument("--sides", type=int, nargs="+", help="Longer sides of the masks in pixels, e.g. 96 320.")
    parser.add_argument(
        "--faults", type=Fault, nargs="+", default=list(Fault), help="Faults of the masks. Default: all."
    )
    every = [*MASK_METHODS, *TRIMAP_METHODS]
    parser.add_argument(
        "--methods", nargs="+", choices=every, help="Methods to compare. The bare mask is always included."
    )
    arguments = parser.parse_args()
    arguments.sides = arguments.sides or (_SIDES_PX if arguments.dataset else _FEW_SIDES_PX)
    arguments.methods = arguments.methods or (every if arguments.dataset else [*MASK_METHODS, "pymatting cf"])
    return arguments


def run(
    truths: Sequence[GroundTruth], sides_px: Sequence[int], faults: Sequence[Fault], methods: Collection[str], out: Path
) -> list[Result]:
    """Run methods on pictures and compare their alphas with the truth.

    Args:
        truths: pictures with their true alphas.
        sides_px: longer sides of the masks.
        faults: faults of the masks.
        methods: keys of ``MASK_METHODS`` and ``TRIMAP_METHODS``; must include the bare mask.
        out: folder for the alphas, with one subfolder per picture.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    results: list[Result] = []
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(truths) * len(methods))
        for truth in truths:
            masks: Hints = {_name(side, fault): mask(truth.alpha, side, fault) for side in sides_px for fault in faults}
            trimaps: Hints = {name: trimap for name, trimap in truth.trimaps.items() if name == _TRIMAP}
            for method in (known for known in (*MASK_METHODS, *TRIMAP_METHODS) if known in methods):
                progress.update(task, description=f"{truth.name}, {method}")
                results += _measure(truth, method, masks if method in MASK_METHODS else trimaps, out / truth.name)
                progress.advance(task)
    return results


def _name(side_px: int, fault: Fault) -> str:
    return f"{side_px}-{fault}"


def _measure(truth: GroundTruth, method: str, hints: Hints, folder: Path) -> Iterator[Result]:
    """Run a method on all hints of a picture in a separate process, and yield the errors for each hint."""
    if not hints:
        return
    folder.mkdir(parents=True, exist_ok=True)
    paths = {hint: _path(folder, hint, method) for hint in hints}
    for path in paths.values():
        path.unlink(missing_ok=True)  # left by an earlier run
    limit_s = (_TIME_LIMIT_S if method in MASK_METHODS else _TRIMAP_TIME_LIMIT_S) * len(hints)
    case = Case(_prepare, (method, truth.rgb, hints, paths), rounds=1, time_limit_s=limit_s)
    outcome = measure({method: case})[method]
    for hint in hints:
        called = _call_result(outcome, hint)
        yield Result(
            picture=truth.name,
            hint=hint,
            method=method,
            errors=None if called.failed else _judge(truth, hint, method, folder),
            peak_bytes=outcome.peak_bytes if isinstance(outcome, Cost) else None,
            **vars(called),
        )


def _call_result(outcome: Measurement, hint: str) -> CallResult:
    if isinstance(outcome, Failure):
        return CallResult(0, 0, failed=outcome.reason)
    result: CallResult = outcome.result[hint]
    return result


def _judge(truth: GroundTruth, hint: str, method: str, folder: Path) -> dict[str, Errors]:
    """Compare an alpha with the truth, in the uncertain band and in the whole picture."""
    seen = truth.alpha if hint == _TRIMAP else _read(_path(folder, hint, BARE))
    band = errors.band(truth.alpha, seen, truth.trimaps.get(_TRIMAP))
    regions: Mapping[str, Region] = {BAND: band, PICTURE: np.ones_like(band)}
    return errors.compare(_read(_path(folder, hint, method)), truth.alpha, regions)


def _path(folder: Path, hint: str, method: str) -> Path:
    return folder / f"{hint}-{method.replace(' ', '-')}.png"


def _read(path: Path) -> Alpha:
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), np.float32) / np.float32(255)


# Runs in the child process, which writes alphas to files to keep its memory and its messages small.


def _prepare(method: str, rgb: Rgb, hints: Hints, paths: Mapping[str, Path]) -> Callable[[], dict[str, CallResult]]:
    function = {**MASK_METHODS, **TRIMAP_METHODS}[method]
    warm_up(function, next(iter(hints.values())))
    return partial(_call_all, function, rgb, hints, paths)


def _call_all(method: Method, rgb: Rgb, hints: Hints, paths: Mapping[str, Path]) -> dict[str, CallResult]:
    return {name: _call(method, rgb, hint, paths[name]) for name, hint in hints.items()}


def _call(method: Method, rgb: Rgb, hint: NDArray[Any], path: Path) -> CallResult:
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        output = method(rgb, hint)
    except Exception as error:  # record any error and continue with the other methods
        failed = f"{type(error).__name__}: {error}"
        return CallResult(time.perf_counter() - wall, time.process_time() - cpu, failed=failed)
    wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    cv2.imwrite(str(path), output.alpha, (cv2.IMWRITE_PNG_COMPRESSION, 1))
    return CallResult(wall_s, cpu_s, output.notes, output.fell_back)


def _contact_sheet(truths: Sequence[GroundTruth], hint: str) -> Image.Image:
    """Draw the most uncertain crop of each picture and the alphas of all methods for one kind of mask."""
    rows = {}
    for truth in truths:
        window = sheet.busiest_window(truth.alpha)
        paths = [_path(OUT / truth.name, hint, method) for method in _SHEET_METHODS]
        alphas = [truth.alpha, *(_read(path) if path.exists() else None for path in paths)]
        rows[truth.name] = [truth.rgb[window], *(None if alpha is None else alpha[window] for alpha in alphas)]
    return sheet.draw(("picture", "truth", *_SHEET_METHODS), rows)


if __name__ == "__main__":
    main()
