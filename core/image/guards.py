"""Protection against hostile files: bounds on the work that a decoder does, and one way to report its errors."""

import io
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from PIL import Image, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

from core.errors import (
    BackgroundRemoverError,
    CorruptImageError,
    ImageTooSmallError,
)
from core.image.exif import JPEG_PREFIX
from core.image.sniff import animated
from core.limits import (
    MAX_PIXELS,
    MAX_PROFILE_TAGS,
    MAX_READS,
    MAX_RUNS_BYTES,
    MAX_SCANS,
    MAX_TAG_BYTES,
    MIN_SIDE_PX,
    too_many_pixels,
)

_BYTES_TEXT_UNDEFINED: Final = {1, 2, 7}
_MAX_EXIF_SEGMENTS: Final = 64
_APP0, _APP1 = 0xFFE0, 0xFFE1
_APP13: Final = 0xFFED
_BMP_RUNS: Final = {1, 2}  # RLE8 and RLE4
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_ICC_TAGS_AT: Final = 128
_ICC_TRANSFORMS: Final = re.compile(rb"[DB]2[DB][0-3]")
_JPEG_MARKER: Final = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # in a scan's data \xff0 and \xff RST are no markers


def _bounded(load: Callable[..., Any]) -> Callable[..., Any]:
    """Make a loader of numbers, each of which becomes an object, reject more than ``MAX_TAG_BYTES``."""

    def load_bounded(directory: Any, data: bytes, legacy_api: bool = True) -> Any:
        if len(data) > MAX_TAG_BYTES:
            raise ValueError(f"a tag of {len(data)} bytes")
        return load(directory, data, legacy_api)

    return load_bounded


_BOUNDED_LOADERS: Final = {
    type_: (size, load if type_ in _BYTES_TEXT_UNDEFINED else _bounded(load))
    for type_, (size, load) in TiffImagePlugin.ImageFileDirectory_v2._load_dispatch.items()
}


def _read_app(image: Any, marker: int) -> None:
    """Read a JPEG's APP segment, or note that it is damaged: Pillow has then read past it."""
    try:
        JpegImagePlugin.APP(image, marker)
    except (struct.error, IndexError, SyntaxError, ValueError):
        image.ignored_segments = {*getattr(image, "ignored_segments", ()), f"APP{marker & 15}"}


def _read_app1(image: Any, marker: int) -> None:
    """Read a JPEG's APP1 segment; Pillow joins segments of EXIF data one by one, so their number is limited."""
    _read_app(image, marker)
    image.exif_segments = getattr(image, "exif_segments", 0) + image.app["APP1"].startswith(JPEG_PREFIX)
    if image.exif_segments > _MAX_EXIF_SEGMENTS:
        raise ValueError(f"more than {_MAX_EXIF_SEGMENTS} segments of EXIF data")


def install() -> None:
    """Patch Pillow's parsers, for the whole process, to bound their work; safe to call repeatedly and from any thread.

    - ``Image.MAX_IMAGE_PIXELS``: some parsers allocate while they read the header. They fail at twice this number.
    - TIFF tags: every TIFF and every block of EXIF data passes through this table, also where Pillow reads unasked.
    - JPEG APP0 to APP15: a damaged one is ignored.
    - JPEG APP13: nothing of it is used, and each of a flood of Photoshop's resources costs Pillow objects.
    - TIFF pixels: libtiff reads those that Pillow would read itself, wrong where chroma is subsampled.
    - JPEG APP1: Pillow reads no segment after the first scan, while a search of the file would count those too.
    """
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    TiffImagePlugin.ImageFileDirectory_v2._load_dispatch = _BOUNDED_LOADERS
    for number in range(16):
        JpegImagePlugin.MARKER[_APP0 + number] = (f"APP{number}", "metadata", _read_app)  # type: ignore[assignment]
    TiffImagePlugin.READ_LIBTIFF = True
    JpegImagePlugin.MARKER[_APP1] = ("APP1", "EXIF data or XMP", _read_app1)  # type: ignore[assignment]  # no method
    JpegImagePlugin.MARKER[_APP13] = ("APP13", "Photoshop's resources", JpegImagePlugin.Skip)


class BoundedReader(io.BytesIO):
    """A file that allows ``MAX_READS`` reads: each of a flood of tiny parts costs a few reads and an object."""

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read and count the read.

        Raises:
            OSError: there were more than ``MAX_READS``.
        """
        self._reads += 1
        if self._reads > MAX_READS:
            raise OSError(f"more than {MAX_READS} reads")
        return super().read(size)


@contextmanager
def typed_errors(format_name: str) -> Iterator[None]:
    """Turn any exception that a decoder raises on damaged or hostile bytes into one of :mod:`core.errors`."""
    try:
        yield
    except BackgroundRemoverError:
        raise
    except Image.DecompressionBombError as error:
        raise too_many_pixels(f"more than {2 * MAX_PIXELS}") from error
    except Exception as error:  # parsers of hostile bytes raise nearly every type there is
        unidentified = isinstance(error, UnidentifiedImageError)
        raise CorruptImageError(
            f"The file is damaged, truncated, or of an unsupported kind of {format_name.upper()}",
            field="image.format",
            value=f"{format_name}: {'unreadable header' if unidentified else error}",
            remedy="Open it in an image editor, save it again as PNG or JPEG, and upload that.",
        ) from error


def bounded_profile(icc: bytes) -> bytes:
    """Return an ICC profile without its transforms of processing elements (``D2B0`` to ``D2B3``, and their inverses).

    They are chains of any number of curves, matrices and tables, of which LittleCMS computes 36,000 colors: a thousand
    elements, which can share their bytes, take seconds. They are alternatives, for which every profile has the tables
    or curves that most readers use (ICC.1:2022, 8.2). Those have a fixed number of steps.
    """
    tags = icc[_ICC_TAGS_AT:][:4]
    profile = bytearray(icc)
    for i in range(min(int.from_bytes(tags, "big"), MAX_PROFILE_TAGS)):
        at = _ICC_TAGS_AT + 4 + 12 * i
        if _ICC_TRANSFORMS.fullmatch(profile[at : at + 4]):
            profile[at : at + 4] = profile[at : at + 4].lower()  # a tag that no reader knows; names are unique
    return bytes(profile)


def check_opened(image: Image.Image, format_name: str, size_bytes: int) -> None:
    """Reject run-length floods and animations; :mod:`core.image.tiff` counts pages.

    JPEG and HEIC declare one image as the primary one. Their other images are gain maps, depth maps, previews and
    bursts, as most phones write them.

    Args:
        image: opened, not decoded.
        format_name: as :func:`core.image.sniff.sniff` returns it.
        size_bytes: of the file.

    Raises:
        AnimatedImageError, ValueError: a check failed.
    """
    if image.info.get("compression") in _BMP_RUNS and size_bytes > MAX_RUNS_BYTES:
        raise ValueError(f"more than {MAX_RUNS_BYTES} bytes of runs")
    if format_name not in {"jpeg", "heic", "tiff"} and getattr(image, "is_animated", False):
        raise animated()


def check_size(width: int, height: int) -> None:
    """Check an image's size, in pixels.

    Raises:
        TooManyPixelsError: it has more than ``MAX_PIXELS``.
        ImageTooSmallError: a side is shorter than ``MIN_SIDE_PX``.
    """
    if width * height > MAX_PIXELS:
        raise too_many_pixels(f"{width} x {height}")
    if min(width, height) < MIN_SIDE_PX:
        raise ImageTooSmallError(
            f"A side of the image is shorter than {MIN_SIDE_PX} pixels",
            field="image.pixels",
            value=f"{width} x {height}",
            remedy="Use a larger version of the image.",
        )


def check_scans(data: bytes) -> None:
    """Reject a JPEG whose scan count makes decoding disproportionately expensive.

    Each scan of a progressive JPEG passes over the whole image, however few bytes it has.

    Raises:
        ValueError: there are more than ``MAX_SCANS`` scans.
    """
    if data.count(bytes((0xFF, _START_OF_SCAN))) <= MAX_SCANS:  # nearly always; the exact count below is slow
        return
    scans = 0
    for marker, _ in jpeg_markers(data):
        scans += marker == _START_OF_SCAN
        if scans > MAX_SCANS:
            raise ValueError(f"more than {MAX_SCANS} scans")


def jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the markers of a JPEG up to its end marker, each with the offset of what follows it.

    Raises:
        ValueError: there are more than ``MAX_READS``.
    """
    at = 0
    for _ in range(MAX_READS):
        found = _JPEG_MARKER.search(data, at)
        if not found:
            return
        marker, at = found[1][0], found.end()
        yield marker, at
        if marker == _END_OF_IMAGE:
            return
        if marker != _START_OF_IMAGE:
            at += int.from_bytes(data[at : at + 2], "big")
    raise ValueError(f"more than {MAX_READS} segments")
