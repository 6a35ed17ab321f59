"""What refinement changed between the mask of a network and the alpha, as a picture."""

import io
from typing import Final

_REMOVED: Final = (224, 106, 0)
_ADDED: Final = (0, 114, 224)  # color-blind people can tell it from orange
_FAINT: Final = 0.35
_GAIN: Final = 2.0
_QUALITY: Final = 85


def picture(mask: bytes, alpha: bytes, side_px: int) -> bytes:
    """Return a WebP: the alpha in dim gray, orange where refinement removed subject, blue where it added some.

    A change of half of the range has the full color.

    Args:
        mask: PNG of the mask, of any size.
        alpha: PNG of the alpha.
        side_px: longer side of the picture, unless the alpha is smaller.
    """
    import cv2
    import numpy as np
    from PIL import Image

    found = Image.open(io.BytesIO(alpha)).convert("L")
    found.thumbnail((side_px, side_px), Image.Resampling.BOX)
    width, height = found.size
    after = np.asarray(found, np.float32) / 255
    whole = np.asarray(Image.open(io.BytesIO(mask)).convert("L"), np.float32) / 255
    shrinks = whole.shape[0] > height or whole.shape[1] > width
    before = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    change = np.clip((after - before) * _GAIN, -1, 1)[..., None]
    color = np.where(change > 0, np.array(_ADDED, np.float32), np.array(_REMOVED, np.float32))
    strength = np.abs(change)
    shown = (after[..., None] * 255 * _FAINT + 20) * (1 - strength) + color * strength
    encoded = io.BytesIO()
    Image.fromarray(shown.clip(0, 255).astype(np.uint8)).save(encoded, "WEBP", quality=_QUALITY)
    return encoded.getvalue()
