"""Color: any mode, depth and profile of a decoded image to 8-bit sRGB."""

import io
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from core.arrays import Rgb
from core.image import guards, light

_SRGB: Final = ImageCms.createProfile("sRGB")
_PROFILE_MODES: Final = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_SMALL_STEP: Final = 2
_FEWER_LEVELS: Final = (
    "The color profile is made of tables, which were applied to 8 of the image's 16 bits: dark tones may show steps."
)


def to_8_bits(image: Image.Image) -> tuple[Image.Image, NDArray[np.uint8] | None]:
    """Return an image as L, RGB, CMYK or LAB, and its alpha, or None.

    Args:
        image: of any mode of 8 bits per channel or fewer.

    Returns:
        The image; H x W uint8, from an alpha channel, a transparent palette entry or a transparent color.
    """
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
    if icc:
        of_profile = None if is_srgb(icc) else light.of_profile(icc)
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
