"""Read the properties of the primary image of a HEIC or AVIF file that its decoder does not apply.

Sources: ISO/IEC 14496-12 (boxes, ``clap``, ``colr``); ISO/IEC 23008-12 (items and their properties).
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

_MAX_BOXES: Final = 10_000
_MAX_ASSOCIATIONS: Final = 10_000
_NO_COLOR: Final = 2
# Version, flags, the item's number of 16 or 32 bits, and no protection.
_EXIF_ITEM: Final = re.compile(rb"(infe(?:\x02.{5}|\x03.{7})\x00\x00)Exif", re.DOTALL)


@dataclass(frozen=True)
class Properties:
    """Properties of the primary image.

    Attributes:
        primaries: color primaries, a code point of H.273.
        transfer: transfer characteristics, a code point of H.273.
        clap: clean aperture: width, height, and offset of its center from the image's, right and down, in pixels; None
            if there is none.
    """

    primaries: int = _NO_COLOR
    transfer: int = _NO_COLOR
    clap: tuple[Fraction, Fraction, Fraction, Fraction] | None = None

    def crop(self, width: int, height: int) -> tuple[int, int, int, int] | None:
        """Return left, top, right and bottom of the clean aperture, in whole pixels, or None if there is none.

        Raises:
            ValueError: it is not inside the image.
        """
        if self.clap is None:
            return None
        across, down, right, below = self.clap
        left, top = Fraction(width - across) / 2 + right, Fraction(height - down) / 2 + below
        if left < 0 or top < 0 or across < 1 or down < 1 or left + across > width or top + down > height:
            raise ValueError("the clean aperture is not inside the image")
        return int(left), int(top), int(left) + int(across), int(top) + int(down)


def primary(data: bytes) -> Properties:
    """Return the properties of the primary image.

    Raises:
        ValueError, struct.error: the boxes are damaged.
    """
    meta = _first(data, 0, len(data), b"meta")
    if meta is None:
        return Properties()
    top = {name: (start, end) for name, start, end in _boxes(data, meta[0] + 4, meta[1])}
    if b"pitm" not in top or b"iprp" not in top:
        return Properties()
    version, item = data[top[b"pitm"][0]], top[b"pitm"][0] + 4
    (item_id,) = struct.unpack_from(">I" if version else ">H", data, item)
    container = _first(data, *top[b"iprp"], b"ipco")
    links = _first(data, *top[b"iprp"], b"ipma")
    if container is None or links is None:
        return Properties()
    boxes = list(_boxes(data, *container))
    primaries = transfer = _NO_COLOR
    clap = None
    for index in _associated(data, links[0], item_id):
        if not 0 < index <= len(boxes):
            continue
        name, start, end = boxes[index - 1]
        if name == b"colr" and data[start : start + 4] == b"nclx":
            primaries, transfer = struct.unpack_from(">2H", data, start + 4)
        elif name == b"clap" and end - start >= 32:
            clap = _clean_aperture(data, start)
    return Properties(primaries, transfer, clap)


def without_exif(data: bytes) -> bytes | None:
    """Return the file with its EXIF data hidden from decoders, or None if it has none."""
    meta = _first(data, 0, len(data), b"meta")
    if meta is None:
        return None
    hidden, count = _EXIF_ITEM.subn(rb"\1free", data[slice(*meta)])
    return data[: meta[0]] + hidden + data[meta[1] :] if count else None


def _clean_aperture(data: bytes, start: int) -> tuple[Fraction, Fraction, Fraction, Fraction]:
    pairs = struct.unpack_from(">4I4i", data, start)
    width, height = (Fraction(pairs[i], pairs[i + 1]) if pairs[i + 1] else Fraction(0) for i in (0, 2))
    across, down = (Fraction(pairs[i], pairs[i + 1]) if pairs[i + 1] > 0 else Fraction(0) for i in (4, 6))
    return width, height, across, down


def _associated(data: bytes, start: int, item_id: int) -> list[int]:
    """Return the indices, from 1, of an item's properties."""
    version, flags = data[start], data[start + 3] & 1
    (entries,) = struct.unpack_from(">I", data, start + 4)
    at, total = start + 8, 0
    for _ in range(entries):
        (found,) = struct.unpack_from(">I" if version else ">H", data, at)
        at += 4 if version else 2
        count = data[at]
        at += 1
        size = 2 if flags else 1
        total += 1 + count
        if total > _MAX_ASSOCIATIONS:
            raise ValueError(f"more than {_MAX_ASSOCIATIONS} associations of properties")
        if found == item_id:
            mask = 0x7FFF if flags else 0x7F  # the highest bit states that the property is essential
            return [int.from_bytes(data[at + size * i : at + size * (i + 1)], "big") & mask for i in range(count)]
        at += size * count
    return []


def _first(data: bytes, start: int, end: int, name: bytes) -> tuple[int, int] | None:
    return next(((at, to) for found, at, to in _boxes(data, start, end) if found == name), None)


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of the contents of each box in a range."""
    for _ in range(_MAX_BOXES):
        if start + 8 > end:
            return
        size, name = struct.unpack_from(">I4s", data, start)
        header = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, start + 8)
            header = 16
        elif size == 0:
            size = end - start
        if size < header or start + size > end:
            raise ValueError("a box is cut short")
        yield name, start + header, start + size
        start += size
    raise ValueError(f"more than {_MAX_BOXES} boxes")
