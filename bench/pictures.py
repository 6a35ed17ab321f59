"""Pictures with a true alpha, and datasets of them with the layout of alphamatting.com."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from core.arrays import Alpha, Mask, Rgb


class DatasetError(Exception):
    """A dataset folder has an unexpected layout or content."""


@dataclass(frozen=True)
class GroundTruth:
    """A picture and its true alpha.

    Attributes:
        kind: the subject that was drawn; ``photograph`` if read from a folder.
        alpha: H x W float32 in [0, 1].
        foreground: H x W x 3 uint8, the subject's own colors, defined where alpha is above 0; None if unknown.
    """

    name: str
    kind: str
    rgb: Rgb
    alpha: Alpha
    foreground: Rgb | None = None


def dataset(directory: Path) -> Iterator[GroundTruth]:
    """Return the pictures of a folder, sorted by name.

    Args:
        directory: has ``input/NAME.png`` and ``alpha/NAME.png`` of equal size.

    Raises:
        DatasetError: the layout of the folder differs, or a file cannot be read.
    """
    names = sorted(path.name for path in (directory / "input").glob("*.png"))
    if not names:
        raise DatasetError(f"{directory} has no pictures. Store them as {directory / 'input'}/NAME.png.")
    if missing := [name for name in names if not (directory / "alpha" / name).is_file()]:
        raise DatasetError(
            f"{directory / 'alpha'} lacks {', '.join(missing)}. Every picture in input/ needs a file there."
        )
    return (_read(directory, name) for name in names)


def network_masks(directory: Path, picture: str) -> dict[str, Mask]:
    """Return the masks ``PICTURE.NETWORK.png`` of a picture, 8 or 16 bits, by the name of the network.

    Raises:
        DatasetError: a file cannot be read.
    """
    masks = {}
    for path in sorted(directory.glob(f"{picture}.*.png")):
        mask = _decode(path, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
        masks[path.name.removeprefix(f"{picture}.").removesuffix(".png")] = np.asarray(
            mask / np.iinfo(mask.dtype).max, np.float32
        )
    return masks


def grained(rgb: Rgb, levels: float) -> Rgb:
    """Add camera noise with the given standard deviation, so that an enlarged picture compresses like a photograph."""
    cv2.setRNGSeed(1)
    noise = cv2.randn(np.empty(rgb.shape, np.int8), np.zeros(3), np.full(3, levels))
    return np.asarray(cv2.add(rgb, noise, dtype=cv2.CV_8U), np.uint8)


def _read(directory: Path, name: str) -> GroundTruth:
    bgr = _decode(directory / "input" / name, cv2.IMREAD_COLOR)
    alpha = _decode(directory / "alpha" / name, cv2.IMREAD_GRAYSCALE)
    if alpha.shape != bgr.shape[:2]:
        raise DatasetError(
            f"alpha/{name} is {alpha.shape[::-1]}, but input/{name} is {bgr.shape[1::-1]}. Use equal sizes."
        )
    rgb = np.ascontiguousarray(bgr[..., ::-1])
    return GroundTruth(Path(name).stem, "photograph", rgb, np.asarray(alpha / 255, np.float32))


def _decode(path: Path, flags: int) -> NDArray[Any]:
    decoded = cv2.imread(str(path), flags)
    if decoded is None:
        raise DatasetError(f"{path} is not a picture that OpenCV can read.")
    return decoded
