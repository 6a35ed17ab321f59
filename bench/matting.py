"""Compare alpha and the quality score with the truth, on masks of real networks, beside rembg's alpha matting.

Three kinds of masks: of networks on a dataset's pictures, of networks on composites, and masks made from the true
alpha. A real mask is displaced and undecided where its network errs; a made one is not, so that it shows only what the
refinement does with an accurate mask. Usage:

    make bench-matting [DATASET=folder] [MASKS=folder] [COUNT=200] [HALF=tune] [NETWORKS="u2netp"] [PICTURES="GT01"]

Networks run here if their weights are in the directories of ``pbr models``. The benchmark writes contact sheets,
``matting.json`` and ``matting.md`` to ``out/bench-matting/``, and keeps rembg's outputs there for the next run.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from bench import errors, masks, matting_methods, matting_report, platform_info, sheet
from bench.composites import COUNT, Half, composites
from bench.matting_methods import BARE, LEVELS, REMBG, Output
from bench.matting_report import COMPOSITES, MADE, PHOTOGRAPHS, Result, Seen
from bench.pictures import GroundTruth, dataset, network_masks
from client import local_models
from core.arrays import Alpha, Mask, Rgb, Segmentation
from core.errors import UnknownForegroundError
from core.segmentation.looks import segment
from core.segmentation.quality import assess
from core.segmentation.sessions import Networks
from core.types import Precision
from functions.runtime import cgroup
from functions.runtime.weights import ModelSource

OUT: Final = Path(__file__).parent.parent / "out" / "bench-matting"

_DEFAULT_NETWORK: Final = "u2netp"
_MADE_SIDE_PX: Final = 320
_MADE_COUNT: Final = 50
"""Composites with made masks if there is no dataset."""

_SHEET_ROWS: Final = 28
_SHEET_COLUMNS: Final = ("picture", "truth", BARE, REMBG, *LEVELS)

Look: TypeAlias = Callable[[Rgb, Precision], Segmentation]
"""Segments a picture as the product does at a precision level, second looks included."""


@dataclass(frozen=True)
class Case:
    """A picture and a mask of it.

    Attributes:
        group: the kind of mask, a heading of the report.
        look: repeats the segmentation at a precision level; None if the mask is read from a file or made.
    """

    group: str
    network: str
    truth: GroundTruth
    mask: Mask
    look: Look | None = None


def main() -> None:
    """Run the benchmark, print the report, and write all files."""
    arguments = _arguments()
    OUT.mkdir(parents=True, exist_ok=True)
    started, results, crops = time.monotonic(), [], Crops()
    left_out: list[str] = []
    for number, case in enumerate(cases(arguments, left_out), 1):
        result, alphas = judge(case, OUT / "peer")
        results.append(result)
        crops.add(case, alphas)
        spent_s = time.monotonic() - started
        print(f"{number}: {case.group}, {case.network}, {case.truth.name}, {spent_s:.0f} s", flush=True)
    where = platform_info.describe()
    report = matting_report.markdown(results, where, left_out)
    (OUT / "matting.md").write_text(f"{report}\n")
    (OUT / "matting.json").write_text(json.dumps({"platform": where, "results": [asdict(one) for one in results]}))
    crops.write(OUT)
    print(report)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.matting", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", type=Path, help="Folder with input/NAME.png and alpha/NAME.png.")
    parser.add_argument("--masks", type=Path, help="Folder with masks of the dataset's pictures, NAME.NETWORK.png.")
    parser.add_argument("--count", type=int, default=COUNT, help="Drawn composites, e.g. 20.")
    parser.add_argument("--half", type=Half, default=Half.TEST, help="Composites: tune or test. Default: test.")
    parser.add_argument("--networks", nargs="+", help="Networks to run. Default: all whose weights are here.")
    parser.add_argument("--pictures", nargs="+", help="Pictures of the dataset. Default: all.")
    return parser.parse_args()


def cases(arguments: argparse.Namespace, left_out: list[str]) -> Iterator[Case]:
    """Yield the cases of all groups, and list in ``left_out`` the pictures in which a network finds no subject."""
    source = ModelSource(local_models.directories(), registry=local_models.registry())
    here = [name for name, model in source.registry.items() if model.general and source.find(name)]
    names = arguments.networks or here or [_DEFAULT_NETWORK]
    networks = Networks(source, threads=cgroup.cpus(), most=len(names))
    truths = list(dataset(arguments.dataset)) if arguments.dataset else []
    shown = [truth for truth in truths if not arguments.pictures or truth.name in arguments.pictures]
    for truth in shown:
        given = network_masks(arguments.masks, truth.name) if arguments.masks else {}
        for name in dict.fromkeys((*given, *names)):
            yield from _case(PHOTOGRAPHS, name, truth, networks if name in names else None, left_out, given.get(name))
    for truth in composites(arguments.half, count=arguments.count, subjects=truths):
        for name in names:
            yield from _case(f"{COMPOSITES}, {arguments.half} half", name, truth, networks, left_out)
    for truth in shown or composites(arguments.half, count=min(_MADE_COUNT, arguments.count)):
        yield Case(MADE, f"{_MADE_SIDE_PX} px", truth, masks.mask(truth.alpha, _MADE_SIDE_PX, masks.Fault.CLEAN))


def _case(
    group: str,
    network: str,
    truth: GroundTruth,
    networks: Networks | None,
    left_out: list[str],
    given: Mask | None = None,
) -> Iterator[Case]:
    """Yield the case of a network's mask, given or predicted; nothing if the network finds no subject."""
    look = looking(networks, network) if networks else None
    try:
        mask = given if given is not None else look(truth.rgb, Precision.DRAFT).mask if look else None
    except UnknownForegroundError:
        mask = None
    if mask is None:
        left_out.append(f"{group}, {network}, {truth.name}")
    else:
        yield Case(group, network, truth, mask, look)


def looking(networks: Networks, network: str) -> Look:
    """Return the segmentation of a network at a precision level, as the product does it."""
    last: list[tuple[Rgb, Precision, Segmentation]] = []

    def look(rgb: Rgb, precision: Precision) -> Segmentation:
        if not last or last[0][0] is not rgb:
            last.clear()
        for _, level, found in last:
            if level is precision or {level, precision} == {Precision.DRAFT, Precision.STANDARD}:  # one look
                return found
        last.append((rgb, precision, segment(rgb, network, networks, precision)))
        return last[-1][2]

    return look


def judge(case: Case, cache: Path) -> tuple[Result, dict[str, Alpha]]:
    """Run all methods on a case; return their errors, and alphas by method.

    Args:
        case: the picture and its mask.
        cache: folder of rembg's earlier outputs.
    """
    rgb, truth = case.truth.rgb, case.truth.alpha
    outputs = {BARE: matting_methods.bare(rgb, case.mask), REMBG: matting_methods.rembg(rgb, case.mask, cache)}
    failures = {}
    whole: dict[str, Output] = {}
    seen: dict[str, Seen] = {}
    for precision in Precision:
        try:
            outputs[precision.value] = matting_methods.refined(rgb, case.mask, precision)
            if case.look:
                segmentation = case.look(rgb, precision)
                seen[precision.value] = _seen(segmentation, case.truth)
                whole[precision.value] = _from_picture(case, segmentation, precision, outputs[precision.value])
        except UnknownForegroundError as error:
            failures[precision.value] = str(error)
    quality = assess(rgb, case.mask)
    result = Result(
        group=case.group,
        network=case.network,
        picture=case.truth.name,
        kind=case.truth.kind,
        errors={name: errors.compare(output.alpha, truth) for name, output in outputs.items()},
        from_picture={name: errors.compare(output.alpha, truth) for name, output in whole.items()},
        seen=seen,
        seconds={name: output.seconds for name, output in outputs.items()},
        score=quality.score,
        review=quality.review,
        notes={name: output.notes for name, output in outputs.items() if output.notes},
        failures=failures,
    )
    return result, {name: output.alpha for name, output in outputs.items()}


def _seen(segmentation: Segmentation, truth: GroundTruth) -> Seen:
    enlarged = matting_methods.bare(truth.rgb, segmentation.mask).alpha
    return Seen(segmentation.looks, segmentation.rejected_looks, errors.compare(enlarged, truth.alpha).mse)


def _from_picture(case: Case, segmentation: Segmentation, precision: Precision, one_look: Output) -> Output:
    """Return the output of the whole path from picture to alpha."""
    mask = segmentation.mask
    same = mask.shape == case.mask.shape and bool(np.array_equal(mask, case.mask))
    return one_look if same else matting_methods.refined(case.truth.rgb, mask, precision)


@dataclass
class Crops:
    """The most uncertain crop of pictures and alphas, by group and network."""

    rows: dict[str, dict[str, Sequence[Rgb | Alpha | None]]] = field(default_factory=dict)

    def add(self, case: Case, alphas: dict[str, Alpha]) -> None:
        """Keep the crops of a case, unless its sheet is full."""
        rows = self.rows.setdefault(f"{case.group}-{case.network}".replace(" ", "-").replace(",", ""), {})
        if len(rows) < _SHEET_ROWS:
            window = sheet.busiest_window(case.truth.alpha)
            shown = (alphas.get(name) for name in _SHEET_COLUMNS[2:])
            rows[case.truth.name] = [
                case.truth.rgb[window],
                case.truth.alpha[window],
                *(None if alpha is None else alpha[window] for alpha in shown),
            ]

    def write(self, folder: Path) -> None:
        """Write one contact sheet per group and network."""
        for name, rows in self.rows.items():
            sheet.draw(_SHEET_COLUMNS, rows).save(folder / f"{name}.png")


if __name__ == "__main__":
    main()
