"""Draw contact sheets: labeled crops of pictures and alphas side by side."""

from collections.abc import Mapping, Sequence
from typing import Final

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from core.arrays import Alpha, Rgb

CROP_PX: Final = 260
_GAP_PX: Final = 4
_LABEL_PX: Final = 20
_PAPER: Final = (255, 255, 255)
_INK: Final = (20, 20, 20)


def busiest_window(alpha: Alpha, side_px: int = CROP_PX) -> tuple[slice, slice]:
    """Return the window with the largest share of soft alpha. It is a square, clipped to small pictures."""
    height, width = (min(side_px, side) for side in alpha.shape)
    sums = cv2.integral(alpha * (1 - alpha))
    inside = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = np.unravel_index(int(np.argmax(inside)), inside.shape)
    return slice(int(top), int(top) + height), slice(int(left), int(left) + width)


def draw(columns: Sequence[str], rows: Mapping[str, Sequence[Rgb | Alpha | None]]) -> Image.Image:
    """Draw crops with sides of up to ``CROP_PX`` in a grid.

    Args:
        columns: labels of the columns.
        rows: one picture, alpha, or None per column, by label of the row.
    """
    pitch = CROP_PX + _GAP_PX
    line = pitch + _LABEL_PX
    sheet = Image.new("RGB", (pitch * len(columns) + _GAP_PX, line * len(rows) + _GAP_PX), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for row, (name, crops) in enumerate(rows.items()):
        for column, (label, crop) in enumerate(zip(columns, crops, strict=True)):
            left, top = _GAP_PX + column * pitch, _GAP_PX + row * line
            text = f"{name}: {label}" if column == 0 else label
            pen.text((left, top), text if crop is not None else f"{text}: none", fill=_INK, font=font)
            if crop is not None:
                sheet.paste(_image(crop), (left, top + _LABEL_PX - _GAP_PX))
    return sheet


def _image(crop: Rgb | Alpha) -> Image.Image:
    pixels = crop if crop.ndim == 3 else np.rint(crop * 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
