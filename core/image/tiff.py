"""TIFF: find the main page, and read its samples as stored.

TIFF combines layouts, depths, compressions, byte orders and meanings of samples freely; each combination is either read
exactly or refused by name. Pillow reads uncompressed planar 16-bit samples as noise and does not know CMYK with alpha,
gray of 16 bits with alpha and others. So Pillow's libtiff only decompresses, and everything else is done here. Pillow
reads the compressions that decode to colors: fax and JPEG.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from zlib_ng import zlib_ng

from core.errors import UnsupportedFormatError
from core.image import guards
from core.image.light import SRGB_PRIMARIES, Curve, Light, of_gamma
from core.image.sniff import animated

_Rows = Callable[[int, int], NDArray[np.uint8]]
"""Returns decompressed rows from one row to another, n x bytes per row."""

_MAX_PAGES, _MAX_TAGS = 64, 65_535
_BAND_PIXELS: Final = 2_000_000
_GROUP_BYTES: Final = 16 << 20
_PADDING: Final = 4
"""Tiles may cover this many times the image's pixels, beyond 4 MP."""

_MIN_TILE_PX: Final = 16
"""Sides of a tile are multiples of it, by the standard."""

_MOST_GROWTH, _MOST_OVERHEAD_BYTES = 2, 256
"""No strip or tile grows more than this by compression. Without a bound, each of a million could be the whole file."""

_MOST_STRIPS: Final = 4096
"""Strips that are decompressed at a time."""

# Tags, as TIFF 6.0 names and numbers them.
_SUBFILE_TYPE, _OLD_SUBFILE_TYPE, _WIDTH, _HEIGHT, _BITS = 254, 255, 256, 257, 258
_COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _ORIENTATION, _SAMPLES, _PLANAR = 259, 262, 266, 274, 277, 284
_STRIP_OFFSETS, _STRIP_ROWS, _STRIP_BYTES = 273, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES = 322, 323, 324, 325
_PREDICTOR, _COLOR_MAP, _INK_SET, _DOT_RANGE, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 317, 320, 332, 336, 338, 339
_TRANSFER_FUNCTION, _WHITE_POINT, _PRIMARIES, _ICC = 301, 318, 319, 34675

_REDUCED_OR_MASK: Final = 1 | 4
_OLD_REDUCED: Final = 2

_UNCOMPRESSED, _PACKBITS = 1, 32773
_LOSSLESS: Final = {5: "LZW", 8: "Deflate", 32946: "Deflate", 34925: "LZMA", 50000: "Zstandard"}
_DEFLATE: Final = {8, 32946}
_OLD_JPEG, _JPEG = 6, 7
_FAX: Final = {2, 3, 4}

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_MODES: Final = {
    _WHITE_IS_ZERO: "L",
    _BLACK_IS_ZERO: "L",
    _RGB: "RGB",
    _PALETTE: "RGB",
    _CMYK: "CMYK",
    _YCBCR: "YCbCr",
    _LAB: "LAB",
}
_COLORS: Final = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3, _LAB: 3}
_FOREIGN: Final = {
    4: "a transparency mask",
    9: "ICC L*a*b*",
    10: "ITU L*a*b*",
    32803: "raw data of a camera",
    34892: "raw data of a camera",
}

_JPEG_LAYOUTS: Final = {
    (_WHITE_IS_ZERO, 1, False),
    (_BLACK_IS_ZERO, 1, False),
    (_BLACK_IS_ZERO, 2, False),
    *product([_RGB], [3, 4], [False, True]),
    *product([_CMYK], [4], [False, True]),
    *product([_YCBCR], [3], [False, True]),
}
"""What Pillow reads right from JPEG: photometric interpretation, samples, planar."""

_UNSPECIFIED, _PREMULTIPLIED, _STRAIGHT, _COREL_STRAIGHT = 0, 1, 2, 999
_UNSIGNED, _SIGNED, _FLOAT, _UNTYPED = 1, 2, 3, 4
_SHORT: Final = 3

_REVERSED: Final = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1)[:, 0]


class Band(NamedTuple):
    """Some rows of a page.

    Attributes:
        top: first row.
        pixels: n x W x channels uint8 or uint16, straight, 0 to the type's largest value; gray is 0 for black. L*a*b*
            is uint8, with a* and b* in two's complement.
        alpha: n x W, of the same type and range, or None.
    """

    top: int
    pixels: NDArray[Any]
    alpha: NDArray[Any] | None


@dataclass(frozen=True)
class Page:
    """The main page of a TIFF, found to have a supported layout.

    Attributes:
        number: position in the chain of pages, from 0.
        width: columns as stored, not yet upright.
        height: rows as stored.
        extra: kinds of the samples beyond the colors (``ExtraSamples``).
        planar: whether each sample has a plane of its own.
    """

    data: bytes
    order: str
    tags: ImageFileDirectory_v2
    number: int
    width: int
    height: int
    bits: int
    samples: int
    extra: tuple[int, ...]
    photometric: int
    compression: int
    planar: bool
    floating: bool

    @property
    def mode(self) -> str:
        """``L``, ``RGB``, ``CMYK``, ``LAB`` or ``YCbCr``."""
        return _MODES[self.photometric]

    @property
    def orientation(self) -> int:
        """EXIF orientation, 1 to 8."""
        return self._orientation if self._orientation in range(1, 9) else 1

    @property
    def _orientation(self) -> Any:
        stored = self.tags.get(_ORIENTATION, 1)
        return stored[0] if isinstance(stored, tuple | bytes) and stored else stored

    @property
    def icc(self) -> bytes | None:
        """The color profile."""
        profile = self.tags.get(_ICC)
        return profile if isinstance(profile, bytes) else None

    def light(self) -> Light | None:
        """Return the encoding that ``TransferFunction`` and ``PrimaryChromaticities`` declare, or None for sRGB.

        Raises:
            ValueError, TypeError: the numbers are no curve or no colors.
        """
        if self.photometric not in {_BLACK_IS_ZERO, _RGB}:
            return None
        white, primaries = (tuple(map(float, self.tags.get(tag, ()))) for tag in (_WHITE_POINT, _PRIMARIES))
        chromaticities = (*(white or SRGB_PRIMARIES[:2]), *primaries) if primaries else None
        numbers, levels = _numbers(self.tags, _TRANSFER_FUNCTION), 1 << self.bits
        if not numbers:
            return of_gamma(None, chromaticities) if self.photometric == _RGB else None
        if len(numbers) not in {levels, 3 * levels}:
            raise ValueError(f"a transfer function of {len(numbers)} numbers")
        tables = [numbers[at : at + levels] for at in range(0, len(numbers), levels)]
        curves = [Curve(tag=struct.pack(f">4s4xI{levels}H", b"curv", levels, *table)) for table in tables]
        if self.photometric == _BLACK_IS_ZERO:
            return Light((curves[0],))
        linear = of_gamma(1.0, chromaticities)
        return linear and replace(linear, curves=(curves[0], curves[len(curves) // 2], curves[-1]))

    @property
    def predictor(self) -> int:
        """How samples were subtracted from each other before the compression, which others than these ignore."""
        return _number(self.tags, _PREDICTOR, 1) if self.compression in _LOSSLESS else 1

    @property
    def by_pillow(self) -> bool:
        """Whether Pillow must read this page, because its compression decodes to colors."""
        return self.photometric == _YCBCR or self.compression in {*_FAX, _OLD_JPEG, _JPEG}

    @property
    def alpha(self) -> int | None:
        """Position of the alpha among a pixel's samples."""
        for at, kind in enumerate(self.extra, _COLORS[self.photometric]):
            if kind != _UNSPECIFIED:
                return at
        return None

    @property
    def dots(self) -> tuple[int, int] | None:
        """The numbers for no ink and full ink (``DotRange``), or None for 0 and the largest."""
        first, last = (*_numbers(self.tags, _DOT_RANGE), 0, 255)[:2] if self.photometric == _CMYK else (0, 255)
        return None if first == 0 and last in {255, 65535, (1 << self.bits) - 1} else (first, last)

    @property
    def used(self) -> list[int]:
        """Positions of the samples that are not ignored: the colors, and then the alpha."""
        return [*range(_COLORS[self.photometric]), *([] if self.alpha is None else [self.alpha])]

    @property
    def premultiplied(self) -> bool:
        """Whether colors are stored multiplied by alpha."""
        return self.alpha is not None and self.extra[self.alpha - self.samples] == _PREMULTIPLIED

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is ignored, one sentence each."""
        found = []
        if ignored := len(self.extra) - (self.alpha is not None):
            found.append(
                f"The TIFF has {ignored} extra channel{'s' if ignored > 1 else ''} of no declared meaning "
                "(ExtraSamples 0), ignored. If it is transparency, save it as alpha."
            )
        if self._orientation not in range(9):
            found.append("The orientation of the TIFF is invalid: the image is taken as upright.")
        if _ICC in self.tags and not self.icc:
            found.append("The color profile of the TIFF is damaged and was ignored.")
        return tuple(found)

    def bands(self) -> Iterator[Band]:
        """Decode the page, some rows at a time.

        Raises:
            UnsupportedFormatError: its numbers have no defined white.
            ValueError: the pixels are damaged or incomplete.
        """
        for top, samples in _samples(self):
            yield _band(self, top, samples)


def read(data: bytes) -> Page:
    """Find the main page of a TIFF and check its layout.

    Reduced versions and transparency masks (``NewSubfileType``) are no pages of their own.

    Raises:
        UnsupportedFormatError: the layout is not supported, or all pages are reduced versions.
        AnimatedImageError: there are several pages.
        ValueError, struct.error: the directory is damaged.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in {b"+\0", b"\0+"}
    number, offset = _main(data, order, big)
    header = b"II+\0".ljust(16, b"\0") if big else b"II*\0".ljust(8, b"\0")  # Pillow misreads that of "MM" with 64 bits
    tags = ImageFileDirectory_v2(header, prefix=data[:2])
    reader = guards.BoundedReader(data)
    reader.seek(offset)
    tags.load(reader)
    page = _page(data, order, tags, number)
    _check(page)
    return page


def _main(data: bytes, order: str, big: bool) -> tuple[int, int]:
    """Return the number and the offset of the only page that is neither a reduced version nor a mask."""
    offset = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    seen: list[int] = []
    main: tuple[int, int] | None = None
    while offset and offset not in seen:
        if len(seen) == _MAX_PAGES:
            raise ValueError(f"more than {_MAX_PAGES} pages")
        try:
            is_main, following = _kind(data, offset, order, big)
        except (struct.error, ValueError):
            if not main:
                raise
            break  # damage behind the image
        if is_main and main:
            raise animated()
        if is_main:
            main = len(seen), offset
        seen.append(offset)
        offset = following
    if not main:  # a camera's raw file is a TIFF whose pages are previews
        raise UnsupportedFormatError(
            "The TIFF has reduced versions of an image only, as a camera's raw file does",
            field="image.format",
            value="tiff",
            remedy="Develop the raw file to JPEG or TIFF.",
        )
    return main


def _kind(data: bytes, offset: int, order: str, big: bool) -> tuple[bool, int]:
    """Return whether a directory is of a main page, and the next directory's offset.

    Only two tags are read: loading all of a chain's directories could read the file once per directory.
    """
    head, entry, following = (f"{order}{one}" for one in (("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")))
    count = struct.unpack_from(head, data, offset)[0]
    start = offset + struct.calcsize(head)
    end = start + count * struct.calcsize(entry)
    if count > _MAX_TAGS or end > len(data):
        raise ValueError(f"a directory of {count} tags at byte {offset}")
    is_main, found = True, set()
    for tag, kind, _, field in struct.iter_unpack(entry, data[start:end]):
        if tag in {_SUBFILE_TYPE, _OLD_SUBFILE_TYPE} and tag not in found:
            found.add(tag)
            value = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), field)[0]
            is_main &= not (value & _REDUCED_OR_MASK if tag == _SUBFILE_TYPE else value == _OLD_REDUCED)
    return is_main, struct.unpack_from(following, data, end)[0] if end + 4 <= len(data) else 0


def _number(tags: ImageFileDirectory_v2, tag: int, default: int | None = None) -> int:
    values = _numbers(tags, tag)
    value = values[0] if values else default
    if value is None or value < 0:
        raise ValueError(f"tag {tag} is {value}")
    return value


def _numbers(tags: ImageFileDirectory_v2, tag: int) -> tuple[int, ...]:
    value = tags.get(tag, ())
    value = value if isinstance(value, tuple | bytes) else (value,)  # numbers of type BYTE are bytes
    if not all(isinstance(one, int) for one in value):
        raise ValueError(f"tag {tag} has other values than integers")
    return tuple(value)


def _page(data: bytes, order: str, tags: ImageFileDirectory_v2, number: int) -> Page:
    """Gather the tags that say how samples are stored."""
    compression = _number(tags, _COMPRESSION, _UNCOMPRESSED)
    photometric = _YCBCR if compression == _OLD_JPEG else _photometric(tags, compression)
    if photometric not in _COLORS:
        raise _refused(_FOREIGN.get(photometric, f"of PhotometricInterpretation {photometric}"))
    jpeg_colors = 3 if compression in {_OLD_JPEG, _JPEG} and photometric in {_RGB, _YCBCR} else 1
    samples = _number(tags, _SAMPLES, jpeg_colors)
    extra_count = samples - _COLORS[photometric]
    if photometric == _YCBCR and samples == 1:
        extra_count, photometric = 0, _BLACK_IS_ZERO
    if not 0 <= extra_count <= 16:
        raise _refused(f"{samples} samples per pixel of PhotometricInterpretation {photometric}")
    extra = _numbers(tags, _EXTRA_SAMPLES)
    if not extra and photometric == _RGB and extra_count == 1:
        extra = (_STRAIGHT,)  # as most readers take it
    extra = (*extra, *[_UNSPECIFIED] * extra_count)[:extra_count]
    bits = set(_numbers(tags, _BITS)[:samples]) or {1}
    formats = set(_numbers(tags, _SAMPLE_FORMAT)[:samples]) or {_UNSIGNED}
    if len(bits) > 1 or len(formats) > 1:
        raise _refused("samples of different types")
    kind = formats.pop()
    if kind not in {_UNSIGNED, _FLOAT, _UNTYPED}:
        raise _refused("signed or complex numbers, for which white is not defined")
    return Page(
        data=data,
        order=order,
        tags=tags,
        number=number,
        width=_number(tags, _WIDTH),
        height=_number(tags, _HEIGHT),
        bits=bits.pop(),
        samples=samples,
        extra=extra,
        photometric=photometric,
        compression=compression,
        planar=_number(tags, _PLANAR, 1) == 2 and samples > 1,
        floating=kind == _FLOAT,
    )


def _photometric(tags: ImageFileDirectory_v2, compression: int) -> int:
    """Return what the samples mean; if the tag is missing, what libtiff takes."""
    if _PHOTOMETRIC in tags:
        return _number(tags, _PHOTOMETRIC)
    if compression in _FAX:
        return _WHITE_IS_ZERO
    colors = _number(tags, _SAMPLES, 1) - len(_numbers(tags, _EXTRA_SAMPLES))
    if compression == _JPEG or colors not in {1, 3}:
        raise _refused(f"of no declared PhotometricInterpretation, {colors} per pixel")
    return _RGB if colors == 3 else _BLACK_IS_ZERO


def _refused(found: str) -> UnsupportedFormatError:
    return UnsupportedFormatError(
        f"The TIFF's pixels are {found}: not supported",
        field="image.format",
        value=f"tiff: {found}",
        remedy="Save it as TIFF in gray, RGB or CMYK of 8 or 16 bits, uncompressed or with LZW or Deflate, or as PNG.",
    )


def _check(page: Page) -> None:
    """Refuse what no code below reads.

    Raises:
        UnsupportedFormatError: the layout is not supported.
    """
    photometric, bits, compression = page.photometric, page.bits, page.compression
    known = {_UNCOMPRESSED, _PACKBITS, *_LOSSLESS, *_FAX, _OLD_JPEG, _JPEG}
    if compression not in known:
        raise _refused(f"of compression {compression}")
    if page.floating:
        if bits not in {16, 32, 64} or page.samples > 1 or photometric not in {_WHITE_IS_ZERO, _BLACK_IS_ZERO}:
            raise _refused(f"floating-point numbers of {bits} bits, {page.samples} per pixel")
    elif bits > 16:
        raise _refused(f"integers of {bits} bits, for which white is not defined")
    if not page.floating and photometric == _LAB and bits not in {8, 16}:
        raise _refused(f"L*a*b* of {bits} bits")
    if photometric == _CMYK and _number(page.tags, _INK_SET, 1) != 1:
        raise _refused("inks other than CMYK")
    if page.dots and (page.dots[0] == page.dots[1] or len(_numbers(page.tags, _DOT_RANGE)) > 2 or page.by_pillow):
        raise _refused("CMYK of an unusual DotRange")
    if not set(page.extra) <= {_UNSPECIFIED, _PREMULTIPLIED, _STRAIGHT, _COREL_STRAIGHT}:
        raise _refused(f"extra samples of kinds {page.extra}")
    if page.premultiplied and photometric not in {_BLACK_IS_ZERO, _RGB, _CMYK}:
        raise _refused(f"premultiplied colors of PhotometricInterpretation {photometric}")
    if page.by_pillow:
        _check_for_pillow(page)
    elif page.predictor not in {1, 2, 3} or (page.predictor == 3 and not page.floating):
        raise _refused(f"of predictor {page.predictor}")
    elif page.predictor == 2 and (page.floating or bits not in {8, 16}):
        raise _refused(f"numbers of {bits} bits with predictor 2")


def _check_for_pillow(page: Page) -> None:
    """Refuse what Pillow reads wrong, or not at all.

    Raises:
        UnsupportedFormatError: the layout is not supported.
    """
    if page.data[:4] == b"MM\0+":
        readable = False  # Pillow misreads the header
    elif page.compression in _FAX:
        readable = page.bits == 1 and page.samples == 1 and page.photometric in {_WHITE_IS_ZERO, _BLACK_IS_ZERO}
    elif page.compression in {_OLD_JPEG, _JPEG}:
        readable = page.bits == 8 and (page.photometric, page.samples, page.planar) in _JPEG_LAYOUTS
        readable &= not (page.planar and page.premultiplied)
    else:
        readable = page.bits == 8 and page.samples == 3 and not page.planar
    if not readable:
        raise _refused(
            f"{page.samples} samples of {page.bits} bits, PhotometricInterpretation {page.photometric}, in compression"
            f" {page.compression}{' and separate planes' if page.planar else ''}"
        )


@dataclass(frozen=True)
class _Grid:
    """The strips or tiles of one plane; a strip is a tile as wide as the image.

    Attributes:
        columns: tiles per row of tiles.
        rows: rows of tiles.
        width: of a tile, in pixels.
        height: of a tile, in pixels.
        row_bytes: decompressed bytes of a row of a tile.
        tiled: whether the last row of tiles is of full height.
        offsets: of all planes, plane by plane, row by row.
        sizes: compressed bytes of each.
    """

    columns: int
    rows: int
    width: int
    height: int
    row_bytes: int
    tiled: bool
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


def _grid(page: Page) -> _Grid:
    tags, tiled = page.tags, _TILE_OFFSETS in page.tags
    if tiled:
        width, height = _number(tags, _TILE_WIDTH), _number(tags, _TILE_HEIGHT)
    else:
        width, height = page.width, min(_number(tags, _STRIP_ROWS, page.height), page.height)
    if not height or (tiled and min(width, height) < _MIN_TILE_PX):
        raise ValueError(f"strips or tiles of {width} x {height} pixels")
    columns, rows = -(-page.width // width), -(-page.height // height)
    if tiled and columns * width * rows * height > _PADDING * page.width * page.height + (4 << 20):
        raise ValueError(f"tiles of {width} x {height} pixels")
    offsets = _numbers(tags, _TILE_OFFSETS if tiled else _STRIP_OFFSETS)
    sizes = _numbers(tags, _TILE_BYTES if tiled else _STRIP_BYTES)
    if len(offsets) < columns * rows * (page.samples if page.planar else 1):
        raise ValueError(f"{len(offsets)} strips or tiles, too few")
    if len(sizes) < len(offsets) and page.compression != _UNCOMPRESSED:
        if len(offsets) > 1:
            raise ValueError("strips or tiles without a size")
        sizes = (len(page.data),)
    per_pixel = page.bits * (1 if page.planar else page.samples)
    return _Grid(columns, rows, width, height, -(-width * per_pixel // 8), tiled, offsets, sizes)


def _samples(page: Page) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield some rows at a time: the first one, and n x W x samples as stored; of planes, only those that are used."""
    grid = _grid(page)
    planes = page.used if page.planar else [0]
    group = 1
    if grid.columns == 1:
        group = min(max(1, _GROUP_BYTES // (grid.row_bytes * grid.height)), _MOST_STRIPS)
    step = max(1, _BAND_PIXELS // page.width)
    for first in range(0, grid.rows, group):
        top, last = first * grid.height, min(first + group, grid.rows)
        height = min(last * grid.height, page.height) - top
        rows_of = [_decompressed(page, grid, plane, first, last, height) for plane in planes]
        for start in range(0, height, step):
            end = min(start + step, height)
            bands = [_side_by_side(page, grid, rows, start, end) for rows in rows_of]
            yield top + start, np.concatenate(bands, axis=2) if len(bands) > 1 else bands[0]


def _side_by_side(page: Page, grid: _Grid, rows: _Rows, start: int, end: int) -> NDArray[Any]:
    """Return some rows of a row of tiles, n x W x samples."""
    if grid.columns == 1:
        return _typed(page, grid.width, rows(start, end))[:, : page.width]
    if (start, end) == (0, grid.height):
        all_rows = rows(0, grid.columns * grid.height)
    else:
        all_rows = np.concatenate(
            [rows(at + start, at + end) for at in range(0, grid.columns * grid.height, grid.height)]
        )
    tiles = _typed(page, grid.width, all_rows)
    tiles = tiles.reshape(grid.columns, end - start, grid.width, -1).transpose(1, 0, 2, 3)
    return tiles.reshape(end - start, grid.columns * grid.width, -1)[:, : page.width]


def _decompressed(page: Page, grid: _Grid, plane: int, first: int, last: int, height: int) -> _Rows:
    """Return the rows of some rows of tiles of a plane, the tiles one below the other."""
    start = plane * grid.rows * grid.columns
    chosen = range(start + first * grid.columns, start + last * grid.columns)
    height = grid.height * len(chosen) if grid.tiled else height
    fill_order = _number(page.tags, _FILL_ORDER, 1)
    if page.compression == _UNCOMPRESSED:
        rows = np.empty((height, grid.row_bytes), np.uint8)
        for at, tile in enumerate(chosen):
            into = rows[at * grid.height : (at + 1) * grid.height]
            into[:] = np.frombuffer(page.data, np.uint8, into.size, grid.offsets[tile]).reshape(into.shape)
        if fill_order == 2:
            rows = _REVERSED[rows]
        return lambda top, bottom: rows[top:bottom]
    most = _MOST_GROWTH * grid.row_bytes * grid.height + _MOST_OVERHEAD_BYTES
    tiles = [page.data[grid.offsets[tile] : grid.offsets[tile] + min(grid.sizes[tile], most)] for tile in chosen]
    size = grid.row_bytes, height
    if page.compression in _DEFLATE and len(tiles) == 1 and fill_order == 1:
        return _inflated(tiles[0], grid.row_bytes)
    data, directory = _as_gray(page, size, grid.height, tiles)
    image = Image.frombytes("L", size, data, "libtiff", "L", False, directory)
    return lambda top, bottom: np.asarray(image.crop((0, top, grid.row_bytes, bottom)))


def _inflated(part: bytes, row_bytes: int) -> _Rows:
    """Return the rows of one strip, which must be read in order: all of a large image's would need twice the memory."""
    stream, rest = zlib_ng.decompressobj(), part

    def rows(top: int, bottom: int) -> NDArray[np.uint8]:
        nonlocal rest
        size = (bottom - top) * row_bytes
        found = stream.decompress(rest, size)
        rest = stream.unconsumed_tail
        if len(found) < size:
            raise ValueError("a strip that ends early")
        return np.frombuffer(found, np.uint8).reshape(-1, row_bytes)

    return rows


def _as_gray(page: Page, size: tuple[int, int], strip_rows: int, strips: list[bytes]) -> tuple[bytes, int]:
    """Return a TIFF of 8-bit gray whose pixels are the bytes of other samples, and the offset of its directory.

    libtiff decompresses it without regard to what the bytes mean.
    """
    offsets = 8 + np.cumsum([0, *map(len, strips)])
    values: list[tuple[int, int, tuple[int, ...] | list[int]]] = [
        (_WIDTH, 4, (size[0],)),
        (_HEIGHT, 4, (size[1],)),
        (_BITS, 3, (8,)),
        (_COMPRESSION, 3, (page.compression,)),
        (_PHOTOMETRIC, 3, (_BLACK_IS_ZERO,)),
        (_FILL_ORDER, 3, (_number(page.tags, _FILL_ORDER, 1),)),
        (_STRIP_OFFSETS, 4, offsets[:-1].tolist()),
        (_SAMPLES, 3, (1,)),
        (_STRIP_ROWS, 4, (strip_rows,)),
        (_STRIP_BYTES, 4, [len(strip) for strip in strips]),
    ]
    end = int(offsets[-1])
    tables, entries = b"", b""
    for tag, kind, numbers in values:
        packed = struct.pack(f"<{len(numbers)}{'I' if kind == 4 else 'H'}", *numbers)
        if len(packed) > 4:
            tables, packed = tables + packed, struct.pack("<I", end + len(tables))
        entries += struct.pack("<HHI4s", tag, kind, len(numbers), packed)
    directory = end + len(tables)
    header = struct.pack("<2sHI", b"II", 42, directory)
    return b"".join([header, *strips, tables, struct.pack("<H", len(values)), entries, bytes(4)]), directory


def _typed(page: Page, width: int, rows: NDArray[np.uint8]) -> NDArray[Any]:
    """Return n x width x samples from n rows of bytes."""
    count, bits, per_pixel = len(rows), page.bits, 1 if page.planar else page.samples
    if bits not in {8, 16, 32, 64}:
        return _unpacked(rows, bits, width * per_pixel).reshape(count, width, per_pixel)
    if page.predictor == 3:  # bytes of equal weight are neighbors, the most significant ones first
        added = np.add.accumulate(rows.reshape(count, -1, per_pixel), axis=1, dtype=np.uint8)
        ordered = added.reshape(count, bits // 8, -1).transpose(0, 2, 1)
        return np.ascontiguousarray(ordered).view(f">f{bits // 8}").reshape(count, width, per_pixel)
    kind = f"{page.order}{'f' if page.floating else 'u'}{bits // 8}"
    values = np.ascontiguousarray(rows).view(kind).reshape(count, width, per_pixel)
    if page.predictor == 2:
        values = np.add.accumulate(values, axis=1, dtype=values.dtype.newbyteorder("="))
    return values


def _unpacked(rows: NDArray[np.uint8], bits: int, numbers: int) -> NDArray[np.uint16]:
    """Unpack rows of numbers of up to 16 bits each, the most significant bit first."""
    groups = -(-numbers // 8)
    padded = np.zeros((len(rows), groups * bits + 2), np.uint32)
    padded[:, : rows.shape[1]] = rows
    found = np.empty((len(rows), groups, 8), np.uint16)
    for at in range(8):  # 8 numbers take as many bytes as one has bits
        byte, bit = divmod(at * bits, 8)
        one, two, three = (padded[:, byte + next_ :: bits][:, :groups] for next_ in range(3))
        window = (one << 16) | (two << 8) | three
        found[:, :, at] = (window >> (24 - bit - bits)) & ((1 << bits) - 1)
    return found.reshape(len(rows), -1)[:, :numbers]


def _band(page: Page, top: int, samples: NDArray[Any]) -> Band:
    """Return colors and alpha at their full range."""
    colors, alpha = samples[:, :, : _COLORS[page.photometric]], None
    if page.alpha is not None:
        alpha = _full_range(page, samples[:, :, -1 if page.planar else page.alpha])
    if page.photometric == _PALETTE:
        return Band(top, _palette(page)[colors[:, :, 0]], alpha)
    if page.photometric == _LAB:
        if page.bits == 16:
            lightness = (colors[:, :, :1].astype(np.float32) / 257).round()
            chroma = (colors[:, :, 1:].astype(np.uint16).view(np.int16) / np.float32(256)).round().clip(-128, 127)
            colors = np.concatenate([lightness, chroma], axis=2).astype(np.int16).astype(np.uint8)
        return Band(top, np.ascontiguousarray(colors), alpha)
    pixels = _full_range(page, colors, page.dots)
    if page.photometric == _WHITE_IS_ZERO:
        pixels = ~pixels
    if alpha is not None and page.premultiplied:
        white = np.iinfo(pixels.dtype).max
        divisor = np.maximum(alpha, 1)[:, :, None].astype(np.float32)
        pixels = np.minimum(pixels * np.float32(white) / divisor + np.float32(0.5), white).astype(pixels.dtype)
    return Band(top, pixels, alpha)


def _full_range(page: Page, numbers: NDArray[Any], stored: tuple[int, int] | None = None) -> NDArray[Any]:
    """Scale a range of stored numbers to 0 to 255 if there are at most 8 bits, else to 0 to 65535."""
    if page.floating:
        if not (numbers.min() >= 0 and numbers.max() <= 1):  # also true for NaN
            raise _refused("floating-point numbers outside [0, 1], for which white is not defined")
        return (numbers.astype(np.float32) * 65535 + 0.5).astype(np.uint16)
    kind: type[Any] = np.uint8 if page.bits <= 8 else np.uint16
    if page.bits in {8, 16} and not stored:
        return np.ascontiguousarray(numbers, kind)
    first, last = stored or (0, (1 << page.bits) - 1)
    levels = np.clip((np.arange(1 << page.bits) - first) / (last - first), 0, 1) * np.iinfo(kind).max
    return np.asarray((levels + 0.5).astype(kind)[numbers])


def _palette(page: Page) -> NDArray[np.uint8]:
    """Return the palette's colors, entries x 3; some writers use 8 of the 16 bits."""
    stored = np.asarray(_numbers(page.tags, _COLOR_MAP), np.uint16)
    if stored.size != 3 << page.bits:
        raise ValueError(f"a palette of {stored.size} numbers")
    colors = stored.reshape(3, -1).T
    return np.ascontiguousarray(colors if colors.max() < 256 else colors >> 8, np.uint8)
