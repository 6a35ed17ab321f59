"""rembg's own ``remove`` with a given mask instead of a network, and a look at what it does inside.

rembg keeps its work apart from the network's, so that both sides of a comparison start from the same mask.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.types import Mask, Rgb


class Seconds(NamedTuple):
    """How long a part took, and its CPU time in all threads."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Removal:
    """What rembg made, and what its alpha matting took of the time.

    ``output`` is a PNG file for a file, H x W x 4 uint8 for an array. ``alpha`` is the part from the mask to alpha
    (trimap and ``estimate_alpha_cf``), ``foreground`` the part that estimates the foreground's colours; both are None
    without alpha matting. ``swallowed`` is the error that the matting raised and that rembg kept to itself: the output
    then has the bare mask as its alpha.
    """

    output: bytes | NDArray[np.uint8]
    alpha: Seconds | None
    foreground: Seconds | None
    swallowed: str | None


def prepare(
    picture: bytes | Rgb, mask: Mask, *, alpha_matting: bool = False, decontaminate: bool = False
) -> Callable[[], Removal]:
    """Import rembg, let it load its compiled code, and return the call of ``remove`` with its defaults.

    Args:
        picture: a picture's file, or H x W x 3 uint8.
        mask: h x w float32 in [0, 1], the network's.
        alpha_matting: as rembg's argument of this name.
        decontaminate: as rembg's argument of this name.
    """
    modes = {"alpha_matting": alpha_matting, "decontaminate": decontaminate}
    small = np.zeros((32, 32), np.float32)
    small[8:24, 8:24] = 1
    remove(np.full((32, 32, 3), 128, np.uint8), small, **modes)
    return lambda: remove(picture, mask, **modes)


def remove(picture: bytes | Rgb, mask: Mask, *, alpha_matting: bool = False, decontaminate: bool = False) -> Removal:
    """Remove the background by rembg with its defaults; for the arguments see ``prepare``."""
    from rembg import bg

    watch = _Watch(bg.alpha_matting_cutout, bg.estimate_foreground_ml)
    with patch.multiple(bg, alpha_matting_cutout=watch.cut_out, estimate_foreground_ml=watch.colour):
        output = bg.remove(
            picture, session=_MaskSession(mask), alpha_matting=alpha_matting, decontaminate=decontaminate
        )
    return Removal(output, watch.alpha, watch.foreground, watch.swallowed)


class _MaskSession:
    """Answers with a mask as rembg's sessions do: 8 bits, enlarged by Lanczos."""

    def __init__(self, mask: Mask) -> None:
        self._mask = Image.fromarray((mask.clip(0, 1) * 255).astype(np.uint8))

    def predict(self, picture: Image.Image, *_: Any, **__: Any) -> list[Image.Image]:
        return [self._mask.resize(picture.size, Image.Resampling.LANCZOS)]


class _Watch:
    """Stands around two of rembg's functions, the second of which the first calls once alpha is there."""

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
        except ValueError as error:  # the only one that rembg catches
            self.swallowed = str(error)
            raise
        finally:
            self._started = None

    def colour(self, *arguments: Any) -> Any:
        if self._started is None:
            return self._foreground(*arguments)
        reached = _now()
        self.alpha = _between(self._started, reached)
        colours = self._foreground(*arguments)
        self.foreground = _between(reached, _now())
        return colours


def _now() -> Seconds:
    return Seconds(time.perf_counter(), time.process_time())


def _between(start: Seconds, end: Seconds) -> Seconds:
    return Seconds(end.wall - start.wall, end.cpu - start.cpu)
