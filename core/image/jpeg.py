"""Read JPEGs that lack nothing but their end marker."""

from typing import Final

import numpy as np
from PIL import Image
from zlib_ng import zlib_ng

from core.image import guards

END: Final = b"\xff\xd9"
_SCAN: Final = 0xDA
_SEQUENTIAL, _PROGRESSIVE = {0xC0, 0xC1}, 0xC2
_COEFFICIENTS: Final = 64
_UNSENT: Final = 99
_BAND_PIXELS: Final = 4_000_000
# Bytes in place of what may be missing: their first bits differ, so that a decoder that needs them shows it.
_STUFFING: Final = (b"\0" * 64, b"\xaa" * 64)


def with_end(data: bytes) -> bytes | None:
    """Return a JPEG with the end marker that it lacks, or None if it has one.

    Raises:
        TooManyPixelsError, ImageTooSmallError: it is outside the limits.
        ValueError: pixels are missing, too.
    """
    if data.endswith(END) or data.rfind(END) > data.rfind(bytes((0xFF, _SCAN))):
        return None
    if not _lacks_only_its_end(data):
        return None
    cut = data.removesuffix(b"\xff")  # half a marker
    if len({_checksum(cut + stuffing + END) for stuffing in _STUFFING}) > 1:
        raise ValueError("image file is truncated")
    return cut + END


def _lacks_only_its_end(data: bytes) -> bool:
    """Return whether there is no end marker; whether the last scan is whole is left to a decoder.

    Raises:
        ValueError: a scan is missing.
    """
    missing: dict[int, list[int]] = {}
    progressive = False
    for marker, start in guards.jpeg_markers(data):
        if marker == END[1]:
            return False
        if marker in _SEQUENTIAL or marker == _PROGRESSIVE:
            progressive = marker == _PROGRESSIVE
            missing = {id_: [_UNSENT] * _COEFFICIENTS for id_ in data[start + 8 : start + 8 + 3 * data[start + 7] : 3]}
        elif marker == _SCAN:
            _send(missing, data[start + 2 : start + 6 + 2 * data[start + 2]], progressive)
    if not missing or any(any(shifts) for shifts in missing.values()):
        raise ValueError("image file is truncated")
    return True


def _send(missing: dict[int, list[int]], header: bytes, progressive: bool) -> None:
    """Note the bits by which a scan leaves its coefficients shifted."""
    components = header[1 : 1 + 2 * header[0] : 2]
    first, last, shift = (header[-3], header[-2], header[-1] & 15) if progressive else (0, _COEFFICIENTS - 1, 0)
    for component in components:
        if component in missing:
            missing[component][first : last + 1] = [shift] * len(missing[component][first : last + 1])


def _checksum(data: bytes) -> int:
    """Return a checksum of the pixels."""
    image = Image.open(guards.BoundedReader(data), formats=["JPEG"])
    guards.check_size(*image.size)
    image.load()
    checksum, rows = 0, max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        checksum = zlib_ng.crc32(np.ascontiguousarray(np.asarray(band)), checksum)
    return checksum
