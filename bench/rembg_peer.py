"""Run ``rembg.remove`` with a given mask instead of a network, and time its internal steps.

Both sides of a comparison can then start from the same mask.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.arrays import Mask, Rgb


class Seconds(NamedTuple):
    """Wall time, and CPU time of all threads."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Removal:
    """The output of rembg and the time of its alpha matting.

    Attributes:
        output: a PNG file if the input was a file; H x W x 4 uint8 if it was an array.
        alpha: time from the mask to alpha (trimap and ``estimate_alpha_cf``); None without alpha matting.
        foreground: time to estimate the foreground colors; None without alpha matting.
        swallowed: message of an error in the matting that rembg caught. The output then has the bare mask as its alpha.
    """

    output: bytes | NDArray[np.uint8]
    alpha: Seconds | None
    foreground: Seconds | None
    swallowed: str | None


def prepare(
    picture: bytes | Rgb, mask: Mask, *, alpha_matting: bool = False, decontaminate: bool = False
) -> Callable[[], Removal]:
    """Import and warm up rembg, and return a call of ``remove`` with rembg's defaults.

    Args:
        picture: an encoded file, or H x W x 3 uint8.
        mask: h x w float32 in [0, 1].
        alpha_matting: passed to rembg.
        decontaminate: passed to rembg.
    """
    modes = {"alpha_matting": alpha_matting, "decontaminate": decontaminate}
    small = np.zeros((32, 32), np.float32)
    small[8:24, 8:24] = 1
    remove(np.full((32, 32, 3), 128, np.uint8), small, **modes)
    return lambda: remove(picture, mask, **modes)


def remove(picture: bytes | Rgb, mask: Mask, *, alpha_matting: bool = False, decontaminate: bool = False) -> Removal:
    """Remove the background with rembg's defaults. ``prepare`` describes the arguments."""
    from rembg import bg

    timer = _MattingTimer(bg.alpha_matting_cutout, bg.estimate_foreground_ml)
    with patch.multiple(bg, alpha_matting_cutout=timer.cut_out, estimate_foreground_ml=timer.color):
        output = bg.remove(
            picture, session=_MaskSession(mask), alpha_matting=alpha_matting, decontaminate=decontaminate
        )
    return Removal(output, timer.alpha, timer.foreground, timer.swallowed)


class _MaskSession:
    """A rembg session that returns a given mask: 8 bits, resized with the Lanczos filter as in rembg's sessions."""

    def __init__(self, mask: Mask) -> None:
        self._mask = Image.fromarray((mask.clip(0, 1) * 255).astype(np.uint8))

    def predict(self, picture: Image.Image, *_: Any, **__: Any) -> list[Image.Image]:
        return [self._mask.resize(picture.size, Image.Resampling.LANCZOS)]


class _MattingTimer:
    """Wrap two functions of rembg to time them. ``cut_out`` calls ``color`` as soon as alpha is computed."""

    def __init__(self, cutout: Callable[..., Any], foreground: Callable[..., Any]) -> None:
        self._cutout, self._foreground = cutout, foreground
        self._started: Seconds | None = None
        self.alpha: Seconds | None = None
        self.foreground: Seconds | None = None
        self.swallowed: str | None = None

    def cut_out(self, *arguments: Any) -> Any:
        self._started = _now()
        try:
            return self._cutout(*arguments)
        except ValueError as error:  # rembg catches no other error
            self.swallowed = str(error)
            raise
        finally:
            self._started = None

    def color(self, *arguments: Any) -> Any:
        if self._started is None:
            return self._foreground(*arguments)
        reached = _now()
        self.alpha = _between(self._started, reached)
        colors = self._foreground(*arguments)
        self.foreground = _between(reached, _now())
        return colors


def _now() -> Seconds:
    return Seconds(time.perf_counter(), time.process_time())


def _between(start: Seconds, end: Seconds) -> Seconds:
    return Seconds(end.wall - start.wall, end.cpu - start.cpu)
