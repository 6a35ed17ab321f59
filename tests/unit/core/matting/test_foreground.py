import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.arrays import Rgb
from core.matting.foreground import decontaminate
from core.matting.refine import refine
from core.types import Precision
from tests.fakes.scenes import Scene, compose, disc, garden, hair, network_mask


def colour_error(colours: Rgb, scene: Scene) -> float:
    """Root mean square distance to the true foreground where it shows through, in 8-bit levels."""
    weight = scene.alpha * (scene.alpha < 1)
    distance = np.square(colours.astype(np.float64) - scene.foreground).mean(axis=2)
    return float(np.sqrt((distance * weight).sum() / weight.sum()))


@pytest.mark.parametrize("scene", [hair(), disc()], ids=["hair", "disc"])
def test_colours_come_closer_to_the_true_foreground_than_those_observed(scene: Scene) -> None:
    assert colour_error(decontaminate(scene.rgb, scene.alpha), scene) < 0.12 * colour_error(scene.rgb, scene)


@pytest.mark.parametrize("scene", [hair(), disc()], ids=["hair", "disc"])
def test_more_precision_is_less_error(scene: Scene) -> None:
    levels = (Precision.STANDARD, Precision.HIGH, Precision.ULTRA_HIGH)
    errors = [colour_error(decontaminate(scene.rgb, scene.alpha, level), scene) for level in levels]
    assert errors == sorted(errors, reverse=True)


def test_colours_improve_with_a_solved_alpha_too() -> None:
    scene = hair()
    alpha = refine(scene.rgb, network_mask(scene.alpha)).alpha
    assert colour_error(decontaminate(scene.rgb, alpha), scene) < 0.8 * colour_error(scene.rgb, scene)


def test_the_old_background_does_not_shine_through_on_a_new_one() -> None:
    scene = hair()
    weight = scene.alpha[..., None]
    new = np.array([240, 20, 200])
    true = weight * scene.foreground + (1 - weight) * new

    def composite_error(colours: Rgb) -> float:
        return float(np.square(weight * colours + (1 - weight) * new - true).mean())

    assert composite_error(decontaminate(scene.rgb, scene.alpha)) < 0.2 * composite_error(scene.rgb)


@given(height=st.integers(16, 70), width=st.integers(16, 70), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_opaque_pixels_keep_every_bit_and_transparent_ones_none(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (height, width, 3), np.uint8)
    alpha = rng.uniform(-1, 2, (height, width)).clip(0, 1).astype(np.float32)
    before = rgb.copy()
    colours = decontaminate(rgb, alpha)
    assert colours.shape == rgb.shape and colours.dtype == np.uint8
    np.testing.assert_array_equal(rgb, before)
    np.testing.assert_array_equal(colours[alpha == 1], rgb[alpha == 1])
    assert (colours[alpha == 0] == 0).all()


def test_a_lone_soft_spot_keeps_a_colour_of_its_surroundings() -> None:
    rgb = np.full((80, 80, 3), (30, 160, 90), np.uint8)
    alpha = np.zeros((80, 80), np.float32)
    alpha[40, 40] = 0.05
    np.testing.assert_allclose(decontaminate(rgb, alpha)[40, 40], (30, 160, 90), atol=2)


@pytest.mark.parametrize("precision", [Precision.STANDARD, Precision.ULTRA_HIGH])
def test_no_row_or_column_stands_out_as_a_seam_between_tiles(precision: Precision) -> None:
    height, width = 820, 900
    rng = np.random.default_rng(8)
    alpha = cv2.GaussianBlur(rng.normal(0.5, 3, (height, width)), (0, 0), 6).clip(0.1, 0.9).astype(np.float32)
    scene = compose(alpha, garden(height, width)[::-1, ::-1], garden(height, width))
    wrong = decontaminate(scene.rgb, scene.alpha, precision).astype(np.float32) - scene.foreground
    for axis in (0, 1):
        step = np.abs(np.diff(wrong, axis=axis)).mean(axis=(1 - axis, 2))
        assert step.max() < 1.35 * np.median(step)


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1), (17, 401)])
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_picture_of_any_shape_that_is_evenly_soft_keeps_its_only_colour(shape: tuple[int, int], level: float) -> None:
    rgb = np.full((*shape, 3), (30, 160, 90), np.uint8)
    colours = decontaminate(rgb, np.full(shape, level, np.float32))
    np.testing.assert_allclose(colours, rgb if level else 0, atol=1)


def test_the_number_of_threads_does_not_show_in_the_colours() -> None:
    scene = hair(700, 900)
    before = cv2.getNumThreads()
    try:
        results = []
        for count in (1, 2):
            cv2.setNumThreads(count)
            results.append(decontaminate(scene.rgb, scene.alpha))
    finally:
        cv2.setNumThreads(before)
    np.testing.assert_array_equal(*results)
