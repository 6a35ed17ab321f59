"""Geometry of input and result: the region to segment, and the subject's size and position in the result.

The result is a canvas: the whole image, with ``crop`` a part of it, or one of the size or shape that ``canvas`` sets.
``scale`` and ``position`` set the subject's size and place on the canvas, without its surroundings. ``outline`` takes
room around the subject. ``max_megapixels`` shrinks the canvas and its content. All of it is computed before any pixel
is touched, so that pixels are interpolated once.
"""

import math
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from core.arrays import Alpha, Rgb
from core.errors import InvalidOptionsError
from core.limits import MIN_SIDE_PX
from core.options import AUTO_POSITION, CENTER, ORIGINAL, REGION_EXCEEDS_PICTURE, Options

_Number = TypeVar("_Number", np.uint8, np.float32)

_VISIBLE: Final = 0.02
"""Alpha above which a pixel counts as subject: fainter ones look like noise."""

_FAINTEST: Final = np.float32(0.5 / 255)
"""Least alpha that is not rounded to 0."""

_SOLID: Final = 0.3
"""Alpha from which a pixel belongs to the subject's solid part: hair does, haze does not."""

_LEAST_PART: Final = 0.01
"""Smallest separate part of a subject, as a share of the largest; smaller ones are specks."""

_COARSE_PX: Final = 1024
"""Longer side of the copy in which separate parts are found."""

_FRINGE: Final = 0.03
"""Width of what is shown around the solid subject, as a share of its longer side: hair and soft edges."""

_AT_BORDER: Final = 0.005
"""Distance from a border of the image, as a share of its side, at which the border cuts the subject."""

_MOST_OUTLINE: Final = 1 / 8
"""Largest outline, as a share of the canvas's shorter side: the rest is the subject's."""


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
    """Mapping of ``source``, a part of the image, to ``target``, a part of a result of ``width`` x ``height``.

    ``frame`` is the whole image or, with ``crop``, the subject with its margin; a blurred background shows it.
    ``outline_px`` is the width of the outline in the result; 0 for none.
    """

    source: Box
    target: Box
    width: int
    height: int
    frame: Box
    outline_px: float = 0.0

    @property
    def enlargement(self) -> float:
        """How many times larger the content is in the result than in the image."""
        return max(self.target.width / self.source.width, self.target.height / self.source.height)

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


def solid(alpha: Alpha) -> Box | None:
    """Return the smallest rectangle around the solid parts of the subject, without haze and specks; None without any.

    :func:`visible` would make a subject with a speck beside it smaller than ``scale`` states.
    """
    mask = (alpha >= _SOLID).view(np.uint8)
    factor = min(1.0, _COARSE_PX / max(mask.shape))
    size = max(1, round(mask.shape[1] * factor)), max(1, round(mask.shape[0] * factor))
    coarse = main_parts((np.asarray(cv2.resize(mask * 255, size, interpolation=cv2.INTER_AREA)) > 0).view(np.uint8))
    mask &= np.asarray(cv2.resize(coarse, mask.shape[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
    left, top, width, height = cv2.boundingRect(mask)
    return Box(left, top, width, height) if width else None


def main_parts(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a mask of zeros and ones without the parts that are small compared with the largest."""
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(mask)
    if count <= 2:  # the background and one part
        return mask
    areas = np.asarray(statistics)[:, cv2.CC_STAT_AREA]
    kept = areas >= _LEAST_PART * areas[1:].max()
    kept[0] = False
    return np.asarray(kept[labels], np.uint8)


def place(alpha: Alpha, options: Options) -> Layout:
    """Return the layout of the result of an alpha, H x W float32 in [0, 1]."""
    height, width = alpha.shape
    subject = (solid(alpha) if _is_fitted(options) else None) or visible(alpha)
    return lay_out(subject, width, height, options)


def _is_fitted(options: Options) -> bool:
    return options.canvas != ORIGINAL or options.has_outline


def lay_out(subject: Box | None, width: int, height: int, options: Options) -> Layout:
    """Return the layout of a result.

    Args:
        subject: from :func:`visible`, or :func:`solid` with ``canvas`` or ``outline``. With None, nothing is cropped,
            scaled or moved.
        width: of the image, in pixels.
        height: likewise.
        options: ``crop``, ``crop_margin``, ``scale``, ``position``, ``canvas``, ``outline`` and ``max_megapixels``.
    """
    frame = Box(0, 0, width, height)
    if options.crop and subject:
        frame = _with_margins(subject, options.crop_margin, width, height)
    if _is_fitted(options):
        return _fit(_Fit(subject, frame, width, height, options))
    canvas_width, canvas_height = _at_most(frame.width, frame.height, options.max_megapixels)
    position = options.position or (ORIGINAL if options.scale == ORIGINAL else CENTER)
    if subject is None or options.scale == position == ORIGINAL:
        return Layout(frame, Box(0, 0, canvas_width, canvas_height), canvas_width, canvas_height, frame)
    factor = 1.0
    if options.scale != ORIGINAL:
        factor = _share(options.scale) / max(subject.width / frame.width, subject.height / frame.height)
    across, down = _shares(position, subject, width, height) or (None, None)
    left, shown_width = _placed(subject.left - frame.left, subject.width, frame.width, canvas_width, factor, across)
    top, shown_height = _placed(subject.top - frame.top, subject.height, frame.height, canvas_height, factor, down)
    return Layout(subject, Box(left, top, shown_width, shown_height), canvas_width, canvas_height, frame)


def _pixels(length: str, side_px: int) -> float:
    """Return a length in pixels: ``30px``, or ``10%`` of a side."""
    return float(length.removesuffix("px")) if length.endswith("px") else _share(length) * side_px


def _share(percent: str) -> float:
    return float(percent.removesuffix("%")) / 100


def _shares(position: str, subject: Box, width: int, height: int) -> tuple[float, float] | None:
    """Return the shares of the free room to leave left of and above the subject; None to leave it in place.

    Args:
        position: ``options.position``.
        subject: its box in the image.
        width: of the image, in pixels.
        height: likewise.
    """
    if position == ORIGINAL:
        return None
    if position == CENTER:
        return 0.5, 0.5
    if position == AUTO_POSITION:
        return _beside_cut(subject.left, subject.width, width), _beside_cut(subject.top, subject.height, height)
    shares = [_share(percent) for percent in position.split()]
    return shares[0], shares[-1]


def _beside_cut(start: int, length: int, side: int) -> float:
    """Return the share of the free room to leave before a subject, so that a side that the image cuts stays outside."""
    starts_cut, ends_cut = start <= _AT_BORDER * side, start + length >= (1 - _AT_BORDER) * side
    return 0.5 if starts_cut == ends_cut else float(ends_cut)


@dataclass(frozen=True)
class _Fit:
    """What to fit into a canvas: ``frame``, the whole image or a crop, or with ``scale`` the subject alone."""

    subject: Box | None
    frame: Box
    width: int
    height: int
    options: Options

    @property
    def position(self) -> str:
        return self.options.position or (ORIGINAL if self.options.scale == ORIGINAL else CENTER)

    @property
    def scale(self) -> float:
        """Share of the canvas that the content takes."""
        return 1.0 if self.options.scale == ORIGINAL or self.subject is None else _share(self.options.scale)

    @property
    def content(self) -> Box:
        """The part of the image that is fitted into the canvas."""
        return self.frame if self.options.scale == ORIGINAL or self.subject is None else self.subject

    @property
    def leaves_room(self) -> bool:
        """Whether the canvas has room for an outline around the content: not if that is the whole image."""
        return self.content is not self.frame or self.options.crop

    def outline_px(self, factor: float) -> float:
        """Return the width of the outline in the result if the content is ``factor`` times as large there."""
        if self.subject is None or not self.options.has_outline:
            return 0.0
        return _pixels(self.options.outline, 0) + self._outline_share * factor

    @property
    def _outline_share(self) -> float:
        """Width of the outline in pixels of the image, if it is a share of the subject."""
        if self.subject is None or not self.options.outline.endswith("%"):
            return 0.0
        return _share(self.options.outline) * max(self.subject.width, self.subject.height)

    def canvas(self) -> tuple[int, int]:
        """Return the size of the canvas, before ``max_megapixels``."""
        if self.options.canvas_size:
            return self.options.canvas_size
        around_px = 2 * self.outline_px(1.0) if self.leaves_room else 0.0
        if self.options.canvas_shape is None:
            around_px = 0.0 if self.content is not self.frame else around_px
            return math.ceil(self.frame.width + around_px), math.ceil(self.frame.height + around_px)
        wide, high = ((side + around_px) / self.scale for side in (self.content.width, self.content.height))
        wanted = _shaped(wide, high, self.options.canvas_shape)
        return min(wanted, _shaped(self.width, self.height, self.options.canvas_shape))

    def factor(self, width: int, height: int) -> float:
        """Return how many times larger the content is on a canvas of this size than in the image."""
        fixed_px = 2 * self.outline_px(0.0) if self.leaves_room else 0.0
        grows_px = 2 * self._outline_share if self.leaves_room else 0.0
        return min(
            max(self.scale * canvas - fixed_px, self.scale * canvas * _MOST_OUTLINE) / (side + grows_px)
            for canvas, side in ((width, self.content.width), (height, self.content.height))
        )


def _fit(fit: _Fit) -> Layout:
    """Return the layout of a result whose canvas has a size or shape of its own, or room for an outline."""
    width, height = _at_most(*fit.canvas(), fit.options.max_megapixels)
    factor = fit.factor(width, height)
    outline_px = min(fit.outline_px(factor), _MOST_OUTLINE * min(width, height))
    content, across, down = fit.content, 0.5, 0.5
    shares = _shares(fit.position, fit.subject, fit.width, fit.height) if fit.subject else None
    if fit.subject and shares:
        content, (across, down) = fit.subject, shares
    elif fit.subject and content is not fit.frame:
        across = _kept(content.left - fit.frame.left, content.width, fit.frame.width, width, factor)
        down = _kept(content.top - fit.frame.top, content.height, fit.frame.height, height, factor)
    around_px = outline_px if fit.leaves_room or content is not fit.frame else 0.0
    left, shown_width = _set(content.width * factor, width, across, around_px)
    top, shown_height = _set(content.height * factor, height, down, around_px)
    placed = Layout(content, Box(left, top, shown_width, shown_height), width, height, fit.frame, outline_px)
    return placed if content is fit.frame else _with_fringe(placed, fit.width, fit.height)


def _with_fringe(layout: Layout, width: int, height: int) -> Layout:
    """Return a layout that also shows what is just around the solid subject, as far as image and canvas have room."""
    source, target = layout.source, layout.target
    most = math.ceil(_FRINGE * max(source.width, source.height))
    across, down = target.width / source.width, target.height / source.height
    left = min(most, source.left, int(target.left / across))
    top = min(most, source.top, int(target.top / down))
    right = min(most, width - source.left - source.width, int((layout.width - target.left - target.width) / across))
    bottom = min(most, height - source.top - source.height, int((layout.height - target.top - target.height) / down))
    grown = Box(source.left - left, source.top - top, source.width + left + right, source.height + top + bottom)
    x, y = round(target.left - left * across), round(target.top - top * down)
    end_x = round(target.left + target.width + right * across)
    end_y = round(target.top + target.height + bottom * down)
    return replace(layout, source=grown, target=Box(x, y, end_x - x, end_y - y))


def largest_canvas(width: int, height: int, options: Options) -> int:
    """Return the most pixels that the result of an image of ``width`` x ``height`` can have; the subject decides."""
    if options.canvas_size:
        canvas = options.canvas_size
    elif options.canvas_shape:
        canvas = _shaped(width, height, options.canvas_shape)
    elif options.crop and options.has_outline:
        around_px = 2 * math.ceil(_pixels(options.outline, max(width, height)))
        canvas = width + around_px, height + around_px
    else:
        canvas = width, height
    width, height = _at_most(*canvas, options.max_megapixels)
    return width * height


def _shaped(width: float, height: float, shape: float) -> tuple[int, int]:
    """Return the smallest size of a shape, width by height, that contains another size."""
    tall = max(height, width / shape)
    return max(1, round(tall * shape)), max(1, round(tall))


def _kept(start: int, length: int, frame: int, canvas: int, factor: float) -> float:
    """Return the share of the free room before a subject that keeps the place of its center in the frame."""
    room = canvas - length * factor
    center = (start + length / 2) * canvas / frame
    return min(max((center - length * factor / 2) / room, 0.0), 1.0) if room > 0 else 0.5


def _set(length: float, canvas: int, share: float, around_px: float) -> tuple[int, int]:
    """Return start and length of content on a canvas, with at least ``around_px`` beside it where there is room."""
    shown = min(max(1, round(length)), canvas)
    room = max(canvas - shown - 2 * around_px, 0.0)
    before = min(around_px, (canvas - shown) / 2) + room * share
    return min(max(round(before), 0), canvas - shown), shown


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
