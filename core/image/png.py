"""Write PNG in strips, filtered and deflated on all cores, without holding the whole image.

A filtered photograph is mostly noise, in which deflate's search finds no repetitions. So a strip is filtered by Paeth's
predictor and coded by Huffman codes and run lengths alone (zlib's ``Z_RLE``), which is faster than any search, and
smaller than most. A strip that this shrinks too much for a photograph (lettering, flat color, a smooth ramp) is also
searched, and the smaller output is used.

A strip depends only on the last row of the one before. Each has its own deflate stream, which ends on a byte boundary,
so that streams can be concatenated (as pigz does). The bytes do not depend on the number of threads.

Sources: Portable Network Graphics (Third Edition), W3C 2025; RFC 1950 and 1951.
"""

import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from zlib_ng import zlib_ng

Rows: TypeAlias = Callable[[int, int], NDArray[np.uint8]]
"""Returns rows ``first:end``: n x W x channels uint8, or n x W for one channel."""

_STRIP_BYTES: Final = 1 << 19
"""Size of a strip: small enough for a core's cache, large enough to amortize its Huffman codes."""

_STRIPS_TO_START_FOR: Final = 2
"""Strips per thread: fewer take no longer than a thread takes to start."""

_BLOCK_BYTES: Final = 1 << 16
"""Block that is filtered at a time: ten arrays of this size stay in the cache."""

_SEARCHED_BELOW: Final = 0.2
"""Ratio of compressed bytes to nonzero bytes. Photographs, even enlarged until smooth, stay above it."""

_SEARCH_LEVEL: Final = 4
_LARGEST_WINDOW: Final = 15
_MOST_MEMORY: Final = 9

_UP: Final = 2
_PAETH: Final = 4

_COLOR_TYPES: Final = {1: 0, 3: 2, 4: 6}
_SRGB_PERCEPTUAL: Final = b"\0"
_PER_METRE: Final = 1
_ZLIB_HEADER: Final = b"\x78\x01"
_ADLER_BASE: Final = 65_521


def write(
    rows: Rows,
    height: int,
    width: int,
    channels: int,
    *,
    srgb: bool = False,
    pixels_per_metre: tuple[int, int] | None = None,
    exif: bytes | None = None,
) -> bytes:
    """Return a PNG of 8 bits per channel.

    Args:
        rows: returns pixels; called from several threads, and twice for the last row of a strip.
        height: in pixels, at least 1.
        width: in pixels, at least 1.
        channels: 1 for gray, 3 for RGB, 4 for RGB with straight alpha.
        srgb: whether to tag the colors as sRGB.
        pixels_per_metre: horizontal and vertical, each below 2**31; None for none.
        exif: EXIF data, its TIFF header first.
    """
    step = max(1, _STRIP_BYTES // (width * channels))
    tops = range(0, height, step)

    def deflate(top: int) -> _Strip:
        bottom = min(top + step, height)
        return _deflate(rows(max(top - 1, 0), bottom), bottom - top, channels, last=bottom == height)

    threads = min(len(tops) // _STRIPS_TO_START_FOR, cv2.getNumThreads())
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            strips = list(pool.map(deflate, tops))
    else:
        strips = [deflate(top) for top in tops]

    header = struct.pack(">2I5B", width, height, 8, _COLOR_TYPES[channels], 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n", *_chunk(b"IHDR", header)]
    if srgb:
        parts += _chunk(b"sRGB", _SRGB_PERCEPTUAL)
    if pixels_per_metre:
        parts += _chunk(b"pHYs", struct.pack(">2IB", *pixels_per_metre, _PER_METRE))
    if exif:
        parts += _chunk(b"eXIf", exif)
    checksum = 1
    parts += _chunk(b"IDAT", _ZLIB_HEADER)
    for strip in strips:
        parts += _chunk(b"IDAT", strip.deflated)
        checksum = _joined(checksum, strip.adler32, strip.size_bytes)
    parts += _chunk(b"IDAT", struct.pack(">I", checksum))
    parts += _chunk(b"IEND", b"")
    return b"".join(parts)


class _Strip(NamedTuple):
    """A part of the deflate stream, with the Adler checksum and the size of its uncompressed data."""

    deflated: bytes
    adler32: int
    size_bytes: int


def _deflate(pixels: NDArray[np.uint8], height: int, channels: int, *, last: bool) -> _Strip:
    """Filter and deflate a strip whose pixels have the row above it before them, unless it is the first."""
    pixels = pixels.reshape(len(pixels), -1)
    # Above the first row and left of the first pixel all is zero.
    padded = np.zeros((height + 1, channels + pixels.shape[1]), np.uint8)
    padded[-len(pixels) :, channels:] = pixels
    filtered = np.empty((height, 1 + pixels.shape[1]), np.uint8)
    _filter_by_paeth(padded, channels, filtered)
    strip = _packed(filtered, 1, zlib_ng.Z_RLE, last=last)
    if len(strip.deflated) < _SEARCHED_BELOW * cv2.countNonZero(padded[1:]):
        _filter_by_row_above(padded, channels, filtered)
        searched = _packed(filtered, _SEARCH_LEVEL, zlib_ng.Z_DEFAULT_STRATEGY, last=last)
        strip = min(strip, searched, key=lambda strip: len(strip.deflated))
    return strip


def _filter_by_row_above(padded: NDArray[np.uint8], channels: int, filtered: NDArray[np.uint8]) -> None:
    filtered[:, 0] = _UP
    np.subtract(padded[1:, channels:], padded[:-1, channels:], out=filtered[:, 1:])


def _filter_by_paeth(padded: NDArray[np.uint8], channels: int, filtered: NDArray[np.uint8]) -> None:
    filtered[:, 0] = _PAETH
    step = max(1, _BLOCK_BYTES // padded.shape[1])
    for top in range(0, len(filtered), step):
        block = padded[top : top + step + 1]
        nearest = _predicted_by_paeth(block, channels)
        np.subtract(block[1:, channels:], nearest, out=filtered[top : top + step, 1:])


def _predicted_by_paeth(padded: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Return for each byte that one of its neighbours which is nearest to left + above - corner."""
    left, above, corner = padded[1:, :-channels], padded[:-1, channels:], padded[:-1, :-channels]
    off_left, off_above = cv2.absdiff(above, corner), cv2.absdiff(left, corner)
    # The corner is off by the difference of the two, or by their sum if both neighbours lie on the same side of it:
    # then it is never the nearest, and 255 stands for the sum, which a byte does not hold.
    same_side = cv2.bitwise_xor(cv2.compare(left, corner, cv2.CMP_GT), cv2.compare(above, corner, cv2.CMP_LE))
    off_corner = cv2.bitwise_or(cv2.absdiff(off_left, off_above), same_side)
    nearest = cv2.copyTo(above, cv2.compare(off_above, off_corner, cv2.CMP_LE), corner.copy())
    nearest = cv2.copyTo(left, cv2.compare(off_left, cv2.min(off_above, off_corner), cv2.CMP_LE), nearest)
    return np.asarray(nearest, np.uint8)


def _packed(filtered: NDArray[np.uint8], level: int, strategy: int, *, last: bool) -> _Strip:
    stream = zlib_ng.compressobj(level, zlib_ng.DEFLATED, -_LARGEST_WINDOW, _MOST_MEMORY, strategy)
    deflated = stream.compress(filtered) + stream.flush(zlib_ng.Z_FINISH if last else zlib_ng.Z_SYNC_FLUSH)
    return _Strip(deflated, zlib_ng.adler32(filtered), filtered.size)


def _joined(first: int, second: int, second_bytes: int) -> int:
    """Return the Adler checksum of two pieces of data from theirs, as zlib's ``adler32_combine`` does."""
    low = (first & 0xFFFF) + (second & 0xFFFF) - 1
    high = (first >> 16) + (second >> 16) + second_bytes * ((first & 0xFFFF) - 1)
    return high % _ADLER_BASE << 16 | low % _ADLER_BASE


def _chunk(name: bytes, data: bytes) -> Iterator[bytes]:
    yield struct.pack(">I", len(data)) + name
    yield data
    yield struct.pack(">I", zlib_ng.crc32(data, zlib_ng.crc32(name)))
