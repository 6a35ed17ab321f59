import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.matting.guided_filter import Guide, LocalLinearModel, Plane, apply, as_guide, box_mean

NEARLY_NONE = 1e-9
RADIUS = 3


def texture(height: int = 40, width: int = 50, seed: int = 0) -> Guide:
    return as_guide(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def noise(height: int = 40, width: int = 50) -> Plane:
    return np.random.default_rng(9).uniform(0, 1, (height, width)).astype(np.float32)


def test_a_guide_has_the_channels_of_the_picture() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    np.testing.assert_allclose(np.stack(as_guide(rgb), axis=2), rgb / 255, atol=1e-6)
    assert all(channel.dtype == np.float32 for channel in as_guide(rgb))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_box_mean_is_the_mean_of_the_window(dtype: type) -> None:
    values = noise().astype(dtype)  # type: ignore[var-annotated]
    mean = box_mean(values, RADIUS)
    assert mean.dtype == dtype
    np.testing.assert_allclose(mean[20, 30], values[17:24, 27:34].mean(), rtol=1e-5)
    np.testing.assert_allclose(box_mean(np.full_like(values, 0.3), RADIUS), 0.3, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(slopes=st.tuples(*[st.floats(-2, 2, width=32)] * 3), offset=st.floats(-1, 1, width=32))
def test_a_linear_target_is_recovered_and_explained(slopes: tuple[float, ...], offset: float) -> None:
    guide = texture()
    target = apply(tuple(np.full((40, 50), value, np.float32) for value in (*slopes, offset)), guide)
    model = LocalLinearModel(guide, RADIUS, NEARLY_NONE)
    fit = model.fit_with_misfit(target)
    for coefficients in (model.fit(target), fit.coefficients, model.fit_mean(target).coefficients):
        for plane, value in zip(coefficients, (*slopes, offset), strict=True):
            np.testing.assert_allclose(plane, value, atol=2e-3)
        np.testing.assert_allclose(apply(coefficients, guide), target, atol=2e-3)
    assert fit.misfit.max() < 1e-4


def test_the_misfit_is_what_least_squares_leave() -> None:
    guide, target = texture(), noise()
    fit = LocalLinearModel(guide, RADIUS, NEARLY_NONE).fit_with_misfit(target)
    window = slice(20 - RADIUS, 21 + RADIUS), slice(30 - RADIUS, 31 + RADIUS)
    columns = np.stack([*(channel[window].ravel() for channel in guide), np.ones((2 * RADIUS + 1) ** 2)], axis=1)
    solution, residual, *_ = np.linalg.lstsq(columns.astype(np.float64), target[window].ravel(), rcond=None)
    np.testing.assert_allclose([plane[20, 30] for plane in fit.coefficients], solution, atol=1e-4)
    np.testing.assert_allclose(fit.misfit[20, 30], residual[0] / len(columns), atol=1e-5)
    np.testing.assert_allclose(fit.variance[20, 30], target[window].var(), atol=1e-5)


def test_a_flat_guide_leaves_the_mean_of_the_target() -> None:
    flat = as_guide(np.full((40, 50, 3), 90, np.uint8))
    target = noise()
    a0, a1, a2, b = LocalLinearModel(flat, RADIUS, 1e-5).fit(target)
    assert max(float(np.abs(a).max()) for a in (a0, a1, a2)) < 1e-2
    np.testing.assert_allclose(apply((a0, a1, a2, b), flat), box_mean(target, RADIUS), atol=1e-5)


def test_a_greater_epsilon_makes_flatter_models() -> None:
    guide, target = texture(), texture()[0]
    slopes = [float(LocalLinearModel(guide, RADIUS, epsilon).fit(target)[0].mean()) for epsilon in (1e-5, 1e-1, 10)]
    assert slopes[0] > 0.99 > slopes[1] > 0.1 > slopes[2] > 0


def test_a_window_that_fits_ill_counts_less() -> None:
    """Left of column 25 the target is red, right of it noise: close to the border the left model must prevail."""
    guide = texture()
    target = guide[0].copy()
    target[:, 25:] = noise()[:, 25:]
    model = LocalLinearModel(guide, RADIUS, 1e-5)
    evenly = [box_mean(plane, RADIUS) for plane in model.fit(target)]
    error = [
        np.abs(apply(c, guide) - target)[:, 22:25].mean() for c in (model.fit_mean(target).coefficients, tuple(evenly))
    ]
    assert error[0] < 0.8 * error[1]
