"""Measure the speed of the stages by picture size, and compare with rembg on the same JPEG and mask.

``bench.measure`` runs every step in a separate process and in turns with the others. Usage: ``make bench-speed
[MEGAPIXELS="1 4 12"] [PEER_MEGAPIXELS=24]``. Prints tables, and writes them, the figures as JSON, and the pictures to
``out/bench-speed/``.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import data as photographs

from bench import markdown, masks, platform_info, rembg_peer
from bench.measure import Case, Failure, Measurement, measure
from bench.pictures import grained
from core import pipeline
from core.arrays import Alpha, Mask, Rgb
from core.image import decode, encode
from core.matting import foreground, refine
from core.options import Options
from core.segmentation import quality
from core.types import Precision, Quality

OUT: Final = Path(__file__).parent.parent / "out" / "bench-speed"

_MEGAPIXELS: Final = (1, 4, 12, 24, 48)
_GOALS_AT: Final = 12
"""Size in megapixels that the goals apply to."""

_ROUNDS: Final = 5
_PEER_ROUNDS: Final = 3
_FEW_MEGAPIXELS: Final = 4
"""Slow steps, which take seconds per megapixel, run only one round above this size."""

_NOISE_LEVELS: Final = 3.0
_TIME_LIMIT_S: Final = 900.0
_INTERPRETERS: Final = 5
_IMPORT_GOAL_S: Final = 0.5

_STANDARD, _HIGH = Precision.STANDARD, Precision.HIGH
_REFINE: Final = "refine, {}"
_WHOLE: Final = "JPEG to PNG, {}"
_PLAIN: Final = "rembg.remove()"
_DECONTAMINATE: Final = "rembg.remove(decontaminate=True)"
_MATTING: Final = "rembg.remove(alpha_matting=True)"
_PEER_ALPHA: Final = "rembg's trimap and estimate_alpha_cf"
_PEER_CUTOUT: Final = "rembg's alpha_matting_cutout"

_COMPARISONS: Final = (
    (_REFINE.format(_STANDARD), _PEER_ALPHA, "wall_s", 300),
    (_REFINE.format(_STANDARD), _PEER_CUTOUT, "wall_s", None),
    (_REFINE.format(_HIGH), _PEER_ALPHA, "wall_s", 80),
    (_REFINE.format(_HIGH), _PEER_CUTOUT, "wall_s", None),
    (_WHOLE.format(_STANDARD), _MATTING, "wall_s", 90),
    (_WHOLE.format(_STANDARD), _DECONTAMINATE, "wall_s", None),
    (_WHOLE.format(_STANDARD), _PLAIN, "wall_s", 2.5),
    (_WHOLE.format(_HIGH), _MATTING, "wall_s", None),
    (_WHOLE.format(_HIGH), _DECONTAMINATE, "wall_s", None),
    (_WHOLE.format(_HIGH), _PLAIN, "wall_s", None),
    (_REFINE.format(_STANDARD), _PEER_ALPHA, "cpu_s", None),
    (_REFINE.format(_HIGH), _PEER_ALPHA, "cpu_s", None),
    (_WHOLE.format(_STANDARD), _MATTING, "cpu_s", None),
    (_WHOLE.format(_STANDARD), _PLAIN, "cpu_s", None),
    (_WHOLE.format(_STANDARD), _MATTING, "peak_mb", 20),
    (_WHOLE.format(_HIGH), _MATTING, "peak_mb", 20),
    (_WHOLE.format(_HIGH), _PLAIN, "peak_mb", None),
)
"""Comparisons: our step, rembg's step, the quantity, and the goal for rembg's figure as a multiple of ours."""

_QUANTITIES: Final = {"wall_s": "time", "cpu_s": "CPU time", "peak_mb": "memory"}

Figures: TypeAlias = dict[str, dict[str, Any]]
"""``wall_s``, ``cpu_s`` and ``peak_mb``, or the reason why it ``failed``, by step, for one picture size."""


def main() -> None:
    """Run the benchmark, print the tables, and write all files."""
    parser = argparse.ArgumentParser(prog="bench.speed", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--megapixels", type=float, nargs="+", default=_MEGAPIXELS, help="Picture sizes in megapixels, e.g. 1 4 12."
    )
    parser.add_argument(
        "--peer-megapixels",
        type=float,
        default=12,
        help="Largest size for rembg's alpha matting and decontamination, in megapixels, e.g. 24.",
    )
    parser.add_argument("--mask-px", type=int, default=1024, help="Longer side of the mask in pixels, e.g. 1024.")
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    import_s, import_cpu_s = _import_seconds()
    by_size: dict[float, Figures] = {}
    report = ""
    for megapixels in arguments.megapixels:
        print(f"{megapixels:g} MP ...", file=sys.stderr)
        rgb, alpha = portrait(megapixels)
        jpeg, mask = _jpeg(rgb), masks.mask(alpha, arguments.mask_px, masks.Fault.JITTERED)
        del rgb, alpha
        (OUT / f"{megapixels:g}mp.jpg").write_bytes(jpeg)
        (OUT / f"{megapixels:g}mp-mask.png").write_bytes(encode.encode_plane(mask))
        by_size[megapixels] = _figures(
            measure(_cases(megapixels, jpeg, mask, peer=megapixels <= arguments.peer_megapixels))
        )
        # Written after each size, because the next size may take minutes and run out of memory.
        report = _report(by_size, import_s, import_cpu_s, arguments)
        (OUT / "speed.md").write_text(f"{report}\n")
        figures = {
            "platform": platform_info.describe(),
            "mask_px": arguments.mask_px,
            "import_s": import_s,
            "import_cpu_s": import_cpu_s,
            "megapixels": by_size,
        }
        (OUT / "speed.json").write_text(json.dumps(figures, indent=2))
    print(report)


# Test picture


def portrait(megapixels: float) -> tuple[Rgb, Alpha]:
    """Draw a furry figure with loose hair in front of a table: the same scene, sharp at every size.

    Returns:
        A picture with an aspect ratio of 4:3 and its alpha.
    """
    width = round(math.sqrt(megapixels * 1e6 * 4 / 3))
    height = round(width * 3 / 4)
    alpha = _figure(height, width)
    near, far = (
        np.asarray(cv2.resize(photograph, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
        for photograph in (photographs.chelsea(), photographs.coffee())
    )
    rgb = np.asarray(cv2.blendLinear(near, far, alpha, 1 - alpha), np.uint8)
    return grained(rgb, _NOISE_LEVELS), alpha


def _figure(height: int, width: int) -> Alpha:
    rng = np.random.default_rng(1)
    drawn: NDArray[Any] = np.zeros((height, width), np.uint8)
    center, half_axes = np.array([0.5 * width, 0.48 * height]), np.array([0.15 * width, 0.27 * height])
    for towards in rng.uniform(0, 2 * np.pi, 700):
        heading = towards + rng.normal(0, 0.12, 16).cumsum()
        steps = rng.uniform(0.003, 0.009) * height * np.stack([np.cos(heading), np.sin(heading)], axis=1)
        root = center + 0.97 * half_axes * (np.cos(towards), np.sin(towards))
        path = (np.vstack([root, steps]).cumsum(axis=0) * 16).astype(np.int32)
        thickness = max(1, round(width * rng.uniform(3e-4, 8e-4)))
        cv2.polylines(drawn, [path], False, int(rng.integers(110, 256)), thickness, cv2.LINE_AA, 4)
    shoulders = (round(0.5 * width), round(1.15 * height)), (round(0.38 * width), round(0.42 * height))
    for middle, half in ((center.astype(int).tolist(), half_axes.astype(int).tolist()), shoulders):
        cv2.ellipse(drawn, middle, half, 0, 0, 360, 255, -1, cv2.LINE_AA)
    return drawn * np.float32(1 / 255)


def _jpeg(rgb: Rgb) -> bytes:
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


# Cases


def _cases(megapixels: float, jpeg: bytes, mask: Mask, *, peer: bool) -> dict[str, Case]:
    slow = 1 if megapixels > _FEW_MEGAPIXELS else _PEER_ROUNDS
    cases = {"decode": Case(_decoding, (jpeg,), _ROUNDS)}
    for precision in Precision:
        rounds = slow if precision is Precision.ULTRA_HIGH else _ROUNDS
        cases[_REFINE.format(precision)] = Case(_refining, (jpeg, mask, precision), rounds, _TIME_LIMIT_S)
    cases["assess"] = Case(_assessing, (jpeg, mask), _ROUNDS)
    for precision in (_STANDARD, _HIGH, Precision.ULTRA_HIGH):
        cases[f"foreground, {precision}"] = Case(_coloring, (jpeg, mask, precision), _ROUNDS)
    cases["PNG"] = Case(_encoding, (jpeg, mask), _ROUNDS)
    for precision in (_STANDARD, _HIGH):
        cases[_WHOLE.format(precision)] = Case(_removing, (jpeg, mask, precision), _ROUNDS)
    cases[_PLAIN] = Case(rembg_peer.prepare, (jpeg, mask), _PEER_ROUNDS)
    if peer:
        limits = _TIME_LIMIT_S, _available_bytes()
        decontaminate = partial(rembg_peer.prepare, decontaminate=True)
        alpha_matting = partial(rembg_peer.prepare, alpha_matting=True)
        cases[_DECONTAMINATE] = Case(decontaminate, (jpeg, mask), slow, *limits)
        cases[_MATTING] = Case(alpha_matting, (jpeg, mask), slow, *limits)
    return cases


def _decoding(jpeg: bytes) -> Callable[[], None]:
    def call() -> None:
        decode.decode(jpeg)

    return call


def _refining(jpeg: bytes, mask: Mask, precision: Precision) -> Callable[[], dict[str, Any]]:
    rgb = decode.decode(jpeg).rgb
    return lambda: refine.refine(rgb, mask, precision=precision).report


def _assessing(jpeg: bytes, mask: Mask) -> Callable[[], Quality]:
    rgb = decode.decode(jpeg).rgb
    return lambda: quality.assess(rgb, mask)


def _coloring(jpeg: bytes, mask: Mask, precision: Precision) -> Callable[[], None]:
    rgb = decode.decode(jpeg).rgb
    alpha = refine.refine(rgb, mask).alpha

    def call() -> None:
        foreground.decontaminate(rgb, alpha, precision)

    return call


def _encoding(jpeg: bytes, mask: Mask) -> Callable[[], int]:
    rgb = decode.decode(jpeg).rgb
    alpha = refine.refine(rgb, mask).alpha
    rgb = foreground.decontaminate(rgb, alpha)
    return lambda: len(encode.encode(rgb, alpha, Options()).data)


def _removing(jpeg: bytes, mask: Mask, precision: Precision) -> Callable[[], int]:
    def call() -> int:
        picture = decode.decode(jpeg)
        alpha = refine.refine(picture.rgb, mask, precision=precision).alpha
        return len(pipeline.finish(picture, alpha, Options(precision_level=precision), None).data)

    return call


def _available_bytes() -> int | None:
    """Return the available memory as the limit for rembg, which could otherwise exhaust it; None outside Linux."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except FileNotFoundError:
        return None
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def _import_seconds() -> tuple[float, float]:
    """Return the wall and CPU time to import the stages in a new interpreter, without its start."""
    clocks = "time.perf_counter(), time.process_time()"
    code = f"import time; a = {clocks}; import core.pipeline; b = {clocks}; print(b[0] - a[0], b[1] - a[1])"
    runs = [
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()  # noqa: S603
        for _ in range(_INTERPRETERS)
    ]
    wall_s, cpu_s = (statistics.median(map(float, column)) for column in zip(*runs, strict=True))
    return wall_s, cpu_s


# Report


def _figures(results: Mapping[str, Measurement]) -> Figures:
    """Convert measurements to JSON types, with a separate entry for each step of rembg's matting."""
    figures: Figures = {}
    for name, outcome in results.items():
        if isinstance(outcome, Failure):
            figures[name] = {"failed": outcome.reason}
            continue
        result = outcome.result
        figures[name] = {"wall_s": outcome.wall_s, "cpu_s": outcome.cpu_s, "peak_mb": outcome.peak_bytes / 1e6}
        if isinstance(result, dict):
            figures[name]["report"] = result
        elif isinstance(result, rembg_peer.Removal) and result.swallowed:
            figures[name] = {"failed": f"swallowed after {outcome.wall_s:.1f} s: {result.swallowed}"}
        elif isinstance(result, rembg_peer.Removal) and result.alpha and result.foreground:
            (wall_s, cpu_s), (more_wall_s, more_cpu_s) = result.alpha, result.foreground
            figures[_PEER_ALPHA] = {"wall_s": wall_s, "cpu_s": cpu_s}
            figures[_PEER_CUTOUT] = {"wall_s": wall_s + more_wall_s, "cpu_s": cpu_s + more_cpu_s}
    return figures


def _report(
    by_size: Mapping[float, Figures], import_s: float, import_cpu_s: float, arguments: argparse.Namespace
) -> str:
    names = list(dict.fromkeys(name for figures in by_size.values() for name in figures))
    heads = ["", *(f"{size:g} MP" for size in by_size)]

    def table(title: str, form: Callable[[dict[str, Any], float], str]) -> str:
        rows = [[name, *(_cell(figures.get(name), size, form) for size, figures in by_size.items())] for name in names]
        return markdown.table(title, heads, [row for row in rows if set(row[1:]) != {"-"}])

    shares = [
        f"{report['band_share']:.0%} of {size:g} MP"
        for size, figures in by_size.items()
        if (report := figures[_REFINE.format(_HIGH)].get("report"))
    ]
    failures = [
        f"{size:g} MP, {name}: {row['failed']}"
        for size, figures in by_size.items()
        for name, row in figures.items()
        if "failed" in row
    ]
    return "\n\n".join(
        [
            f"Platform: {platform_info.describe()}.",
            f"Mask of {arguments.mask_px} px. Band solved at high: {', '.join(shares)}.",
            f"Medians of {_ROUNDS} rounds; {_PEER_ROUNDS} for rembg and ultra_high. Above {_FEW_MEGAPIXELS} MP,"
            " ultra_high, alpha_matting and decontaminate run one round. rembg's alpha_matting and decontaminate run"
            f" up to {arguments.peer_megapixels:g} MP (PEER_MEGAPIXELS).",
            table("Seconds (CPU seconds)", lambda row, _: f"{row['wall_s']:.3f} ({row['cpu_s']:.3f})"),
            table("Milliseconds per megapixel", lambda row, size: f"{1000 * row['wall_s'] / size:.1f}"),
            table("Peak memory added, MB", lambda row, _: f"{row['peak_mb']:.0f}" if "peak_mb" in row else "-"),
            markdown.table(
                "rembg's time, CPU time of all cores, or memory as a multiple of ours",
                [*heads, f"goal at {_GOALS_AT} MP", ""],
                [_compared(by_size, *comparison) for comparison in _COMPARISONS],
            ),
            f"Import of core.pipeline: {import_s:.2f} s ({import_cpu_s:.2f} s of CPU);"
            f" goal: at most {_IMPORT_GOAL_S:g} s: {'met' if import_s <= _IMPORT_GOAL_S else 'missed'}.",
            *(["Failed:\n\n" + "\n".join(f"- {failure}" for failure in failures)] if failures else []),
        ]
    )


def _compared(by_size: Mapping[float, Figures], own: str, peer: str, field: str, goal: float | None) -> list[str]:
    ratios: dict[float, float] = {}
    for size, figures in by_size.items():
        ours, theirs = (figures.get(name, {}).get(field) for name in (own, peer))
        if ours and theirs:
            ratios[size] = theirs / ours
    cells = [f"{ratios[size]:.3g}" if size in ratios else "-" for size in by_size]
    verdict = ""
    if goal:
        verdict = "not measured"
        if reached := ratios.get(_GOALS_AT):
            verdict = "met" if reached >= goal else "**missed**"
    return [f"{_QUANTITIES[field]}: {own} / {peer}", *cells, f"{goal:g}" if goal else "", verdict]


def _cell(row: dict[str, Any] | None, size: float, form: Callable[[dict[str, Any], float], str]) -> str:
    if row is None:
        return "-"
    return "failed" if "failed" in row else form(row, size)


if __name__ == "__main__":
    main()
