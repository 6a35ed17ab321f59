"""Side-by-side comparison of an image and its result."""

import io
from typing import Final

import numpy as np
from PIL import Image

from core.image.decode import decode

_MAX_WIDTH_PX: Final = 1600
_GAP_PX: Final = 8
_SQUARE_PX: Final = 12
_LIGHT: Final = 255
_DARK: Final = 204


def before_and_after(original: bytes, result: bytes) -> bytes:
    """Return a PNG with the original on the left, and the result on a checkerboard on the right.

    Args:
        original: image file.
        result: file of its cutout; its size may differ.

    Returns:
        The PNG, at most 1600 px wide.
    """
    before = Image.fromarray(decode(original).rgb)
    after = Image.open(io.BytesIO(result)).convert("RGBA")
    scale = min(1.0, (_MAX_WIDTH_PX - _GAP_PX) / (2 * before.width))
    size = max(1, round(before.width * scale)), max(1, round(before.height * scale))
    # thumbnail keeps the aspect ratio of a cropped result.
    after.thumbnail(size, Image.Resampling.LANCZOS)
    board = _checkerboard(size[0], size[1])
    board.paste(after, ((size[0] - after.width) // 2, (size[1] - after.height) // 2), after)
    sheet = Image.new("RGB", (2 * size[0] + _GAP_PX, size[1]), (_LIGHT,) * 3)
    sheet.paste(before.resize(size, Image.Resampling.LANCZOS), (0, 0))
    sheet.paste(board, (size[0] + _GAP_PX, 0))
    encoded = io.BytesIO()
    sheet.save(encoded, "PNG")
    return encoded.getvalue()


def _checkerboard(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width] // _SQUARE_PX
    return Image.fromarray(np.where((x + y) % 2, _DARK, _LIGHT).astype(np.uint8)).convert("RGB")
