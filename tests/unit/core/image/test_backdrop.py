import numpy as np
import pytest

from core.arrays import Picture
from core.image.backdrop import composed, contrasting
from core.types import ImageInfo


def square(*colors: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A square of bars of these colors, and its opacity; around it is nothing."""
    rgb = np.full((60, 60, 3), 77, np.uint8)
    opacity = np.zeros((60, 60), np.uint8)
    opacity[10:50, 10:50] = 255
    for at, bar in enumerate(np.array_split(np.arange(10, 50), len(colors))):
        rgb[10:50, bar] = colors[at]
    return rgb, opacity


BLACK, GRAY, WHITE, RED, PALE = (0, 0, 0), (128, 128, 128), (255, 255, 255), (200, 20, 20), (240, 235, 220)


@pytest.mark.parametrize(
    ("colors", "level"),
    [
        ([RED], 255),
        ([BLACK], 255),
        ([GRAY, BLACK], 255),
        ([WHITE], 128),
        ([PALE], 128),
        ([WHITE, BLACK], 128),
        ([WHITE, GRAY, GRAY], 0),
        ([WHITE, RED, RED, RED, BLACK], 255),
    ],
)
def test_visible_pixels_stand_out(colors, level):
    assert contrasting(*square(*colors)) == level


def test_hidden_pixels_do_not_count():
    rgb, opacity = square(RED)
    rgb[opacity == 0] = WHITE
    assert contrasting(rgb, opacity) == 255
    assert contrasting(rgb, np.zeros_like(opacity)) == 255


def test_every_size_is_judged_alike():
    rgb, opacity = square(WHITE, BLACK)
    assert contrasting(np.tile(rgb, (40, 40, 1)), np.tile(opacity, (40, 40))) == 128


def test_partly_transparent_pixels_are_mixed_with_the_backdrop():
    rgb = np.full((3000, 1000, 3), 200, np.uint8)
    alpha = np.linspace(0, 1, 1000, dtype=np.float32)[None].repeat(3000, 0)
    picture = Picture(rgb, alpha, ImageInfo("png", 1000, 3000, 1), backdrop=0)
    assert np.abs(composed(picture)[2999, :, 1] - 200 * alpha[0]).max() <= 0.51
    assert np.abs(composed(picture, 255)[0, :, 2] - (200 * alpha[0] + 255 * (1 - alpha[0]))).max() <= 0.51


def test_an_opaque_picture_is_itself():
    rgb = np.zeros((20, 20, 3), np.uint8)
    assert composed(Picture(rgb, None, ImageInfo("png", 20, 20, 1))) is rgb
