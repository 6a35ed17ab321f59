"""The matting methods to compare. Each computes alpha from a picture and a hint, which is a mask or a trimap."""

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
class MethodOutput:
    """The output of a method.

    Attributes:
        alpha: H x W uint8.
        notes: warnings of the method.
        fell_back: True if the method failed and returned its input mask instead.
    """

    alpha: NDArray[np.uint8]
    notes: tuple[str, ...] = ()
    fell_back: bool = False


Method: TypeAlias = Callable[[Rgb, Any], MethodOutput]

BARE: Final = "bare mask"
REMBG: Final = "rembg"


def bare(rgb: Rgb, mask: Mask) -> MethodOutput:
    """Resize the mask: bicubic to enlarge, area averaging to reduce."""
    height, width = rgb.shape[:2]
    shrinks = mask.shape[0] > height or mask.shape[1] > width
    resized = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return MethodOutput(_as_uint8(resized))


def refined(rgb: Rgb, mask: Mask, *, precision: Precision) -> MethodOutput:
    """Refine the mask with ``core.matting.refine``."""
    matte = refine.refine(rgb, mask, precision=precision)
    return MethodOutput(_as_uint8(matte.alpha), tuple(matte.report["warnings"]))


def rembg(rgb: Rgb, mask: Mask) -> MethodOutput:
    """Run rembg's alpha matting with its default options, on the mask instead of a network's prediction."""
    removal = rembg_peer.remove(rgb, mask, alpha_matting=True)
    if not isinstance(removal.output, np.ndarray):
        raise TypeError(f"rembg returned {type(removal.output).__name__} for an array; expected an array")
    failed = removal.swallowed is not None
    return MethodOutput(removal.output[..., 3], (removal.swallowed,) if removal.swallowed else (), fell_back=failed)


def estimated(rgb: Rgb, trimap: NDArray[np.uint8], *, estimator: str) -> MethodOutput:
    """Estimate alpha from a trimap with pymatting."""
    import pymatting

    estimate = getattr(pymatting, f"estimate_alpha_{estimator}")
    known = np.select([trimap == 0, trimap == 255], [0.0, 1.0], 0.5)
    return MethodOutput(_as_uint8(estimate(rgb / 255, known)))


MASK_METHODS: Final[dict[str, Method]] = {
    BARE: bare,
    REMBG: rembg,
    **{level.value: partial(refined, precision=level) for level in Precision},
}
TRIMAP_METHODS: Final[dict[str, Method]] = {
    f"pymatting {name}": partial(estimated, estimator=name) for name in ("cf", "knn", "lbdm", "lkm", "rw")
}


def warm_up(method: Method, hint: NDArray[Any]) -> None:
    """Run a method on a small picture, so that imports and compilation are not measured.

    ``hint`` decides whether the small picture gets a mask or a trimap.
    """
    rgb = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    unknown, full = (128, 255) if hint.dtype == np.uint8 else (0.5, 1.0)
    small = np.zeros((48, 48), hint.dtype)
    small[12:36, 12:36] = unknown
    small[16:32, 16:32] = full
    method(rgb, small)


def _as_uint8(alpha: NDArray[Any]) -> NDArray[np.uint8]:
    return np.asarray(np.rint(alpha.clip(0, 1) * 255), np.uint8)
