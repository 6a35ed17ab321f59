"""Small pictures of originals and results, in a format that browsers show."""

import io
import threading
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from core.errors import BackgroundRemoverError

if TYPE_CHECKING:
    from PIL import Image

FULL_SIDE_PX: Final = 256
"""Longer side of the thumbnails of a run with few images."""

_SMALL_SIDE_PX: Final = 128
_MOST_OF_FULL_SIZE: Final = 1000  # their sheet has 20 MB
_QUALITY: Final = 40

_decoders = threading.BoundedSemaphore(4)  # the largest images take 0.4 GB each


@dataclass(frozen=True)
class Thumbnails:
    """WebP files; None for what cannot be shown.

    Attributes:
        original: the original.
        result: the result, with its transparency.
    """

    original: bytes | None
    result: bytes | None


def side_px(images: int) -> int:
    """Return the longer side of thumbnails for a run of this many images."""
    return FULL_SIDE_PX if images <= _MOST_OF_FULL_SIZE else _SMALL_SIDE_PX


def thumbnails(original: bytes | None, result: bytes | None, side: int = FULL_SIDE_PX) -> Thumbnails:
    """Return the thumbnails of an image.

    Args:
        original: image file of any accepted format, also one that browsers do not show.
        result: file of its result.
        side: longer side of the thumbnails in pixels.
    """
    return Thumbnails(of_original(original, side), of_result(result, side))


def of_original(data: bytes | None, side: int, quality: int = _QUALITY) -> bytes | None:
    """Return an original as WebP; None if there is none or it cannot be decoded.

    Args:
        data: image file of any accepted format.
        side: longer side of the WebP in pixels, unless the original is smaller.
        quality: of the WebP, 1 to 100.
    """
    from PIL import Image

    from core.image.decode import decode

    with _decoders:
        try:
            return _webp(Image.fromarray(decode(data, at_least_px=side).rgb), side, quality) if data else None
        except (BackgroundRemoverError, OSError, ValueError):  # it changed since its upload
            return None


def of_result(data: bytes | None, side: int, quality: int = _QUALITY) -> bytes | None:
    """Return a result as WebP with its transparency; None if there is none or it cannot be decoded.

    Args:
        data: file of a result.
        side: as for :func:`of_original`.
        quality: as for :func:`of_original`.
    """
    from PIL import Image

    with _decoders:
        try:
            return _webp(_opened(data), side, quality) if data else None
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, Image.DecompressionBombError):
            return None


def _opened(data: bytes) -> "Image.Image":
    """Return a result as an image; a ZIP has colors and alpha in two files."""
    from PIL import Image

    if not data.startswith(b"PK"):
        return Image.open(io.BytesIO(data))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        color, alpha = (Image.open(io.BytesIO(archive.read(name))) for name in ("color.jpg", "alpha.png"))
        color.putalpha(alpha.convert("L"))
        return color


def _webp(picture: "Image.Image", side: int, quality: int) -> bytes:
    from PIL import Image

    picture.draft("RGB", (side, side))
    if picture.mode not in ("RGB", "RGBA"):
        picture = picture.convert("RGB")
    picture.thumbnail((side, side), Image.Resampling.BOX)
    encoded = io.BytesIO()
    picture.save(encoded, "WEBP", quality=quality, alpha_quality=quality)
    return encoded.getvalue()
