"""Pixels to bytes: the cut-out or its mask as a file, and the planes that stages hand on."""

import io
import struct
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from core.errors import InvalidOptionsError
from core.options import Options, Output, OutputFormat
from core.types import Alpha, Mask, Rgb

_VISIBLE: Final = 0.02
"""Alpha above which a pixel counts as subject for cropping: fainter ones are noise to the eye."""

# The filter UP makes it twice as fast as the default at nearly the smallest size.
_PNG_PARAMETERS: Final = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]
_PNG_HEADER_BYTES: Final = 33
_PNG_SRGB_CHUNK: Final = bytes.fromhex("00000001 73524742 00 aece1ce9")

# Method 4, the default, takes twice as long for a tenth less; method 0 makes lossless files a third larger.
_WEBP_METHOD: Final = 1

_MAX_SIDE_PX: Final = {
    OutputFormat.WEBP: 16_383,
    OutputFormat.WEBP_LOSSLESS: 16_383,
    OutputFormat.JPEG: 65_500,  # libjpeg's own limit, just below the format's 65,535
}


@dataclass(frozen=True)
class Encoded:
    """A result file; ``width`` and ``height`` are in pixels, after cropping."""

    data: bytes
    content_type: str
    format: str
    width: int
    height: int


def encode(rgb: Rgb, alpha: Alpha, options: Options, *, background: Rgb | None = None) -> Encoded:
    """Encode the result that the options ask for.

    A cut-out has straight (not premultiplied) alpha, and its colour is zero where alpha is, which halves time
    and size. On a background it is opaque; JPEG, which has no alpha, takes white where no background is given.
    All colour files are tagged as sRGB; a mask, which is no colour, is not tagged.

    The subject is blended with a background on sRGB values, not on linear light: that is how the camera's
    pixels at the edge were taken apart into alpha and foreground, so on its own background the subject gives
    the photograph back, and it is what browsers do with the transparent file.

    Args:
        rgb: H x W x 3 uint8 sRGB, the subject's own colour, free of the old background.
        alpha: H x W float32 in [0, 1], 1 is opaque.
        options: what to show, and how.
        background: h x w x 3 uint8 sRGB of any size; scaled to cover the result, and its centre taken.

    Returns:
        The file. ``format`` is the option's value, such as ``webp_lossless``.

    Raises:
        InvalidOptionsError: the format cannot hold a picture of this size.
    """
    if options.crop:
        rows, columns = _subject(alpha, options.crop_margin)
        rgb, alpha = rgb[rows, columns], alpha[rows, columns]
    height, width = alpha.shape
    _check_side(max(height, width), options.format)
    plane = _to_8_bits(alpha)
    if options.output is Output.MASK:
        pixels = plane
    elif (behind := _background(options, background, width, height)) is not None:
        pixels = np.asarray(cv2.blendLinear(rgb, behind, alpha, 1 - alpha), np.uint8)
    else:
        pixels = _with_alpha(rgb, plane)
    data = _FILES[options.format](pixels, options.quality)
    return Encoded(data, options.format.content_type, options.format.value, width, height)


def encode_plane(plane: Alpha | Mask) -> bytes:
    """Encode a mask or an alpha for the next stage.

    Args:
        plane: H x W float32 in [0, 1].

    Returns:
        An 8-bit grey PNG, to be read with ``decode_plane``.
    """
    return _png(_to_8_bits(plane), 100)


def _to_8_bits(plane: Alpha) -> NDArray[np.uint8]:
    return np.asarray(cv2.convertScaleAbs(plane, alpha=255), np.uint8)  # rounds to nearest


def _subject(alpha: Alpha, margin: float) -> tuple[slice, slice]:
    """Return the rows and columns of the visible subject with its margin; all of them if nothing is visible."""
    visible = alpha > _VISIBLE
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    if not rows.size:
        return slice(None), slice(None)
    margin_px = round(margin * max(np.ptp(rows) + 1, np.ptp(columns) + 1))
    return _widened(rows, margin_px), _widened(columns, margin_px)


def _widened(indices: NDArray[np.intp], margin_px: int) -> slice:
    return slice(max(int(indices[0]) - margin_px, 0), int(indices[-1]) + 1 + margin_px)


def _check_side(side_px: int, format_: OutputFormat) -> None:
    limit_px = _MAX_SIDE_PX.get(format_)
    if limit_px and side_px > limit_px:
        raise InvalidOptionsError(
            f"A side of the result has {side_px} pixels, and {format_.value} holds {limit_px}",
            field="options.format",
            value=format_.value,
            remedy="Ask for png, or scale the picture down.",
        )


def _background(options: Options, picture: Rgb | None, width: int, height: int) -> Rgb | None:
    """Return what to put behind the subject, at the result's size, or None for a transparent result."""
    if picture is not None:
        return _cover(picture, width, height)
    colour = options.background_color or ("#ffffff" if options.format is OutputFormat.JPEG else None)
    if colour is None:
        return None
    return np.full((height, width, 3), tuple(bytes.fromhex(colour[1:])), np.uint8)


def _cover(picture: Rgb, width: int, height: int) -> Rgb:
    """Scale a picture until it covers width x height, and take its centre."""
    scale = max(width / picture.shape[1], height / picture.shape[0])
    # Cut first: a panorama behind a portrait would otherwise be scaled in full.
    cut_width, cut_height = (max(1, round(side / scale)) for side in (width, height))
    left, top = (picture.shape[1] - cut_width) // 2, (picture.shape[0] - cut_height) // 2
    cut = picture[top : top + cut_height, left : left + cut_width]
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(cut, (width, height), interpolation=interpolation), np.uint8)


def _with_alpha(rgb: Rgb, plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Join colour and alpha to H x W x 4, with the colour zero where the alpha is."""
    visible = cv2.copyTo(rgb, plane)  # what the mask leaves out is zero
    rgba = np.asarray(cv2.cvtColor(visible, cv2.COLOR_RGB2RGBA), np.uint8)
    cv2.insertChannel(plane, rgba, 3)
    return rgba


def _png(pixels: NDArray[np.uint8], _quality: int) -> bytes:
    if pixels.ndim == 2:
        return cv2.imencode(".png", pixels, _PNG_PARAMETERS)[1].tobytes()
    to_bgr = cv2.COLOR_RGBA2BGRA if pixels.shape[2] == 4 else cv2.COLOR_RGB2BGR
    data = cv2.imencode(".png", cv2.cvtColor(pixels, to_bgr), _PNG_PARAMETERS)[1].tobytes()
    return data[:_PNG_HEADER_BYTES] + _PNG_SRGB_CHUNK + data[_PNG_HEADER_BYTES:]


def _webp(pixels: NDArray[np.uint8], quality: int) -> bytes:
    return _by_pillow(pixels, "WEBP", quality=quality, method=_WEBP_METHOD)


def _webp_lossless(pixels: NDArray[np.uint8], _quality: int) -> bytes:
    return _by_pillow(pixels, "WEBP", lossless=True, quality=0, method=_WEBP_METHOD)


def _jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    # Colour at full resolution: the subject's edge on its new background is a colour edge.
    return _by_pillow(pixels, "JPEG", quality=quality, subsampling="4:4:4")


def _by_pillow(pixels: NDArray[np.uint8], pillow_name: str, **parameters: Any) -> bytes:
    if pixels.ndim == 3:
        parameters["icc_profile"] = _srgb_profile()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, pillow_name, **parameters)
    return buffer.getvalue()


@cache
def _srgb_profile() -> bytes:
    """Return an sRGB profile, dated 2000-01-01: with its date of making no two processes' files were equal."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + profile[36:]


_FILES: Final = {
    OutputFormat.PNG: _png,
    OutputFormat.WEBP: _webp,
    OutputFormat.WEBP_LOSSLESS: _webp_lossless,
    OutputFormat.JPEG: _jpeg,
}
