"""Matting errors compared with values computed by hand."""

import numpy as np
import pytest

from bench.errors import compare

H, W = 20, 30


def errors(alpha: np.ndarray, truth: np.ndarray):
    return compare(alpha.astype(np.float32), truth.astype(np.float32))


def disc(radius: float) -> np.ndarray:
    y, x = np.mgrid[0:64, 0:64]
    return (np.hypot(x - 32, y - 32) < radius).astype(np.float32)


def test_equal_alphas_have_no_error() -> None:
    alpha = np.random.default_rng(1).random((H, W), np.float32)
    found = errors(alpha, alpha)
    assert (found.sad, found.mse, found.gradient) == (0, 0, 0)


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


def test_gradient_error_of_a_ramp_equals_its_closed_form() -> None:
    """On a ramp, the normalized kernels respond with slope * (sum g / |g|) * (sum x^2 g / |x g|), g a Gaussian."""
    x = np.arange(-4, 5)
    gaussian = np.exp(-np.square(x) / (2 * 1.4**2))
    response = gaussian.sum() / np.linalg.norm(gaussian) * (x**2 * gaussian).sum() / np.linalg.norm(x * gaussian)
    ramp = np.tile(np.linspace(0, 1, 2001), (20, 1))
    found = errors(ramp, np.zeros(ramp.shape))
    assert found.gradient == pytest.approx(np.square(response / 2000) * ramp.size / 1000, rel=0.01)


def test_gradient_error_is_positive_for_a_changed_edge_and_zero_for_a_constant_offset() -> None:
    truth = disc(20)
    assert errors(truth * 0.9, truth).gradient > 0
    assert errors(np.full((64, 64), 0.4), np.full((64, 64), 0.6)).gradient == pytest.approx(0, abs=1e-9)
