"""Simulated masks have the requested size and the fault that they are named after."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.masks import Fault, mask
from core.arrays import Alpha


@pytest.fixture(scope="module")
def alpha() -> Alpha:
    """A disc with hairs of 2 px width, 600 x 400."""
    drawn = np.zeros((400, 600), np.float32)
    cv2.circle(drawn, (300, 200), 110, 1.0, -1, cv2.LINE_AA)
    for angle in np.linspace(0, 2 * np.pi, 60, endpoint=False):
        end = (300 + round(170 * np.cos(angle)), 200 + round(170 * np.sin(angle)))
        cv2.line(drawn, (300, 200), end, 1.0, 2)
    return drawn


def at_size_of(alpha: Alpha, made: np.ndarray) -> np.ndarray:
    return cv2.resize(alpha, made.shape[::-1], interpolation=cv2.INTER_AREA)


@given(
    height=st.integers(16, 90),
    width=st.integers(16, 90),
    side_px=st.sampled_from([8, 24, 96, 120]),
    fault=st.sampled_from(Fault),
    filled=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_masks_have_the_requested_size_and_8_bit_levels(
    height: int, width: int, side_px: int, fault: Fault, filled: float
) -> None:
    made = mask(np.full((height, width), filled, np.float32), side_px, fault)
    assert made.dtype == np.float32
    assert max(made.shape) == side_px
    assert made.min() >= 0
    assert made.max() <= 1
    np.testing.assert_allclose(made * 255, np.rint(made * 255), atol=1e-4)


@pytest.mark.parametrize("fault", Fault)
def test_only_random_faults_depend_on_the_seed(alpha: Alpha, fault: Fault) -> None:
    np.testing.assert_array_equal(mask(alpha, 96, fault, 3), mask(alpha, 96, fault, 3))
    is_random = fault in {Fault.JITTERED, Fault.HOLED}
    assert np.array_equal(mask(alpha, 96, fault, 3), mask(alpha, 96, fault, 4)) != is_random


def test_clean_mask_is_the_alpha_with_a_small_blur(alpha: Alpha) -> None:
    made = mask(alpha, 96, Fault.CLEAN)
    np.testing.assert_allclose(made, cv2.GaussianBlur(at_size_of(alpha, made), (0, 0), 0.8), atol=1 / 255)


def soft_share(alpha: Alpha, fault: Fault) -> float:
    made = mask(alpha, 160, fault)
    return float(((made > 0.1) & (made < 0.9)).mean())


def test_blurred_mask_is_softer_than_a_clean_one(alpha: Alpha) -> None:
    assert soft_share(alpha, Fault.BLURRED) > 1.2 * soft_share(alpha, Fault.CLEAN)


def test_jitter_moves_the_edge_by_about_two_mask_pixels(alpha: Alpha) -> None:
    solid = cv2.morphologyEx(alpha, cv2.MORPH_OPEN, np.ones((15, 15)))
    clean, jittered = (mask(solid, 160, fault) >= 0.5 for fault in (Fault.CLEAN, Fault.JITTERED))
    contour = np.argwhere(cv2.dilate(clean.astype(np.uint8), np.ones((3, 3))) != clean)
    moved = (clean != jittered).sum() / len(contour)
    assert 0.4 < moved < 2.0  # the mean absolute normal component of a displacement with rms 2 is 1.1


def test_overconfident_mask_is_nearly_binary_and_loses_hair(alpha: Alpha) -> None:
    assert soft_share(alpha, Fault.OVERCONFIDENT) < 0.5 * soft_share(alpha, Fault.CLEAN)
    clean, overconfident = mask(alpha, 160, Fault.CLEAN), mask(alpha, 160, Fault.OVERCONFIDENT)
    hair = (clean > 0.1) & (clean < 0.3)
    assert overconfident[hair].max() < 0.05


def test_holed_mask_has_holes_inside_and_islands_outside(alpha: Alpha) -> None:
    clean, holed = mask(alpha, 160, Fault.CLEAN), mask(alpha, 160, Fault.HOLED)
    assert (holed[clean > 0.99] < 0.2).sum() > 20
    assert (holed[clean < 0.01] > 0.8).sum() > 5
