"""rembg's own ``remove`` with a given mask instead of a network, and a look at what it does inside.

rembg keeps its work apart from the network's, so that both sides of a comparison start from the same mask.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.types import Mask, Rgb


@dataclass(frozen=True)
class Removal:
    """What rembg made, and what its alpha matting took of the time.

    ``output`` is a PNG file for a file, H x W x 4 uint8 for an array. ``alpha_s`` is the part from the mask to alpha
    (trimap and ``estimate_alpha_cf``), ``foreground_s`` the part that estimates the foreground's colours; both are
    None without alpha matting. ``swallowed`` is the error that the matting raised and that rembg kept to itself: the
    output then has the bare mask as its alpha.
    """

    output: bytes | NDArray[np.uint8]
    alpha_s: float | None
    foreground_s: float | None
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
    with patch.multiple(bg, alpha_matting_cutout=watch.cutout, estimate_foreground_ml=watch.foreground):
        output = bg.remove(
            picture, session=_MaskSession(mask), alpha_matting=alpha_matting, decontaminate=decontaminate
        )
    return Removal(output, watch.alpha_s, watch.foreground_s, watch.swallowed)


class _MaskSession:
    """Answers with a mask as rembg's sessions do: 8 bits, enlarged by Lanczos."""

    def __init__(self, mask: Mask) -> None:
        self._mask = Image.fromarray((mask.clip(0, 1) * 255).astype(np.uint8))

    def predict(self, picture: Image.Image, *_: Any, **__: Any) -> list[Image.Image]:
        return [self._mask.resize(picture.size, Image.Resampling.LANCZOS)]


@dataclass
class _Watch:
    """Stands around two of rembg's functions, the second of which the first calls once alpha is there."""

    original_cutout: Callable[..., Any]
    original_foreground: Callable[..., Any]
    alpha_s: float | None = None
    foreground_s: float | None = None
    swallowed: str | None = None
    _started: float | None = field(default=None, init=False)

    def cutout(self, *arguments: Any) -> Any:
        self._started = time.perf_counter()
        try:
            return self.original_cutout(*arguments)
        except ValueError as error:  # the only one that rembg catches
            self.swallowed = str(error)
            raise
        finally:
            self._started = None

    def foreground(self, *arguments: Any) -> Any:
        if self._started is None:
            return self.original_foreground(*arguments)
        reached = time.perf_counter()
        self.alpha_s = reached - self._started
        colours = self.original_foreground(*arguments)
        self.foreground_s = time.perf_counter() - reached
        return colours
