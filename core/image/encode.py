"""Pixels to bytes: the cut-out or its mask as a file, and the planes that stages hand on."""

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
from core.errors import InvalidOptionsError
from core.image import png
from core.image.exif import JPEG_PREFIX
from core.matting.tiles import shrink
from core.options import Options, Output, OutputFormat
from core.types import Alpha, Mask, Rgb

_WEBP_METHOD: Final = 2
"""As fast as 1 and smaller; 4, the default, takes 1.7 times as long for a hundredth less.

Below 2 libwebp does not hold its prediction modes under the format's limit, and fails with detailed pictures.
"""

_WEBP_LOSSLESS_METHOD: Final = 1
"""4, the default, takes twice as long for a tenth less; 0 makes files a third larger."""

_AVIF_SPEED: Final = 8
"""6, Pillow's default, takes 2.4 times as long for an eighth less; 9 half as long for an eighth more."""

_AVIF_LEAST_THREADS: Final = 2
"""With one thread libaom codes rows another way; from two on the bytes are always the same."""

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
"""What a share is divided by where there is nothing to share."""

_METRES_PER_INCH: Final = 0.0254
_UNITS_PER_INCH: Final = {2: 1.0, 3: 2.54}
"""By EXIF's number of the unit: inches and centimetres."""

_MAX_DENSITY: Final = 65_535


@dataclass(frozen=True)
class Encoded:
    """A result file.

    ``width`` and ``height`` are the result's, in pixels; ``foreground`` is where in the source picture the subject is
    visible, None if it is nowhere.
    """

    data: bytes
    content_type: str
    format: str
    width: int
    height: int
    foreground: layout.Box | None


def encode(
    rgb: Rgb, alpha: Alpha, options: Options, *, background: Rgb | None = None, exif: bytes | None = None
) -> Encoded:
    """Encode the result that the options ask for.

    A cut-out has straight (not premultiplied) alpha, and its colour is zero where alpha is, which halves time
    and size. On a background it is as opaque as that; JPEG, which has no alpha, takes white where no background is
    given. A ZIP holds ``color.jpg`` and ``alpha.png``. All colour files are tagged as sRGB; a mask, which is no
    colour, is not tagged.

    The subject is blended with a background on sRGB values, not on linear light: that is how the camera's
    pixels at the edge were taken apart into alpha and foreground, so on its own background the subject gives
    the photograph back, and it is what browsers do with the transparent file.

    PNG takes little memory beyond the file's own size, unless the subject is scaled or moved; the others need the whole
    result, and their encoders more.

    Args:
        rgb: H x W x 3 uint8 sRGB, the subject's own colour, free of the old background.
        alpha: H x W float32 in [0, 1], 1 is opaque.
        options: what to show, and how.
        background: h x w x 3 uint8 sRGB of any size; scaled to cover the result, and its centre taken.
        exif: EXIF data for the file, as ``metadata.kept`` returns them. PNG and JPEG, which have a place of their
            own for the resolution, say it there too.

    Returns:
        The file. ``format`` is the option's value, such as ``webp_lossless``.

    Raises:
        InvalidOptionsError: the format cannot hold a picture of this size, or cannot be written here.
    """
    foreground = layout.visible(alpha)
    rgb, alpha = layout.lay_out(foreground, alpha.shape[1], alpha.shape[0], options).arrange(rgb, alpha)
    height, width = alpha.shape
    _check(options.format, max(height, width))
    is_mask = options.output is Output.MASK
    behind = None if is_mask else _background(options, background, width, height)
    opacity = options.background_opacity

    def pixels(top: int, bottom: int) -> NDArray[np.uint8]:
        """Make some rows of the result: H x W of a mask, H x W x 3 on an opaque background, else H x W x 4."""
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

    match options.format:
        case OutputFormat.PNG:
            channels = 1 if is_mask else 3 if behind is not None and opacity == 1 else 4
            density = _pixels_per_metre(exif)
            data = png.write(pixels, height, width, channels, srgb=not is_mask, pixels_per_metre=density, exif=exif)
        case OutputFormat.ZIP:
            colours = _opaque(rgb, _to_8_bits(alpha))
            jpeg = _by_pillow(colours, OutputFormat.JPEG, options.quality, exif)
            data = _archive({"color.jpg": jpeg, "alpha.png": encode_plane(alpha)})
        case _:
            data = _by_pillow(pixels(0, height), options.format, options.quality, exif)
    return Encoded(data, options.format.content_type, options.format.value, width, height, foreground)


def encode_plane(plane: Alpha | Mask) -> bytes:
    """Encode a mask or an alpha for the next stage.

    Args:
        plane: H x W float32 in [0, 1].

    Returns:
        An 8-bit grey PNG, to be read with ``decode_plane``.
    """
    height, width = plane.shape
    return png.write(lambda top, bottom: _to_8_bits(plane[top:bottom]), height, width, channels=1)


def _to_8_bits(plane: Alpha) -> NDArray[np.uint8]:
    return np.asarray(cv2.convertScaleAbs(plane, alpha=255), np.uint8)  # rounds to nearest


def _check(format_: OutputFormat, side_px: int) -> None:
    limit_px = _MAX_SIDE_PX.get(format_)
    if limit_px and side_px > limit_px:
        raise InvalidOptionsError(
            f"A side of the result has {side_px} pixels, and {format_.value} holds {limit_px}",
            field="options.format",
            value=format_.value,
            remedy="Ask for png, or scale the picture down.",
        )
    if format_ is OutputFormat.AVIF and not features.check("avif"):
        raise InvalidOptionsError(
            "The Pillow installed here cannot write AVIF",
            field="options.format",
            value=format_.value,
            remedy="Ask for webp, or install a Pillow that was built with libavif, as its wheels are.",
        )


def _background(options: Options, picture: Rgb | None, width: int, height: int) -> Rgb | None:
    """Return what to put behind the subject, at the result's size, or None for a transparent result."""
    if picture is not None:
        return _cover(picture, width, height)
    colour = options.background_color or ("#ffffff" if options.format is OutputFormat.JPEG else None)
    if colour is None:
        return None
    return np.broadcast_to(np.frombuffer(bytes.fromhex(colour[1:7]), np.uint8), (height, width, 3))


def _cover(picture: Rgb, width: int, height: int) -> Rgb:
    """Scale a picture until it covers width x height, and take its centre."""
    scale = max(width / picture.shape[1], height / picture.shape[0])
    # Cut first: a panorama behind a portrait would otherwise be scaled in full.
    cut_width, cut_height = (max(1, round(side / scale)) for side in (width, height))
    left, top = (picture.shape[1] - cut_width) // 2, (picture.shape[0] - cut_height) // 2
    cut = picture[top : top + cut_height, left : left + cut_width]
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(cut, (width, height), interpolation=interpolation), np.uint8)


def _blended(rgb: Rgb, under: Rgb, share: Alpha) -> Rgb:
    return np.asarray(cv2.blendLinear(rgb, under, share, 1 - share), np.uint8)


def _with_alpha(rgb: Rgb, plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Join colour and alpha to H x W x 4, with the colour zero where the alpha is."""
    visible = cv2.copyTo(rgb, plane)  # what the mask leaves out is zero
    rgba = np.asarray(cv2.cvtColor(visible, cv2.COLOR_RGB2RGBA), np.uint8)
    cv2.insertChannel(plane, rgba, 3)
    return rgba


def _opaque(rgb: Rgb, plane: NDArray[np.uint8]) -> Rgb:
    """Give what is transparent the mean colour of what is visible in its block: black would bleed into the edge.

    JPEG codes each block by itself, so that one without the subject may as well be black.
    """
    height, width = plane.shape
    hidden = (plane == 0).view(np.uint8)
    shown = np.maximum(1 - shrink(hidden.astype(np.float32), _JPEG_BLOCK_PX), _LEAST)
    colours = np.array(cv2.copyTo(rgb, plane), np.uint8)
    for channel in range(3):
        visible = cv2.extractChannel(colours, channel)
        means = cv2.convertScaleAbs(shrink(visible.astype(np.float32), _JPEG_BLOCK_PX) / shown)
        size = means.shape[1] * _JPEG_BLOCK_PX, means.shape[0] * _JPEG_BLOCK_PX
        everywhere = np.asarray(cv2.resize(means, size, interpolation=cv2.INTER_NEAREST), np.uint8)
        cv2.insertChannel(cv2.copyTo(everywhere[:height, :width], hidden, visible), colours, channel)
    return colours


def _archive(files: Mapping[str, bytes]) -> bytes:
    """Put files into a ZIP as they are: they are compressed already."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)  # dated 1980-01-01, so that the same files make the same bytes
            entry.external_attr = _READABLE
            archive.writestr(entry, data)
    return buffer.getvalue()


def _by_pillow(pixels: NDArray[np.uint8], format_: OutputFormat, quality: int, exif: bytes | None) -> bytes:
    parameters: dict[str, Any] = {"quality": quality}
    is_colour = pixels.ndim == 3
    match format_:
        case OutputFormat.WEBP:
            parameters["method"] = _WEBP_METHOD
        case OutputFormat.WEBP_LOSSLESS:
            parameters |= {"lossless": True, "quality": 0, "method": _WEBP_LOSSLESS_METHOD}
        case OutputFormat.AVIF:
            threads = max(_AVIF_LEAST_THREADS, cv2.getNumThreads())
            # Left to itself, Pillow makes as many tiles as there are threads.
            parameters |= {"speed": _AVIF_SPEED, "max_threads": threads, "autotiling": False}
        case OutputFormat.JPEG:
            parameters["dpi"] = _dots_per_inch(exif) or (0, 0)
    if is_colour and format_ in (OutputFormat.AVIF, OutputFormat.JPEG):
        # Colour at full resolution: the subject's edge on its new background is a colour edge.
        parameters["subsampling"] = "4:4:4"
    if is_colour and format_ is not OutputFormat.AVIF:  # it says sRGB in a few bytes of its own
        parameters["icc_profile"] = _srgb_profile()
    if exif:
        parameters["exif"] = JPEG_PREFIX + exif if format_ is OutputFormat.JPEG else exif
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format_.content_type.removeprefix("image/"), **parameters)
    return buffer.getvalue()


def _pixels_per_metre(exif: bytes | None) -> tuple[int, int] | None:
    density = _dots_per_inch(exif)
    return density and (round(density[0] / _METRES_PER_INCH), round(density[1] / _METRES_PER_INCH))


def _dots_per_inch(exif: bytes | None) -> tuple[float, float] | None:
    """Return the horizontal and vertical resolution that EXIF data give, if they give one that JPEG can hold."""
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
    """Return an sRGB profile, dated 2000-01-01: with its date of making no two processes' files were equal."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + profile[36:]
