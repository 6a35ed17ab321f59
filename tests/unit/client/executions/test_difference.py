import io

import numpy as np
from PIL import Image

from client.executions.difference import picture


def png(plane: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray((plane * 255).astype(np.uint8)).save(encoded, "PNG")
    return encoded.getvalue()


def drawn(mask: np.ndarray, alpha: np.ndarray, side_px: int = 256) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture(png(mask), png(alpha), side_px))).convert("RGB"), int)


def test_no_change_is_gray() -> None:
    plane = np.zeros((64, 64))
    plane[16:48, 16:48] = 1
    shown = drawn(plane, plane)
    assert np.ptp(shown, axis=2).max() < 12
    assert shown[32, 32].mean() > shown[4, 4].mean() + 50, "the subject is lighter"


def test_removed_subject_is_orange_and_added_subject_is_blue() -> None:
    mask, alpha = np.zeros((64, 64)), np.zeros((64, 64))
    mask[:, :32], alpha[:, 32:] = 1, 1
    shown = drawn(mask, alpha)
    red, _, blue = np.moveaxis(shown, 2, 0)
    assert (red - blue)[32, 16] > 150 and (blue - red)[32, 48] > 150


def test_masks_of_any_size_are_compared_at_the_size_of_the_alpha() -> None:
    alpha = np.ones((300, 600))
    for shape in ((30, 60), (300, 600), (900, 1800)):
        shown = drawn(np.ones(shape), alpha, side_px=120)
        assert shown.shape == (60, 120, 3) and np.ptp(shown, axis=2).max() < 12
