"""Decode any accepted file to upright 8-bit sRGB, or raise a typed error.

The header is read, and every limit is checked, before a pixel is decoded.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base
from PIL.GifImagePlugin import GifImageFile

from core.arrays import Alpha, Picture, Rgb
from core.errors import CorruptImageError, EmptyImageError
from core.image import backdrop, bmp, chunks, colour, exif, guards, heif, jpeg, tiff, webp
from core.image.light import Light, of_code_points, of_gamma
from core.image.sniff import sniff
from core.limits import check_bytes
from core.options import Metadata
from core.types import ImageInfo

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

# The flags of the same name with COLOR would also select BGR.
_REDUCED: Final = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}

# The gamma, and the chromaticities of white, red, green and blue (Adobe RGB (1998) Color Image Encoding, 2005).
_ADOBE_RGB: Final = 256 / 563, (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)

_XMP_ORIENTATION: Final = re.compile(rb"""tiff:Orientation(?:\s*=\s*["']|>)\s*([0-9])""")

# Pillow takes 4 bytes per pixel for RGB and copies twice on the way to an array: convert in bands, not at once.
_BAND_PIXELS: Final = 4_000_000

_MAX_SURPLUS_BYTES: Final = 1 << 20
"""Most bytes behind the pixels of a PNG of 16 bits: OpenCV inflates them all, a gigabyte in 5 s."""


def decode(data: bytes, *, at_least_px: int | None = None) -> Picture:
    """Decode a file to upright 8-bit sRGB and its alpha.

    The content decides the format, never the file's name. The first call patches Pillow: see
    :func:`core.image.guards.install`.

    EXIF data turn the image, and in HEIC and AVIF the container's own properties. XMP does not: browsers and most
    viewers show the image without it.

    Damage outside the pixels (metadata, a checksum, a missing end marker) does not cost the image, but is a warning.

    Where a pixel is fully transparent, ``rgb`` is white, as most viewers show it, or gray or black if the visible
    pixels resemble white: editors leave anything there, often the background that was removed, and a network would see
    it. Where a pixel is partly transparent, ``rgb`` keeps the file's own straight color, because the result is made of
    it.

    A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size: libjpeg then skips the high frequencies of each block, which
    at 1/8 takes a third of the time and a 64th of the memory. It still reads every byte, and rejects damaged files as
    it does at full size.

    Args:
        data: the whole file.
        at_least_px: decode at the smallest scale at which no side is shorter than this, where the format allows it;
            None decodes at full size.

    Returns:
        Picture of H x W x 3 uint8 and, if any pixel is not opaque, an alpha of H x W float32 in [0, 1].
        ``info`` has the size of the file's own image, at whatever scale it was decoded.
        ``warnings`` lists what could not be honored, such as a damaged color profile.

    Raises:
        EmptyImageError: there are no bytes.
        FileTooLargeError: there are more than ``core.limits.MAX_BYTES``.
        UnsupportedFormatError: the format is not supported, or the pixels are numbers without a defined white.
        CorruptImageError: the file breaks the rules of its format, its pixels are damaged, or it ends early.
        TooManyPixelsError: there are more than ``MAX_PIXELS``.
        ImageTooSmallError: a side is shorter than ``MIN_SIDE_PX``.
        AnimatedImageError: there is more than one frame or page.
    """
    file = _open(data)
    with guards.typed_errors(file.info.format):
        scale = _reduce(file, at_least_px)
        rgb, opacity, warnings = _pixels(file.data, file, scale)
        if scale > 1:
            width, height = file.info.width, file.info.height
            stored = (height, width) if file.orientation >= 5 else (width, height)
            rgb = _without_padding(rgb, stored[0] / scale, stored[1] / scale)
        if isinstance(file.image, Image.Image):
            file.image.close()  # Pillow's own copy: 400 MB of 100 MP
        turn = _UPRIGHT[file.orientation]
        rgb = turn(rgb)
        alpha, behind = None, backdrop.WHITE
        if opacity is not None:
            opacity = turn(opacity)
            behind = backdrop.contrasting(rgb, opacity)
            rgb = cv2.copyTo(rgb, opacity, np.full_like(rgb, behind))  # copies where the opacity is not 0
            alpha = as_share(opacity)
    info = file.info
    if info.format == "heic":  # a damaged one can hold an image of another size than its header declares
        height, width = rgb.shape[:2]
        info = replace(info, width=width, height=height)
    return Picture(rgb, alpha, info, (*file.warnings, *warnings), file.exif, behind)


def decode_plane(data: bytes) -> Alpha:
    """Decode a mask or an alpha that ``encode_plane`` wrote.

    Args:
        data: an 8-bit gray PNG.

    Returns:
        H x W float32 in [0, 1].

    Raises:
        CorruptImageError: the data are something else.
    """
    plane = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if plane is None or plane.ndim != 2 or plane.dtype != np.uint8:
        raise CorruptImageError(
            "A mask between two stages is not an 8-bit gray PNG",
            field="image.format",
            value="damaged" if plane is None else f"{plane.dtype}, {plane.shape}",
            remedy="Start the job again; if it fails again, delete the work object.",
        )
    return as_share(plane)


def as_share(plane: NDArray[Any]) -> Alpha:
    """Scale 0 to 255 to [0, 1] without a temporary array of floats."""
    share: Alpha = np.divide(plane, np.float32(255), dtype=np.float32)
    return share


@dataclass(frozen=True)
class _File:
    """A file whose header was read and found within the limits; ``data`` is what decoders get."""

    data: bytes
    image: Image.Image | tiff.Page
    info: ImageInfo
    orientation: int
    warnings: tuple[str, ...]
    exif: bytes | None
    light: Light | None = None
    crop: tuple[int, int, int, int] | None = None
    png: chunks.Chunks | None = None


def _open(data: bytes) -> _File:
    guards.install()
    if not data:
        raise EmptyImageError("The file is empty", field="source.bytes", value=0, remedy="Upload it again.")
    size_bytes = len(data)
    check_bytes(size_bytes)
    format_name = sniff(data)
    if format_name == "heic":
        _register_heic()
    if format_name == "tiff":
        return _open_tiff(data)
    with guards.typed_errors(format_name):
        if format_name == "jpeg":
            guards.check_scans(data)
        png = chunks.read(data) if format_name == "png" else None
        properties = heif.read(data) if format_name in {"heic", "avif"} else None
        original = data
        data, repairs = (png.data, png.warnings) if png else _repaired(data, format_name)
        try:
            image = _opened(data, format_name)
        except ValueError:
            hidden = heif.without_exif(data) if format_name == "avif" else None
            if not hidden:
                raise
            image = _opened(hidden, format_name)  # libavif rejects files whose EXIF data are damaged
            repairs = ("The EXIF data are damaged and were ignored.",)
        if png:
            image.info.update(png.info)
        guards.check_opened(image, format_name, len(data))
        orientation, warnings = _orientation(image, format_name)
        light, crop, more = _properties(original, image, png, properties)
        warnings += (*repairs, *more, *_ignored_segments(image))
        guards.check_size(*image.size)
        width, height = (crop[2] - crop[0], crop[3] - crop[1]) if crop else image.size
        if orientation >= 5:
            width, height = height, width
        guards.check_size(width, height)
        if format_name == "heic":
            warnings += _heic_warnings(image)
        kept, exif_warnings = _exif(image.info.get("exif"))
    info = ImageInfo(format_name, width, height, size_bytes)
    return _File(data, image, info, orientation, (*warnings, *exif_warnings), kept, light, crop, png)


def _opened(data: bytes, format_name: str) -> Image.Image:
    # A BMP takes two reads per run, which MAX_RUNS_BYTES bounds instead.
    reader = io.BytesIO(data) if format_name == "bmp" else guards.BoundedReader(data)
    return Image.open(reader, formats=[_PILLOW_NAMES[format_name]])


def _repaired(data: bytes, format_name: str) -> tuple[bytes, tuple[str, ...]]:
    """Return a file as decoders need it, if it is damaged outside the pixels alone, and warnings."""
    if format_name == "jpeg" and (ended := jpeg.with_end(data)):
        return ended, ("The file ends without its end marker.",)
    if format_name == "bmp" and (known := bmp.with_known_masks(data)):
        return known, ()
    if format_name == "webp" and (repaired := webp.repaired(data)):
        return repaired, ("The container of the WebP is damaged: metadata behind the pixels may be missing.",)
    return data, ()


def _ignored_segments(image: Image.Image) -> tuple[str, ...]:
    ignored: set[str] = set(getattr(image, "ignored_segments", ()))
    if image.info.get("icc_profile", b"") is None:  # parts of it are missing
        ignored.add("APP2")
    names = ", ".join(sorted(ignored))
    return (f"Damaged segments of the JPEG were ignored: {names}.",) if names else ()


def _properties(
    data: bytes, image: Image.Image, png: chunks.Chunks | None, properties: heif.Properties | None
) -> tuple[Light | None, tuple[int, int, int, int] | None, tuple[str, ...]]:
    """Return the encoding of colors if there is no ICC profile, the part to show if not all, and warnings."""
    light, crop = (png.light if png else None), None
    warnings: list[str] = []
    if image.format in {"JPEG", "MPO"} and not image.info.get("icc_profile") and _is_adobe_rgb(image):
        light = of_gamma(*_ADOBE_RGB)
    if image.format == "BMP":
        colors = bmp.colors(data)
        light = colors.light
        warnings += colors.warnings
        if colors.icc is not None:
            image.info["icc_profile"] = colors.icc
    if properties:
        try:
            if image.format == "AVIF":  # libheif crops, libavif does not
                crop = properties.crop(*image.size)
        except ValueError:
            warnings.append("The clean aperture is not inside the image and was ignored.")
        try:
            if not image.info.get("icc_profile"):
                light = of_code_points(properties.primaries, properties.transfer)
        except ValueError:
            warnings.append("The color description (nclx) is not supported and was ignored.")
    if light and light.hdr:
        warnings.append(f"The image is HDR ({light.hdr}): it was tone-mapped to sRGB.")
    return light, crop, tuple(warnings)


def _is_adobe_rgb(image: Image.Image) -> bool:
    try:
        return exif.is_adobe_rgb(_block(image.info.get("exif", b"")))
    except exif.DamagedExifError:
        return False  # that they are damaged is a warning already


def _open_tiff(data: bytes) -> _File:
    with guards.typed_errors("tiff"):
        page = tiff.read(data)
        guards.check_size(page.width, page.height)
        image: Image.Image | tiff.Page = page
        light: Light | None = None
        ignored: tuple[str, ...] = ()
        orientation = page.orientation
        width, height = (page.height, page.width) if orientation >= 5 else (page.width, page.height)
        if page.by_pillow:
            image, orientation = Image.open(guards.BoundedReader(data), formats=["TIFF"]), 1  # Pillow turns it
            image.seek(page.number)
            image.getexif()[Base.Orientation] = page.orientation  # Pillow itself ignores one of type BYTE
        try:
            light = page.light()
        except (ValueError, TypeError):
            ignored = ("The color description (TransferFunction, PrimaryChromaticities) is invalid and was ignored.",)
        kept, warnings = _exif(data) if data[2:4] in {b"*\0", b"\0*"} else (None, ())
    info = ImageInfo("tiff", width, height, len(data))
    return _File(data, image, info, orientation, (*page.warnings, *ignored, *warnings), kept, light)


def _register_heic() -> None:
    """Register HEIC with Pillow; the first file that needs libheif loads it.

    For each file, because other libraries register pillow-heif if it is installed: imageio does so for every image.
    """
    import pi_heif

    pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)


def _orientation(image: Image.Image, format_name: str) -> tuple[int, tuple[str, ...]]:
    """Return the EXIF orientation that is left to apply, 1 to 8, and warnings."""
    if format_name == "heic":  # its decoder applies it
        return 1, ()
    orientation = None
    if stored := image.info.get("exif"):
        try:
            orientation = exif.orientation(_block(stored))
        except exif.DamagedExifError:
            return 1, ("The EXIF data are damaged: the image is taken as upright.",)
    xmp = _XMP_ORIENTATION.search(image.info.get("xmp") or b"")
    if xmp and int(xmp[1]) in range(2, 9) and orientation is None:
        return 1, (f"The orientation in XMP ({int(xmp[1])}) was ignored: only that in the EXIF data counts.",)
    return orientation or 1, ()


def _exif(stored: bytes | None) -> tuple[bytes | None, tuple[str, ...]]:
    """Return the part of EXIF data that a result may carry, and warnings."""
    if not stored:
        return None, ()
    try:
        return exif.kept(_block(stored), Metadata.ALL), ()
    except exif.DamagedExifError:
        return None, ("The EXIF data are damaged or larger than 64 kB: the result has none.",)


def _block(stored: bytes) -> bytes:
    """Return EXIF data without JPEG's prefix, which some writers put into other formats too, or twice."""
    return stored.removeprefix(exif.JPEG_PREFIX).removeprefix(exif.JPEG_PREFIX)


def _heic_warnings(image: Image.Image) -> tuple[str, ...]:
    images = getattr(image, "n_frames", 1)
    return (f"The file holds {images} images: the primary one was used.",) if images > 1 else ()


def _reduce(file: _File, at_least_px: int | None) -> int:
    """Set a JPEG to be decoded at 1/2, 1/4 or 1/8 of its size; return that divisor, or 1 for full size."""
    if at_least_px is None or isinstance(file.image, tiff.Page) or file.info.format != "jpeg":
        return 1
    width = file.image.width
    drafted = file.image.draft(None, (at_least_px, at_least_px))
    return round(width / drafted[1][2]) if drafted else 1


def _without_padding(rgb: Rgb, width: float, height: float) -> Rgb:
    """Stretch a reduced image until it shows ``width`` x ``height`` of its own pixels.

    libjpeg rounds a reduced size up. The last row and column then extend beyond the image, and a mask of it would be
    out of place by up to 7 pixels of the full size.
    """
    rows, columns = rgb.shape[:2]
    if (columns, rows) == (width, height):
        return rgb
    across, down = width / columns, height / rows
    to_padded = np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2]])  # pixel centers are at + 1/2
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    stretched = cv2.warpAffine(rgb, to_padded, (columns, rows), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(stretched, np.uint8)


def _pixels(data: bytes, file: _File, scale: int) -> tuple[Rgb, NDArray[np.uint8] | None, tuple[str, ...]]:
    """Decode to 8-bit sRGB and an 8-bit alpha, or None if opaque, both as stored, not yet upright."""
    image = file.image
    if isinstance(image, tiff.Page):
        return _tiff_pixels(image, file.light)
    profile = image.info.get("icc_profile")
    if file.info.format == "jpeg" and image.mode == "RGB" and colour.is_srgb(profile) and not file.light:
        # The same libjpeg and the same pixels, in 60 % of the time: not through Pillow's own memory.
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | _REDUCED[scale]
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if pixels is not None:  # else Pillow reports what is wrong
            return np.asarray(pixels, np.uint8), None, ()

    if file.png and file.png.bits == 16:
        return _deep_png(file.png, file.light)

    covered = image.tile[0].extents if isinstance(image, GifImageFile) else None
    image.load()
    if file.png and _ends_black(image) and chunks.surplus(file.png.data, 0) < 0:
        raise ValueError("image file is truncated")
    left, upper, right, lower = file.crop or (0, 0, *image.size)
    width, height = right - left, lower - upper
    rgb = np.empty((height, width, 3), np.uint8)
    alpha = np.full((height, width), 255, np.uint8)
    warnings: tuple[str, ...] = ()
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        band, opacity = colour.to_8_bits(image.crop((left, upper + top, right, upper + bottom)))
        band, warnings = colour.to_srgb(band, profile, file.light)
        rgb[top:bottom] = np.asarray(band)
        if opacity is not None:
            alpha[top:bottom] = opacity
    if covered:
        _clear_outside(alpha, covered)
    if file.info.format == "bmp" and not alpha.any():  # most programs write 0 into the 4th byte without meaning it
        alpha[:] = 255
    return rgb, alpha if alpha.min() < 255 else None, warnings


def _ends_black(image: Image.Image) -> bool:
    """Return whether one of the last two rows is black, as if rows or a pass were missing."""
    return any(not np.asarray(image.crop((0, y, image.width, y + 1))).any() for y in range(image.height)[-2:])


def _deep_png(png: chunks.Chunks, light: Light | None) -> tuple[Rgb, NDArray[np.uint8] | None, tuple[str, ...]]:
    """Decode a PNG of 16 bits per channel, of which Pillow keeps 8."""
    if chunks.surplus(png.data, _MAX_SURPLUS_BYTES) == _MAX_SURPLUS_BYTES:
        raise ValueError("more data than pixels")
    stored = cv2.imdecode(np.frombuffer(png.data, np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype != np.uint16:
        raise ValueError("the pixels are damaged or cut short")
    height, width = stored.shape[:2]
    rgb = np.empty((height, width, 3), np.uint8)
    alpha = np.full((height, width), 255, np.uint8)
    warnings: tuple[str, ...] = ()
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        band = stored[top : top + rows]
        pixels: NDArray[np.uint16] = band  # type: ignore[assignment]  # OpenCV loses the width of arrays
        if band.ndim == 3:
            pixels = np.ascontiguousarray(pixels[..., 2::-1])
        if png.gray and pixels.ndim == 3:
            pixels = pixels[..., 0]
        rgb[top : top + rows], warnings = colour.deep_to_srgb(pixels, png.info.get("icc_profile"), light)
        if png.transparent:
            hidden = pixels == png.transparent
            alpha[top : top + rows][hidden if hidden.ndim == 2 else hidden.all(axis=-1)] = 0
        elif band.ndim == 3 and band.shape[2] == 4:
            alpha[top : top + rows] = cv2.convertScaleAbs(np.ascontiguousarray(band[..., 3]), alpha=1 / 257)  # rounds
    return rgb, alpha if alpha.min() < 255 else None, warnings


def _clear_outside(alpha: NDArray[np.uint8], box: tuple[int, int, int, int]) -> None:
    """Make all pixels outside a box transparent: a GIF's frame can be smaller than its screen."""
    left, top, right, bottom = box
    alpha[:top], alpha[bottom:], alpha[:, :left], alpha[:, right:] = 0, 0, 0, 0


def _tiff_pixels(page: tiff.Page, light: Light | None) -> tuple[Rgb, NDArray[np.uint8] | None, tuple[str, ...]]:
    """Decode a TIFF's page as :func:`_pixels` does."""
    rgb = np.empty((page.height, page.width, 3), np.uint8)
    alpha = None if page.alpha is None else np.empty((page.height, page.width), np.uint8)
    warnings: tuple[str, ...] = ()
    for top, pixels, opacity in page.bands():
        bottom = top + len(pixels)
        if pixels.dtype == np.uint16 and page.mode in {"L", "RGB"}:
            deep = pixels[..., 0] if page.mode == "L" else pixels
            rgb[top:bottom], warnings = colour.deep_to_srgb(np.ascontiguousarray(deep), page.icc, light)
        else:
            stored = _as_bytes(pixels).tobytes()
            image = Image.frombytes(page.mode, (page.width, len(pixels)), stored, "raw", page.mode)
            band, warnings = colour.to_srgb(image, page.icc, light)
            rgb[top:bottom] = np.asarray(band)
        if alpha is not None and opacity is not None:
            alpha[top:bottom] = _as_bytes(opacity)
    return rgb, None if alpha is None or alpha.min() == 255 else alpha, warnings


def _as_bytes(numbers: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale 16 bits to 8."""
    if numbers.dtype == np.uint8:
        return numbers
    return np.asarray(cv2.convertScaleAbs(numbers, alpha=1 / 257), np.uint8)
