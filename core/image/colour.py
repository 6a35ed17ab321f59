"""Color: any mode, depth and profile of a decoded image to 8-bit sRGB."""

import io
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from core.errors import UnsupportedFormatError
from core.image import guards, light
from core.types import Rgb

_SRGB: Final = ImageCms.createProfile("sRGB")
_PROFILE_MODES: Final = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_SMALL_STEP: Final = 2
_FEWER_LEVELS: Final = (
    "The color profile is made of tables, which were applied to 8 of the image's 16 bits: dark tones may show steps."
)
_TIFF_BITS, _TIFF_PHOTOMETRIC = 258, 262


def to_8_bits(image: Image.Image, tags: Mapping[int, Any]) -> tuple[Image.Image, NDArray[np.uint8] | None]:
    """Return an image as L, RGB, CMYK or LAB of 8 bits, and its alpha, or None.

    Args:
        image: of any mode.
        tags: of the TIFF that it was read from; empty for other formats.

    Returns:
        The image; H x W uint8, from an alpha channel, a transparent palette entry or a transparent color.

    Raises:
        UnsupportedFormatError: the pixels are numbers without a defined white.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        grey, alpha = _scaled(image, tags)
        return Image.fromarray(grey), alpha
    return _split(image)


def _split(image: Image.Image) -> tuple[Image.Image, NDArray[np.uint8] | None]:
    if image.mode == "La":  # premultiplied gray, which Pillow converts to nothing else
        image = image.convert("LA")
    alpha = None
    if image.has_transparency_data:
        if image.mode not in {"LA", "RGBA"}:
            image = image.convert("RGBA")
        alpha = np.array(image.getchannel("A"))
    if image.mode in {"L", "RGB", "CMYK", "LAB"}:
        return image, alpha
    return image.convert("L" if image.mode in {"1", "LA"} else "RGB"), alpha


def _scaled(image: Image.Image, tags: Mapping[int, Any]) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Scale gray of 12 or 16 bits, or floats in [0, 1], to 8 bits; Pillow would clip it.

    Returns:
        The gray image, and the alpha of a transparent gray (PNG ``tRNS``), or None.
    """
    values = np.asarray(image)
    if image.mode == "F":
        white = 1.0
        if not (values.min() >= 0 and values.max() <= white):  # also true for NaN
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
        f"The pixels are {found}, for which white is not defined",
        field="image.format",
        value=found,
        remedy="Save the image with 8 or 16 bits per channel.",
    )


def deep_to_srgb(
    pixels: NDArray[np.uint16], icc: bytes | None, encoding: light.Light | None = None
) -> tuple[Rgb, tuple[str, ...]]:
    """Convert gray or RGB of 16 bits to sRGB of 8 bits.

    No precision is lost ahead of curves and matrices. LittleCMS takes 8 bits through Pillow, which a profile of tables
    is applied to: those of linear light then keep 183 of 256 levels of gray. To interpolate between colors of 8 bits
    keeps all, but takes 5 s for 12 MP.

    Args:
        pixels: H x W or H x W x 3; white is 65,535.
        icc: the ICC profile.
        encoding: of the colors where there is no profile, or it cannot be used; None for sRGB.

    Returns:
        H x W x 3; a warning if the profile could not be used, or levels are lost.
    """
    if icc and not is_srgb(icc):
        of_profile = light.of_profile(icc)
        if of_profile and (pixels.ndim == 2 or of_profile.matrix):
            return light.to_srgb(pixels, of_profile), ()
    elif encoding:
        return light.to_srgb(pixels, encoding), ()
    scaled = cv2.convertScaleAbs(pixels, alpha=1 / 257)  # rounds
    image, warnings = to_srgb(Image.fromarray(np.asarray(scaled, np.uint8)), icc, encoding)
    if not warnings and icc and _has_large_steps(icc):
        warnings = (_FEWER_LEVELS,)
    return np.asarray(image), warnings


def to_srgb(
    image: Image.Image, icc: bytes | None, encoding: light.Light | None = None
) -> tuple[Image.Image, tuple[str, ...]]:
    """Convert an L, RGB, CMYK or LAB image to sRGB by its ICC profile, or else by another encoding of its colors.

    Returns:
        The image as RGB; a warning if its profile could not be used or is missing where it is needed.
    """
    if image.mode == "LAB":
        lab = ImageCms.buildTransform(ImageCms.createProfile("LAB"), _SRGB, "LAB", "RGB")
        return lab.apply(image), ()
    if icc and (transform := _transform(icc)):
        if transform.input_mode == "RGB" and image.mode == "L":
            image = image.convert("RGB")
        if transform.input_mode == image.mode:
            return (image if _changes_nothing(transform) else transform.apply(image)), ()
    warnings: tuple[str, ...] = ()
    if icc:
        warnings = ("The color profile is damaged or of another color space and was ignored.",)
    elif image.mode == "CMYK":
        warnings = ("The image is CMYK without a color profile: its colors are approximate.",)
    if encoding and image.mode in {"L", "RGB"}:
        return Image.fromarray(light.to_srgb(np.asarray(image), encoding)), warnings
    return image.convert("RGB"), warnings


def is_srgb(icc: bytes | None) -> bool:
    """Return whether an RGB image with this ICC profile, or none, needs no conversion."""
    if not icc:
        return True
    transform = _transform(icc)
    return transform is not None and _changes_nothing(transform)


@lru_cache(maxsize=1)
def _transform(icc: bytes) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from a profile to sRGB, or None if the profile cannot be used."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(guards.bounded_profile(icc)))
        mode = _PROFILE_MODES[profile.profile.xcolor_space.strip()]
        return ImageCms.buildTransform(profile, _SRGB, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, KeyError, ValueError, TypeError):
        return None


def _has_large_steps(icc: bytes) -> bool:
    """Return whether neighboring 8-bit grays of a profile of RGB are more than two levels of sRGB apart."""
    transform = _transform(icc)
    if transform is None or transform.input_mode != "RGB":
        return False
    grays = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("RGB")
    levels = np.asarray(transform.apply(grays)).reshape(-1, 3).astype(int)
    return bool(np.diff(levels, axis=0).max() > _SMALL_STEP)


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Return whether a transform from RGB moves no color of a 9 x 9 x 9 grid by more than one level.

    Most photographs carry one of the many sRGB profiles, and transforming 12 MP takes longer than decoding them.
    """
    if transform.input_mode != "RGB":
        return False
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(9, 81, 3)
    return bool(cv2.absdiff(grid, np.asarray(transform.apply(Image.fromarray(grid)))).max() <= 1)
