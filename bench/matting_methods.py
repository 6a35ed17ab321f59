"""The matting methods to compare. Each computes alpha from a picture and a mask."""

import hashlib
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from bench import rembg_peer
from core.arrays import Alpha, Mask, Rgb
from core.matting.refine import refine
from core.types import Precision

BARE: Final = "bare mask"
REMBG: Final = "rembg"
LEVELS: Final = tuple(level.value for level in Precision)


@dataclass(frozen=True)
class Output:
    """The output of a method.

    Attributes:
        alpha: H x W float32 in [0, 1].
        notes: warnings of the method.
    """

    alpha: Alpha
    seconds: float
    notes: tuple[str, ...] = ()


def bare(rgb: Rgb, mask: Mask) -> Output:
    """Resize the mask: bicubic to enlarge, area averaging to reduce."""
    started = time.perf_counter()
    height, width = rgb.shape[:2]
    shrinks = mask.shape[0] > height or mask.shape[1] > width
    resized = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return Output(np.asarray(resized.clip(0, 1), np.float32), time.perf_counter() - started)


def refined(rgb: Rgb, mask: Mask, precision: Precision) -> Output:
    """Refine the mask with ``core.matting.refine``.

    Raises:
        UnknownForegroundError: the mask holds no certain foreground.
    """
    started = time.perf_counter()
    matte = refine(rgb, mask, precision=precision)
    seconds = time.perf_counter() - started
    return Output(_rounded(matte.alpha), seconds, tuple(matte.report["warnings"]))


def rembg(rgb: Rgb, mask: Mask, cache: Path) -> Output:
    """Run rembg's alpha matting with its default options, on the mask instead of a network's prediction.

    rembg returns the bare mask if its matting fails; a note then has the reason.

    Args:
        rgb: the picture.
        mask: h x w float32 in [0, 1].
        cache: folder of earlier outputs, by a hash of the inputs and the versions.
    """
    versions = f"{version('rembg')} {version('pymatting')} {rgb.shape} {mask.shape}".encode()
    key = hashlib.sha256(versions + rgb.tobytes() + mask.tobytes()).hexdigest()
    path = cache / f"{key[:32]}.npz"
    if not path.exists():
        started = time.perf_counter()
        removal = rembg_peer.remove(rgb, mask, alpha_matting=True)
        seconds = time.perf_counter() - started
        cache.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.savez_compressed(
                file, alpha=np.asarray(removal.output)[..., 3], seconds=seconds, note=removal.swallowed or ""
            )
        part.replace(path)
    with np.load(path) as stored:
        note = str(stored["note"])
        return Output(
            np.asarray(stored["alpha"] / np.float32(255), np.float32),
            float(stored["seconds"]),
            (note,) * bool(note),
        )


def _rounded(alpha: Alpha) -> Alpha:
    """Return alpha in steps of 1/255, as a result file has it."""
    return np.asarray(np.rint(alpha * 255) / 255, np.float32)
