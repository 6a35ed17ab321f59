"""Compare the speed and file size of encoders for cut-outs.

Compares core's formats with the PNG encoders of OpenCV, Pillow, and, if pyvips is installed, libvips at common levels.
Each encoder runs in a separate process per picture. core's encoder joins color and alpha itself; the others get RGBA.
Usage: ``make bench-encode [DATASET=folder] [MEGAPIXELS="0.25 12"]``. Prints tables, and writes them and the figures as
JSON to ``out/bench-encode/``.
"""

import argparse
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench import platform_info
from bench.composites import Half, composites
from bench.markdown import table
from bench.measure import Case, Failure, measure
from bench.pictures import GroundTruth, dataset, grained
from core.arrays import Alpha, Rgb
from core.image.encode import encode
from core.options import Options, OutputFormat

OUT: Final = Path(__file__).parent.parent / "out" / "bench-encode"

_MEGAPIXELS: Final = (0.25, 12.0)
_NOISE_LEVELS: Final = 2.0
_ROUNDS: Final = 5
_SLOW: Final = ("webp", "avif", "6", "9")
"""Parts of the names of encoders that run only one round above ``_FEW_MEGAPIXELS``."""

_FEW_MEGAPIXELS: Final = 1
_WARM_UP_PX: Final = 64
_PNG: Final = "ours, png"

Pixels: TypeAlias = NDArray[np.uint8]
Figures: TypeAlias = dict[str, dict[str, dict[str, float]]]
"""``wall_s``, ``cpu_s``, ``peak_mb`` and ``mb``, by encoder and picture."""


def main() -> None:
    """Run the benchmark, print the tables, and write all files."""
    parser = argparse.ArgumentParser(prog="bench.encode", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--dataset", type=Path, help="Folder with input/NAME.png and alpha/NAME.png. Default: composites."
    )
    parser.add_argument(
        "--megapixels",
        type=float,
        nargs="+",
        default=_MEGAPIXELS,
        help="Sizes to resize the pictures to, in megapixels, e.g. 0.25 12.",
    )
    arguments = parser.parse_args()
    if find_spec("pyvips") is None:
        print("libvips is skipped because pyvips is not installed.\n")
    OUT.mkdir(parents=True, exist_ok=True)
    report, figures = [f"Platform: {platform_info.describe()}."], {}
    for megapixels in arguments.megapixels:
        pictures = dataset(arguments.dataset) if arguments.dataset else composites(Half.TEST, count=10)
        measured = _measure(_resized(picture, megapixels) for picture in pictures)
        figures[f"{megapixels:g}"] = measured
        report.append(_table(megapixels, measured))
    text = "\n\n".join(report)
    print(text)
    (OUT / "encode.md").write_text(text + "\n")
    (OUT / "encode.json").write_text(json.dumps(figures, indent=2) + "\n")


def _resized(picture: GroundTruth, megapixels: float) -> GroundTruth:
    """Resize a picture and add camera noise."""
    height, width = picture.alpha.shape
    scale = math.sqrt(megapixels * 1e6 / (height * width))
    size = round(width * scale), round(height * scale)
    interpolation = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    rgb, alpha = (cv2.resize(plane, size, interpolation=interpolation) for plane in (picture.rgb, picture.alpha))
    noisy = grained(np.asarray(rgb, np.uint8), _NOISE_LEVELS)
    return GroundTruth(picture.name, picture.kind, noisy, np.asarray(alpha.clip(0, 1), np.float32))


def _measure(pictures: Iterable[GroundTruth]) -> Figures:
    figures: Figures = {}
    for picture in pictures:
        for name, outcome in measure(_cases(picture.rgb, picture.alpha)).items():
            if isinstance(outcome, Failure):
                raise RuntimeError(f"{name} on {picture.name}: {outcome.reason}")
            figures.setdefault(name, {})[picture.name] = {
                "wall_s": outcome.wall_s,
                "cpu_s": outcome.cpu_s,
                "peak_mb": outcome.peak_bytes / 1e6,
                "mb": outcome.result / 1e6,
            }
    return figures


def _cases(rgb: Rgb, alpha: Alpha) -> dict[str, Case]:
    plane = cv2.convertScaleAbs(alpha, alpha=255)
    rgba = np.dstack([cv2.copyTo(rgb, plane), plane])
    level, filter_ = cv2.IMWRITE_PNG_COMPRESSION, cv2.IMWRITE_PNG_FILTER
    writers: dict[str, Callable[[Pixels], int]] = {
        "OpenCV PNG, its defaults": partial(_by_opencv, parameters=[]),
        "OpenCV PNG 1, up": partial(_by_opencv, parameters=[level, 1, filter_, cv2.IMWRITE_PNG_FILTER_UP]),
        "OpenCV PNG 6, all": partial(_by_opencv, parameters=[level, 6, filter_, cv2.IMWRITE_PNG_ALL_FILTERS]),
        "OpenCV PNG 9, all": partial(_by_opencv, parameters=[level, 9, filter_, cv2.IMWRITE_PNG_ALL_FILTERS]),
        "Pillow PNG 1": partial(_by_pillow, level=1),
        "Pillow PNG 6 (its default)": partial(_by_pillow, level=6),
        "Pillow PNG 9": partial(_by_pillow, level=9),
    }
    if find_spec("pyvips"):
        writers |= {
            "libvips PNG 6, none (its default)": partial(_by_libvips, level=6, filters="none"),
            "libvips PNG 3, sub": partial(_by_libvips, level=3, filters="sub"),
            "libvips PNG 6, all": partial(_by_libvips, level=6, filters="all"),
            "libvips PNG 9, all": partial(_by_libvips, level=9, filters="all"),
        }

    def rounds(name: str) -> int:
        return 1 if alpha.size > _FEW_MEGAPIXELS * 1e6 and any(part in name for part in _SLOW) else _ROUNDS

    cases = {f"ours, {format_}": Case(_ours, (rgb, alpha, format_), rounds(format_)) for format_ in OutputFormat}
    return cases | {name: Case(_theirs, (rgba, writer), rounds(name)) for name, writer in writers.items()}


def _ours(rgb: Rgb, alpha: Alpha, format_: OutputFormat) -> Callable[[], int]:
    options = Options(format=format_)
    encode(rgb[:_WARM_UP_PX], alpha[:_WARM_UP_PX], options)
    return lambda: len(encode(rgb, alpha, options).data)


def _theirs(rgba: Pixels, writer: Callable[[Pixels], int]) -> Callable[[], int]:
    writer(rgba[:_WARM_UP_PX])
    return lambda: writer(rgba)


def _by_opencv(rgba: Pixels, parameters: list[int]) -> int:
    return int(cv2.imencode(".png", cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA), parameters)[1].size)


def _by_pillow(rgba: Pixels, level: int) -> int:
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, "PNG", compress_level=level)
    return buffer.tell()


def _by_libvips(rgba: Pixels, level: int, filters: str) -> int:
    import pyvips

    image = pyvips.Image.new_from_array(rgba, interpretation="srgb")
    return len(image.pngsave_buffer(compression=level, filter=filters))


def _table(megapixels: float, figures: Figures) -> str:
    """Return the table: geometric means over the pictures, and the peak memory of any picture."""
    lossless = [name for name in figures if "PNG" in name or name == _PNG]
    smallest = {picture: min(figures[name][picture]["mb"] for name in lossless) for picture in figures[_PNG]}

    def mean(values: Iterable[float]) -> float:
        return math.exp(math.fsum(logs := [math.log(value) for value in values]) / len(logs))

    def row(name: str, of: Mapping[str, dict[str, Any]]) -> list[str]:
        ratios = {
            field: mean(of[picture][field] / figures[_PNG][picture][field] for picture in of)
            for field in ("wall_s", "cpu_s")
        }
        over = [of[picture]["mb"] / smallest[picture] for picture in of]
        return [
            name,
            f"{mean(figure['wall_s'] for figure in of.values()):.3f}",
            f"{mean(figure['cpu_s'] for figure in of.values()):.3f}",
            f"{ratios['wall_s']:.2f}",
            f"{ratios['cpu_s']:.2f}",
            f"{mean(figure['mb'] for figure in of.values()):.3g}",
            f"{mean(over):.3f}",
            f"{max(over):.3f}",
            f"{max(figure['peak_mb'] for figure in of.values()):.0f}",
        ]

    heads = ["encoder", "s", "CPU s", "s / ours", "CPU s / ours", "MB", "/ smallest PNG", "at worst", "peak MB"]
    return table(f"{megapixels:g} MP, {len(smallest)} pictures", heads, (row(name, of) for name, of in figures.items()))


if __name__ == "__main__":
    main()
