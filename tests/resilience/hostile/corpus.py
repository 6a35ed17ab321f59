"""Well-formed files of every kind that is accepted, and named hostile ones; all made here, by code alone."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
import tifffile
from PIL import Image

from core.errors import (
    AnimatedImageError,
    BackgroundRemoverError,
    CorruptImageError,
    EmptyImageError,
    ImageTooSmallError,
    TooManyPixelsError,
    UnsupportedFormatError,
)
from tests.conftest import file_of
from tests.resilience.hostile.handmade import (
    BODY,
    DISPLAY_P3,
    Item,
    bmp_of_runs,
    box,
    cmyk_profile,
    coded_item,
    exif,
    full_box,
    grey,
    grid,
    heif,
    jpeg_segments,
    overlay,
    png,
    png_around,
    png_chunk,
    profile_of_elements,
    profile_with,
    scans_of_nothing,
    segment,
    tiff,
)

SIDE_PX: Final = 48
ORIENTATION, X_RESOLUTION, SUB_IFDS, SHORT, LONG, RATIONAL = 274, 282, 330, 3, 4, 5
_CROWD: Final = 98_000_000
"""Bytes of a flood: as many as a file may have, less a little."""


def picture(mode: str = "RGB") -> Image.Image:
    """A disc on a ramp with grain, so that no encoder finds it trivial."""
    y, x = np.mgrid[0:SIDE_PX, 0:SIDE_PX]
    inside = (np.hypot(x - SIDE_PX / 2, y - SIDE_PX / 2) < SIDE_PX / 3)[..., None]
    grain = np.random.default_rng(3).normal(0, 6, (SIDE_PX, SIDE_PX, 3))
    rgb = np.where(inside, (230, 140, 40), np.stack([x, y, x + y], axis=-1)) + grain
    image = Image.fromarray(rgb.clip(0, 255).astype(np.uint8))
    if mode.endswith("A"):
        image.putalpha(Image.fromarray(np.uint8(inside[..., 0] * 200 + 55)))
    return image.convert(mode)


def noise(bits: int, channels: int, width: int = SIDE_PX) -> bytes:
    """Rows of a PNG, each with its filter's number ahead."""
    row_bytes = -(-width * bits * channels // 8)
    pixels = np.random.default_rng(4).integers(0, 256, (SIDE_PX, row_bytes), np.uint8)
    return b"".join(bytes([i % 5]) + row.tobytes() for i, row in enumerate(pixels))


def runs() -> bytes:
    """Rows of a BMP with every code that there is: run, pixels as they are, end of line, jump, end of the picture."""
    row = b"\x10\x35\0\4\1\2\3\4\0\2\4\0" + b"\x08\x77" * 2
    return (row + b"\0\0") * SIDE_PX + b"\0\1"


TURN: Final = box(b"irot", b"\1")
_EIGHT_BITS: Final = full_box(b"pixi", 0, b"\3\x08\x08\x08")


def heic_item(image: Image.Image | None = None) -> Item:
    return coded_item(file_of(image or picture(), "HEIF"), b"hvc1", b"hvcC")


def avif_item(image: Image.Image | None = None) -> Item:
    item = coded_item(file_of(image or picture(), "AVIF"), b"av01", b"av1C")
    return replace(item, properties=(*item.properties, _EIGHT_BITS))


def tiled(tile: Item, side: int, brand: bytes = b"heic") -> bytes:
    """A grid of ``side`` x ``side`` tiles."""
    width, height = (side * length for length in tile.size)
    numbers = tuple(range(1, side * side + 1))
    whole = Item(b"grid", (width, height), grid(side, side, width, height), numbers, (_EIGHT_BITS,))
    return heif(brand, len(numbers) + 1, *[tile] * len(numbers), whole)


def layered(image: Item, count: int, depth: int) -> bytes:
    """Overlays of ``count`` images each, which are such overlays themselves, ``depth`` times over."""
    items = [image] * count
    for level in range(depth):
        below = tuple(range(level * count + 1, (level + 1) * count + 1))
        items += [Item(b"iovl", image.size, overlay(*image.size, count), below)] * count
    return heif(b"heic", len(items), *items)


def seeds() -> dict[str, bytes]:
    """Files that decode, small, of every format and of many of its kinds."""
    turned = Image.Exif()
    turned[ORIENTATION], turned[X_RESOLUTION] = 6, 300.0
    rich: dict[str, Any] = {"exif": turned, "icc_profile": DISPLAY_P3}
    ycck = bytearray(file_of(picture("CMYK"), "JPEG"))
    ycck[ycck.index(b"Adobe") + 11] = 2
    cmyk, palette = picture("CMYK"), picture().quantize(16)
    sixteen = (np.asarray(picture("L"), np.uint16) * 257).astype("<u2")
    tiles = {k: v for k, v in grey(64, 64, 0).items() if k not in (273, 278, 279)} | {
        322: 64,
        323: 64,
        324: BODY,
        325: 4096,
    }
    raw = png_chunk(
        b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n      26\n" + exif().hex().encode())
    )
    files = {
        "jpeg": file_of(picture(), "JPEG", **rich),
        "jpeg progressive": file_of(picture(), "JPEG", progressive=True),
        "jpeg 4:4:4 restarts": file_of(picture(), "JPEG", subsampling=0, restart_marker_blocks=1),
        "jpeg grey": file_of(picture("L"), "JPEG"),
        "jpeg cmyk, adobe": file_of(cmyk, "JPEG", icc_profile=cmyk_profile()),
        "jpeg ycck, adobe": bytes(ycck),
        "jpeg of several": file_of(picture(), "MPO", save_all=True, append_images=[picture("L")]),
        "png": file_of(picture(), "PNG", **rich),
        "png alpha": file_of(picture("RGBA"), "PNG"),
        "png grey alpha": file_of(picture("LA"), "PNG"),
        "png, profile of elements": _icc_png(profile_of_elements(3)),
        "png palette": file_of(palette, "PNG", transparency=b"\0\x80\xff"),
        "png zTXt, iTXt": png(SIDE_PX, SIDE_PX, 8, 0, noise(8, 1), raw, png_chunk(b"iTXt", b"k\0\0\0\0\0text")),
        "png interlaced": _interlaced(),
        "webp": file_of(picture(), "WEBP", **rich),
        "webp lossless": file_of(picture("RGBA"), "WEBP", lossless=True),
        "webp alpha": file_of(picture("RGBA"), "WEBP"),
        "avif": file_of(picture("RGBA"), "AVIF", **rich),
        "heic": file_of(picture(), "HEIF", **rich),
        "heic alpha": file_of(picture("RGBA"), "HEIF"),
        "avif grid": tiled(avif_item(picture().resize((64, 64))), 2, b"avif"),
        "heic grid": tiled(heic_item(), 2),
        "heic overlay": layered(heic_item(), 2, 2),
        "heic copy, turned": heif(b"heic", 2, heic_item(), Item(b"iden", (SIDE_PX,) * 2, b"", (1,), (TURN,))),
        "gif": file_of(palette, "GIF", transparency=3),
        "bmp": file_of(picture(), "BMP"),
        "bmp 1 bit": file_of(picture("1"), "BMP"),
        "bmp 32 bit": file_of(picture("RGBA"), "BMP"),
        "bmp runs": bmp_of_runs(SIDE_PX, SIDE_PX, runs()),
        "bmp runs 4 bit": bmp_of_runs(SIDE_PX, SIDE_PX, runs(), bits=4),
        "tiff": file_of(picture(), "TIFF", **rich),
        "tiff cmyk": file_of(cmyk, "TIFF", icc_profile=cmyk_profile()),
        "tiff tiles": tiff(tiles, bytes(range(256)) * 16),
        "tiff big": tiff(grey(64, 64, 4096), bytes(range(256)) * 16, big=True),
        "tiff other order": tiff(grey(64, 64, 4096), bytes(range(256)) * 16, order=">"),
        "tiff 16 bit": file_of(Image.fromarray(sixteen), "TIFF"),
        "tiff float": file_of(Image.fromarray(np.float32(sixteen / 65535)), "TIFF"),
        "tiff palette": file_of(palette, "TIFF"),
        "tiff planar": _planar(),
        "tiff bilevel": file_of(picture("1"), "TIFF", compression="group4"),
        "tiff strips": file_of(picture(), "TIFF", strip_size=SIDE_PX * 3),
    }
    for bits in (1, 2, 4, 16):
        files[f"png grey {bits} bit"] = png(SIDE_PX, SIDE_PX, bits, 0, noise(bits, 1))
    files["png 16 bit"] = png(SIDE_PX, SIDE_PX, 16, 2, noise(16, 3))
    for compression in ("lzw", "adobe_deflate", "jpeg"):
        files[f"tiff {compression}"] = file_of(picture(), "TIFF", compression=f"tiff_{compression}")
    sixteen_bits = np.asarray(picture("RGBA")).astype(np.uint16) * 257
    rgba: dict[str, Any] = {"photometric": "rgb", "extrasamples": ["unassalpha"], "metadata": None}
    for name, options in {
        "planar 16 bit": {"planarconfig": "separate"},
        "tiles 16 bit": {"planarconfig": "contig", "tile": (16, 32), "compression": "lzw", "predictor": True},
        "zstd 16 bit": {"planarconfig": "separate", "compression": "zstd", "byteorder": ">"},
    }.items():
        file = io.BytesIO()
        planes = np.moveaxis(sixteen_bits, 2, 0) if options["planarconfig"] == "separate" else sixteen_bits
        tifffile.imwrite(file, planes, **rgba, **options)
        files[f"tiff {name}"] = file.getvalue()
    files["tiff packbits"] = file_of(picture(), "TIFF", compression="packbits")
    return files


def _interlaced() -> bytes:
    """Adam7: seven pictures in one."""
    rows = b""
    for x, y, across, down in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        width = len(range(x, SIDE_PX, across))
        rows += b"".join(b"\0" + bytes((i * 5 + j) % 256 for j in range(width)) for i in range(y, SIDE_PX, down))
    data = bytearray(png(SIDE_PX, SIDE_PX, 8, 0, rows))
    data[28] = 1
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def _planar() -> bytes:
    planes = bytes(range(256)) * 16 * 3
    lists = 3 * 4
    tags = grey(64, 64, 4096, photometric=2) | {277: 3, 284: 2, 258: (SHORT, 3, BODY - len(planes) - 2 * lists)}
    tags |= {273: (LONG, 3, BODY - len(planes)), 279: (LONG, 3, BODY - len(planes) - lists)}
    at = len(tiff(tags))
    lists_ = struct.pack("<3I", *(at + 4096 * i for i in range(3))) + struct.pack("<3I", *[4096] * 3)
    return tiff(tags, planes + lists_ + struct.pack("<3H", 8, 8, 8))


@dataclass(frozen=True)
class Hostile:
    """A file, made on demand since some are large, and how it ends: by which error, or, if None, as a picture."""

    make: Callable[[], bytes]
    ends: type[BackgroundRemoverError] | None


def _jpeg(*segments: bytes, **parameters: Any) -> bytes:
    """A JPEG with segments ahead of its own."""
    start, *rest = jpeg_segments(file_of(picture(), "JPEG", **parameters))
    return start + b"".join(segments) + b"".join(rest)


def _png(*chunks: bytes) -> bytes:
    return png(SIDE_PX, SIDE_PX, 8, 0, noise(8, 1), *chunks)


def _exif_png(*entries: tuple[int, int, int, int], following: int = 0, more: bytes = b"") -> bytes:
    return _png(png_chunk(b"eXIf", exif(*entries, following=following) + more))


def _icc_png(profile: bytes) -> bytes:
    return _png(png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(profile)))


def _gif(*blocks: bytes) -> bytes:
    data = file_of(picture().quantize(16), "GIF")
    at = 13 + 3 * (2 << (data[10] & 7))
    return data[:at] + b"".join(blocks) + data[at:]


def _frames(name: str, count: int = 2, **parameters: Any) -> bytes:
    frames = [Image.new("RGB", (32, 32), (120 * i % 256, 60, 90)) for i in range(count)]
    return file_of(frames[0], name, save_all=True, append_images=frames[1:], **parameters)


def _directories(count: int) -> bytes:
    """A TIFF of which each directory points to the next one."""
    tags = grey(64, 64, 4096)
    size = len(tiff(tags)) - 8
    data = bytearray(tiff(tags, bytes(4096)))
    at = len(data)
    data[8 + size - 4 : 8 + size] = struct.pack("<I", at)
    one = bytes(data[8 : 8 + size - 4])
    for i in range(count):
        data += one + struct.pack("<I", at + size * (i + 1) if i + 1 < count else 0)
    return bytes(data)


def _deflated_tiff(side: int, tile: int | None = None) -> bytes:
    packed = _bomb(1024)
    tags = grey(side, side, len(packed), compression=8)
    if tile:
        tags = {k: v for k, v in tags.items() if k not in (273, 278, 279)}
        tags |= {322: tile, 323: tile, 324: BODY, 325: len(packed)}
    return tiff(tags, packed)


def _bomb(mebibytes: int) -> bytes:
    """Return a zlib stream of zeros. One mebibyte is deflated, and its block repeated: deflating 1 GB takes seconds."""
    stream = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    block = stream.compress(bytes(1 << 20)) + stream.flush(zlib.Z_FULL_FLUSH)
    header, last_block, adler32 = b"\x78\xda", b"\x03\0", ((mebibytes << 20) % 65521) << 16 | 1
    return header + block * mebibytes + last_block + struct.pack(">I", adler32)


def _scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    *parts, last, end = jpeg_segments(file_of(picture(), "JPEG", progressive=True))
    return b"".join(parts) + last * count + end


def _lying_frame(width: int, height: int, components: int | None = None) -> bytes:
    data = bytearray(file_of(picture(), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    if components is not None:
        data[at + 4] = components
    return bytes(data)


def _two_frames() -> bytes:
    parts = jpeg_segments(file_of(picture(), "JPEG"))
    [at] = [i for i, part in enumerate(parts) if part[:2] == b"\xff\xc0"]
    large = bytearray(parts[at])
    large[5:9] = struct.pack(">HH", 60_000, 60_000)
    return b"".join([*parts[:at], bytes(large), *parts[at:]])


def _archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("index.html", "<script>alert(1)</script>")
    return buffer.getvalue()


def _webp_canvas(width: int, height: int) -> bytes:
    data = bytearray(file_of(picture("RGBA"), "WEBP"))
    data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


def _webp_after(chunk: bytes, count: int) -> bytes:
    data = file_of(picture("RGBA"), "WEBP") + chunk * count
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


def _with_properties(item: Item, *properties: bytes) -> bytes:
    return heif(b"heic", 1, replace(item, properties=(*item.properties, *properties)))


def _repeated(item: Item, pictures: int, brand: bytes = b"heic") -> bytes:
    return heif(brand, 1, replace(item, data=item.data * pictures))


def _flooded(images: int) -> bytes:
    """Small images, each of the same 4 MB of empty units. What the first ones hold is appended to the last."""
    item = heic_item()
    flood = replace(item, data=item.data + bytes(4_000_000 // images))
    numbers = tuple(range(1, images + 1))
    whole = Item(b"iovl", item.size, overlay(*item.size, images), numbers)
    return heif(b"heic", images + 1, *[replace(flood, extents=4)] * images, whole)


def _gif_screen(width: int, height: int) -> bytes:
    data = bytearray(_gif())
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def _bmp(width: int, height: int, **more: int) -> bytes:
    data = bytearray(file_of(picture(), "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    if "bits" in more:
        data[28:30] = struct.pack("<H", more["bits"])
    if "compression" in more:
        data[30:34] = struct.pack("<I", more["compression"])
    return bytes(data)


def _isobmff(name: str, width: int, height: int) -> bytes:
    """AVIF and HEIC say their size in a box of its own, ``ispe``."""
    data = bytearray(file_of(picture(), name))
    at = data.index(b"ispe") + 8
    data[at : at + 8] = struct.pack(">II", width, height)
    return bytes(data)


def _bad_crc(name: bytes) -> bytes:
    data = bytearray(file_of(picture(), "PNG"))
    at = data.index(name)
    data[at + 4 + int.from_bytes(data[at - 4 : at], "big")] ^= 0xFF
    return bytes(data)


def _truncated_after_scans() -> dict[str, Hostile]:
    parts = jpeg_segments(file_of(picture(), "JPEG", progressive=True))
    scans = [i for i, part in enumerate(parts) if part[1] == 0xDA]
    return {
        f"jpeg progressive, ends after scan {k + 1} of {len(scans)}": Hostile(
            partial(b"".join, parts[: at + 1]), CorruptImageError if at < scans[-1] else None
        )
        for k, at in enumerate(scans)
    }


def _truncated_after_parts() -> dict[str, Hostile]:
    files: dict[str, Hostile] = {}
    for name, data in (("jpeg", _jpeg()), ("png", _png())):
        ends = (
            [len(b"".join(jpeg_segments(data)[:i])) for i in range(2, len(jpeg_segments(data)) - 1)]
            if name == "jpeg"
            else []
        )
        if name == "png":
            at = 8
            while at < len(data) - 12:
                ends.append(at)
                at += 12 + int.from_bytes(data[at : at + 4], "big")
        files |= {f"{name}, ends at byte {end}": Hostile(partial(bytes, data[:end]), CorruptImageError) for end in ends}
    return files


def hostile() -> dict[str, Hostile]:
    """Every named hostile file."""
    refused = {
        CorruptImageError: _corrupt(),
        TooManyPixelsError: {
            "png of 60,000 x 60,000": lambda: png(60_000, 60_000, 8, 2, b""),
            "png of 2**31 x 48": lambda: png(2**31, 48, 8, 0, b""),
            "png of 2**31 - 1 a side": lambda: png(2**31 - 1, 2**31 - 1, 8, 2, b""),
            "jpeg of 60,000 x 60,000": lambda: _lying_frame(60_000, 60_000),
            "webp of 16,384 x 16,384": lambda: _webp_canvas(16_384, 16_384),
            "webp of 2**24 a side": lambda: _webp_canvas(2**24, 2**24),
            "avif that says 60,000 x 60,000": lambda: _isobmff("AVIF", 60_000, 60_000),
            "heic that says 60,000 x 60,000": lambda: _isobmff("HEIF", 60_000, 60_000),
            "gif of 65,535 x 65,535": lambda: _gif_screen(65_535, 65_535),
            "bmp of 60,000 x 60,000": lambda: _bmp(60_000, 60_000),
            "bmp of 2**31 - 1 a side": lambda: _bmp(2**31 - 1, -(2**31) + 1),
            "tiff of 60,000 x 60,000": lambda: tiff(grey(60_000, 60_000, 4096), bytes(4096)),
            "tiff of 2**32 - 1 a side": lambda: tiff(grey(2**32 - 1, 2**32 - 1, 4096), bytes(4096)),
            "tiff with 64-bit offsets of 2**40 a side": lambda: tiff(grey(2**40, 2**40, 4096), bytes(4096), big=True),
            "tiff of 12,000 x 12,000, deflated": lambda: _deflated_tiff(12_000),
        },
        ImageTooSmallError: {
            "png of 60,000 x 1": lambda: png(60_000, 1, 8, 0, b"\0" + bytes(60_000)),
            "png of 1 x 60,000": lambda: png(1, 60_000, 8, 0, b"\0\0" * 60_000),
            "jpeg of 60,000 x 1": lambda: file_of(Image.new("RGB", (60_000, 1)), "JPEG"),
            "gif of 1 x 60,000": lambda: file_of(Image.new("P", (1, 60_000)), "GIF"),
            "tiff of 1 x 60,000, a strip a row": lambda: file_of(Image.new("L", (1, 60_000)), "TIFF", strip_size=1),
        },
        AnimatedImageError: {
            "gif, 300 frames": lambda: _frames("GIF", 300),
            "webp, animated": lambda: _frames("WEBP", duration=40),
            "png, animated": lambda: _frames("PNG"),
            "avif, animated": lambda: _frames("AVIF"),
            "tiff of 20,000 directories": lambda: _directories(20_000),
        },
        EmptyImageError: {"no bytes": lambda: b""},
        UnsupportedFormatError: {
            "pdf with a jpeg behind": lambda: b"%PDF-1.7\n" + _jpeg(),
            "zip": _archive,
            "svg with entities": lambda: b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY a "&a;&a;">]><svg>&a;</svg>',
            "html": lambda: b"<!doctype html><script>alert(1)</script>",
            "text": lambda: b"no picture " * 1000,
            "NUL bytes": lambda: bytes(100_000),
            "NUL bytes ahead of a jpeg": lambda: bytes(8) + _jpeg(),
            "brands without end": lambda: b"\xff\xff\xff\xf0ftyp" + b"abcd" * 100_000,
            "32-bit integers": lambda: file_of(Image.fromarray(np.zeros((64, 64), np.int32)), "TIFF"),
        },
    }
    named = {name: Hostile(make, error) for error, files in refused.items() for name, make in files.items()}
    named |= {name: Hostile(make, None) for name, make in _harmless().items()}
    return named | _truncated_after_scans() | _truncated_after_parts()


def _corrupt() -> dict[str, Callable[[], bytes]]:
    """Bombs, floods and lies."""
    empty_idat = png_chunk(b"IDAT", b"")
    return {
        "png, a flood of wrong checksums": lambda: _png((png_chunk(b"prVt", b"")[:-4] + bytes(4)) * (_CROWD // 12)),
        "png, a flood of chunks": lambda: _png(png_chunk(b"prVt", b"") * (_CROWD // 12)),
        "png, a flood of empty pixels": lambda: png_around(SIDE_PX, SIDE_PX, 8, 0, empty_idat * (_CROWD // 12)),
        "png, pixels for a tenth of its rows": lambda: png(SIDE_PX, 10 * SIDE_PX, 8, 0, noise(8, 1)),
        "heic of overlays of overlays": lambda: layered(heic_item(Image.new("RGB", (1000, 1000))), 5, 3),
        "heic of 20 copies of copies": lambda: heif(
            b"heic", 21, heic_item(), *(Item(b"iden", (SIDE_PX,) * 2, b"", (i,)) for i in range(1, 21))
        ),
        "heic, turned 110 times": lambda: _with_properties(heic_item(Image.new("RGB", (1000, 1000))), *[TURN] * 110),
        "heic, 1,000 pictures in an image": lambda: _repeated(heic_item(), 1000),
        "heic of its own overlay": lambda: heif(
            b"heic", 2, heic_item(), Item(b"iovl", (SIDE_PX,) * 2, overlay(SIDE_PX, SIDE_PX, 2), (1, 2))
        ),
        "heic, an overlay on a canvas of 1 GP": lambda: heif(
            b"heic", 2, heic_item(), Item(b"iovl", (SIDE_PX,) * 2, overlay(32_000, 32_000, 1), (1,))
        ),
        "heic, a small overlay of 64 MP": lambda: heif(
            b"heic",
            2,
            heic_item(Image.new("RGB", (8000, 8000))),
            Item(b"iovl", (SIDE_PX,) * 2, overlay(SIDE_PX, SIDE_PX, 1), (1,)),
        ),
        "heic, metadata of a type that is no text": lambda: file_of(
            picture(), "HEIF", exif=b"Exif\0\0" + exif()
        ).replace(b"\0\0Exif\0\0\0\0\x0epitm", b"\0\0E\x80\0\0\0\0\0\x0epitm"),
        "heic, its bytes 60,000 times": lambda: heif(b"heic", 1, replace(heic_item(), extents=60_000)),
        "heic, a box of 2**63 bytes": lambda: heif(b"heic", 1, heic_item()) + b"\0\0\0\1meta\x80" + bytes(7),
        "avif, 1,000 pictures in an image": lambda: _repeated(avif_item(), 1000, b"avif"),
        "heic of 1,000 images of the same floods of units": lambda: _flooded(1_000),
        "avif, its bytes 60,000 times": lambda: heif(b"avif", 1, replace(avif_item(), extents=60_000)),
        "png of 16 bits, pixels that inflate to 1 GB": lambda: png_around(
            SIDE_PX, SIDE_PX, 16, 0, png_chunk(b"IDAT", _bomb(1024))
        ),
        "png, wrong checksum of header": lambda: _bad_crc(b"IHDR"),
        "png, wrong checksum of pixels": lambda: _bad_crc(b"IDAT"),
        "png of 0 x 48": lambda: png(0, 48, 8, 0, b""),
        "jpeg of 48 x 0": lambda: _lying_frame(48, 0),
        "jpeg, 1 component of 3": lambda: _lying_frame(48, 48, 1),
        "jpeg, 255 components": lambda: _lying_frame(48, 48, 255),
        "jpeg of two frames": _two_frames,
        "jpeg, 10,000 scans": lambda: _scans(10_000),
        "jpeg of 100 MP, 10,000 scans of nothing": lambda: scans_of_nothing(10_000, 10_000),
        "jpeg, a flood of segments": lambda: _jpeg(segment(0xE5, b"") * (_CROWD // 4)),
        "jpeg, a flood of EXIF data": lambda: _jpeg(segment(0xE1, b"Exif\0\0" + bytes(65_000)) * (_CROWD // 65_010)),
        "jpeg, a flood of fill bytes": lambda: _jpeg(b"\xff" * _CROWD),
        "gif, a flood of comments": lambda: _gif(b"\x21\xfe\1a\0" * (_CROWD // 5)),
        "gif, a comment in single bytes": lambda: _gif(b"\x21\xfe" + b"\1a" * (_CROWD // 2) + b"\0"),
        "bmp of 0 x 48": lambda: _bmp(0, 48),
        "bmp, a flood of runs": lambda: bmp_of_runs(7000, 7000, b"\1\x35" * (_CROWD // 2)),
        "bmp, runs that never end": lambda: _bmp(9000, 9000, bits=8, compression=1),
        "tiff, 49 million bit depths": lambda: tiff(
            grey(64, 64, 4096) | {258: (SHORT, _CROWD // 2, BODY)}, b"\x08\0" * (_CROWD // 2)
        ),
        "tiff, 24 million strips": lambda: tiff(
            grey(64, 64, 4096) | {273: (LONG, _CROWD // 4, BODY), 279: (LONG, _CROWD // 4, BODY)}, bytes(_CROWD)
        ),
        "tiff of one tile of 2**30 x 2**30": lambda: _deflated_tiff(64, tile=2**30),
        "tiff, a strip far away": lambda: tiff(grey(64, 64, 4096) | {273: 2**32 - 1}, bytes(4096)),
        "tiff, a directory far away": lambda: b"II*\0\xff\xff\xff\xf0" + bytes(100),
        "tiff with 64-bit offsets, a directory far away": lambda: b"II+\0\x08\0\0\0" + b"\xff" * 8 + bytes(100),
        "tiff with 64-bit offsets, 2**64 - 1 tags": lambda: (
            b"II+\0\x08\0\0\0\x10" + bytes(7) + b"\xff" * 8 + bytes(100)
        ),
    }


def _harmless() -> dict[str, Callable[[], bytes]]:
    """What looks dangerous, and is a picture."""
    far = 0xFFFFFFF0
    orientations = {
        f"EXIF orientation {value}": partial(_exif_png, (ORIENTATION, SHORT, 1, value)) for value in (0, 9, 65_535)
    }
    first = 8  # the offset of the first directory
    return orientations | {
        "EXIF orientation as text": lambda: _exif_png((ORIENTATION, 2, 4, int.from_bytes(b"six\0", "little"))),
        "EXIF orientation as a list": lambda: _exif_png((ORIENTATION, SHORT, 2, 0x00060006)),
        "EXIF orientation by 0": lambda: _exif_png((ORIENTATION, RATIONAL, 1, 26), more=bytes(8)),
        "EXIF value far away": lambda: _exif_png((ORIENTATION, SHORT, 100, far)),
        "EXIF directory of itself": lambda: _exif_png(
            (34_665, LONG, 1, first), (34_853, LONG, 1, first), following=first
        ),
        "EXIF, 4 billion of each": lambda: _exif_png(
            *((tag, LONG, 2**32 - 1, first) for tag in (256, ORIENTATION, 34_665))
        ),
        "EXIF, 49 million orientations": lambda: _exif_png((ORIENTATION, SHORT, _CROWD // 2, 26), more=bytes(_CROWD)),
        "EXIF in a jpeg, far away": lambda: _jpeg(segment(0xE1, b"Exif\0\0" + exif((X_RESOLUTION, RATIONAL, 1, far)))),
        "ICC of no profile": lambda: _icc_png(b"no profile"),
        "ICC of wrong size": lambda: _icc_png(b"\xff\xff\xff\xff" + DISPLAY_P3[4:]),
        "ICC cut short": lambda: _icc_png(DISPLAY_P3[:200]),
        "ICC of CMYK on RGB": lambda: file_of(picture(), "PNG", icc_profile=cmyk_profile()),
        "ICC of CMYK on RGB, jpeg": lambda: _jpeg(icc_profile=cmyk_profile()),
        "ICC with curves of nothing": lambda: _icc_png(profile_with(rTRC=b"curv\0\0\0\0\xff\xff\xff\xff")),
        "ICC of a million tags": lambda: _icc_png(DISPLAY_P3[:128] + b"\0\x0f\xff\xff" + DISPLAY_P3[132:]),
        "ICC of 4,000 processing elements": lambda: _icc_png(profile_of_elements(4_000)),
        "heic of 200 images": lambda: heif(b"heic", 1, *[heic_item()] * 200, hidden=False),
        "avif of 25 MP that says 48 x 48": lambda: heif(
            b"avif", 1, replace(avif_item(Image.new("RGB", (5000, 5000))), size=(SIDE_PX, SIDE_PX))
        ),
        "webp, a flood of chunks": lambda: _webp_after(b"junk" + bytes(4), _CROWD // 8),
        "tiff, 24 million sub-IFDs": lambda: tiff(
            grey(64, 64, 4096) | {SUB_IFDS: (LONG, _CROWD // 4, BODY)}, b"\x08\0\0\0" * (_CROWD // 4)
        ),
        "jpeg, a flood of Photoshop's resources": lambda: _jpeg(
            segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0" * 5000) * (_CROWD // 60_020)
        ),
        "ICC in a jpeg, one part of two": lambda: _jpeg(segment(0xE2, b"ICC_PROFILE\0\1\2" + DISPLAY_P3)),
        "jpeg, 100 MP of 10 scans of nothing": lambda: scans_of_nothing(10_000, 10),
        "jpeg with 2,000 restarts": lambda: file_of(Image.new("L", (800, 160)), "JPEG", restart_marker_blocks=1),
        "jpeg with a flood of restarts": lambda: _jpeg()[:-2] + b"\xff\xd0" * 1_000_000 + b"\xff\xd9",
        "jpeg and zip": lambda: _jpeg() + _archive(),
        "jpeg with a film behind": lambda: _jpeg() + np.random.default_rng(0).bytes(20_000_000),
        "jpeg with 90 MB of comments": lambda: _jpeg(segment(0xFE, bytes(65_000)) * 1_400),
        "bmp, a run for each pixel of 900 x 700": lambda: bmp_of_runs(900, 700, (b"\1\x35" * 900 + b"\0\0") * 700),
        "gif and script": lambda: _gif(b"\x21\xfe\x20*/=1;/*" + bytes(25) + b"\0") + b"*/=1;alert(1)//",
        "gif of a screen smaller than its picture": lambda: _gif_screen(16, 16),
        "png with trailing data": lambda: _png() + bytes(1_000_000),
        "png, pixels that inflate to 1 GB": lambda: png_around(SIDE_PX, SIDE_PX, 8, 0, png_chunk(b"IDAT", _bomb(1024))),
        "png, iCCP of 200 MB": lambda: _png(png_chunk(b"iCCP", b"icc\0\0" + _bomb(200))),
        "png, 500 profiles of 1 MB": lambda: _png(
            *[png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(900_000)))] * 500
        ),
        "png, zTXt of 200 MB": lambda: _png(png_chunk(b"zTXt", b"k\0\0" + _bomb(200))),
        "png, iTXt of 200 MB": lambda: _png(png_chunk(b"iTXt", b"k\0\1\0\0\0" + _bomb(200))),
        "png, 100 zTXt of 1 MB each": lambda: _png(
            *(png_chunk(b"zTXt", b"k%d\0\0" % i + _bomb(1)) for i in range(100))
        ),
        "png, XMP of 200 MB": lambda: _png(png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + _bomb(200))),
        "png, a flood of wrong lengths": lambda: _png((b"\x3f" + png_chunk(b"prVt", b"")[1:]) * (_CROWD // 12)),
        "png, wrong length of text": lambda: _png(b"\x3f" + png_chunk(b"tEXt", b"k\0text")[1:]),
        "png, zTXt of 1 MB": lambda: _png(png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1_000_000)))),
        "png of 16 x 6,000,000": lambda: png(16, 6_000_000, 1, 0, b"\0\0\0" * 6_000_000),
        "png of 100 MP in 100 kB": lambda: png(10_000, 10_000, 8, 0, bytes(10_001 * 10_000)),
        "tiff, 12 million resolutions": lambda: tiff(
            grey(64, 64, 4096) | {X_RESOLUTION: (RATIONAL, _CROWD // 8, BODY)}, bytes(_CROWD)
        ),
        "tiff, deflated, of 1 GB in a strip": lambda: _deflated_tiff(9_000),
        "tiff, 9,000 strips": lambda: file_of(Image.new("L", (64, 9_000)), "TIFF", strip_size=64),
        "tiff of its own directory": lambda: (
            tiff(grey(64, 64, 4096), bytes(4096))[:-4100] + b"\x08\0\0\0" + bytes(4096)
        ),
    }
