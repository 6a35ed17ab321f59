"""Read a PNG's chunks: its color, transparency and metadata. Damage outside the pixels does not cost the picture.

Decoders get a file of the pixels' chunks alone: they neither parse nor reject what they are not needed for.

Source: Portable Network Graphics (Third Edition), W3C 2025.
"""

import re
import struct
import zlib
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from zlib_ng import zlib_ng

from core.image import light
from core.image.sniff import animated
from core.limits import MAX_READS, MAX_TAG_BYTES

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_HEADER: Final = struct.Struct(">2I5B")
_END: Final = b"\0\0\0\0IEND\xaeB`\x82"
_GRAY, _RGB, _PALETTE = 0, 2, 3
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# The passes of an interlaced image: its first column and row, and the steps across and down.
_ADAM7: Final = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_INFLATED_BYTES: Final = 1 << 18
_GRAYS: Final = {_GRAY, 4}
_PIXELS: Final = {b"IHDR", b"PLTE", b"IDAT"}

# None: of any length.
_LENGTHS: Final = {b"cHRM": 32, b"cICP": 4, b"gAMA": 4, b"pHYs": 9, b"sRGB": 1, b"tIME": 7, b"acTL": 8, b"iCCP": None}
_BEFORE_PIXELS: Final = {b"cHRM", b"cICP", b"gAMA", b"sRGB", b"iCCP", b"tRNS", b"acTL"}
_READ: Final = _BEFORE_PIXELS | {b"eXIf"}
_TEXTS: Final = {b"tEXt", b"zTXt", b"iTXt"}
_XMP: Final = b"XML:com.adobe.xmp"
_EXIF_IN_HEX: Final = (b"Raw profile type exif", b"Raw profile type APP1")  # ImageMagick, before eXIf existed

_MAX_DAMAGED: Final = 1000
_MAX_SEARCHES, _MAX_CANDIDATES = 4, 8  # each candidate costs a checksum of up to the whole file
_SEARCHED: Final = re.compile(rb"PLTE|IDAT|tRNS|iCCP|cICP|sRGB|gAMA|cHRM|eXIf|IEND")
_NAME: Final = re.compile(rb"[A-Za-z]{4}")


@dataclass(frozen=True)
class Chunks:
    """What a PNG's chunks state.

    Attributes:
        data: the file with the chunks of its pixels alone.
        bits: per channel.
        gray: whether the pixels are gray, with alpha or without.
        transparent: the gray, or the red, green and blue, that is transparent, as stored; None if there is none.
        info: ``icc_profile``, ``exif``, ``xmp`` and ``transparency``, as Pillow names and scales them.
        light: the encoding of colors if there is no ICC profile; None for sRGB.
        warnings: what was ignored.
    """

    data: bytes
    bits: int
    gray: bool
    transparent: tuple[int, ...] | None
    info: dict[str, Any]
    light: light.Light | None
    warnings: tuple[str, ...]


def read(data: bytes) -> Chunks:
    """Read the chunks of a PNG.

    Raises:
        AnimatedImageError: there is more than one frame.
        ValueError: the chunks of the pixels are damaged.
    """
    walk = _Walk(data)
    walk.run()
    _, _, bits, color_type, *_ = _HEADER.unpack_from(data, 16)
    if int.from_bytes(walk.found.get(b"acTL", b"")[:4], "big") > 1:
        raise animated()
    info: dict[str, Any] = {}
    transparent = None
    if (stored := walk.found.get(b"tRNS")) is not None:
        transparent = _transparency(stored, bits, color_type, info, walk)
    encoding = _color(walk, info)
    _metadata(walk, info)
    warnings = list(walk.warnings)
    if walk.damaged:
        names = ", ".join(sorted(walk.damaged))
        warnings.insert(0, f"Damaged chunks of the PNG were ignored: {names}.")
    return Chunks(walk.pixels(), bits, color_type in _GRAYS, transparent, info, encoding, tuple(warnings))


def surplus(data: bytes, limit: int) -> int:
    """Return by how many bytes the inflated pixels exceed what the header states, up to a limit; below 0 if short.

    Pillow leaves missing rows black. libpng inflates whatever follows the last row, gigabytes of a megabyte.

    Args:
        data: as in ``Chunks.data``.
        limit: at least 0; inflating ends there.

    Raises:
        zlib.error: the data are damaged.
    """
    width, height, bits, color_type, _, _, interlaced = _HEADER.unpack_from(data, 16)
    row_bits = bits * _CHANNELS.get(color_type, 1)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    found = 0
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        found -= rows * (1 + -(-columns * row_bits // 8)) if columns > 0 and rows > 0 else 0
    at, parts, stream = len(_SIGNATURE), memoryview(data), zlib_ng.decompressobj()
    while at + 8 <= len(parts):
        after = at + 8 + int.from_bytes(parts[at : at + 4], "big")
        waiting: Any = parts[at + 8 : after] if bytes(parts[at + 4 : at + 8]) == b"IDAT" else b""
        while len(waiting):
            found += len(stream.decompress(waiting, _INFLATED_BYTES))
            waiting = stream.unconsumed_tail
            if stream.eof or found > limit:
                return min(found, limit)
        at = after + 4
    return min(found + len(stream.flush()), limit)


class _Walk:
    """One pass over the chunks: those that are read, where those of the pixels are, and which are damaged."""

    def __init__(self, data: bytes) -> None:
        self.found: dict[bytes, bytes] = {}
        self.texts: dict[bytes, tuple[bytes, bytes]] = {}
        self.damaged: set[str] = set()
        self.warnings: list[str] = []
        self._data = data
        self._ranges: list[list[int]] = []
        self._searches = self._damaged = 0
        self._in_pixels = False

    def run(self) -> None:
        """Read all chunks up to the end.

        Raises:
            ValueError: a chunk of the pixels is damaged, or the next chunk cannot be found.
        """
        at, parts = len(_SIGNATURE), memoryview(self._data)
        for _ in range(MAX_READS):
            length, name = int.from_bytes(parts[at : at + 4], "big"), bytes(parts[at + 4 : at + 8])
            if name == b"IEND":
                return
            if len(name) < 4:
                self.warnings.append("The file ends without its end marker.")
                return
            after = at + 8 + length
            if not _sound(parts, at, after):
                at = self._after_damage(at, after, name)
                continue
            if name in _PIXELS:
                self._keep(at, after + 4)
                self._in_pixels |= name == b"IDAT"
            else:
                self._take(name, at + 8, after)
            at = after + 4
        raise ValueError(f"more than {MAX_READS} chunks")

    def pixels(self) -> bytes:
        """Return the file with the chunks of its pixels alone."""
        parts = memoryview(self._data)
        return b"".join((_SIGNATURE, *(parts[start:end] for start, end in self._ranges), _END))

    def report(self, name: bytes) -> None:
        """Note a chunk as damaged."""
        self._damaged += 1
        if self._damaged > _MAX_DAMAGED:
            raise ValueError(f"more than {_MAX_DAMAGED} damaged chunks")
        self.damaged.add(name.decode() if _NAME.fullmatch(name) else "unknown")

    def _keep(self, start: int, end: int) -> None:
        if self._ranges and self._ranges[-1][1] == start:
            self._ranges[-1][1] = end
        else:
            self._ranges.append([start, end])

    def _take(self, name: bytes, start: int, end: int) -> None:
        length = end - start
        if _LENGTHS.get(name) not in {None, length}:
            self.report(name)
        elif name in _TEXTS:
            keyword, _, _ = self._data[start : min(end, start + 80)].partition(b"\0")
            if (keyword == _XMP or keyword in _EXIF_IN_HEX) and length <= MAX_TAG_BYTES:
                self.texts.setdefault(keyword, (name, self._data[start + len(keyword) + 1 : end]))
        elif name in _READ and not (self._in_pixels and name in _BEFORE_PIXELS):
            if length > MAX_TAG_BYTES:
                self.report(name)
            else:
                self.found.setdefault(name, self._data[start:end])

    def _after_damage(self, at: int, after: int, name: bytes) -> int:
        """Return the offset of the chunk that follows a damaged one."""
        if name in _PIXELS:
            raise ValueError(f"wrong checksum at byte {after}")
        self.report(name)
        following = self._data[after + 4 : after + 12]
        fits = after + 16 + int.from_bytes(following[:4], "big") <= len(self._data)
        if _NAME.fullmatch(name) and fits and _NAME.fullmatch(following[4:]):
            return after + 4
        self._searches += 1
        if self._searches <= _MAX_SEARCHES:
            parts = memoryview(self._data)
            for match in islice(_SEARCHED.finditer(self._data, at + 8), _MAX_CANDIDATES):
                start = match.start() - 4
                if _sound(parts, start, start + 8 + int.from_bytes(parts[start : start + 4], "big")):
                    return start
        raise ValueError(f"wrong length at byte {at}")


def _sound(parts: memoryview, at: int, after: int) -> bool:
    """Return whether a chunk is whole and its checksum right."""
    return after + 4 <= len(parts) and zlib_ng.crc32(parts[at + 4 : after]) == int.from_bytes(
        parts[after : after + 4], "big"
    )


def _transparency(
    stored: bytes, bits: int, color_type: int, info: dict[str, Any], walk: _Walk
) -> tuple[int, ...] | None:
    """Return the transparent color as stored; set ``transparency`` in ``info``, scaled as Pillow scales the pixels."""
    if color_type == _PALETTE:
        info["transparency"] = stored[:256]
        return None
    channels = {_GRAY: 1, _RGB: 3}.get(color_type)
    if channels is None or len(stored) != 2 * channels:
        walk.report(b"tRNS")
        return None
    # Of 16 bits, the lower ones count.
    transparent = tuple(value & (2**bits - 1) for value in struct.unpack(f">{channels}H", stored))
    if bits <= 8:
        scaled = tuple(value * 255 // (2**bits - 1) for value in transparent)
        info["transparency"] = scaled if channels == 3 else scaled[0]
    return transparent


def _color(walk: _Walk, info: dict[str, Any]) -> light.Light | None:
    """Return the encoding by the standard's precedence, cICP, iCCP, sRGB, gAMA and cHRM; None for sRGB or a profile."""
    found = walk.found
    if code_points := found.get(b"cICP"):
        primaries, transfer, matrix, full_range = code_points
        try:
            if matrix:
                raise ValueError("not RGB")
            return light.of_code_points(primaries, transfer, narrow=not full_range)
        except ValueError:
            walk.warnings.append("The color description (cICP) is not supported and was ignored.")
    if (profile := found.get(b"iCCP")) is not None:
        try:
            info["icc_profile"] = _inflated(profile.partition(b"\0")[2])
            return None
        except ValueError:
            walk.report(b"iCCP")
    if b"sRGB" in found or not (b"gAMA" in found or b"cHRM" in found):
        return None
    gamma = int.from_bytes(found[b"gAMA"], "big") / 100_000 if b"gAMA" in found else None
    chromaticities = tuple(v / 100_000 for v in struct.unpack(">8I", found[b"cHRM"])) if b"cHRM" in found else None
    try:
        return light.of_gamma(gamma, chromaticities)
    except ValueError:
        walk.warnings.append("The color description (gAMA, cHRM) is invalid and was ignored.")
        return None


def _metadata(walk: _Walk, info: dict[str, Any]) -> None:
    """Set ``exif`` and ``xmp`` in ``info``."""
    if b"eXIf" in walk.found:
        info["exif"] = walk.found[b"eXIf"]
    for keyword, (name, body) in walk.texts.items():
        try:
            text = _text(name, body)
            if keyword == _XMP:
                info["xmp"] = text
            else:  # a line feed, the profile's name, its length, and the profile in hexadecimal lines
                info.setdefault("exif", bytes.fromhex(text.split(b"\n", 3)[3].decode()))
        except (ValueError, IndexError):
            walk.report(name)


def _text(name: bytes, body: bytes) -> bytes:
    """Return the text of a chunk, without its keyword."""
    if name == b"tEXt":
        return body
    if name == b"zTXt":
        return _inflated(body)
    compressed, rest = body[:1], body[1:]
    text = rest[1:].split(b"\0", 2)[2]
    return _inflated(rest[:1] + text) if compressed == b"\1" else text


def _inflated(compressed: bytes) -> bytes:
    """Return what a compression method and its data contain, at most ``MAX_TAG_BYTES``.

    Raises:
        ValueError: the data are damaged, or larger.
    """
    if compressed[:1] != b"\0":
        raise ValueError("unknown compression method")
    stream = zlib.decompressobj()
    try:
        inflated = stream.decompress(compressed[1:], MAX_TAG_BYTES)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not stream.eof:
        raise ValueError(f"cut short, or more than {MAX_TAG_BYTES} bytes")
    return inflated
