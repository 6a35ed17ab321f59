"""What ``make smoke`` accepts as the cut-out of its picture."""

import io

import numpy as np
import pytest
from PIL import Image

from infrastructure import smoke
from tests.conftest import file_of


def cutout(*, inside: int = 255, outside: int = 0, size: tuple[int, int] = (smoke.WIDTH_PX, smoke.HEIGHT_PX)) -> bytes:
    image = Image.new("RGBA", size, (0, 0, 0, outside))
    image.paste((235, 140, 40, inside), (size[0] // 4, size[1] // 4, 3 * size[0] // 4, 3 * size[1] // 4))
    return file_of(image, "PNG")


def test_an_opaque_subject_before_a_transparent_background_is_accepted() -> None:
    smoke.check_cutout(cutout())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (cutout(inside=100), "alpha is 100 at its center"),
        (cutout(outside=255), "up to 255 in the corners"),
        (cutout(size=(240, 180)), "240 x 180 pixels, not 480 x 360"),
        (smoke.picture(), "up to 255 in the corners"),
        (b"<html>", "no image"),
    ],
    ids=["subject missing", "background kept", "other size", "the picture itself", "no image"],
)
def test_other_results_are_rejected(data: bytes, message: str) -> None:
    with pytest.raises(smoke.SmokeError, match=message):
        smoke.check_cutout(data)


def test_each_picture_differs_so_that_no_cached_result_answers() -> None:
    first, second = smoke.picture(), smoke.picture()
    assert first != second
    assert np.asarray(Image.open(io.BytesIO(first))).shape == (smoke.HEIGHT_PX, smoke.WIDTH_PX, 3)
