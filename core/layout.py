"""Geometry of input and result: the region to segment, and the subject's size and position in the result.

The result is a canvas: the whole image, or with ``crop`` a part of it. ``scale`` and ``position`` set the subject's
size and place on the canvas, without its surroundings. ``max_megapixels`` shrinks the canvas and its content. All of it
is computed before any pixel is touched, so that pixels are interpolated once.
"""

import math
from dataclasses import dataclass
from typing import Final, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from core.arrays import Alpha, Rgb
from core.errors import InvalidOptionsError
from core.limits import MIN_SIDE_PX
from core.options import CENTER, ORIGINAL, REGION_EXCEEDS_PICTURE, Options

_Number = TypeVar("_Number", np.uint8, np.float32)

_VISIBLE: Final = 0.02
"""Alpha above which a pixel counts as subject: fainter ones look like noise."""

_FAINTEST: Final = np.float32(0.5 / 255)
"""Least alpha that is not rounded to 0."""


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Index of the rectangle in an array of the image's size."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


@dataclass(frozen=True)
class Region:
    """The part ``box`` of an image of ``width`` x ``height`` in which to look for the subject."""

    box: Box
    width: int
    height: int

    def at_least_px(self, side_px: int) -> int:
        """Return the shorter side that the image needs for the region to have a shorter side of ``side_px``."""
        return math.ceil(side_px * min(self.width, self.height) / min(self.box.width, self.box.height))

    def cut(self, pixels: NDArray[_Number]) -> NDArray[_Number]:
        """Return the region of an image or an alpha that was decoded at any scale; a view."""
        height, width = pixels.shape[:2]
        rows = (round(y * height / self.height) for y in (self.box.top, self.box.top + self.box.height))
        columns = (round(x * width / self.width) for x in (self.box.left, self.box.left + self.box.width))
        return pixels[slice(*rows), slice(*columns)]

    def put_back(self, alpha: Alpha) -> Alpha:
        """Return the alpha of the whole image, given the region's; 0 outside the region."""
        if alpha.shape == (self.height, self.width):
            return alpha
        whole = np.zeros((self.height, self.width), np.float32)
        whole[self.box.window] = alpha
        return whole


@dataclass(frozen=True)
class Layout:
    """Mapping of ``source``, a part of the image, to ``target``, a part of a result of ``width`` x ``height``."""

    source: Box
    target: Box
    width: int
    height: int

    def arrange(self, rgb: Rgb, alpha: Alpha) -> tuple[Rgb, Alpha]:
        """Return the result's colors and alpha; views, where nothing is scaled or moved.

        Args:
            rgb: H x W x 3 uint8, of the image.
            alpha: H x W float32 in [0, 1].
        """
        rgb, alpha = rgb[self.source.window], alpha[self.source.window]
        if alpha.shape != (self.target.height, self.target.width):
            rgb, alpha = _scaled(rgb, alpha, self.target.width, self.target.height)
        if alpha.shape == (self.height, self.width):
            return rgb, alpha
        canvas_rgb = np.zeros((self.height, self.width, 3), np.uint8)
        canvas_alpha = np.zeros((self.height, self.width), np.float32)
        canvas_rgb[self.target.window], canvas_alpha[self.target.window] = rgb, alpha
        return canvas_rgb, canvas_alpha


def region(roi: str | None, width: int, height: int) -> Region:
    """Return the region that an option describes, rounded to whole pixels; the whole image for None.

    Args:
        roi: ``options.roi``.
        width: of the upright image, in pixels.
        height: likewise.

    Raises:
        InvalidOptionsError: the region extends beyond the image (the message begins with ``REGION_EXCEEDS_PICTURE``),
            or has a side of less than 16 pixels.
    """
    if roi is None:
        return Region(Box(0, 0, width, height), width, height)
    corners = [_pixels(text, side) for text, side in zip(roi.split(), (width, height) * 2, strict=True)]
    left, top, right, bottom = map(round, corners)
    if max(corners[::2]) > width or max(corners[1::2]) > height:
        raise InvalidOptionsError(
            f"{REGION_EXCEEDS_PICTURE}, which is {width} x {height} pixels",
            field="options.roi",
            value=roi,
            remedy="Set corners within the upright image.",
        )
    if min(right - left, bottom - top) < MIN_SIDE_PX:
        raise InvalidOptionsError(
            f"The region is smaller than {MIN_SIDE_PX} x {MIN_SIDE_PX} pixels",
            field="options.roi",
            value=roi,
            remedy="Set the upper left corner first, then the lower right one.",
        )
    return Region(Box(left, top, right - left, bottom - top), width, height)


def visible(alpha: Alpha) -> Box | None:
    """Return the smallest rectangle around the visible subject; None if nothing is visible."""
    left, top, width, height = cv2.boundingRect((alpha > _VISIBLE).view(np.uint8))
    return Box(left, top, width, height) if width else None


def lay_out(subject: Box | None, width: int, height: int, options: Options) -> Layout:
    """Return the layout of a result.

    Args:
        subject: from :func:`visible`. With None, nothing is cropped, scaled or moved.
        width: of the image, in pixels.
        height: likewise.
        options: ``crop``, ``crop_margin``, ``scale``, ``position`` and ``max_megapixels``.
    """
    frame = Box(0, 0, width, height)
    if options.crop and subject:
        frame = _with_margins(subject, options.crop_margin, width, height)
    canvas_width, canvas_height = _at_most(frame.width, frame.height, options.max_megapixels)
    position = options.position or (ORIGINAL if options.scale == ORIGINAL else CENTER)
    if subject is None or options.scale == position == ORIGINAL:
        return Layout(frame, Box(0, 0, canvas_width, canvas_height), canvas_width, canvas_height)
    factor = 1.0
    if options.scale != ORIGINAL:
        factor = _share(options.scale) / max(subject.width / frame.width, subject.height / frame.height)
    across, down = _shares(position)
    left, shown_width = _placed(subject.left - frame.left, subject.width, frame.width, canvas_width, factor, across)
    top, shown_height = _placed(subject.top - frame.top, subject.height, frame.height, canvas_height, factor, down)
    return Layout(subject, Box(left, top, shown_width, shown_height), canvas_width, canvas_height)


def _pixels(length: str, side_px: int) -> float:
    """Return a length in pixels: ``30px``, or ``10%`` of a side."""
    return float(length.removesuffix("px")) if length.endswith("px") else _share(length) * side_px


def _share(percent: str) -> float:
    return float(percent.removesuffix("%")) / 100


def _shares(position: str) -> tuple[float, float] | tuple[None, None]:
    """Return the shares of the free room to leave left of and above the subject; None to leave it in place."""
    if position == ORIGINAL:
        return None, None
    if position == CENTER:
        return 0.5, 0.5
    shares = [_share(percent) for percent in position.split()]
    return shares[0], shares[-1]


def _with_margins(subject: Box, margin: float | str, width: int, height: int) -> Box:
    """Return the subject's box with its margins, clipped to the image."""
    if isinstance(margin, float):
        top = right = bottom = left = round(margin * max(subject.width, subject.height))
    else:
        lengths = margin.split()
        sides = lengths * (4 // len(lengths))  # in CSS order
        spans = (subject.height, subject.width) * 2
        top, right, bottom, left = (round(_pixels(side, span)) for side, span in zip(sides, spans, strict=True))
    x, y = max(subject.left - left, 0), max(subject.top - top, 0)
    end_x = min(subject.left + subject.width + right, width)
    end_y = min(subject.top + subject.height + bottom, height)
    return Box(x, y, end_x - x, end_y - y)


def _at_most(width: int, height: int, megapixels: float | None) -> tuple[int, int]:
    """Return the largest size of the same shape within a limit, at least one pixel."""
    if megapixels is None or width * height <= megapixels * 1e6:
        return width, height
    pixels = max(1, int(megapixels * 1e6))
    factor = math.sqrt(pixels / (width * height))
    return min(max(1, int(width * factor)), pixels), min(max(1, int(height * factor)), pixels)


def _placed(start: int, length: int, frame: int, canvas: int, factor: float, share: float | None) -> tuple[int, int]:
    """Return the subject's start and length along one axis of the canvas.

    Args:
        start: its start in the frame.
        length: its length in the frame.
        frame: length of the part of the image that the canvas shows.
        canvas: length of the canvas; less than ``frame`` if the result is scaled down.
        factor: by which the subject is enlarged.
        share: see :func:`_shares`. A subject that is left in place keeps its center, if it fits there.
    """
    enlarged = length * factor
    room = max(frame - enlarged, 0.0)
    beside = room * share if share is not None else min(max(start + (length - enlarged) / 2, 0.0), room)
    shown = min(max(1, round(enlarged * canvas / frame)), canvas)
    return min(round(beside * canvas / frame), canvas - shown), shown


def _scaled(rgb: Rgb, alpha: Alpha, width: int, height: int) -> tuple[Rgb, Alpha]:
    """Scale colors weighted by alpha: transparent pixels, which have no color, would darken the edge."""
    kernel = cv2.INTER_AREA if width * height < alpha.size else cv2.INTER_CUBIC
    opacity = np.asarray(cv2.resize(alpha, (width, height), interpolation=kernel), np.float32)
    divisor = np.maximum(opacity, _FAINTEST)
    scaled = np.empty((height, width, 3), np.uint8)
    for channel in range(3):  # one at a time: the whole in floats would be four times the picture
        premultiplied = cv2.multiply(cv2.extractChannel(rgb, channel), alpha, dtype=cv2.CV_32F)
        color = cv2.resize(premultiplied, (width, height), interpolation=kernel) / divisor
        cv2.insertChannel(cv2.convertScaleAbs(color.clip(0, 255)), scaled, channel)
    return scaled, opacity.clip(0, 1)
