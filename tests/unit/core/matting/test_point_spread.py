import cv2
import numpy as np
import pytest

from bench.masks import Fault, mask
from core.matting.guided_filter import as_guide
from core.matting.point_spread import PointSpread, measure
from core.matting.tiles import shrink
from tests.fakes.scenes import Scene, camouflage, disc, foliage, fur, hair, spokes

CELL_PX = 4
EPSILON = 3e-5

SCENES = pytest.mark.parametrize(
    "scene", [hair(), fur(), spokes(), foliage()], ids=["hair", "fur", "spokes", "foliage"]
)


def measured(scene: Scene, seen: np.ndarray, pixel_cells: tuple[float, float] = (1, 1)) -> PointSpread:
    """Measure on a grid whose cells are the pixels of a mask that is enlarged to ``pixel_cells``."""
    guide = as_guide(shrink(scene.rgb, CELL_PX))
    spread = measure(guide, seen, pixel_cells, EPSILON)
    assert spread is not None
    return spread


def seen_through(scene: Scene, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(shrink(scene.alpha, CELL_PX), (0, 0), sigma)


@SCENES
@pytest.mark.parametrize("sigma", [0.6, 0.8, 1.0, 1.4, 1.8, 2.2])
def test_the_blur_of_the_mask_is_found(scene: Scene, sigma: float) -> None:
    spread = measured(scene, seen_through(scene, sigma))
    assert spread.sigma == pytest.approx(sigma, rel=0.2)
    assert spread.unexplained < 0.005


def test_a_mask_that_is_not_blurred_has_the_least_blur() -> None:
    scene = fur()
    assert measured(scene, shrink(scene.alpha, CELL_PX)).sigma <= 0.4


def test_a_mask_that_is_more_blurred_than_what_is_tried_is_not_measured() -> None:
    scene = foliage(320, 400)
    guide = as_guide(shrink(scene.rgb, CELL_PX))
    assert measure(guide, seen_through(scene, 5), (1, 1), EPSILON) is None


@pytest.mark.parametrize("pixel_cells", [(2, 2), (2, 1), (1, 2)])
def test_blur_is_measured_in_pixels_of_the_mask(pixel_cells: tuple[int, int]) -> None:
    scene = foliage(320, 400)
    down, across = pixel_cells
    blurred = cv2.GaussianBlur(shrink(scene.alpha, CELL_PX), (0, 0), sigmaX=1.2 * across, sigmaY=1.2 * down)
    assert measured(scene, blurred, pixel_cells).sigma == pytest.approx(1.2, rel=0.2)


@SCENES
def test_the_less_a_mask_follows_the_picture_the_more_is_unexplained(scene: Scene) -> None:
    clean, sharpened, off = (
        measured(scene, mask(scene.alpha, max(scene.alpha.shape) // CELL_PX, fault)).unexplained
        for fault in (Fault.CLEAN, Fault.OVERCONFIDENT, Fault.JITTERED)
    )
    assert 2 * clean < min(sharpened, off)


def test_where_the_picture_does_not_show_the_edge_it_explains_little() -> None:
    shown, hidden = disc(), camouflage()
    flat = Scene(np.full_like(shown.rgb, 128), shown.alpha, shown.foreground)
    shares = [measured(scene, seen_through(scene, 0.8)).unexplained for scene in (shown, hidden, flat)]
    assert 3 * shares[0] < shares[1]
    assert shares[2] > 0.9


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_mask_without_an_edge_says_nothing(value: float) -> None:
    guide = as_guide(shrink(hair().rgb, CELL_PX))
    assert measure(guide, np.full(guide[0].shape, value, np.float32), (1, 1), EPSILON) is None


def test_an_edge_too_faint_to_measure_says_nothing() -> None:
    guide = as_guide(shrink(hair().rgb, CELL_PX))
    faint = np.full(guide[0].shape, 0.45, np.float32)
    faint[:, faint.shape[1] // 2 :] = 0.55  # type: ignore[misc]
    assert measure(guide, faint, (1, 1), EPSILON) is None


def test_a_few_tiles_of_a_large_picture_suffice() -> None:
    scene = foliage(480, 480)
    guide = as_guide(np.tile(shrink(scene.rgb, CELL_PX), (2, 15, 1)))
    spread = measure(guide, np.tile(seen_through(scene, 1.4), (2, 15)), (1, 1), EPSILON)
    assert spread is not None
    assert spread.sigma == pytest.approx(1.4, rel=0.2)
    assert spread.unexplained < 0.005
