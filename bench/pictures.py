"""Pictures with a true alpha: synthetic ones, or a dataset with the layout of alphamatting.com."""

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
    """A dataset folder has an unexpected layout or content."""


@dataclass(frozen=True)
class GroundTruth:
    """A picture and its true alpha.

    Attributes:
        kind: the structure that the picture shows; ``photograph`` if read from a folder.
        alpha: H x W float32 in [0, 1].
        trimaps: trimaps by name; may be empty.
    """

    name: str
    kind: str
    rgb: Rgb
    alpha: Alpha
    trimaps: Mapping[str, Trimap] = field(default_factory=dict)


def synthetic(seed: int = 0) -> Iterator[GroundTruth]:
    """Yield one picture of each scene in ``bench.scenes``, 0.5 to 0.7 MP. Equal seeds give equal pictures."""
    for number, scene in enumerate(scenes.SCENES):
        rgb, alpha = scene(np.random.default_rng([seed, number]))
        name = scene.__name__
        yield GroundTruth(name, kind=name, rgb=rgb, alpha=alpha, trimaps={"trimap1": _trimap(alpha)})


def dataset(directory: Path) -> Iterator[GroundTruth]:
    """Return the pictures of a folder, sorted by name.

    Args:
        directory: has ``input/NAME.png`` and ``alpha/NAME.png`` of equal size. ``trimap1/`` and ``trimap2/`` are
            optional; if present, they must have a file for every picture.

    Raises:
        DatasetError: the layout of the folder differs, or a file cannot be read.
    """
    names = sorted(path.name for path in (directory / "input").glob("*.png"))
    if not names:
        raise DatasetError(f"{directory} has no pictures. Store them as {directory / 'input'}/NAME.png.")
    trimaps = [folder for folder in ("trimap1", "trimap2") if (directory / folder).is_dir()]
    for folder in ("alpha", *trimaps):
        if missing := [name for name in names if not (directory / folder / name).is_file()]:
            raise DatasetError(
                f"{directory / folder} lacks {', '.join(missing)}. Every picture in input/ needs a file there."
            )
    return (_read(directory, name, trimaps) for name in names)


def grained(rgb: Rgb, levels: float) -> Rgb:
    """Add camera noise with the given standard deviation, so that an enlarged picture compresses like a photograph."""
    cv2.setRNGSeed(1)
    noise = cv2.randn(np.empty(rgb.shape, np.int8), np.zeros(3), np.full(3, levels))
    return np.asarray(cv2.add(rgb, noise, dtype=cv2.CV_8U), np.uint8)


def _read(directory: Path, name: str, trimaps: list[str]) -> GroundTruth:
    bgr = _decode(directory / "input" / name, cv2.IMREAD_COLOR)
    planes = {folder: _decode(directory / folder / name, cv2.IMREAD_GRAYSCALE) for folder in ("alpha", *trimaps)}
    for folder, plane in planes.items():
        if plane.shape != bgr.shape[:2]:
            raise DatasetError(
                f"{folder}/{name} is {plane.shape[::-1]}, but input/{name} is {bgr.shape[1::-1]}. Use equal sizes."
            )
    alpha = np.asarray(planes.pop("alpha") / 255, np.float32)
    rgb = np.ascontiguousarray(bgr[..., ::-1])
    return GroundTruth(Path(name).stem, "photograph", rgb, alpha, planes)


def _decode(path: Path, flags: int) -> NDArray[Any]:
    decoded = cv2.imread(str(path), flags)
    if decoded is None:
        raise DatasetError(f"{path} is not a picture that OpenCV can read.")
    return decoded


def _trimap(alpha: Alpha) -> Trimap:
    """Return a trimap as a person would draw it: the soft pixels with a margin are unknown."""
    soft = ((alpha > 0.01) & (alpha < 0.99)).astype(np.uint8)
    side = 2 * _TRIMAP_MARGIN_PX + 1
    unknown = cv2.dilate(soft, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))) > 0
    return np.where(unknown, 128, np.where(alpha > 0.5, 255, 0)).astype(np.uint8)
