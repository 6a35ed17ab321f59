import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client.compare import before_and_after
from tests.conftest import file_of


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    return file_of(Image.fromarray(pixels), "PNG")


@pytest.mark.parametrize(("width", "height"), [(60, 40), (3000, 900)])
def test_original_and_result_are_side_by_side_on_a_checkerboard(width: int, height: int) -> None:
    original = np.full((height, width, 3), (200, 30, 30), np.uint8)
    cut = np.zeros((height, width, 4), np.uint8)
    cut[:, : width // 2] = (30, 200, 30, 255)
    image = Image.open(io.BytesIO(before_and_after(png(original), png(cut))))
    sheet = np.asarray(image.convert("RGB")).astype(int)
    half = sheet.shape[1] // 2
    assert sheet.shape[1] <= 1600 and (sheet.shape[1] > 1500) == (width > 1500)
    assert sheet.shape[0] == pytest.approx(height * (half - 4) / width, abs=1)
    assert np.ptp(sheet[:, : half - 8], axis=(0, 1)).max() == 0 and tuple(sheet[0, 0]) == (200, 30, 30)
    assert tuple(sheet[sheet.shape[0] // 2, half + half // 5]) == (30, 200, 30)
    board = sheet[:, half + half // 2 + 12 :]
    assert set(np.unique(board)) == {204, 255}, "what is transparent shows both squares"
