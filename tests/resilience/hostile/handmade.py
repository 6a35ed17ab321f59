"""Files and parts of files as no library would write them: PNG, TIFF, JPEG and colour profiles by hand."""

import itertools
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from PIL import ImageCms

PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"

BODY: Final = -1
"""Stands for the offset of the body of a TIFF."""

_LONG, _LONG8 = 4, 16


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, bits: int, colour_type: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG: ``rows`` carry their filter byte, ``extra`` are chunks ahead of the pixels."""
    return png_around(width, height, bits, colour_type, *extra, png_chunk(b"IDAT", zlib.compress(rows)))


def png_around(width: int, height: int, bits: int, colour_type: int, *chunks: bytes) -> bytes:
    """A PNG of these chunks between its header and its end."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
    return PNG_SIGNATURE + header + b"".join(chunks) + png_chunk(b"IEND", b"")


def tiff(
    tags: Mapping[int, int | tuple[int, int, int]], body: bytes = b"", *, order: str = "<", big: bool = False
) -> bytes:
    """A TIFF of one directory with ``body`` right behind it.

    Args:
        tags: for each tag a number, or (type, count, what stands in the entry's field).
        body: the pixels, and what else lies outside of the directory. ``BODY`` stands for its offset, ``BODY - n``
            for that of its byte n.
        order: ``<`` or ``>``.
        big: 64-bit offsets.
    """
    count, entry, word = ("Q", "HHQQ", "Q") if big else ("H", "HHII", "I")
    start = 16 if big else 8
    body_at = start + struct.calcsize("=" + count + word) + struct.calcsize("=" + entry) * len(tags)
    directory = struct.pack(order + count, len(tags))
    for tag, value in sorted(tags.items()):
        type_, length, field = value if isinstance(value, tuple) else (_LONG8 if big else _LONG, 1, value)
        directory += struct.pack(order + entry, tag, type_, length, body_at + BODY - field if field <= BODY else field)
    version = struct.pack(order + "HHH", 43, 8, 0) if big else struct.pack(order + "H", 42)
    mark = {"<": b"II", ">": b"MM"}[order]
    return mark + version + struct.pack(order + word, start) + directory + struct.pack(order + word, 0) + body


def grey(
    width: int, height: int, strip_bytes: int, **more: int | tuple[int, int, int]
) -> dict[int, int | tuple[int, int, int]]:
    """The tags of a grey TIFF with one strip."""
    named = {"subfile_type": 254, "bits": 258, "compression": 259, "photometric": 262, "rows_per_strip": 278}
    tags: dict[int, int | tuple[int, int, int]] = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: BODY, 277: 1}
    tags |= {278: height, 279: strip_bytes}
    return tags | {named[name]: value for name, value in more.items()}


def bmp_of_runs(width: int, height: int, runs: bytes, bits: int = 8) -> bytes:
    """A BMP compressed as RLE8 or RLE4, of which each number of the palette is another colour."""
    palette = b"".join(bytes((i, 255 - i, i * 7 % 256, 0)) for i in range(2**bits))
    start = 14 + 40 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, {8: 1, 4: 2}[bits], len(runs), 0, 0, 0, 0)
    return struct.pack("<2sIII", b"BM", start + len(runs), 0, start) + header + palette + runs


def segment(marker: int, body: bytes) -> bytes:
    """A JPEG's segment."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg_segments(data: bytes) -> list[bytes]:
    """A JPEG's parts up to its first scan, and then each scan with its tables; joined they are the file."""
    parts, at = [data[:2]], 2
    while at < len(data) - 1:
        end = at + 2
        if data[at + 1] not in (0xD8, 0xD9):
            end += int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == 0xDA:
            while end < len(data) - 1 and not (data[end] == 0xFF and data[end + 1] not in (0, *range(0xD0, 0xD8))):
                end += 1
        parts.append(data[at:end])
        at = end
    return parts


def scans_of_nothing(side_px: int, scans: int) -> bytes:
    """A progressive grey JPEG of few bytes, each scan of which goes over all blocks.

    The code of the coefficients above DC has one word, of one bit: an end of band that runs for 2**14 blocks and more.
    """
    blocks = (-(-side_px // 8)) ** 2
    runs = -(-blocks // 2**15)
    band = "".join("0" + "1" * 14 for _ in range(runs))
    entropy = (
        int(band.ljust(-(-len(band) // 8) * 8, "1"), 2).to_bytes(-(-len(band) // 8), "big").replace(b"\xff", b"\xff\0")
    )
    one_word = bytes((1, *[0] * 15))
    frame = struct.pack(">BHHB3B", 8, side_px, side_px, 1, 1, 0x11, 0)
    return (
        b"\xff\xd8"
        + segment(0xDB, b"\0" + b"\1" * 64)
        + segment(0xC2, frame)
        + segment(0xC4, b"\0" + one_word + b"\0")
        + segment(0xC4, b"\x10" + one_word + b"\xe0")
        + segment(0xDA, b"\1\1\0\0\0\0")
        + b"\0" * (blocks // 8 + 1)
        + (segment(0xDA, b"\1\1\0\1\x3f\0") + entropy) * scans
        + b"\xff\xd9"
    )


def profile_with(**tags: bytes) -> bytes:
    """The sRGB profile with the contents of some tags, such as ``rXYZ``, replaced."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data[24:36] = bytes(12)  # when it was made: the same seed is to make the same files
    for i in range(struct.unpack_from(">I", data, 128)[0]):
        name, offset, size = struct.unpack_from(">4sII", data, 132 + 12 * i)
        if new := tags.get(name.decode()):
            data[offset : offset + size] = new.ljust(size, b"\0")
    return bytes(data)


def xyz(x: float, y: float, z: float) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in (x, y, z))


DISPLAY_P3: Final = profile_with(
    rXYZ=xyz(0.51512, 0.24120, -0.00105), gXYZ=xyz(0.29198, 0.69225, 0.04189), bXYZ=xyz(0.15710, 0.06657, 0.78407)
)


def cmyk_profile() -> bytes:
    """A CMYK profile in which ink K alone makes paper (Lab 100, 0, 0) dark (Lab 0, 0, 0), and C, M, Y do nothing."""
    ramp8 = bytes(range(256))
    grid = b"".join(bytes((0 if k else 255, 128, 128)) for _cmy in range(8) for k in (0, 1))
    matrix = struct.pack(">9i", *(65536 * v for v in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + matrix + ramp8 * 4 + grid + ramp8 * 3
    return _table_profile(b"prtr", b"CMYK", b"Lab ", table)


def linear_table_profile() -> bytes:
    """An RGB profile of linear light in the primaries of sRGB, as a table of its eight corners."""
    primaries = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
    corners = (itertools.compress(primaries, rgb) for rgb in itertools.product((0, 1), repeat=3))
    grid = [round(32768 * sum(channel)) for corner in corners for channel in zip((0, 0, 0), *corner, strict=True)]
    matrix = struct.pack(">9i", *(65536 * v for v in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    ramps = struct.pack(">6H", *(0, 65535) * 3)
    table = b"mft2\0\0\0\0" + bytes((3, 3, 2, 0)) + matrix + struct.pack(">2H", 2, 2) + ramps
    return _table_profile(b"scnr", b"RGB ", b"XYZ ", table + struct.pack(">24H", *grid) + ramps)


def _table_profile(device: bytes, space: bytes, connection: bytes, table: bytes) -> bytes:
    white = xyz(0.9642, 1.0, 0.8249)
    tags = [(b"A2B0", table), (b"wtpt", white)]
    offset, directory, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags:
        content = content.ljust(-(-len(content) // 4) * 4, b"\0")
        directory += struct.pack(">4sII", name, offset + len(body), len(content))
        body += content
    header = struct.pack(">I4sI4s4s4s", offset + len(body), b"test", 0x02400000, device, space, connection)
    header += struct.pack(">6H4s", 2000, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + white[8:]
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + directory + body


def exif(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    """An EXIF block of one directory: (tag, type, count, what stands in the entry's field)."""
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + table + struct.pack("<I", following)


def profile_of_elements(count: int) -> bytes:
    """The sRGB profile with a transform of ``count`` matrices in a row, all of them the same bytes."""
    data = profile_with()
    (tags,) = struct.unpack_from(">I", data, 128)
    directory_end = 132 + 12 * tags
    moved = b"".join(
        struct.pack(">4sII", name, offset + 12, size)
        for name, offset, size in struct.iter_unpack(">4sII", data[132:directory_end])
    )
    elements_at = 16 + 8 * count
    one = b"matf" + bytes(4) + struct.pack(">HH", 3, 3) + struct.pack(">12f", 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0)
    chain = (
        b"mpet" + bytes(4) + struct.pack(">HHI", 3, 3, count) + struct.pack(">II", elements_at, len(one)) * count + one
    )
    new = struct.pack(">4sII", b"D2B0", len(data) + 12, len(chain))
    data = data[:128] + struct.pack(">I", tags + 1) + moved + new + data[directory_end:] + chain
    return struct.pack(">I", len(data)) + data[4:]


@dataclass(frozen=True)
class Item:
    """An item of a HEIF file.

    Attributes:
        kind: its type, such as ``hvc1``, ``av01``, ``grid``, ``iovl`` or ``iden``.
        size: width and height that ``ispe`` declares.
        data: its own bytes.
        made_of: numbers of the items that it is derived from; the first item has number 1.
        properties: more property boxes, in order.
        extents: how often its bytes are listed.
    """

    kind: bytes
    size: tuple[int, int]
    data: bytes
    made_of: tuple[int, ...] = ()
    properties: tuple[bytes, ...] = ()
    extents: int = 1


def box(name: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), name) + body


def full_box(name: bytes, version: int, *content: bytes, flags: int = 0) -> bytes:
    return box(name, struct.pack(">I", version << 24 | flags), *content)


def heif(brand: bytes, primary: int, *items: Item, hidden: bool = True) -> bytes:
    """A HEIF or AVIF file of these items; all but the primary one are hidden, or none."""
    numbered = list(enumerate(items, 1))
    infos = [
        full_box(b"infe", 2, struct.pack(">HH4s", n, 0, item.kind), b"\0", flags=int(hidden and n != primary))
        for n, item in numbered
    ]
    uses = [(n, item.made_of) for n, item in numbered if item.made_of]
    references = [box(b"dimg", struct.pack(f">HH{len(of)}H", n, len(of), *of)) for n, of in uses]
    ftyp = box(b"ftyp", brand, bytes(4), b"mif1", b"miaf", brand)

    def meta(start: int) -> bytes:
        places, at = b"", start
        for number, item in numbered:
            extent = struct.pack(">II", at, len(item.data))
            places += struct.pack(">HHH", number, 0, item.extents) + extent * item.extents
            at += len(item.data)
        return full_box(
            b"meta",
            0,
            full_box(b"hdlr", 0, bytes(4), b"pict", bytes(13)),
            full_box(b"pitm", 0, struct.pack(">H", primary)),
            full_box(b"iinf", 0, struct.pack(">H", len(items)), *infos),
            _properties(items),
            *([full_box(b"iref", 0, *references)] if references else []),
            full_box(b"iloc", 0, b"\x44\0", struct.pack(">H", len(items)), places),
        )

    start = len(ftyp) + len(meta(0)) + 8
    return ftyp + meta(start) + box(b"mdat", *(item.data for item in items))


def _properties(items: Sequence[Item]) -> bytes:
    """The box of the items' properties; equal ones are stored once."""
    own = [[full_box(b"ispe", 0, struct.pack(">II", *item.size)), *item.properties] for item in items]
    stored = list(dict.fromkeys(prop for props in own for prop in props))
    associations = b"".join(
        struct.pack(">HB", n, len(props)) + bytes(0x80 | stored.index(prop) + 1 for prop in props)
        for n, props in enumerate(own, 1)
    )
    return box(b"iprp", box(b"ipco", *stored), full_box(b"ipma", 0, struct.pack(">I", len(items)), associations))


def coded_item(file: bytes, kind: bytes, configuration: bytes) -> Item:
    """The first coded image of a file that an encoder made of one picture, as an item."""
    at = file.index(configuration) - 4
    settings = file[at : at + int.from_bytes(file[at : at + 4], "big")]
    size = struct.unpack_from(">II", file, file.index(b"ispe") + 8)
    at = file.index(b"mdat") + 4
    return Item(kind, size, file[at:], properties=(settings,))


def overlay(width: int, height: int, count: int) -> bytes:
    """The bytes of an ``iovl`` item: a canvas and the places of its images."""
    return bytes(2) + struct.pack(">4H", 0, 0, 0, 0xFFFF) + struct.pack(">HH", width, height) + bytes(4 * count)


def grid(rows: int, columns: int, width: int, height: int) -> bytes:
    """The bytes of a ``grid`` item."""
    return struct.pack(">4BHH", 0, 0, rows - 1, columns - 1, width, height)
