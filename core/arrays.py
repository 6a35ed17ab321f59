"""Arrays and records of arrays that one stage passes to the next.

Inside ``core`` there is one representation: ``Rgb`` for color, ``Mask`` and ``Alpha`` for opacity. Encoded bytes exist
in ``decode`` and ``encode`` only.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from core.types import ImageInfo, LookName, Quality

Rgb: TypeAlias = NDArray[np.uint8]
"""H x W x 3, uint8, sRGB, EXIF rotation applied."""

Mask: TypeAlias = NDArray[np.float32]
"""h x w, float32 in [0, 1], at the network's size: 1 is subject, 0 is background."""

Alpha: TypeAlias = NDArray[np.float32]
"""H x W, float32 in [0, 1], at the image's size: 1 is opaque."""


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
        rgb: the pixels.
        alpha: the file's own transparency; None if it is opaque.
        info: of the file, at whatever scale it was decoded.
        warnings: what could not be honored, one sentence each.
        exif: the EXIF data that a result may carry, TIFF header first; None if there are none.
        backdrop: gray level of ``rgb`` where the alpha is 0; see :mod:`core.image.backdrop`.
    """

    rgb: Rgb
    alpha: Alpha | None
    info: ImageInfo
    warnings: tuple[str, ...] = ()
    exif: bytes | None = None
    backdrop: int = 255


@dataclass(frozen=True)
class Segmentation:
    """A subject mask, its quality, and the model that made it.

    Attributes:
        weights_sha256: of the model's file; None for a segmenter without weights.
        looks: the looks that the mask was made from; see :mod:`core.segmentation.looks`.
        rejected_looks: those that were made and do not count.
        from_alpha: whether the mask is the image's own alpha, because the model found no subject.
    """

    mask: Mask
    quality: Quality
    model: str
    weights_sha256: str | None
    looks: tuple[LookName, ...] = ("first",)
    rejected_looks: tuple[LookName, ...] = ()
    from_alpha: bool = False

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a caller should know of the mask, one sentence each."""
        return ("The model found no subject: the image's own transparency is the mask.",) if self.from_alpha else ()


@dataclass(frozen=True)
class Matte:
    """An alpha at the image's size, with ``report``: how it was made, in JSON types."""

    alpha: Alpha
    report: dict[str, Any]
