import math
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from bench import masks
from bench.masks import Fault
from core.matting import prior, refine
from core.matting.point_spread import PointSpread
from core.matting.trimap import CERTAIN_FOREGROUND
from tests.fakes.scenes import Scene, block, disc, foliage, fur, hair

LOST = PointSpread(sigma=0.8, unexplained=0.02)


def inputs(mask: np.ndarray, filtered: np.ndarray | None = None) -> prior.Inputs:
    rgb = np.random.default_rng(0).integers(0, 256, (*mask.shape, 3), np.uint8)
    return prior.Inputs(rgb, mask, mask if filtered is None else filtered, np.zeros((8, 8), np.float32), LOST)


@pytest.mark.parametrize(
    ("shape", "side"), [((1, 1), 1), ((300, 400), 1), ((640, 640), 2), ((3000, 4000), 8), ((10_000, 10_000), 32)]
)
def test_the_grid_has_about_as_many_cells_for_every_image(shape: tuple[int, int], side: int) -> None:
    assert prior.cell_px(shape) == side
    assert side == 1 or 60_000 <= math.prod(shape) / side**2 <= 240_000


@pytest.mark.parametrize("fault", [Fault.JITTERED, Fault.OVERCONFIDENT])
@pytest.mark.parametrize("draw", [hair, fur, foliage, block])
def test_the_estimate_is_closer_to_the_truth_than_the_mask(draw: Callable[[], Scene], fault: Fault) -> None:
    scene = draw()
    found = refine.prior_inputs(scene.rgb, masks.mask(scene.alpha, 96, fault))
    assert found is not None
    off = [np.square(alpha - scene.alpha).mean() for alpha in (prior.estimate(found), found.mask)]
    assert off[0] < 0.9 * off[1]


def test_what_every_alpha_decides_stays_decided() -> None:
    mask = np.zeros((120, 160), np.float32)
    mask[30:90, 40:120] = 1
    estimate = prior.estimate(inputs(mask))
    np.testing.assert_array_equal(estimate[:15], 0)
    np.testing.assert_array_equal(estimate[45:75, 55:105], 1)


def test_the_perceptron_counts_less_where_its_alphas_agree_on_0_or_1() -> None:
    rows = np.zeros((4, 22), np.float32)
    rows[:, :3] = [[0.01, 0.0, 0.02], [0.03, 0.05, 0.04], [0.0, 0.9, 0.1], [1.0, 0.99, 0.98]]
    np.testing.assert_allclose(prior.share(rows), [0, 0.5, 1, 0], atol=1e-6)


def test_an_estimate_is_an_alpha_whatever_the_mask() -> None:
    rng = np.random.default_rng(1)
    for shape in ((1, 1), (2, 3), (1, 50), (60, 80)):
        mask = rng.uniform(0, 1, shape).astype(np.float32)
        estimate = prior.estimate(inputs(mask, rng.uniform(0, 1, shape).astype(np.float32)))
        assert estimate.shape == shape
        assert estimate.min() >= 0 and estimate.max() <= 1  # which NaN is not


def test_a_sound_mask_needs_no_estimate() -> None:
    scene = disc()
    assert refine.prior_inputs(scene.rgb, masks.mask(scene.alpha, 96, Fault.CLEAN)) is None
    assert refine.prior_inputs(scene.rgb, masks.mask(scene.alpha, 96, Fault.JITTERED)) is not None


def test_an_image_without_an_edge_needs_no_estimate() -> None:
    scene = disc()
    flat = cv2.GaussianBlur(np.full_like(scene.rgb, 90), (0, 0), 3)
    assert refine.prior_inputs(flat, masks.mask(scene.alpha, 96, Fault.JITTERED)) is None


def test_a_highlight_deep_inside_the_certain_foreground_stays_opaque() -> None:
    scene = block()
    mask = masks.mask(scene.alpha, 96, Fault.JITTERED)
    shiny = scene.rgb.copy()
    found = refine.prior_inputs(shiny, mask)
    assert found is not None
    deep = cv2.distanceTransform((found.mask > CERTAIN_FOREGROUND).astype(np.uint8), cv2.DIST_L2, 5)
    rim = (deep > 5) & (deep < 9)
    assert rim.any()
    shiny[rim] = scene.rgb[scene.alpha == 0].mean(axis=0)
    reflecting = refine.prior_inputs(shiny, mask)
    assert reflecting is not None
    estimate = prior.estimate(reflecting)
    assert estimate[rim].min() >= 0.5
    np.testing.assert_array_equal(estimate[rim & (deep > 7)], 1)
