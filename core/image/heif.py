"""Bound the work that the structure of a HEIC or AVIF file makes for its decoder.

An image of these formats can be derived from other images of the file: a grid, an overlay, a copy. Decoders build it
again for each image that uses it, so that a few nested overlays of kilobytes decode one image thousands of times.
Turns, mirrors and crops can be repeated, and one coded image can hold many pictures, of which one is shown.

Sources: ISO/IEC 14496-12:2022 (boxes), 23008-12:2022 (HEIF), 14496-15:2022 (HEVC in files), AV1 specification, 5.3.
"""

import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from core.limits import MAX_PIXELS, MAX_READS, too_many_pixels

_MAX_TABLE_BYTES: Final = 1 << 20
_MAX_DEPTH: Final = 8
_MAX_DECODES: Final = 10_000
"""Grids of 100 megapixels have 400 tiles of 512 x 512."""
_MAX_WORK_PIXELS: Final = 6 * MAX_PIXELS
"""Pixels that are decoded, copied or turned. A turned grid with an alpha takes six times its own."""
_MAX_WORK_PER_PIXEL: Final = 16
_SMALL_PIXELS: Final = 4_000_000
_MAX_PICTURES: Final = 8
"""Pictures in one coded image; its header can declare less than they have. Layered images have up to four."""

_MAX_SHARED: Final = 4

_TURNS: Final = {b"irot", b"imir", b"clap", b"iscl"}
_DERIVED, _AUXILIARY = b"dimg", b"auxl"
_HEVC_PICTURE: Final = range(32)
_AV1_FRAMES: Final = {3, 6, 7}  # a frame's header alone, also one that shows an earlier frame again; a frame


@dataclass
class _Item:
    """An image. ``length_size``: bytes of the length of its HEVC units; 0 for AV1; None if it is not coded."""

    pixels: int = 0
    turns: int = 0
    length_size: int | None = None
    used: list[int] = field(default_factory=list)
    extents: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class _Box:
    name: bytes
    body: memoryview

    def full(self) -> tuple[int, int, memoryview]:
        """Return the version, the flags and the rest of a full box."""
        (word,) = struct.unpack_from(">I", self.body)
        return word >> 24, word & 0xFFFFFF, self.body[4:]


def check_work(data: bytes) -> None:
    """Check that decoding the primary image takes a reasonable amount of work.

    Raises:
        TooManyPixelsError: it has more than ``MAX_PIXELS``.
        ValueError: it does not, or the boxes that describe the work are damaged.
    """
    try:
        for meta in _boxes(memoryview(data)):
            if meta.name == b"meta":
                _check_meta(meta, memoryview(data))
    except (struct.error, IndexError) as error:
        raise ValueError(f"damaged boxes: {error}") from error


def _check_meta(meta: _Box, file: memoryview) -> None:
    items: dict[int, _Item] = defaultdict(_Item)
    primary, idat = 0, memoryview(b"")
    boxes = list(_boxes(meta.full()[2]))
    for box in boxes:
        if box.name == b"pitm":
            version, _, body = box.full()
            (primary,) = struct.unpack_from(">I" if version else ">H", body)
        elif box.name == b"iref":
            _read_references(box, items)
        elif box.name == b"iinf":
            _check_types(box)
        elif box.name == b"idat":
            idat = box.body
    for box in boxes:
        if box.name == b"iloc":
            _read_locations(box, items, file, idat)
    for box in boxes:
        if box.name == b"iprp":
            _read_properties(box, items)
    pixels = items[primary].pixels
    if pixels > MAX_PIXELS:
        raise too_many_pixels(str(pixels))
    decodes, work = _Work(items, file).of(primary)
    pixels = max(pixels, _SMALL_PIXELS)
    if decodes > _MAX_DECODES or work > min(_MAX_WORK_PIXELS, _MAX_WORK_PER_PIXEL * pixels):
        raise ValueError(f"derived from {decodes} images, {work} pixels")


class _Work:
    """How many images are decoded for an item, and how many pixels; computed once for each item."""

    def __init__(self, items: dict[int, _Item], file: memoryview) -> None:
        self._items, self._file, self._units_left = items, file, MAX_READS
        self._known: dict[int, tuple[int, int]] = {}

    def of(self, number: int, depth: int = 0) -> tuple[int, int]:
        if depth > _MAX_DEPTH:
            raise ValueError(f"images derived {_MAX_DEPTH} times over")
        if number not in self._known:
            item = self._items[number]
            decodes, work = 1, item.pixels * (self._pictures(item) + item.turns)
            for used in item.used:
                more_decodes, more_work = self.of(used, depth + 1)
                decodes, work = decodes + more_decodes, work + more_work
            self._known[number] = decodes, work
        return self._known[number]

    def _pictures(self, item: _Item) -> int:
        """Return how many pictures the data of a coded image hold, at least 1."""
        if item.length_size is None:
            return 1
        parts = [self._file[at : at + length] for at, length in item.extents]
        coded = parts[0] if len(parts) == 1 else b"".join(parts)
        units = _hevc_pictures(coded, item.length_size) if item.length_size else _av1_frames(coded)
        pictures = 0
        for is_picture in units:
            pictures += is_picture
            self._units_left -= 1  # of the file
            if pictures > _MAX_PICTURES or self._units_left < 0:
                raise ValueError(f"an image of more than {_MAX_PICTURES} pictures, or {MAX_READS} units")
        return max(1, pictures)


def _boxes(body: memoryview) -> Iterator[_Box]:
    """Yield the boxes of a file or of a box."""
    at = 0
    for _ in range(MAX_READS):
        if len(body) - at < 8:
            return
        size, name = struct.unpack_from(">I4s", body, at)
        start = at + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", body, start)
            start += 8
        end = at + size if size else len(body)
        if end < start:
            raise ValueError("a box that ends before it starts")
        yield _Box(name, body[start:end])
        at = end
    raise ValueError(f"more than {MAX_READS} boxes")


def _check_table(box: _Box) -> None:
    if len(box.body) > _MAX_TABLE_BYTES:
        raise ValueError(f"a box {box.name!r} of {len(box.body)} bytes")


def _check_types(iinf: _Box) -> None:
    """Reject items whose type or content type is no text, for which pi-heif ends the process."""
    version, _, body = iinf.full()
    for entry in _boxes(body[4 if version else 2 :]):
        if entry.name == b"infe":
            version, _, body = entry.full()
            bytes(body[6 if version >= 3 else 4 :]).decode()


def _read_references(iref: _Box, items: dict[int, _Item]) -> None:
    """Note what each item is derived from, and its auxiliary images, such as its alpha."""
    _check_table(iref)
    version, _, body = iref.full()
    letter, size = ("I", 4) if version else ("H", 2)
    for box in _boxes(body):
        of, count = struct.unpack_from(f">{letter}H", box.body)
        others = struct.unpack_from(f">{count}{letter}", box.body, size + 2)
        if box.name == _DERIVED:
            items[of].used += others
        elif box.name == _AUXILIARY:
            for other in others:
                items[other].used.append(of)


def _read_locations(iloc: _Box, items: dict[int, _Item], file: memoryview, idat: memoryview) -> None:
    """Note where the bytes of each item are. Few files have bytes that several items share."""
    _check_table(iloc)
    version, _, body = iloc.full()
    sizes = body[0] >> 4, body[0] & 15, body[1] >> 4, body[1] & 15 if version else 0
    offset_size, length_size, base_size, index_size = sizes
    words = _Words(body, 2)
    wide, read = 4 if version >= 2 else 2, 0
    for _ in range(words.read(wide)):
        number = words.read(wide)
        method = words.read(2) & 15 if version else 0
        words.read(2)
        base, count = words.read(base_size), words.read(2)
        for _extent in range(count):
            words.read(index_size)
            at, length = base + words.read(offset_size), words.read(length_size)
            source = idat if method == 1 else file
            length = length or max(0, len(source) - at)
            read += length
            if read > _MAX_SHARED * len(file):
                raise ValueError(f"images of more than {_MAX_SHARED} times the bytes of the file")
            if method == 0:
                items[number].extents.append((at, length))


class _Words:
    """Numbers of different sizes, one after the other."""

    def __init__(self, body: memoryview, at: int) -> None:
        self._body, self._at = body, at

    def read(self, size: int) -> int:
        part = self._body[self._at : self._at + size]
        if len(part) < size:
            raise IndexError("a box that is too short")
        self._at += size
        return int.from_bytes(part, "big")


def _read_properties(iprp: _Box, items: dict[int, _Item]) -> None:
    """Note the size of each item, how often it is turned, and how it is coded."""
    parts = list(_boxes(iprp.body))
    properties = [box for part in parts if part.name == b"ipco" for box in _boxes(part.body)]
    for part in parts:
        if part.name != b"ipma":
            continue
        _check_table(part)
        version, flags, body = part.full()
        words = _Words(body, 0)
        for _ in range(words.read(4)):
            number = words.read(4 if version else 2)
            for _association in range(words.read(1)):
                index = words.read(2) & 0x7FFF if flags & 1 else words.read(1) & 0x7F
                if 0 < index <= len(properties):
                    _apply(properties[index - 1], items[number])


def _apply(prop: _Box, item: _Item) -> None:
    if prop.name == b"ispe":
        width, height = struct.unpack_from(">II", prop.body, 4)
        item.pixels = max(item.pixels, width * height)
    elif prop.name in _TURNS:
        item.turns += 1
    elif prop.name == b"hvcC":
        item.length_size = (prop.body[21] & 3) + 1
    elif prop.name == b"av1C":
        item.length_size = 0


def _hevc_pictures(coded: memoryview | bytes, length_size: int) -> Iterator[int]:
    """Yield 1 for each unit that begins a picture, and 0 for each other."""
    at = 0
    while at + length_size + 3 <= len(coded):
        start = at + length_size
        at = start + int.from_bytes(coded[at:start], "big")
        yield (coded[start] >> 1 & 63) in _HEVC_PICTURE and coded[start + 2] >> 7


def _av1_frames(coded: memoryview | bytes) -> Iterator[int]:
    """Yield 1 for each unit that is a frame or shows one, and 0 for each other."""
    at = 0
    while at < len(coded):
        header = coded[at]
        yield (header >> 3 & 15) in _AV1_FRAMES
        at += 2 if header & 4 else 1
        if not header & 2:  # it reaches to the end
            return
        size = shift = 0
        for _ in range(8):
            if at >= len(coded):
                return
            byte = coded[at]
            size, shift, at = size | (byte & 127) << shift, shift + 7, at + 1
            if byte < 128:
                break
        at += size
