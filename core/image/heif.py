"""Read the boxes of a HEIC or AVIF file: the work that its decoder has, and properties that the decoder does not apply.

An image of these formats can be derived from other images of the file: a grid, an overlay, a copy. Decoders build it
again for each image that uses it, so that a few nested overlays of kilobytes decode one image thousands of times.
Turns, mirrors and crops can be repeated, and one coded image can hold many pictures, of which one is shown.

Sources: ISO/IEC 14496-12:2022 (boxes, ``clap``, ``colr``), 23008-12:2022 (HEIF), 14496-15:2022 (HEVC in files), AV1
specification, 5.3.
"""

import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, TypeAlias

from core.limits import MAX_PIXELS, MAX_READS, too_many_pixels

_MAX_BOXES: Final = 10_000
"""Boxes in a box, or in the file."""
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

_CANVAS_AT: Final = {b"grid": 4, b"iovl": 10}
"""Offset of width and height in the data of a derived image."""
_CANVAS_BYTES: Final = 18

_TURNS: Final = {b"irot", b"imir", b"clap", b"iscl"}
_HEVC_PICTURE: Final = range(32)
_AV1_FRAMES: Final = {3, 6, 7}  # a frame's header alone, also one that shows an earlier frame again; a frame
_UNSPECIFIED: Final = 2


@dataclass(frozen=True)
class Properties:
    """Properties of the primary image.

    Attributes:
        primaries: color primaries, a code point of H.273.
        transfer: transfer characteristics, a code point of H.273.
        clap: clean aperture: width, height, and offset of its center from the image's, right and down, in pixels; None
            if there is none.
    """

    primaries: int = _UNSPECIFIED
    transfer: int = _UNSPECIFIED
    clap: tuple[Fraction, ...] | None = None

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


def read(data: bytes) -> Properties:
    """Return the properties of the primary image, if decoding it takes a reasonable amount of work.

    Raises:
        TooManyPixelsError: it has more than ``MAX_PIXELS``.
        ValueError: it takes more work, or the boxes are damaged.
    """
    properties = Properties()
    try:
        for meta in _by_name(memoryview(data))[b"meta"]:
            properties = _read_meta(meta, memoryview(data))
    except (struct.error, IndexError) as error:
        raise ValueError(f"damaged boxes: {error}") from error
    return properties


def without_exif(data: bytes) -> bytes | None:
    """Return the file with its EXIF data hidden from decoders, or None if it has none."""
    hidden = bytearray(data)
    for meta in _by_name(memoryview(hidden))[b"meta"]:
        for _, kind in _types(_by_name(meta.full()[2])):
            if bytes(kind[:4]) == b"Exif":
                kind[:4] = b"free"
    return None if hidden == data else bytes(hidden)


@dataclass
class _Item:
    """An image. ``length_size``: bytes of the length of its HEVC units; 0 for AV1; None if it is not coded."""

    kind: bytes = b""
    pixels: int = 0
    turns: int = 0
    length_size: int | None = None
    used: list[int] = field(default_factory=list)
    parts: list[memoryview] = field(default_factory=list)
    code_points: tuple[int, int] = (_UNSPECIFIED, _UNSPECIFIED)
    clap: tuple[Fraction, ...] | None = None


@dataclass(frozen=True)
class _Box:
    name: bytes
    body: memoryview

    def full(self) -> tuple[int, int, memoryview]:
        """Return the version, the flags and the rest of a full box."""
        (word,) = struct.unpack_from(">I", self.body)
        return word >> 24, word & 0xFFFFFF, self.body[4:]

    def table(self) -> tuple[int, int, memoryview]:
        """Return the same of a box whose numbers are read one by one.

        Raises:
            ValueError: it has too many bytes.
        """
        if len(self.body) > _MAX_TABLE_BYTES:
            raise ValueError(f"a box {self.name!r} of {len(self.body)} bytes")
        return self.full()


def _boxes(body: memoryview) -> Iterator[_Box]:
    """Yield the boxes of a file or of a box."""
    at = 0
    for _ in range(_MAX_BOXES):
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
    raise ValueError(f"more than {_MAX_BOXES} boxes")


_Boxes: TypeAlias = dict[bytes, list[_Box]]


def _by_name(body: memoryview) -> _Boxes:
    """Return the boxes of a file or of a box by their names."""
    boxes: _Boxes = defaultdict(list)
    for box in _boxes(body):
        boxes[box.name].append(box)
    return boxes


def _read_meta(meta: _Box, file: memoryview) -> Properties:
    """Check the work for the primary image, and return its properties."""
    boxes = _by_name(meta.full()[2])
    items: dict[int, _Item] = defaultdict(_Item)
    primary = 0
    for pitm in boxes[b"pitm"]:
        version, _, body = pitm.full()
        (primary,) = struct.unpack_from(">I" if version else ">H", body)
    for number, kind in _types(boxes):
        bytes(kind).decode()  # pi-heif ends the process for items whose type or content type is no text
        items[number].kind = bytes(kind[:4])
    for iref in boxes[b"iref"]:
        _read_references(iref, items)
    for iloc in boxes[b"iloc"]:
        _read_locations(iloc, items, file, next((idat.body for idat in boxes[b"idat"]), memoryview(b"")))
    for iprp in boxes[b"iprp"]:
        _read_properties(_by_name(iprp.body), items)
    item = items[primary]
    if item.pixels > MAX_PIXELS:
        raise too_many_pixels(str(item.pixels))
    decodes, work = _Work(items).of(primary)
    if decodes > _MAX_DECODES or work > min(_MAX_WORK_PIXELS, _MAX_WORK_PER_PIXEL * max(item.pixels, _SMALL_PIXELS)):
        raise ValueError(f"derived from {decodes} images, {work} pixels")
    return Properties(*item.code_points, item.clap)


def _types(boxes: _Boxes) -> Iterator[tuple[int, memoryview]]:
    """Yield each item's number, and its type, of four letters, with the texts behind it: name and content type."""
    for iinf in boxes[b"iinf"]:
        version, _, body = iinf.full()
        for infe in _by_name(body[4 if version else 2 :])[b"infe"]:
            version, _, body = infe.full()
            size = 4 if version >= 3 else 2
            yield int.from_bytes(body[:size], "big"), body[size + 2 :]


def _read_references(iref: _Box, items: dict[int, _Item]) -> None:
    """Note what each item is derived from, and its auxiliary images, such as its alpha."""
    version, _, body = iref.table()
    letter, size = ("I", 4) if version else ("H", 2)
    for box in _boxes(body):
        of, count = struct.unpack_from(f">{letter}H", box.body)
        others = struct.unpack_from(f">{count}{letter}", box.body, size + 2)
        if box.name == b"dimg":
            items[of].used += others
        elif box.name == b"auxl":
            for other in others:
                items[other].used.append(of)


def _read_locations(iloc: _Box, items: dict[int, _Item], file: memoryview, idat: memoryview) -> None:
    """Note where the bytes of each item are. Few files have bytes that several items share."""
    version, _, body = iloc.table()
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
            if method in {0, 1}:
                items[number].parts.append(source[at : at + length])


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


def _read_properties(parts: _Boxes, items: dict[int, _Item]) -> None:
    """Note the properties of each item."""
    properties = [box for ipco in parts[b"ipco"] for box in _boxes(ipco.body)]
    for ipma in parts[b"ipma"]:
        version, flags, body = ipma.table()
        words = _Words(body, 0)
        for _ in range(words.read(4)):
            number = words.read(4 if version else 2)
            for _association in range(words.read(1)):  # the highest bit states that the property is essential
                index = words.read(2) & 0x7FFF if flags & 1 else words.read(1) & 0x7F
                if 0 < index <= len(properties):
                    _apply(properties[index - 1], items[number])


def _apply(prop: _Box, item: _Item) -> None:
    item.turns += prop.name in _TURNS
    if prop.name == b"ispe":
        width, height = struct.unpack_from(">II", prop.body, 4)
        item.pixels = max(item.pixels, width * height)
    elif prop.name == b"colr" and bytes(prop.body[:4]) == b"nclx":
        item.code_points = struct.unpack_from(">2H", prop.body, 4)
    elif prop.name == b"clap":
        ratios = struct.iter_unpack(">2i", prop.body[:32])
        item.clap = tuple(Fraction(above, below) if below > 0 else Fraction(0) for above, below in ratios)
    elif prop.name == b"hvcC":
        item.length_size = (prop.body[21] & 3) + 1
    elif prop.name == b"av1C":
        item.length_size = 0


class _Work:
    """How many images are decoded for an item, and how many pixels; computed once for each item."""

    def __init__(self, items: dict[int, _Item]) -> None:
        self._items, self._units_left = items, MAX_READS
        self._known: dict[int, tuple[int, int]] = {}

    def of(self, number: int, depth: int = 0) -> tuple[int, int]:
        if depth > _MAX_DEPTH:
            raise ValueError(f"images derived {_MAX_DEPTH} times over")
        if number not in self._known:
            item = self._items[number]
            decodes, work = 1, max(item.pixels, _canvas_pixels(item)) * (self._pictures(item) + item.turns)
            for used in item.used:
                more_decodes, more_work = self.of(used, depth + 1)
                decodes, work = decodes + more_decodes, work + more_work
            self._known[number] = decodes, work
        return self._known[number]

    def _pictures(self, item: _Item) -> int:
        """Return how many pictures the data of a coded image hold, at least 1."""
        if item.length_size is None:
            return 1
        coded = _joined(item.parts)
        units = _hevc_pictures(coded, item.length_size) if item.length_size else _av1_frames(coded)
        pictures = 0
        for is_picture in units:
            pictures += is_picture
            self._units_left -= 1  # of the file
            if pictures > _MAX_PICTURES or self._units_left < 0:
                raise ValueError(f"an image of more than {_MAX_PICTURES} pictures, or {MAX_READS} units")
        return max(1, pictures)


def _joined(parts: list[memoryview]) -> memoryview | bytes:
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _canvas_pixels(item: _Item) -> int:
    """Return how many pixels a grid or an overlay has by its own data, which decoders allocate; 0 for other images."""
    at = _CANVAS_AT.get(item.kind)
    if at is None:
        return 0
    data = bytes(_joined(item.parts)[:_CANVAS_BYTES])
    width, height = struct.unpack_from(">2I" if data[1] & 1 else ">2H", data, at)
    return int(width * height)


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
