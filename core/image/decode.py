"""Bytes to pixels: any accepted file becomes upright 8-bit sRGB, or a typed error.

The header is read, and every limit is checked, before a pixel is decoded.
"""

import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError
from zlib_ng import zlib_ng

from core.errors import (
    AnimatedImageError,
    BackgroundRemoverError,
    CorruptImageError,
    EmptyImageError,
    ImageTooSmallError,
    TooManyPixelsError,
    UnsupportedFormatError,
)
from core.image import exif
from core.limits import MAX_PIXELS, MAX_READS, MAX_RUNS_BYTES, MAX_SCANS, MAX_TAG_BYTES, MIN_SIDE_PX, check_bytes
from core.options import Metadata
from core.types import Alpha, ImageInfo, Picture, Rgb

# Some of Pillow's parsers allocate while they read the header. They refuse at twice this number.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS


def _bounded(load: Callable[..., Any]) -> Callable[..., Any]:
    """Have a loader of numbers, each of which becomes an object, refuse more than ``MAX_TAG_BYTES`` of them."""

    def load_bounded(directory: Any, data: bytes, legacy_api: bool = True) -> Any:
        if len(data) > MAX_TAG_BYTES:
            raise ValueError(f"a tag of {len(data)} bytes")
        return load(directory, data, legacy_api)

    return load_bounded


# The one place that every TIFF and every block of EXIF data goes through, also those that Pillow reads unasked.
_BYTES_TEXT_UNDEFINED: Final = {1, 2, 7}
TiffImagePlugin.ImageFileDirectory_v2._load_dispatch = {
    type_: (size, load if type_ in _BYTES_TEXT_UNDEFINED else _bounded(load))
    for type_, (size, load) in TiffImagePlugin.ImageFileDirectory_v2._load_dispatch.items()
}

_EXIF_MARK: Final = b"Exif\0\0"  # JPEG's; some writers put it into other formats too, or twice
_MAX_EXIF_SEGMENTS: Final = 64


def _read_app1(image: Any, marker: int) -> None:
    """Read one of the segments that may hold a JPEG's EXIF data; Pillow joins them one by one, so there is a limit."""
    JpegImagePlugin.APP(image, marker)
    image.exif_segments = getattr(image, "exif_segments", 0) + image.app["APP1"].startswith(_EXIF_MARK)
    if image.exif_segments > _MAX_EXIF_SEGMENTS:
        raise ValueError(f"more than {_MAX_EXIF_SEGMENTS} segments of EXIF data")


# Here and not by a search of the file: Pillow reads no segment behind the first scan, and a search would count them.
JpegImagePlugin.MARKER[0xFFE1] = ("APP1", "EXIF data or XMP", _read_app1)  # type: ignore[assignment]  # it is no method

_PILLOW_NAMES: Final = {
    "jpeg": "JPEG",
    "png": "PNG",
    "webp": "WEBP",
    "tiff": "TIFF",
    "bmp": "BMP",
    "gif": "GIF",
    "heic": "HEIF",
    "avif": "AVIF",
}

_SIGNATURES: Final = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
)

_FOREIGN_SIGNATURES: Final = (
    (b"%PDF", "a PDF document"),
    (b"8BPS", "a Photoshop document"),
    (b"\0\0\1\0", "a Windows icon"),
    (b"PK\3\4", "a ZIP archive or an office document"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML document or an SVG drawing"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
)

_AVIF_BRANDS: Final = {b"avif", b"avis"}
_HEIC_BRANDS: Final = {b"heic", b"heix", b"heim", b"heis"}
_HEIC_SEQUENCE_BRANDS: Final = {b"hevc", b"hevx", b"hevm", b"hevs", b"msf1"}

# EXIF 2.32, tag 0x0112: how to turn the stored rows and columns upright.
_UPRIGHT: Final[dict[int, Callable[[Any], Any]]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_180),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: cv2.transpose,
    6: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.flip(cv2.transpose(pixels), -1),
    8: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}

# Their namesakes in colour would ask for BGR too.
_REDUCED: Final = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}

# Pillow takes 4 bytes a pixel for RGB, and copies twice on the way to an array: not of the whole picture at once.
_BAND_PIXELS: Final = 4_000_000

_TIFF_SUBFILE_TYPE, _TIFF_BITS, _TIFF_PHOTOMETRIC = 254, 258, 262
_JPEG_MARKER: Final = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # in a scan's data \xff is none if 0 or RST follows
_BMP_RUNS: Final = {1, 2}  # RLE8 and RLE4
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_NCLX_HDR_TRANSFERS: Final = {16: "PQ", 18: "HLG"}


def decode(data: bytes, *, at_least_px: int | None = None) -> Picture:
    """Decode a file to upright 8-bit sRGB, with the transparency that it had.

    The content decides what the file is, never its name.

    Where a pixel is fully transparent, ``rgb`` is white: editors leave anything there, often the very
    background that was removed, and a network would see it. White is what most viewers show. Where it
    is partly transparent, ``rgb`` keeps the file's own straight colour, since the result is made of it.

    A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size: libjpeg then leaves out the high frequencies of each
    block instead of computing them, which at 1/8 takes a third of the time and a 64th of the memory. Every byte
    of the file is read all the same, and what is damaged is refused as it is at full size.

    Args:
        data: the whole file.
        at_least_px: decode at the smallest scale at which no side is shorter than this, where the format can;
            None decodes at full size.

    Returns:
        Picture of H x W x 3 uint8 and, if any pixel is not opaque, an alpha of H x W float32 in [0, 1].
        ``info`` has the size of the file's own picture, at whatever scale it was decoded.
        ``warnings`` says what could not be honoured, such as a damaged colour profile.

    Raises:
        EmptyImageError: there are no bytes.
        FileTooLargeError: there are more than ``core.limits.MAX_BYTES``.
        UnsupportedFormatError: the content is of no format that can be read, or its pixels are numbers without
            a defined white.
        CorruptImageError: the file breaks the rules of its format, its pixels are damaged, or it ends early.
        TooManyPixelsError: there are more than ``MAX_PIXELS``.
        ImageTooSmallError: a side is shorter than ``MIN_SIDE_PX``.
        AnimatedImageError: there is more than one frame or page.
    """
    file = _open(data)
    with _reading(file.info.format):
        width, height = file.image.size
        scale = _reduce(file, at_least_px)
        rgb, opacity, warnings = _pixels(data, file, scale)
        if scale > 1:
            rgb = _without_padding(rgb, width / scale, height / scale)
        file.image.close()  # Pillow's own copy: 400 MB of 100 MP
        turn = _UPRIGHT[file.orientation]
        rgb = turn(rgb)
        alpha = None
        if opacity is not None:
            opacity = turn(opacity)
            rgb = cv2.copyTo(rgb, opacity, np.full_like(rgb, 255))  # copies where the opacity is not 0
            alpha = _as_share(opacity)
    info = file.info
    if info.format == "heic":  # a damaged one can hold a picture of another size than its header says
        height, width = rgb.shape[:2]
        info = replace(info, width=width, height=height)
    return Picture(rgb, alpha, info, (*file.warnings, *warnings), file.exif)


def decode_plane(data: bytes) -> Alpha:
    """Decode a mask or an alpha that ``encode_plane`` wrote.

    Args:
        data: an 8-bit grey PNG.

    Returns:
        H x W float32 in [0, 1].

    Raises:
        CorruptImageError: it is no such file.
    """
    plane = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if plane is None or plane.ndim != 2 or plane.dtype != np.uint8:
        raise CorruptImageError(
            "A mask between two stages is not an 8-bit grey PNG",
            field="image.format",
            value="damaged" if plane is None else f"{plane.dtype}, {plane.shape}",
            remedy="Start the job again; if it persists, delete the work object.",
        )
    return _as_share(plane)


def _as_share(plane: NDArray[Any]) -> Alpha:
    """Scale 0 to 255 to [0, 1], without a second array of floats on the way."""
    share: Alpha = np.divide(plane, np.float32(255), dtype=np.float32)
    return share


@dataclass(frozen=True)
class _File:
    """A file of which the header was read and found within the limits."""

    image: Image.Image
    info: ImageInfo
    orientation: int
    warnings: tuple[str, ...]
    exif: bytes | None


def _open(data: bytes) -> _File:
    if not data:
        raise EmptyImageError("The file is empty", field="source.bytes", value=0, remedy="Upload it again.")
    check_bytes(len(data))
    format_name = sniff(data)
    with _reading(format_name):
        if format_name == "jpeg":
            _check_scans(data)
        elif format_name == "png":
            _check_sums(data)
        reader = io.BytesIO(data) if format_name == "bmp" else _Reader(data)  # two reads a run, bounded by bytes
        image = Image.open(reader, formats=[_PILLOW_NAMES[format_name]])
        if image.info.get("compression") in _BMP_RUNS and len(data) > MAX_RUNS_BYTES:
            raise ValueError(f"more than {MAX_RUNS_BYTES} bytes of runs")
        _check_frames(image, format_name)
        orientation, warnings = _orientation(image, format_name)
        width, height = image.size
        if orientation >= 5:
            width, height = height, width
        _check_size(width, height)
        if format_name == "heic":
            warnings += _heic_warnings(image)
        exif, exif_warnings = _exif(data, image, format_name)
    info = ImageInfo(format_name, width, height, len(data))
    return _File(image, info, orientation, (*warnings, *exif_warnings), exif)


class _Reader(io.BytesIO):
    """The file as Pillow sees it: a flood of tiny parts, each a few reads and an object, ends at ``MAX_READS``."""

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > MAX_READS:
            raise OSError(f"more than {MAX_READS} reads")
        return super().read(size)


def _check_scans(data: bytes) -> None:
    """Refuse a JPEG of which a decoder makes far more work than its bytes are.

    Each scan of a progressive one goes over the whole picture, however few bytes it has.
    """
    if data.count(bytes((0xFF, _START_OF_SCAN))) <= MAX_SCANS:  # as good as always; what follows is slow
        return
    at, scans = 0, 0
    for _ in range(MAX_READS):
        found = _JPEG_MARKER.search(data, at)
        if not found or (marker := found[1][0]) == _END_OF_IMAGE:
            return
        scans += marker == _START_OF_SCAN
        if scans > MAX_SCANS:
            raise ValueError(f"more than {MAX_SCANS} scans")
        at = found.end()
        if marker != _START_OF_IMAGE:
            at += int.from_bytes(data[at : at + 2], "big")
    raise ValueError(f"more than {MAX_READS} segments")


def _check_sums(data: bytes) -> None:
    """Refuse a PNG of which a checksum says that its pixels are damaged: Pillow does not ask those."""
    at, parts = len(b"\x89PNG\r\n\x1a\n"), memoryview(data)
    for _ in range(MAX_READS):
        length, name = int.from_bytes(parts[at : at + 4], "big"), bytes(parts[at + 4 : at + 8])
        after = at + 8 + length
        if name == b"IDAT" and zlib_ng.crc32(parts[at + 4 : after]) != int.from_bytes(parts[after : after + 4], "big"):
            raise ValueError(f"wrong checksum at byte {after}")
        if name in (b"IEND", b""):
            return
        at = after + 4
    raise ValueError(f"more than {MAX_READS} chunks")


def sniff(data: bytes) -> str:
    """Return the name of the format that the first bytes announce.

    Raises:
        UnsupportedFormatError, AnimatedImageError: it is none that is read.
    """
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        box = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
        brands = {box[i : i + 4] for i in range(0, len(box), 4) if i != 4}  # the second word is a version
        if box[:4] in _HEIC_SEQUENCE_BRANDS:
            raise _animated()
        if brands & _AVIF_BRANDS:
            return "avif"
        if brands & _HEIC_BRANDS:
            _register_heic()
            return "heic"
    found = _describe(data)
    raise UnsupportedFormatError(
        f"The content is {found}, not a picture that can be read",
        field="image.format",
        value=found,
        remedy="Save it as JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC or AVIF.",
    )


def _describe(data: bytes) -> str:
    """Name content that is not accepted, as far as that is cheap."""
    head = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip()
    for signature, name in _FOREIGN_SIGNATURES:
        if data.startswith(signature) or head.lower().startswith(signature):
            return name
    if data[4:8] == b"ftyp":
        return "an ISO media file, such as a video"
    return "text" if head.isascii() and b"\0" not in head else "of an unknown kind"


@cache
def _register_heic() -> None:
    """Teach Pillow to read HEIC; libheif is loaded by the first file that needs it."""
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)


@contextmanager
def _reading(format_name: str) -> Iterator[None]:
    """Turn whatever a decoder raises on damaged or hostile bytes into this project's errors."""
    try:
        yield
    except BackgroundRemoverError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(f"more than {2 * MAX_PIXELS}") from error
    except Exception as error:  # parsers of hostile bytes raise nearly every type there is
        unidentified = isinstance(error, UnidentifiedImageError)
        raise CorruptImageError(
            f"The file is damaged, cut short, or of a rare kind of {format_name.upper()} that cannot be read",
            field="image.format",
            value=f"{format_name}: {'unreadable header' if unidentified else error}",
            remedy="Open it in an image editor, save it again as PNG or JPEG, and upload that.",
        ) from error


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _too_many_pixels(f"{width} x {height}")
    if min(width, height) < MIN_SIDE_PX:
        raise ImageTooSmallError(
            f"A side of the picture is shorter than {MIN_SIDE_PX} pixels",
            field="image.pixels",
            value=f"{width} x {height}",
            remedy="Use a larger version of the picture.",
        )


def _too_many_pixels(value: str) -> TooManyPixelsError:
    return TooManyPixelsError(
        f"The picture has more than {MAX_PIXELS} pixels",
        field="image.pixels",
        value=value,
        remedy="Scale it down before the upload.",
    )


def _check_frames(image: Image.Image, format_name: str) -> None:
    """Refuse animations and multi-page files.

    JPEG and HEIC name one picture as the file's picture. What else they hold are gain maps, depth maps,
    previews and bursts, as most telephones write them.
    """
    # A camera's raw file is a TIFF whose first page is a thumbnail: its pixels are not the picture.
    if format_name == "tiff" and image.tag_v2.get(_TIFF_SUBFILE_TYPE, 0) & 1:  # type: ignore[attr-defined]
        raise UnsupportedFormatError(
            "The TIFF begins with a preview, as a camera's raw file does",
            field="image.format",
            value="tiff",
            remedy="Develop the raw file to JPEG or TIFF.",
        )
    if format_name not in {"jpeg", "heic"} and getattr(image, "is_animated", False):
        raise _animated()


def _animated() -> AnimatedImageError:
    return AnimatedImageError(
        "The file holds several frames or pages",
        field="image.frames",
        value="more than 1",
        remedy="Save the one that you want as a picture of its own.",
    )


def _orientation(image: Image.Image, format_name: str) -> tuple[int, tuple[str, ...]]:
    """Return the EXIF orientation that is left to apply, 1 to 8, and warnings."""
    if format_name in {"tiff", "heic"}:  # their decoders turn the picture themselves
        return 1, ()
    try:
        # Not image.getexif(): for a PNG without EXIF data ahead of its pixels that decodes the pixels.
        orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # the same parsers, the same bytes; but a picture needs no EXIF data to be shown
        return 1, ("The EXIF data are damaged: the picture is taken as upright.",)
    return (orientation if orientation in _UPRIGHT else 1), ()


def _exif(data: bytes, image: Image.Image, format_name: str) -> tuple[bytes | None, tuple[str, ...]]:
    """Return what a result may carry of the file's EXIF data, and warnings."""
    stored: bytes | None = image.info.get("exif")
    if format_name == "tiff" and data[2:4] in {b"*\0", b"\0*"}:  # its own directory, unless it has 64-bit offsets
        stored = data
    if not stored:
        return None, ()
    try:
        return exif.kept(stored.removeprefix(_EXIF_MARK).removeprefix(_EXIF_MARK), Metadata.ALL), ()
    except exif.DamagedExifError:
        return None, ("The EXIF data are damaged or larger than 64 kB: the result carries none of them.",)


def _heic_warnings(image: Image.Image) -> tuple[str, ...]:
    warnings = []
    pictures = getattr(image, "n_frames", 1)
    if pictures > 1:
        warnings.append(f"The file holds {pictures} pictures: its primary one was taken.")
    transfer = image.info.get("nclx_profile", {}).get("transfer_characteristics")
    if transfer in _NCLX_HDR_TRANSFERS:
        warnings.append(f"The picture is HDR ({_NCLX_HDR_TRANSFERS[transfer]}): its colours were taken as sRGB.")
    return tuple(warnings)


def _reduce(file: _File, at_least_px: int | None) -> int:
    """Have a JPEG decoded at 1/2, 1/4 or 1/8 of its size; return that divisor, or 1 for full size."""
    if at_least_px is None or file.info.format != "jpeg":
        return 1
    width = file.image.width
    drafted = file.image.draft(None, (at_least_px, at_least_px))
    return round(width / drafted[1][2]) if drafted else 1


def _without_padding(rgb: Rgb, width: float, height: float) -> Rgb:
    """Stretch a reduced picture until it shows ``width`` x ``height`` of its own pixels.

    A size that the divisor does not divide is rounded up. The last row and column then reach beyond the picture, and
    a mask of it would be out of place by up to 7 pixels of the full size.
    """
    rows, columns = rgb.shape[:2]
    if (columns, rows) == (width, height):
        return rgb
    across, down = width / columns, height / rows
    to_padded = np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2]])  # pixels' centres lie at + 1/2
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    stretched = cv2.warpAffine(rgb, to_padded, (columns, rows), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(stretched, np.uint8)


def _pixels(data: bytes, file: _File, scale: int) -> tuple[Rgb, NDArray[np.uint8] | None, tuple[str, ...]]:
    """Decode to 8-bit sRGB and an 8-bit alpha, or None if opaque, both as stored, not yet upright."""
    image, profile = file.image, file.image.info.get("icc_profile")
    if file.info.format == "jpeg" and image.mode == "RGB" and _is_srgb(profile):
        # The same libjpeg, the same pixels, in 60 % of the time: no detour through Pillow's own memory.
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | _REDUCED[scale]
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if pixels is not None:  # else Pillow says what is wrong
            return np.asarray(pixels, np.uint8), None, ()

    image.load()
    width, height = image.size
    tags = getattr(image, "tag_v2", {})
    rgb = np.empty((height, width, 3), np.uint8)
    alpha = np.full((height, width), 255, np.uint8)
    warnings: tuple[str, ...] = ()
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        band = image.crop((0, top, width, bottom))
        if band.mode == "F" or band.mode.startswith("I"):
            grey, opacity = _scale_to_8_bits(band, tags)
            band = Image.fromarray(grey)
        else:
            band, opacity = _split(band)
        band, warnings = _to_srgb(band, profile)
        rgb[top:bottom] = np.asarray(band)
        if opacity is not None:
            alpha[top:bottom] = opacity
    return rgb, alpha if alpha.min() < 255 else None, warnings


def _split(image: Image.Image) -> tuple[Image.Image, NDArray[np.uint8] | None]:
    """Return an 8-bit picture as L, RGB, CMYK or LAB, and its alpha, be it a channel, a palette's or one colour."""
    if image.mode == "La":  # premultiplied grey converts to nothing else
        image = image.convert("LA")
    alpha = None
    if image.has_transparency_data:
        if image.mode not in {"LA", "RGBA"}:
            image = image.convert("RGBA")
        alpha = np.array(image.getchannel("A"))
    if image.mode in {"L", "RGB", "CMYK", "LAB"}:
        return image, alpha
    return image.convert("L" if image.mode in {"1", "LA"} else "RGB"), alpha


def _scale_to_8_bits(image: Image.Image, tags: Mapping[int, Any]) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Scale a grey picture of 12 or 16 bits, or of floats in [0, 1], to 8 bits; Pillow would clip it.

    Args:
        image: the picture.
        tags: of the TIFF that it is from; none of another file.

    Returns:
        The grey picture, and the alpha that a transparent grey (PNG ``tRNS``) makes, or None.

    Raises:
        UnsupportedFormatError: the numbers have no defined white.
    """
    values = np.asarray(image)
    if image.mode == "F":
        white = 1.0
        if not (values.min() >= 0 and values.max() <= white):  # false for NaN, too
            raise _without_white("floating-point numbers outside [0, 1]")
    elif image.mode == "I":
        raise _without_white("32-bit or signed integers")
    else:
        white = 2.0 ** tags.get(_TIFF_BITS, (16,))[0] - 1
    transparent = image.info.get("transparency")
    alpha = None if transparent is None else np.where(values == transparent, 0, 255).astype(np.uint8)
    scaled = values.astype(np.float32) * np.float32(255 / white)
    if tags.get(_TIFF_PHOTOMETRIC) == 0:  # white is zero
        scaled = 255 - scaled
    return (scaled + 0.5).astype(np.uint8), alpha


def _without_white(found: str) -> UnsupportedFormatError:
    return UnsupportedFormatError(
        f"The picture's pixels are {found}: which of them is white is not defined",
        field="image.format",
        value=found,
        remedy="Save it with 8 or 16 bits per channel.",
    )


_SRGB: Final = ImageCms.createProfile("sRGB")
_PROFILE_MODES: Final = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def _to_srgb(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, tuple[str, ...]]:
    """Convert an L, RGB, CMYK or LAB picture to sRGB by its colour profile; warn where that is not possible."""
    if image.mode == "LAB":
        lab = ImageCms.buildTransform(ImageCms.createProfile("LAB"), _SRGB, "LAB", "RGB")
        return lab.apply(image), ()
    if icc and (transform := _transform(icc)):
        if transform.input_mode == "RGB" and image.mode == "L":
            image = image.convert("RGB")
        if transform.input_mode == image.mode:
            return (image if _changes_nothing(transform) else transform.apply(image)), ()
    if icc:
        warning = "The colour profile is damaged or of another colour space: colours were read without it."
    elif image.mode == "CMYK":
        warning = "The picture is CMYK without a colour profile: its colours are approximate."
    else:
        return image.convert("RGB"), ()
    return image.convert("RGB"), (warning,)


def _is_srgb(icc: bytes | None) -> bool:
    """Tell whether an RGB picture with this profile, or none, is sRGB as it stands."""
    if not icc:
        return True
    transform = _transform(icc)
    return transform is not None and _changes_nothing(transform)


@lru_cache(maxsize=1)
def _transform(icc: bytes) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from a profile to sRGB, or None if the profile cannot be used."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        mode = _PROFILE_MODES[profile.profile.xcolor_space.strip()]
        return ImageCms.buildTransform(profile, _SRGB, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, KeyError, ValueError, TypeError):
        return None


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Tell whether a transform comes from RGB and moves no colour of a 9 x 9 x 9 grid by more than one level.

    Most photographs carry one of the many sRGB profiles, and to transform 12 MP takes longer than to decode them.
    """
    if transform.input_mode != "RGB":
        return False
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(9, 81, 3)
    return bool(cv2.absdiff(grid, np.asarray(transform.apply(Image.fromarray(grid)))).max() <= 1)
