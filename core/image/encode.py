"""Encode results, and the masks and alphas that one stage passes to the next."""

import io
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from numbers import Rational
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, features
from PIL.ExifTags import Base

from core import layout
from core.arrays import Alpha, Mask, Rgb
from core.errors import InvalidOptionsError
from core.image import outline, png
from core.image.decode import as_share
from core.image.exif import JPEG_PREFIX
from core.matting.tiles import shrink
from core.options import Options, Output, OutputFormat

_WEBP_METHOD: Final = 2
"""As fast as 1 and smaller; 4, the default, takes 1.7 times as long and saves 1 %.

Below 2, libwebp exceeds the format's limit of prediction modes on detailed images, and fails.
"""

_WEBP_LOSSLESS_METHOD: Final = 1
"""4, the default, takes twice as long and saves 10 %; 0 makes files a third larger."""

_AVIF_SPEED: Final = 8
"""6, Pillow's default, takes 2.4 times as long and saves an eighth; 9 takes half as long and adds an eighth."""

_AVIF_LEAST_THREADS: Final = 2
"""With one thread libaom codes rows another way; with two or more the bytes are always the same."""

_MAX_SIDE_PX: Final = {
    OutputFormat.WEBP: 16_383,
    OutputFormat.WEBP_LOSSLESS: 16_383,
    OutputFormat.AVIF: 32_768,  # the format holds 65,536, but libavif, which browsers use, reads no more
    OutputFormat.JPEG: 65_500,  # libjpeg's own limit, just below the format's 65,535
    OutputFormat.ZIP: 65_500,  # it holds a JPEG
}

_JPEG_BLOCK_PX: Final = 8
_READABLE: Final = 0o644 << 16

_LEAST: Final = np.float32(1e-6)
"""Lower bound of divisors."""

_METERS_PER_INCH: Final = 0.0254
_UNITS_PER_INCH: Final = {2: 1.0, 3: 2.54}
"""By EXIF's number of the unit: inch and centimeter."""

_MAX_DENSITY: Final = 65_535


@dataclass(frozen=True)
class Encoded:
    """A result file.

    ``width`` and ``height`` are the result's, in pixels; ``foreground`` is the box of the visible subject in the source
    image, None if nothing is visible. ``warnings`` has one sentence for each fault that the options cause.
    """

    data: bytes
    content_type: str
    format: str
    width: int
    height: int
    foreground: layout.Box | None
    warnings: tuple[str, ...] = ()


_ENLARGED: Final = 1.5
"""Enlargement above which a result looks blurred."""


def encode(
    rgb: Rgb, alpha: Alpha, options: Options, *, background: Rgb | None = None, exif: bytes | None = None
) -> Encoded:
    """Encode the result that the options describe.

    A cut-out has straight (not premultiplied) alpha, and its color is zero where alpha is zero, which halves time and
    size. On a background it is as opaque as the background; JPEG, which has no alpha, uses white by default. A ZIP
    holds ``color.jpg`` and ``alpha.png``. Color files are tagged as sRGB; masks are not tagged.

    The subject is blended with a background on sRGB values, not on linear light: the edge's pixels were separated into
    alpha and foreground in the same way, so that on its own background the subject gives the photograph back, and
    browsers blend the transparent file in the same way.

    PNG needs little memory beyond the file's own size, unless the subject is scaled or moved; the other formats need
    the whole result, and their encoders more.

    Args:
        rgb: H x W x 3 uint8 sRGB, the subject's own colors, without the old background.
        alpha: H x W float32 in [0, 1], 1 is opaque.
        options: content, layout and format.
        background: h x w x 3 uint8 sRGB of any size; scaled to cover the result and cropped to its center. With
            ``background_blur`` it is the image's own, H x W x 3, and cropped as the image is before that.
        exif: EXIF data, as :func:`core.image.exif.kept` returns them. PNG and JPEG also get the resolution from it.

    Returns:
        The file. ``format`` is the option's value, such as ``webp_lossless``.

    Raises:
        InvalidOptionsError: the format does not allow an image of this size, or this Pillow cannot write it.
    """
    foreground = layout.visible(alpha)
    placed = layout.place(alpha, options)
    rgb, alpha = placed.arrange(rgb, alpha)
    if placed.outline_px:
        rgb, alpha = outline.draw(rgb, alpha, placed.outline_px, options.outline_color)
    height, width = alpha.shape
    _check(options.format, max(height, width))
    is_mask = options.output is Output.MASK
    if background is not None and options.background_blur:
        background = background[placed.frame.window]
    behind = None if is_mask else _background(options, background, width, height)
    opacity = options.background_opacity
    pixels = _rows(rgb, alpha, behind, opacity, is_mask=is_mask)
    match options.format:
        case OutputFormat.PNG:
            channels = 1 if is_mask else 3 if behind is not None and opacity == 1 else 4
            density = _pixels_per_metre(exif)
            data = png.write(pixels, height, width, channels, srgb=not is_mask, pixels_per_metre=density, exif=exif)
        case OutputFormat.ZIP:
            colors = _opaque(rgb, _to_8_bits(alpha))
            jpeg = _by_pillow(colors, OutputFormat.JPEG, options.quality, exif)
            data = _archive({"color.jpg": jpeg, "alpha.png": encode_plane(alpha)})
        case _:
            data = _by_pillow(pixels(0, height), options.format, options.quality, exif)
    warnings = _warnings(placed, options)
    return Encoded(data, options.format.content_type, options.format.value, width, height, foreground, warnings)


def _warnings(placed: layout.Layout, options: Options) -> tuple[str, ...]:
    if options.canvas_size is None or placed.enlargement <= _ENLARGED:
        return ()
    return (
        f"The subject is enlarged {placed.enlargement:.1f} times to fill the canvas {options.canvas}, so it looks "
        "blurred. Upload a larger photo, or set a smaller canvas.",
    )


def _rows(rgb: Rgb, alpha: Alpha, behind: Rgb | None, opacity: float, *, is_mask: bool) -> png.Rows:
    """Return a function of rows: n x W of a mask, n x W x 3 on an opaque background, else n x W x 4."""

    def pixels(top: int, bottom: int) -> NDArray[np.uint8]:
        part = alpha[top:bottom]
        if is_mask:
            return _to_8_bits(part)
        if behind is None:
            return _with_alpha(rgb[top:bottom], _to_8_bits(part))
        under = np.ascontiguousarray(behind[top:bottom])
        if opacity == 1:
            return _blended(rgb[top:bottom], under, part)
        covered: Alpha = part + np.float32(opacity) * (1 - part)
        share: Alpha = np.divide(part, np.maximum(covered, _LEAST), dtype=np.float32)
        return _with_alpha(_blended(rgb[top:bottom], under, share), _to_8_bits(covered))

    return pixels


def encode_plane(plane: Alpha | Mask) -> bytes:
    """Return a mask or an alpha as an 8-bit gray PNG, to be read with ``decode_plane``.

    Args:
        plane: H x W float32 in [0, 1].
    """
    height, width = plane.shape
    return png.write(lambda top, bottom: _to_8_bits(plane[top:bottom]), height, width, channels=1)


def as_stored(plane: Alpha | Mask) -> Alpha:
    """Return a mask or an alpha as ``decode_plane`` reads it after ``encode_plane``: in steps of 1/255."""
    return as_share(_to_8_bits(plane))


def _to_8_bits(plane: Alpha) -> NDArray[np.uint8]:
    return np.asarray(cv2.convertScaleAbs(plane, alpha=255), np.uint8)  # rounds to nearest


def _check(format_: OutputFormat, side_px: int) -> None:
    limit_px = _MAX_SIDE_PX.get(format_)
    if limit_px and side_px > limit_px:
        raise InvalidOptionsError(
            f"A side of the result has {side_px} pixels; {format_.value} allows {limit_px}",
            field="options.format",
            value=format_.value,
            remedy="Set format=png, or scale the image down.",
        )
    if format_ is OutputFormat.AVIF and not features.check("avif"):
        raise InvalidOptionsError(
            "The Pillow installed here cannot write AVIF",
            field="options.format",
            value=format_.value,
            remedy="Set format=webp, or install a Pillow that was built with libavif, as its wheels are.",
        )


def _background(options: Options, picture: Rgb | None, width: int, height: int) -> Rgb | None:
    """Return the background at the result's size, or None for a transparent result."""
    if picture is not None:
        return _cover(picture, width, height)
    color = options.background_color or ("#ffffff" if options.format is OutputFormat.JPEG else None)
    if color is None:
        return None
    return np.broadcast_to(np.frombuffer(bytes.fromhex(color[1:7]), np.uint8), (height, width, 3))


def _cover(picture: Rgb, width: int, height: int) -> Rgb:
    """Scale an image until it covers width x height, and crop it to its center."""
    scale = max(width / picture.shape[1], height / picture.shape[0])
    # Crop first: a panorama behind a portrait would otherwise be scaled in full.
    cut_width, cut_height = (max(1, round(side / scale)) for side in (width, height))
    left, top = (picture.shape[1] - cut_width) // 2, (picture.shape[0] - cut_height) // 2
    cut = picture[top : top + cut_height, left : left + cut_width]
    if cut.shape[:2] == (height, width):
        return cut
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(cut, (width, height), interpolation=interpolation), np.uint8)


def _blended(rgb: Rgb, under: Rgb, share: Alpha) -> Rgb:
    return np.asarray(cv2.blendLinear(rgb, under, share, 1 - share), np.uint8)


def _with_alpha(rgb: Rgb, plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Join color and alpha to H x W x 4, with color zero where alpha is zero."""
    visible = cv2.copyTo(rgb, plane)  # zero where the mask is zero
    rgba = np.asarray(cv2.cvtColor(visible, cv2.COLOR_RGB2RGBA), np.uint8)
    cv2.insertChannel(plane, rgba, 3)
    return rgba


def _opaque(rgb: Rgb, plane: NDArray[np.uint8]) -> Rgb:
    """Fill transparent pixels with the mean color of the visible ones in their block: black would bleed into the edge.

    JPEG codes each block by itself, so a block without the subject may stay black.
    """
    height, width = plane.shape
    hidden = (plane == 0).view(np.uint8)
    shown = np.maximum(1 - shrink(hidden.astype(np.float32), _JPEG_BLOCK_PX), _LEAST)
    colors = np.array(cv2.copyTo(rgb, plane), np.uint8)
    for channel in range(3):
        visible = cv2.extractChannel(colors, channel)
        means = cv2.convertScaleAbs(shrink(visible.astype(np.float32), _JPEG_BLOCK_PX) / shown)
        size = means.shape[1] * _JPEG_BLOCK_PX, means.shape[0] * _JPEG_BLOCK_PX
        everywhere = np.asarray(cv2.resize(means, size, interpolation=cv2.INTER_NEAREST), np.uint8)
        cv2.insertChannel(cv2.copyTo(everywhere[:height, :width], hidden, visible), colors, channel)
    return colors


def _archive(files: Mapping[str, bytes]) -> bytes:
    """Return an uncompressed ZIP of files that are compressed already."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)  # dated 1980-01-01, so that the same files make the same bytes
            entry.external_attr = _READABLE
            archive.writestr(entry, data)
    return buffer.getvalue()


def _by_pillow(pixels: NDArray[np.uint8], format_: OutputFormat, quality: int, exif: bytes | None) -> bytes:
    parameters: dict[str, Any] = {"quality": quality}
    is_color = pixels.ndim == 3
    match format_:
        case OutputFormat.WEBP:
            parameters["method"] = _WEBP_METHOD
        case OutputFormat.WEBP_LOSSLESS:
            parameters |= {"lossless": True, "quality": 0, "method": _WEBP_LOSSLESS_METHOD}
        case OutputFormat.AVIF:
            threads = max(_AVIF_LEAST_THREADS, cv2.getNumThreads())
            # By default, Pillow makes as many tiles as there are threads.
            parameters |= {"speed": _AVIF_SPEED, "max_threads": threads, "autotiling": False}
        case OutputFormat.JPEG:
            parameters["dpi"] = _dots_per_inch(exif) or (0, 0)
    if is_color and format_ in (OutputFormat.AVIF, OutputFormat.JPEG):
        # Color at full resolution: the subject's edge on its new background is a color edge.
        parameters["subsampling"] = "4:4:4"
    if is_color and format_ is not OutputFormat.AVIF:  # it declares sRGB in a few bytes of its own
        parameters["icc_profile"] = _srgb_profile()
    if exif:
        parameters["exif"] = JPEG_PREFIX + exif if format_ is OutputFormat.JPEG else exif
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format_.content_type.removeprefix("image/"), **parameters)
    return buffer.getvalue()


def _pixels_per_metre(exif: bytes | None) -> tuple[int, int] | None:
    density = _dots_per_inch(exif)
    return density and (round(density[0] / _METERS_PER_INCH), round(density[1] / _METERS_PER_INCH))


def _dots_per_inch(exif: bytes | None) -> tuple[float, float] | None:
    """Return the horizontal and vertical resolution of EXIF data; None if there is none that JPEG allows."""
    tags = Image.Exif()
    tags.load(exif or b"")
    unit = _UNITS_PER_INCH.get(tags.get(Base.ResolutionUnit, 0))
    x, y = tags.get(Base.XResolution), tags.get(Base.YResolution)
    if unit is None or not (isinstance(x, Rational) and isinstance(y, Rational)):
        return None
    density = float(x) * unit, float(y) * unit
    return density if all(1 <= value <= _MAX_DENSITY for value in density) else None


@cache
def _srgb_profile() -> bytes:
    """Return an sRGB profile dated 2000-01-01: with its real date, no two processes would write equal files."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + profile[36:]
