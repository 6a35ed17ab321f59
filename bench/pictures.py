"""Pictures with a true alpha: made on the spot, or read from a folder in the form of alphamatting.com's."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from bench import scenes
from core.types import Alpha, Rgb

Trimap: TypeAlias = NDArray[np.uint8]
"""H x W: 0 background, 255 foreground, 128 unknown."""

_TRIMAP_MARGIN_PX: Final = 4


class DatasetError(Exception):
    """A folder does not hold pictures with alphas."""


@dataclass(frozen=True)
class Truth:
    """A picture and what is true of it.

    ``kind`` is the structure that it shows (``photograph`` if read from a folder), ``alpha`` H x W float32 in [0, 1];
    ``trimaps`` are those that a person, or the benchmark, would give a matting method; there may be none.
    """

    name: str
    kind: str
    rgb: Rgb
    alpha: Alpha
    trimaps: Mapping[str, Trimap] = field(default_factory=dict)


def synthetic(seed: int = 0) -> Iterator[Truth]:
    """Make one picture of each of ``bench.scenes``, 0.5 to 0.7 MP; the same seed gives the same pictures."""
    for number, scene in enumerate(scenes.SCENES):
        rgb, alpha = scene(np.random.default_rng([seed, number]))
        name = scene.__name__
        yield Truth(name, kind=name, rgb=rgb, alpha=alpha, trimaps={"trimap1": _trimap(alpha)})


def dataset(directory: Path) -> Iterator[Truth]:
    """Read a folder's pictures in the order of their names.

    Args:
        directory: holds ``input/NAME.png`` and ``alpha/NAME.png``, each of equal size, and for none or all of them
            ``trimap1/NAME.png`` and ``trimap2/NAME.png``.

    Raises:
        DatasetError: the folder has another form; nothing was read.
    """
    names = sorted(path.name for path in (directory / "input").glob("*.png"))
    if not names:
        raise DatasetError(f"{directory} has no pictures: they are expected as {directory / 'input'}/NAME.png")
    trimaps = [folder for folder in ("trimap1", "trimap2") if (directory / folder).is_dir()]
    for folder in ("alpha", *trimaps):
        if missing := [name for name in names if not (directory / folder / name).is_file()]:
            raise DatasetError(f"{directory / folder} lacks {', '.join(missing)}: input/ has a picture of that name")
    return (_read(directory, name, trimaps) for name in names)


def grained(rgb: Rgb, levels: float) -> Rgb:
    """Add a camera's noise, of that deviation: what is enlarged is smooth, and compresses as no photograph does."""
    cv2.setRNGSeed(1)
    noise = cv2.randn(np.empty(rgb.shape, np.int8), np.zeros(3), np.full(3, levels))
    return np.asarray(cv2.add(rgb, noise, dtype=cv2.CV_8U), np.uint8)


def _read(directory: Path, name: str, trimaps: list[str]) -> Truth:
    bgr = _decode(directory / "input" / name, cv2.IMREAD_COLOR)
    planes = {folder: _decode(directory / folder / name, cv2.IMREAD_GRAYSCALE) for folder in ("alpha", *trimaps)}
    for folder, plane in planes.items():
        if plane.shape != bgr.shape[:2]:
            raise DatasetError(f"{folder}/{name} is {plane.shape[::-1]}, but input/{name} is {bgr.shape[1::-1]}")
    alpha = np.asarray(planes.pop("alpha") / 255, np.float32)
    rgb = np.ascontiguousarray(bgr[..., ::-1])
    return Truth(Path(name).stem, "photograph", rgb, alpha, planes)


def _decode(path: Path, flags: int) -> NDArray[Any]:
    decoded = cv2.imread(str(path), flags)
    if decoded is None:
        raise DatasetError(f"{path} is not a picture that can be read")
    return decoded


def _trimap(alpha: Alpha) -> Trimap:
    """Return a trimap as a careful person would draw it: what is soft, and a margin around."""
    soft = ((alpha > 0.01) & (alpha < 0.99)).astype(np.uint8)
    side = 2 * _TRIMAP_MARGIN_PX + 1
    unknown = cv2.dilate(soft, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))) > 0
    return np.where(unknown, 128, np.where(alpha > 0.5, 255, 0)).astype(np.uint8)
