"""Matting errors compared with values computed by hand."""

import numpy as np
import pytest

from bench.errors import band, compare

H, W = 20, 30


def errors(alpha: np.ndarray, truth: np.ndarray, region: np.ndarray | None = None):
    everywhere = np.ones(truth.shape, bool) if region is None else region
    return compare(alpha.astype(np.float32), truth.astype(np.float32), {"here": everywhere})["here"]


def disc(radius: float) -> np.ndarray:
    y, x = np.mgrid[0:64, 0:64]
    return (np.hypot(x - 32, y - 32) < radius).astype(np.float32)


def test_equal_alphas_have_no_error() -> None:
    alpha = np.random.default_rng(1).random((H, W), np.float32)
    found = errors(alpha, alpha)
    assert (found.sad, found.mse, found.gradient, found.connectivity) == (0, 0, 0, 0)


def test_errors_are_symmetric() -> None:
    rng = np.random.default_rng(2)
    one, other = rng.random((2, H, W), np.float32)
    assert errors(one, other) == errors(other, one)


def test_constant_offset_changes_sad_and_mse_but_not_gradient() -> None:
    truth = np.zeros((H, W))
    found = errors(truth + 0.1, truth)
    assert found.sad == pytest.approx(0.1 * H * W / 1000)
    assert found.mse == pytest.approx(0.01)
    assert found.gradient == pytest.approx(0, abs=1e-9)


def test_errors_ignore_pixels_outside_the_region() -> None:
    truth = np.zeros((H, W))
    alpha = truth.copy()
    alpha[0, :] = 1
    first_row = np.zeros((H, W), bool)
    first_row[0] = True
    assert errors(alpha, truth, first_row).mse == 1
    assert errors(alpha, truth, ~first_row).sad == 0
    assert errors(alpha, truth, np.zeros((H, W), bool)).mse == 0


def test_gradient_error_of_a_ramp_equals_its_closed_form() -> None:
    """On a ramp, the normalized kernels respond with slope * (sum g / |g|) * (sum x^2 g / |x g|), g a Gaussian."""
    x = np.arange(-4, 5)
    gaussian = np.exp(-np.square(x) / (2 * 1.4**2))
    response = gaussian.sum() / np.linalg.norm(gaussian) * (x**2 * gaussian).sum() / np.linalg.norm(x * gaussian)
    ramp = np.tile(np.linspace(0, 1, 101), (20, 1))
    middle = np.zeros(ramp.shape, bool)
    middle[:, 20:80] = True
    found = errors(ramp, np.zeros(ramp.shape), middle)
    assert found.gradient == pytest.approx(np.square(response * 0.01) * middle.sum() / 1000, rel=1e-3)


def test_gradient_error_is_positive_for_a_changed_edge_and_zero_for_a_constant_offset() -> None:
    truth = disc(20)
    assert errors(truth * 0.9, truth).gradient > 0
    assert errors(np.full((64, 64), 0.4), np.full((64, 64), 0.6)).gradient == pytest.approx(0, abs=1e-9)


def test_connectivity_counts_a_small_difference_only_in_a_disconnected_patch() -> None:
    def subject_with_patch(gap: bool, level: float) -> np.ndarray:
        alpha = np.zeros((H, W))
        alpha[5:15, 2:12] = 1
        alpha[8:12, 12 + gap : 16 + gap] = level
        return alpha

    assert errors(subject_with_patch(False, 0.9), subject_with_patch(False, 1)).connectivity == 0
    disconnected = errors(subject_with_patch(True, 0.9), subject_with_patch(True, 1))
    assert disconnected.connectivity == pytest.approx(16 * 0.1 / 1000, rel=1e-5)


def test_connectivity_ignores_differences_below_the_tolerance() -> None:
    truth = np.full((H, W), 0.5)
    assert errors(truth + 0.1, truth).connectivity == 0  # below the tolerance of 0.15
    assert errors(truth + 0.3, truth).connectivity == pytest.approx(0.3 * H * W / 1000, rel=1e-5)


def test_band_includes_soft_truth_soft_mask_and_unknown_trimap() -> None:
    truth, mask = np.zeros((2, 1, 4), np.float32)
    truth[0, 0] = mask[0, 1] = 0.5
    trimap = np.array([[0, 0, 128, 255]], np.uint8)
    assert band(truth, mask).tolist() == [[True, True, False, False]]
    assert band(truth, mask, trimap).tolist() == [[True, True, True, False]]
