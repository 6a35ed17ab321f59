"""The arrays and records that the stages hand on.

Inside ``core`` there is one representation: ``Rgb`` for colour, ``Alpha`` for masks and alphas.
Bytes exist in ``decode`` and ``encode`` only.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Rgb: TypeAlias = NDArray[np.uint8]
"""H x W x 3, uint8, sRGB, EXIF rotation applied."""

Mask: TypeAlias = NDArray[np.float32]
"""h x w, float32 in [0, 1], at the network's size: 1 is subject, 0 is background."""

Alpha: TypeAlias = NDArray[np.float32]
"""H x W, float32 in [0, 1], at the picture's size: 1 is opaque."""


class Precision(StrEnum):
    """How much work goes into the edge."""

    DRAFT = "draft"
    STANDARD = "standard"
    HIGH = "high"
    ULTRA_HIGH = "ultra_high"


@dataclass(frozen=True)
class ImageInfo:
    """What a file's header says; ``width`` and ``height`` are in pixels, after EXIF rotation."""

    format: str
    width: int
    height: int
    bytes: int


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    ``alpha`` is the transparency that the file itself had, or None for an opaque one.
    ``info`` is the file's own, at whatever scale the picture was decoded.
    ``warnings`` says, one sentence each, what of the file could not be honoured.
    ``exif`` is what a result may carry of the file's EXIF data, its TIFF header first; None if there are none.
    """

    rgb: Rgb
    alpha: Alpha | None
    info: ImageInfo
    warnings: tuple[str, ...] = ()
    exif: bytes | None = None


@dataclass(frozen=True)
class Segmentation:
    """A subject mask, and which model made it. ``weights_sha256`` is None for a segmenter without weights."""

    mask: Mask
    model: str
    weights_sha256: str | None


@dataclass(frozen=True)
class Matte:
    """An alpha at the picture's size, with ``report``: how it was made, in JSON types.

    ``disagreement`` is how far the mask is, along its edge, from what its network would have made of the alpha
    that the picture suggests: mean difference in alpha, 0.01 to 0.03 for a sound mask, up to 0.08 for a hard-edged
    one, 0.1 and more for a wrong one.
    """

    alpha: Alpha
    disagreement: float
    report: dict[str, Any]
