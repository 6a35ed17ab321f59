import json
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UnknownForegroundError
from core.matting import refine
from core.types import Alpha, Mask, Precision
from tests.unit.scenes import Scene, disc, hair, network_mask, wires

LEVELS = list(Precision)


@pytest.fixture
def threads() -> Iterator[None]:
    before = cv2.getNumThreads()
    yield
    cv2.setNumThreads(before)


def upsampled(mask: Mask, scene: Scene) -> Alpha:
    return cv2.resize(mask, scene.rgb.shape[1::-1], interpolation=cv2.INTER_CUBIC).clip(0, 1)


def squared_error(alpha: Alpha, scene: Scene) -> float:
    return float(np.square(alpha - scene.alpha).mean())


@pytest.mark.parametrize("scene", [hair(), disc(), wires()], ids=["hair", "disc", "wires"])
def test_every_level_is_closer_to_the_truth_than_the_mask(scene: Scene) -> None:
    mask = network_mask(scene.alpha)
    bare = squared_error(upsampled(mask, scene), scene)
    for precision in LEVELS:
        assert squared_error(refine(scene.rgb, mask, precision=precision).alpha, scene) < bare


def test_matching_the_blur_of_the_mask_recovers_strands_of_hair() -> None:
    scene = hair()
    mask = network_mask(scene.alpha)
    error = {p: squared_error(refine(scene.rgb, mask, precision=p).alpha, scene) for p in LEVELS}
    assert error[Precision.STANDARD] < 0.5 * error[Precision.DRAFT]
    assert error[Precision.STANDARD] < 0.25 * squared_error(upsampled(mask, scene), scene)


def test_the_closed_form_mends_a_mask_whose_edge_is_off() -> None:
    scene = hair()
    mask = np.roll(network_mask(scene.alpha), 2, axis=1)
    error = [squared_error(refine(scene.rgb, mask, precision=p).alpha, scene) for p in LEVELS]
    assert error[LEVELS.index(Precision.HIGH)] < 0.97 * error[LEVELS.index(Precision.STANDARD)]
    assert error[LEVELS.index(Precision.ULTRA_HIGH)] < error[LEVELS.index(Precision.HIGH)]


@pytest.mark.parametrize("precision", LEVELS)
def test_known_foreground_stays_opaque_and_known_background_transparent(precision: Precision) -> None:
    scene = disc()
    matte = refine(scene.rgb, network_mask(scene.alpha), precision=precision)
    near = cv2.dilate((scene.alpha > 0).astype(np.uint8), np.ones((41, 41), np.uint8)) > 0
    deep = cv2.erode((scene.alpha == 1).astype(np.uint8), np.ones((41, 41), np.uint8)) > 0
    assert deep.any() and not near.all()
    assert (matte.alpha[deep] == 1).all()
    assert (matte.alpha[~near] == 0).all()


@pytest.mark.parametrize("precision", LEVELS)
@pytest.mark.usefixtures("threads")
def test_the_number_of_threads_does_not_show_in_the_alpha(precision: Precision) -> None:
    scene = hair(700, 900)
    mask = network_mask(scene.alpha)
    alphas = []
    for count in (1, 2):
        cv2.setNumThreads(count)
        alphas.append(refine(scene.rgb, mask, precision=precision).alpha)
    np.testing.assert_array_equal(*alphas)


@pytest.mark.parametrize("precision", LEVELS)
def test_a_mirrored_picture_gives_the_mirrored_alpha(precision: Precision) -> None:
    scene = hair()
    mask = network_mask(scene.alpha)
    alpha = refine(scene.rgb, mask, precision=precision).alpha
    mirrored = refine(
        np.ascontiguousarray(scene.rgb[:, ::-1]), np.ascontiguousarray(mask[:, ::-1]), precision=precision
    )
    np.testing.assert_allclose(mirrored.alpha[:, ::-1], alpha, atol=0.01)


@given(
    height=st.integers(16, 90),
    width=st.integers(16, 90),
    mask_height=st.integers(1, 120),
    mask_width=st.integers(1, 120),
    precision=st.sampled_from(LEVELS),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_any_picture_with_any_mask_gives_an_alpha(
    height: int, width: int, mask_height: int, mask_width: int, precision: Precision, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (height, width, 3), np.uint8)
    mask = rng.uniform(0, 1, (mask_height, mask_width)).astype(np.float32)
    mask[0, 0] = 1
    alpha = refine(rgb, mask, precision=precision).alpha
    assert alpha.shape == (height, width)
    assert alpha.dtype == np.float32
    assert alpha.min() >= 0 and alpha.max() <= 1


@pytest.mark.parametrize("precision", LEVELS)
@pytest.mark.parametrize("shape", [(16, 4000), (4000, 16), (16, 16)])
@pytest.mark.parametrize("side", [320, 2000])
def test_extreme_shapes_keep_the_subject(shape: tuple[int, int], side: int, precision: Precision) -> None:
    height, width = shape
    alpha = np.zeros(shape, np.float32)
    alpha[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 1
    rgb = np.where(alpha[..., None] > 0, [200, 80, 40], [20, 90, 160]).astype(np.uint8)
    mask = cv2.resize(alpha, (side, side), interpolation=cv2.INTER_AREA)
    assert np.abs(refine(rgb, mask, precision=precision).alpha - alpha).mean() < 0.05


@pytest.mark.parametrize("precision", LEVELS)
def test_a_mask_larger_than_the_picture_serves_as_well(precision: Precision) -> None:
    scene = disc(60, 80, softness_px=2)
    large = cv2.resize(scene.alpha, (640, 480), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    assert np.abs(refine(scene.rgb, large, precision=precision).alpha - scene.alpha).mean() < 0.02


@pytest.mark.parametrize("precision", LEVELS)
def test_a_subject_one_pixel_wide_survives(precision: Precision) -> None:
    alpha = np.zeros((64, 64), np.float32)
    alpha[:, 30] = 1
    rgb = np.where(alpha[..., None] > 0, [250, 240, 230], [20, 40, 60]).astype(np.uint8)
    refined = refine(rgb, alpha, precision=precision).alpha
    assert refined[8:-8, 30].min() > 0.8
    assert np.delete(refined, [29, 30, 31], axis=1).max() < 0.1


@pytest.mark.parametrize("precision", LEVELS)
def test_a_mask_that_is_certain_everywhere_is_kept(precision: Precision) -> None:
    matte = refine(hair(64, 80).rgb, np.ones((20, 25), np.float32), precision=precision)
    assert (matte.alpha == 1).all()
    assert matte.report["band_share"] == 0


@pytest.mark.parametrize("value", [0.0, 0.5, 0.9])
def test_a_mask_without_certain_foreground_is_refused(value: float) -> None:
    with pytest.raises(UnknownForegroundError) as caught:
        refine(disc().rgb, np.full((96, 128), value, np.float32))
    assert caught.value.facts()["field"] == "mask"
    assert caught.value.facts()["value"] == value


@pytest.mark.parametrize(
    ("precision", "scales"),
    [("draft", []), ("standard", []), ("high", ["1/2"]), ("ultra_high", ["1/2", "1/1"])],
)
def test_the_report_says_in_json_what_was_done(precision: str, scales: list[str]) -> None:
    scene = hair()
    report = refine(scene.rgb, network_mask(scene.alpha), precision=Precision(precision)).report
    assert json.loads(json.dumps(report)) == report
    assert report["precision"] == precision
    assert report["warnings"] == []
    assert report["tiles"] == 1
    assert [solved["scale"] for solved in report["closed_form"]] == scales
    assert all(0 < solved["iterations"] <= 40 for solved in report["closed_form"])


def test_the_grid_follows_the_ratio_of_picture_to_mask() -> None:
    scene = disc(480, 640)
    grids = [
        refine(scene.rgb, network_mask(scene.alpha, side), precision=Precision.STANDARD).report["grid_px"]
        for side in (640, 160, 40)
    ]
    assert grids == [1, 4, 16]


def test_inputs_are_left_as_they_were() -> None:
    scene = hair()
    for mask in (network_mask(scene.alpha), scene.alpha.copy()):
        rgb_before, mask_before = scene.rgb.copy(), mask.copy()
        refine(scene.rgb, mask, precision=Precision.ULTRA_HIGH)
        np.testing.assert_array_equal(scene.rgb, rgb_before)
        np.testing.assert_array_equal(mask, mask_before)
