"""Charts of a load over time: panels one below the other on one axis of time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, TypeAlias

from PIL import Image, ImageDraw, ImageFont

Line: TypeAlias = Sequence[tuple[float, float]]
"""Seconds and values, in order of time; nan where there is no value."""

_WIDTH_PX: Final = 960
_PANEL_PX: Final = 130
_LEFT_PX: Final = 60
_RIGHT_PX: Final = 20
_TOP_PX: Final = 34
_GAP_PX: Final = 30
_PAPER: Final = (255, 255, 255)
_INK: Final = (40, 40, 40)
_RULE: Final = (225, 225, 225)
_MARK: Final = (150, 150, 150)
_COLORS: Final = ((31, 119, 180), (214, 96, 20), (44, 130, 60))


@dataclass(frozen=True)
class Series:
    """What a chart shows.

    Attributes:
        title: above it.
        end_s: end of the axis of time.
        panels: title, and lines by their names.
        marks: moments that a vertical line marks in each panel, with a word for the first.
    """

    title: str
    end_s: float
    panels: Sequence[tuple[str, Mapping[str, Line]]]
    marks: Sequence[tuple[float, str]] = field(default_factory=list)


def draw(series: Series) -> Image.Image:
    """Draw a chart."""
    height = _TOP_PX + len(series.panels) * (_PANEL_PX + _GAP_PX) + 12
    image = Image.new("RGB", (_WIDTH_PX, height), _PAPER)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    pen.text((_LEFT_PX, 8), series.title, fill=_INK, font=ImageFont.load_default(15))
    for number, (title, lines) in enumerate(series.panels):
        top = _TOP_PX + _GAP_PX // 2 + number * (_PANEL_PX + _GAP_PX)
        _panel(pen, font, top, title, lines, series)
    for second in _ticks(series.end_s):
        pen.text((_x(second, series.end_s), height - 20), f"{second:g} s", fill=_INK, font=font, anchor="ma")
    return image.quantize(64)


def _panel(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    top: int,
    title: str,
    lines: Mapping[str, Line],
    series: Series,
) -> None:
    values = [value for line in lines.values() for _, value in line if not math.isnan(value)]
    ticks = _ticks(max([*values, 1e-9]) * 1.05, 6)
    highest = max(ticks[-1], *values, 1e-9)
    bottom = top + _PANEL_PX

    def y(value: float) -> float:
        return bottom - value / highest * (_PANEL_PX - 18)

    for tick in ticks:
        pen.line((_LEFT_PX, y(tick), _WIDTH_PX - _RIGHT_PX, y(tick)), fill=_RULE)
        pen.text((_LEFT_PX - 6, y(tick)), f"{tick:g}", fill=_INK, font=font, anchor="rm")
    for at_s, word in series.marks:
        x = _x(at_s, series.end_s)
        for dash in range(top + 18, bottom, 6):
            pen.line((x, dash, x, dash + 2), fill=_MARK)
        if title == "workers":
            pen.text((x + 3, top + 16), word, fill=_INK, font=font)
    pen.text((_LEFT_PX, top - 2), title, fill=_INK, font=font)
    x = _LEFT_PX + 12 + pen.textlength(title, font)
    for color, (name, line) in zip(_COLORS, lines.items(), strict=False):
        pen.text((x, top - 2), name, fill=color, font=font)
        x += pen.textlength(name, font) + 12
        for (t0, v0), (t1, v1) in pairwise(line):
            if not math.isnan(v0 + v1):
                pen.line((_x(t0, series.end_s), y(v0), _x(t1, series.end_s), y(v1)), fill=color, width=2)
            elif not math.isnan(v0):
                pen.ellipse((_x(t0, series.end_s) - 2, y(v0) - 2, _x(t0, series.end_s) + 2, y(v0) + 2), fill=color)


def _x(at_s: float, end_s: float) -> float:
    return _LEFT_PX + at_s / end_s * (_WIDTH_PX - _LEFT_PX - _RIGHT_PX)


def _ticks(end: float, most: int = 10) -> list[float]:
    """Return round numbers from 0 to at most ``end``."""
    rough = end / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [round(step * number, 10) for number in range(math.floor(end / step) + 1)]
