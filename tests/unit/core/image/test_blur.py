"""Blurred backgrounds: what they show, and that they show nothing of the subject."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.image.blur import blurred

GREEN, RED, BLUE = (30, 180, 60), (250, 10, 20), (20, 40, 220)


def disc(height: int, width: int, radius: float, soft: float = 1.0) -> np.ndarray:
    """The alpha of a disc in the middle whose edge is ``soft`` pixels wide."""
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2)
    return np.clip((radius - distance) / soft + 0.5, 0, 1).astype(np.float32)


def plain(height: int, width: int, color: tuple[int, int, int]) -> np.ndarray:
    return np.full((height, width, 3), color, np.uint8)


def photo(alpha: np.ndarray, subject: tuple[int, int, int], background: np.ndarray) -> np.ndarray:
    return cv2.blendLinear(np.full_like(background, subject), background, alpha, 1 - alpha)


def difference(rgb: np.ndarray, expected: tuple[int, int, int] | np.ndarray) -> int:
    return int(np.abs(rgb.astype(int) - expected).max())


@pytest.mark.parametrize("share", [0.005, 0.02, 0.2])
@pytest.mark.parametrize("soft", [1, 12, 24])
@pytest.mark.parametrize("size", [(150, 200), (900, 1100)])
def test_the_subject_leaves_no_color_in_the_background_and_no_hole(
    size: tuple[int, int], soft: float, share: float
) -> None:
    alpha = disc(*size, radius=0.4 * size[0], soft=soft)
    assert difference(blurred(photo(alpha, RED, plain(*size, GREEN)), alpha, share), GREEN) <= 1


def test_a_subject_that_is_a_little_wider_than_its_alpha_leaves_no_color() -> None:
    size = (600, 800)
    rgb = photo(disc(*size, radius=202), RED, plain(*size, GREEN))
    assert difference(blurred(rgb, disc(*size, radius=200), 0.01), GREEN) <= 1


def test_without_a_subject_it_is_a_gaussian_blur() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (12, 16, 3), np.uint8)
    rgb = cv2.resize(rgb, (800, 600), interpolation=cv2.INTER_CUBIC)
    expected = cv2.GaussianBlur(rgb.astype(np.float32), (0, 0), 16)
    inner = np.s_[60:-60, 60:-60]
    result = blurred(rgb, np.zeros((600, 800), np.float32), 0.02)
    assert np.abs(result[inner] - expected[inner]).max() < 4
    assert result[inner].std() > 10


def test_the_background_behind_the_subject_is_that_of_its_surroundings() -> None:
    height, width = 300, 400
    behind = plain(height, width, GREEN)
    behind[:, 200:] = BLUE
    alpha = disc(height, width, radius=120)
    result = blurred(photo(alpha, RED, behind), alpha, 0.01)
    assert difference(result[150, 30], GREEN) <= 1 and difference(result[150, 370], BLUE) <= 1
    inside = result[150, 90:310].astype(int)
    assert (np.diff(inside[:, 2]) >= -1).all(), "from green to blue"
    assert inside[:, 0].max() <= max(GREEN[0], BLUE[0]) + 1, "nothing of the red subject"


@pytest.mark.parametrize("color", [GREEN, (0, 0, 0), (255, 255, 255)])
@pytest.mark.parametrize("size", [(16, 16), (16, 9000), (9000, 16), (33, 17)])
def test_a_plain_image_stays_as_it_is(size: tuple[int, int], color: tuple[int, int, int]) -> None:
    for opacity in (0, 1):  # if all of the image is subject, all of it is background
        for share in (0.005, 0.2):
            result = blurred(plain(*size, color), np.full(size, opacity, np.float32), share)
            assert result.dtype == np.uint8 and difference(result, color) == 0


@settings(max_examples=30)
@given(
    st.tuples(st.integers(16, 200), st.integers(16, 200)),
    st.floats(0.005, 0.2),
    st.floats(0, 1.5),
    st.floats(1, 40),
)
def test_no_color_appears_that_the_background_does_not_have(
    size: tuple[int, int], share: float, radius: float, soft: float
) -> None:
    alpha = disc(*size, radius=radius * min(size) / 2, soft=soft)
    grain = np.random.default_rng(0).integers(100, 140, (*size, 3), np.uint8)
    result = blurred(np.where(alpha[..., None] == 1, np.uint8(255), grain), alpha, share)
    assert result.shape == (*size, 3)
    if (alpha < 0.02).mean() > 0.2:
        assert result.min() >= 98 and result.max() <= 142


def test_the_bytes_are_the_same_each_time_and_with_any_number_of_threads() -> None:
    alpha = disc(400, 500, radius=120, soft=20)
    rgb = np.random.default_rng(2).integers(0, 256, (400, 500, 3), np.uint8)
    before = cv2.getNumThreads()
    try:
        results = []
        for threads in (1, 4, 4):
            cv2.setNumThreads(threads)
            results.append(blurred(rgb, alpha, 0.01).tobytes())
    finally:
        cv2.setNumThreads(before)
    assert len(set(results)) == 1
