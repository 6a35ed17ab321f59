"""How good the refined alpha is, and what it costs, against the bare mask, rembg's alpha matting and pymatting.

Every picture with a true alpha is given to every method with every mask of ``bench.masks``; what reads a trimap gets
the picture's ``trimap1`` instead, once. A method has a process of its own for each picture, so that its peak memory is
its own. Run it with

    make bench-matting [DATASET=folder] [PICTURES="GT01 GT04"] [SIDES="96 320"] [FAULTS="clean"] [METHODS="rembg high"]

Without a folder it makes its own pictures, on which it tries fewer masks and only one of pymatting's estimators.
Alphas, contact sheets, ``matting.json`` and ``matting.md`` are written to ``out/bench-matting/``.
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

from bench import contenders, errors, machine, matting_report, sheet
from bench.contenders import BARE, OF_MASKS, OF_TRIMAPS, REMBG, Contender
from bench.errors import Errors, Region
from bench.masks import Fault, mask
from bench.matting_report import BAND, PICTURE, Result
from bench.measure import Cost, Failure, Job, Measurement, measure
from bench.pictures import Truth, dataset, synthetic
from core.types import Alpha, Rgb

OUT: Final = Path(__file__).parent.parent / "out" / "bench-matting"

_SIDES_PX: Final = (96, 160, 320, 1024)
_FEW_SIDES_PX: Final = (96, 320)
"""For the synthetic pictures, with which rembg and pymatting take three times as long as with real ones."""

_TIME_LIMIT_S: Final = 120.0
"""For each mask."""

_TRIMAP_TIME_LIMIT_S: Final = 30.0
"""Shorter, since pymatting's slowest estimator would take most of the time."""

_TRIMAP: Final = "trimap1"
_SHEET_SIDE_PX: Final = 320
_SHEET_METHODS: Final = (BARE, REMBG, "standard", "high", "ultra_high")

Hints: TypeAlias = dict[str, NDArray[Any]]
"""Masks and trimaps by their names."""


@dataclass(frozen=True)
class Answered:
    """What one call took and said; ``failed`` is the error that it raised, and there is no alpha then."""

    wall_s: float
    cpu_s: float
    notes: tuple[str, ...] = ()
    fell_back: bool = False
    failed: str | None = None


def main() -> None:
    """Measure, print the tables and write everything."""
    asked = _arguments()
    OUT.mkdir(parents=True, exist_ok=True)
    truths = [
        truth
        for truth in (dataset(asked.dataset) if asked.dataset else synthetic())
        if not asked.pictures or truth.name in asked.pictures
    ]
    results = run(truths, asked.sides, asked.faults, {BARE, *asked.methods}, OUT)
    where = machine.describe()
    report = matting_report.markdown(results, where)
    (OUT / "matting.md").write_text(f"{report}\n")
    (OUT / "matting.json").write_text(json.dumps({"machine": where, "results": [asdict(one) for one in results]}))
    if _SHEET_SIDE_PX in asked.sides:
        for fault in asked.faults:
            _contact_sheet(truths, _name(_SHEET_SIDE_PX, fault)).save(OUT / f"contact-sheet-{fault}.png")
    print(report)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.matting", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", type=Path, help="folder with input/, alpha/ and perhaps trimap1/")
    parser.add_argument("--pictures", nargs="+", help="names; all if not given")
    parser.add_argument("--sides", type=int, nargs="+", help="the masks' longer sides")
    parser.add_argument("--faults", type=Fault, nargs="+", default=list(Fault), help="what is wrong with the masks")
    every = [*OF_MASKS, *OF_TRIMAPS]
    parser.add_argument("--methods", nargs="+", choices=every, help="the bare mask is always there")
    asked = parser.parse_args()
    asked.sides = asked.sides or (_SIDES_PX if asked.dataset else _FEW_SIDES_PX)
    asked.methods = asked.methods or (every if asked.dataset else [*OF_MASKS, "pymatting cf"])
    return asked


def run(
    truths: Sequence[Truth], sides_px: Sequence[int], faults: Sequence[Fault], methods: Collection[str], out: Path
) -> list[Result]:
    """Let methods work on pictures, and compare what they make with the truth.

    Args:
        truths: the pictures.
        sides_px: of the masks, the longer ones.
        faults: of the masks.
        methods: of ``contenders.OF_MASKS``, the bare mask among them, and of ``contenders.OF_TRIMAPS``.
        out: folder for the alphas, one folder for each picture.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    results: list[Result] = []
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(truths) * len(methods))
        for truth in truths:
            masks: Hints = {_name(side, fault): mask(truth.alpha, side, fault) for side in sides_px for fault in faults}
            trimaps: Hints = {name: trimap for name, trimap in truth.trimaps.items() if name == _TRIMAP}
            for method in (known for known in (*OF_MASKS, *OF_TRIMAPS) if known in methods):
                progress.update(task, description=f"{truth.name}, {method}")
                results += _measure(truth, method, masks if method in OF_MASKS else trimaps, out / truth.name)
                progress.advance(task)
    return results


def _name(side_px: int, fault: Fault) -> str:
    return f"{side_px}-{fault}"


def _measure(truth: Truth, method: str, hints: Hints, folder: Path) -> Iterator[Result]:
    """Let a method work on all hints of a picture, in a process of its own, and judge what it made."""
    if not hints:
        return
    folder.mkdir(parents=True, exist_ok=True)
    paths = {hint: _path(folder, hint, method) for hint in hints}
    for path in paths.values():
        path.unlink(missing_ok=True)  # an earlier run's
    limit_s = (_TIME_LIMIT_S if method in OF_MASKS else _TRIMAP_TIME_LIMIT_S) * len(hints)
    job = Job(_prepare, (method, truth.rgb, hints, paths), rounds=1, time_limit_s=limit_s)
    outcome = measure({method: job})[method]
    for hint in hints:
        answered = _answered(outcome, hint)
        yield Result(
            picture=truth.name,
            hint=hint,
            method=method,
            errors=None if answered.failed else _judge(truth, hint, method, folder),
            peak_bytes=outcome.peak_bytes if isinstance(outcome, Cost) else None,
            **vars(answered),
        )


def _answered(outcome: Measurement, hint: str) -> Answered:
    if isinstance(outcome, Failure):
        return Answered(0, 0, failed=outcome.reason)
    answered: Answered = outcome.result[hint]
    return answered


def _judge(truth: Truth, hint: str, method: str, folder: Path) -> dict[str, Errors]:
    """Compare with the truth, where anything was to decide and in the whole picture."""
    seen = truth.alpha if hint == _TRIMAP else _read(_path(folder, hint, BARE))
    band = errors.band(truth.alpha, seen, truth.trimaps.get(_TRIMAP))
    regions: Mapping[str, Region] = {BAND: band, PICTURE: np.ones_like(band)}
    return errors.compare(_read(_path(folder, hint, method)), truth.alpha, regions)


def _path(folder: Path, hint: str, method: str) -> Path:
    return folder / f"{hint}-{method.replace(' ', '-')}.png"


def _read(path: Path) -> Alpha:
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), np.float32) / np.float32(255)


# In the method's process: alphas stay out of its memory and of what it sends.


def _prepare(method: str, rgb: Rgb, hints: Hints, paths: Mapping[str, Path]) -> Callable[[], dict[str, Answered]]:
    contender = {**OF_MASKS, **OF_TRIMAPS}[method]
    contenders.warm_up(contender, next(iter(hints.values())))
    return partial(_answer_all, contender, rgb, hints, paths)


def _answer_all(contender: Contender, rgb: Rgb, hints: Hints, paths: Mapping[str, Path]) -> dict[str, Answered]:
    return {name: _answer(contender, rgb, hint, paths[name]) for name, hint in hints.items()}


def _answer(contender: Contender, rgb: Rgb, hint: NDArray[Any], path: Path) -> Answered:
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        answer = contender(rgb, hint)
    except Exception as error:  # whatever a method raises is its result, and the others go on
        failed = f"{type(error).__name__}: {error}"
        return Answered(time.perf_counter() - wall, time.process_time() - cpu, failed=failed)
    wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    cv2.imwrite(str(path), answer.alpha, (cv2.IMWRITE_PNG_COMPRESSION, 1))
    return Answered(wall_s, cpu_s, answer.notes, answer.fell_back)


def _contact_sheet(truths: Sequence[Truth], hint: str) -> Image.Image:
    """Show each picture where it is most uncertain, and what each method made of it with one kind of mask."""
    rows = {}
    for truth in truths:
        window = sheet.busiest_window(truth.alpha)
        paths = [_path(OUT / truth.name, hint, method) for method in _SHEET_METHODS]
        alphas = [truth.alpha, *(_read(path) if path.exists() else None for path in paths)]
        rows[truth.name] = [truth.rgb[window], *(None if alpha is None else alpha[window] for alpha in alphas)]
    return sheet.draw(("picture", "truth", *_SHEET_METHODS), rows)


if __name__ == "__main__":
    main()
