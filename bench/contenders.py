"""The methods that are compared: each makes an alpha of a picture and a hint, which is a mask or a trimap."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from bench import rembg_peer
from core.matting import refine
from core.types import Mask, Precision, Rgb


@dataclass(frozen=True)
class Answer:
    """An alpha, H x W uint8 as it is delivered, and what its method says of it.

    ``fell_back`` is True if the method failed and delivered something else in its place.
    """

    alpha: NDArray[np.uint8]
    notes: tuple[str, ...] = ()
    fell_back: bool = False


Contender: TypeAlias = Callable[[Rgb, Any], Answer]

BARE: Final = "bare mask"
REMBG: Final = "rembg"


def bare(rgb: Rgb, mask: Mask) -> Answer:
    """Resize the mask, bicubic."""
    height, width = rgb.shape[:2]
    shrinks = mask.shape[0] > height or mask.shape[1] > width
    resized = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return Answer(_delivered(resized))


def refined(rgb: Rgb, mask: Mask, *, precision: Precision) -> Answer:
    """Refine the mask by ``core.matting.refine``."""
    matte = refine.refine(rgb, mask, precision=precision)
    return Answer(_delivered(matte.alpha), tuple(matte.report["warnings"]))


def rembg(rgb: Rgb, mask: Mask) -> Answer:
    """Let rembg do its alpha matting, with its defaults and with the mask in place of a network's."""
    removal = rembg_peer.remove(rgb, mask, alpha_matting=True)
    if not isinstance(removal.output, np.ndarray):
        raise TypeError(f"rembg answered an array with {type(removal.output).__name__}")
    failed = removal.swallowed is not None
    return Answer(removal.output[..., 3], (removal.swallowed,) if removal.swallowed else (), fell_back=failed)


def estimated(rgb: Rgb, trimap: NDArray[np.uint8], *, estimator: str) -> Answer:
    """Estimate alpha by pymatting, from a trimap."""
    import pymatting

    estimate = getattr(pymatting, f"estimate_alpha_{estimator}")
    known = np.select([trimap == 0, trimap == 255], [0.0, 1.0], 0.5)
    return Answer(_delivered(estimate(rgb / 255, known)))


OF_MASKS: Final[dict[str, Contender]] = {
    BARE: bare,
    REMBG: rembg,
    **{level.value: partial(refined, precision=level) for level in Precision},
}
OF_TRIMAPS: Final[dict[str, Contender]] = {
    f"pymatting {name}": partial(estimated, estimator=name) for name in ("cf", "knn", "lbdm", "lkm", "rw")
}


def warm_up(contender: Contender, hint: NDArray[Any]) -> None:
    """Let a method import and load what it needs, on a small picture with a hint of the same kind."""
    rgb = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    unknown, full = (128, 255) if hint.dtype == np.uint8 else (0.5, 1.0)
    small = np.zeros((48, 48), hint.dtype)
    small[12:36, 12:36] = unknown
    small[16:32, 16:32] = full
    contender(rgb, small)


def _delivered(alpha: NDArray[Any]) -> NDArray[np.uint8]:
    return np.asarray(np.rint(alpha.clip(0, 1) * 255), np.uint8)
