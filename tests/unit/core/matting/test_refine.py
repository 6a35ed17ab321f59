import json
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import masks
from bench.masks import Fault
from core.arrays import Alpha, Mask
from core.errors import UnknownForegroundError
from core.matting.refine import refine
from core.types import Precision
from tests.fakes.scenes import (
    Scene,
    block,
    camouflage,
    disc,
    foliage,
    fur,
    glass,
    hair,
    lattice,
    network_mask,
    spokes,
    wires,
)

LEVELS = list(Precision)
MEASURING_LEVELS = LEVELS[1:]
SLOW = pytest.mark.slow
ULTRA_HIGH_IS_SLOW = [*LEVELS[:-1], pytest.param(Precision.ULTRA_HIGH, marks=SLOW)]
MASK_PX = 96

TURNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mirrored": lambda image: image[:, ::-1],
    "upside down": lambda image: image[::-1],
    "turned left": lambda image: np.rot90(image, 1),
    "turned around": lambda image: np.rot90(image, 2),
    "turned right": lambda image: np.rot90(image, 3),
    "transposed": lambda image: image.swapaxes(0, 1),
}


@pytest.fixture
def threads() -> Iterator[None]:
    before = cv2.getNumThreads()
    yield
    cv2.setNumThreads(before)


def upsampled(mask: Mask, scene: Scene) -> Alpha:
    return cv2.resize(mask, scene.rgb.shape[1::-1], interpolation=cv2.INTER_CUBIC).clip(0, 1)


def error(alpha: Alpha, truth: Alpha) -> float:
    """Mean absolute difference: SAD for each pixel."""
    return float(np.abs(alpha - truth).mean())


def enlarged(image: np.ndarray, times: int) -> np.ndarray:
    return cv2.resize(image, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC).clip(0, 255)


def reduced(alpha: Alpha, shape: tuple[int, ...]) -> Alpha:
    return cv2.resize(alpha, shape[1::-1], interpolation=cv2.INTER_AREA)


def squared_error(alpha: Alpha, scene: Scene) -> float:
    return float(np.square(alpha - scene.alpha).mean())


@pytest.mark.parametrize("scene", [hair(), disc(), wires()], ids=["hair", "disc", "wires"])
def test_every_level_is_closer_to_the_truth_than_the_mask(scene: Scene) -> None:
    mask = network_mask(scene.alpha)
    bare = squared_error(upsampled(mask, scene), scene)
    for precision in LEVELS:
        assert squared_error(refine(scene.rgb, mask, precision=precision).alpha, scene) < bare


@pytest.mark.parametrize(
    ("draw", "share", "limit"),
    [
        (hair, 0.20, 0.011),
        (fur, 0.15, 0.0021),
        (spokes, 0.25, 0.013),
        (wires, 0.25, 0.0067),
        (foliage, 0.12, 0.0055),
        (glass, 0.38, 0.0050),
        (block, 0.08, 0.0010),
        (lattice, 0.11, 0.0090),
        (camouflage, 1.6, 0.0160),
    ],
)
def test_each_kind_of_structure_is_recovered(draw: Callable[[], Scene], share: float, limit: float) -> None:
    """``share`` of the mask's own error and ``limit`` in each pixel of the picture: about 1.3 times as measured."""
    scene = draw()
    mask = masks.mask(scene.alpha, MASK_PX, Fault.CLEAN)
    bare = error(upsampled(mask, scene), scene.alpha)
    high = error(refine(scene.rgb, mask, precision=Precision.HIGH).alpha, scene.alpha)
    assert high < limit
    assert high < share * bare


def test_a_wire_of_one_pixel_keeps_most_of_its_alpha() -> None:
    scene = spokes()
    mask = masks.mask(scene.alpha, MASK_PX, Fault.CLEAN)
    alpha = refine(scene.rgb, mask).alpha
    y, x = np.mgrid[0:300, 0:400]
    wire = (scene.alpha > 0.4) & (np.hypot(y - 150, x - 200) > 40) & (np.hypot(y - 150, x - 200) < 105)
    assert upsampled(mask, scene)[wire].mean() < 0.4 * scene.alpha[wire].mean()
    assert 0.65 * scene.alpha[wire].mean() < alpha[wire].mean() < 1.1 * scene.alpha[wire].mean()


def test_glass_stays_as_translucent_as_it_is() -> None:
    scene = glass()
    alpha = refine(scene.rgb, masks.mask(scene.alpha, MASK_PX, Fault.CLEAN)).alpha
    for value in (0.4, 0.9):
        inside = cv2.erode((np.abs(scene.alpha - value) < 0.01).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        assert inside.any()
        assert np.abs(alpha[inside] - value).mean() < 0.07


def test_small_holes_are_open_and_the_bars_around_them_solid() -> None:
    scene = lattice()
    alpha = refine(scene.rgb, masks.mask(scene.alpha, MASK_PX, Fault.CLEAN)).alpha
    assert alpha[scene.alpha < 0.01].mean() < 0.02
    assert alpha[scene.alpha > 0.99].mean() > 0.98


@pytest.mark.parametrize("draw", [hair, block, *(pytest.param(draw, marks=SLOW) for draw in (fur, spokes, foliage))])
@pytest.mark.parametrize(
    ("fault", "share"),
    [(Fault.BLURRED, 0.35), (Fault.JITTERED, 0.85), (Fault.OVERCONFIDENT, 0.9), (Fault.HOLED, 0.76)],
)
def test_high_mends_what_is_wrong_with_a_mask(draw: Callable[[], Scene], fault: Fault, share: float) -> None:
    scene = draw()
    mask = masks.mask(scene.alpha, MASK_PX, fault)
    bare = error(upsampled(mask, scene), scene.alpha)
    assert error(refine(scene.rgb, mask).alpha, scene.alpha) < share * bare


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "share"), [(Fault.CLEAN, 0.13), (Fault.BLURRED, 0.15), (Fault.JITTERED, 0.49), (Fault.HOLED, 0.46)]
)
def test_high_mends_a_fault_throughout(fault: Fault, share: float) -> None:
    shares = []
    for scene in (hair(), fur(), spokes(), foliage(), block()):
        mask = masks.mask(scene.alpha, MASK_PX, fault)
        bare = error(upsampled(mask, scene), scene.alpha)
        shares.append(error(refine(scene.rgb, mask).alpha, scene.alpha) / bare)
    assert np.exp(np.log(shares).mean()) < share


@pytest.mark.parametrize("draw", [hair, fur, block, disc])
@pytest.mark.parametrize("side_px", [MASK_PX, 320])
def test_a_picture_that_shows_no_edge_leaves_the_mask_no_worse(draw: Callable[[], Scene], side_px: int) -> None:
    scene = draw()
    mask = masks.mask(scene.alpha, side_px, Fault.CLEAN)
    matte = refine(np.full_like(scene.rgb, 127), mask)
    assert error(matte.alpha, scene.alpha) <= error(upsampled(mask, scene), scene.alpha)
    assert matte.report["warnings"] == [
        "The image shows no edge where the mask has one, so the alpha is the enlarged mask"
    ]


@pytest.mark.parametrize("draw", [hair, block])
def test_the_band_reaches_two_pixels_of_the_mask_beyond_what_it_leaves_uncertain(draw: Callable[[], Scene]) -> None:
    scene = draw()
    mask = masks.mask(scene.alpha, MASK_PX, Fault.CLEAN)
    uncertain = ((mask > 0.04) & (mask < 0.96)).astype(np.uint8)
    reach = cv2.dilate(uncertain, np.ones((5, 5), np.uint8)).mean()
    for precision in LEVELS:
        assert refine(scene.rgb, mask, precision=precision).report["band_share"] > reach


@pytest.mark.parametrize("fault", [Fault.CLEAN, Fault.BLURRED, Fault.HOLED])
@pytest.mark.parametrize("side_px", [MASK_PX, 200])
def test_where_subject_and_background_are_alike_a_mask_is_not_made_much_worse(fault: Fault, side_px: int) -> None:
    scene = camouflage()
    mask = masks.mask(scene.alpha, side_px, fault)
    assert error(refine(scene.rgb, mask).alpha, scene.alpha) < 1.6 * error(upsampled(mask, scene), scene.alpha)


@pytest.mark.parametrize("draw", [hair, fur, spokes, foliage, block])
def test_what_is_wrong_with_a_mask_is_measured(draw: Callable[[], Scene]) -> None:
    scene = draw()
    pixel_px = max(scene.alpha.shape) / MASK_PX
    clean, blurred, jittered = (
        refine(scene.rgb, masks.mask(scene.alpha, MASK_PX, fault), precision=Precision.STANDARD).report
        for fault in (Fault.CLEAN, Fault.BLURRED, Fault.JITTERED)
    )
    assert 0.7 < clean["psf_sigma_px"][0] / pixel_px < 1.0
    assert 1.5 < blurred["psf_sigma_px"][0] / pixel_px < 2.1
    assert 2 * clean["unexplained"] < jittered["unexplained"]


@pytest.mark.parametrize("precision", MEASURING_LEVELS)
def test_a_middle_value_of_a_displaced_mask_means_unknown(precision: Precision) -> None:
    """The mask fades over a third of the subject; the image shows that the subject goes on."""
    scene = block()
    mask = masks.mask(scene.alpha, MASK_PX, Fault.JITTERED)
    faded = mask * np.linspace(1.5, 0.5, mask.shape[1], dtype=np.float32).clip(0, 1)
    gone = upsampled(mask, scene) - upsampled(faded, scene) > 0.1
    alpha = refine(scene.rgb, faded, precision=precision).alpha
    assert gone.any()
    assert alpha[gone].mean() > 0.9 > 0.85 > upsampled(faded, scene)[gone].mean()


def test_matching_the_blur_of_the_mask_recovers_strands_of_hair() -> None:
    scene = hair()
    mask = network_mask(scene.alpha)
    error = {p: squared_error(refine(scene.rgb, mask, precision=p).alpha, scene) for p in LEVELS}
    assert error[Precision.STANDARD] < 0.6 * error[Precision.DRAFT]
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


@pytest.mark.parametrize("precision", ULTRA_HIGH_IS_SLOW)
@pytest.mark.usefixtures("threads")
def test_the_number_of_threads_does_not_show_in_the_alpha(precision: Precision) -> None:
    scene = hair(700, 900)
    mask = network_mask(scene.alpha)
    first, *others = (_matted_in_threads(count, scene, mask, precision) for count in (1, 2, 4, 4))
    for other in others:
        np.testing.assert_array_equal(other, first)


def _matted_in_threads(count: int, scene: Scene, mask: Mask, precision: Precision) -> Alpha:
    cv2.setNumThreads(count)
    return refine(scene.rgb, mask, precision=precision).alpha


@pytest.mark.parametrize("precision", ULTRA_HIGH_IS_SLOW)
def test_where_tiles_are_cut_does_not_show(precision: Precision) -> None:
    scene = hair(600, 640)
    mask = masks.mask(scene.alpha, 160, Fault.CLEAN)
    alone = refine(scene.rgb, mask, precision=precision)
    margin_px, margin = 160, 40
    wide = refine(
        cv2.copyMakeBorder(scene.rgb, *[margin_px] * 4, cv2.BORDER_REPLICATE),
        cv2.copyMakeBorder(mask, *[margin] * 4, cv2.BORDER_REPLICATE),
        precision=precision,
    )
    assert alone.report["tiles"] > 1
    inside = slice(margin_px, -margin_px)
    np.testing.assert_allclose(wide.alpha[inside, inside], alone.alpha, atol=3 / 255)


@pytest.mark.parametrize("precision", ULTRA_HIGH_IS_SLOW)
@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
def test_a_turned_picture_gives_the_turned_alpha(
    turn: Callable[[np.ndarray], np.ndarray], precision: Precision
) -> None:
    scene = hair()
    mask = network_mask(scene.alpha)
    alpha = refine(scene.rgb, mask, precision=precision).alpha
    turned = refine(np.ascontiguousarray(turn(scene.rgb)), np.ascontiguousarray(turn(mask)), precision=precision)
    np.testing.assert_allclose(turned.alpha, turn(alpha), atol=0.01)


@pytest.mark.parametrize("precision", [Precision.DRAFT, Precision.HIGH])
@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
def test_a_picture_that_is_no_whole_number_of_cells_turns_nearly_so(
    turn: Callable[[np.ndarray], np.ndarray], precision: Precision
) -> None:
    """The grid starts at the top left: its cells lie elsewhere in the turned picture."""
    scene = fur(301, 397)
    mask = network_mask(scene.alpha)
    alpha = refine(scene.rgb, mask, precision=precision).alpha
    turned = refine(np.ascontiguousarray(turn(scene.rgb)), np.ascontiguousarray(turn(mask)), precision=precision)
    assert error(turned.alpha, turn(alpha)) < 0.002


@pytest.mark.parametrize("precision", LEVELS)
def test_the_order_of_the_colours_does_not_count(precision: Precision) -> None:
    scene = hair()
    mask = network_mask(scene.alpha)
    alpha = refine(scene.rgb, mask, precision=precision).alpha
    reordered = np.ascontiguousarray(scene.rgb[..., [2, 0, 1]])
    np.testing.assert_allclose(refine(reordered, mask, precision=precision).alpha, alpha, atol=0.005)


@pytest.mark.parametrize("precision", ULTRA_HIGH_IS_SLOW)
@pytest.mark.parametrize("draw", [hair, fur, foliage, block])
def test_an_enlarged_picture_gives_the_enlarged_alpha(draw: Callable[[], Scene], precision: Precision) -> None:
    scene = draw()
    mask = masks.mask(scene.alpha, MASK_PX, Fault.CLEAN)
    bare = error(upsampled(mask, scene), scene.alpha)
    alpha = refine(scene.rgb, mask, precision=precision).alpha
    large = refine(enlarged(scene.rgb, 2), mask, precision=precision).alpha
    assert error(reduced(large, alpha.shape), alpha) < 0.13 * bare


@pytest.mark.parametrize("precision", [Precision.STANDARD, Precision.HIGH])
@pytest.mark.parametrize("draw", [hair, fur, foliage, block])
def test_an_enlarged_mask_says_the_same(draw: Callable[[], Scene], precision: Precision) -> None:
    """Its blur is as much wider, in its own pixels, as it is larger; draft takes the blur for granted."""
    scene = draw()
    mask = masks.mask(scene.alpha, MASK_PX, Fault.CLEAN)
    bare = error(upsampled(mask, scene), scene.alpha)
    alpha = refine(scene.rgb, mask, precision=precision).alpha
    for picture in (scene.rgb, enlarged(scene.rgb, 2)):
        same = refine(picture, enlarged(mask, 2).clip(0, 1), precision=precision).alpha
        assert error(reduced(same, alpha.shape), alpha) < 0.17 * bare


@pytest.mark.parametrize("times", [3, 6])
@pytest.mark.parametrize("draw", [hair, fur])
def test_a_mask_that_somebody_enlarged_to_the_picture_is_known_for_what_it_is(
    draw: Callable[[], Scene], times: int
) -> None:
    scene = draw()
    mask = masks.mask(scene.alpha, MASK_PX, Fault.CLEAN)
    bare = error(upsampled(mask, scene), scene.alpha)
    assert error(refine(scene.rgb, enlarged(mask, times).clip(0, 1)).alpha, scene.alpha) < 0.5 * bare


@pytest.mark.parametrize("precision", ULTRA_HIGH_IS_SLOW)
@pytest.mark.parametrize("draw", [hair, fur, foliage, block])
def test_a_finer_mask_gives_a_better_alpha(draw: Callable[[], Scene], precision: Precision) -> None:
    scene = draw()
    coarse, fine = (
        refine(scene.rgb, masks.mask(scene.alpha, side_px, Fault.CLEAN), precision=precision).alpha
        for side_px in (MASK_PX, 2 * MASK_PX)
    )
    assert error(fine, scene.alpha) < error(coarse, scene.alpha)


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
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


@pytest.mark.parametrize("precision", ULTRA_HIGH_IS_SLOW)
@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (3, 700), (257, 257)])
@pytest.mark.parametrize("mask_shape", [(1, 1), (1, 50), (200, 300)])
def test_no_shape_is_too_small_for_picture_or_mask(
    shape: tuple[int, int], mask_shape: tuple[int, int], precision: Precision
) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (*shape, 3), np.uint8)
    uncertain = np.full(mask_shape, 0.5, np.float32)
    uncertain[0, 0] = 1
    for rgb in (noise, np.zeros_like(noise)):
        for mask in (uncertain, rng.uniform(0, 1, mask_shape).astype(np.float32).clip(uncertain == 1, 1)):
            alpha = refine(rgb, mask, precision=precision).alpha
            assert alpha.shape == shape
            assert alpha.min() >= 0 and alpha.max() <= 1  # which NaN is not
        assert (refine(rgb, np.ones_like(uncertain), precision=precision).alpha == 1).all()


@pytest.mark.parametrize("precision", LEVELS)
def test_a_mask_that_is_uncertain_everywhere_stays_so_where_the_picture_shows_nothing(precision: Precision) -> None:
    mask = np.full((24, 32), 0.5, np.float32)
    mask[3, 4] = 1
    matte = refine(np.full((96, 128, 3), 127, np.uint8), mask, precision=precision)
    assert matte.report["band_share"] == 1
    np.testing.assert_allclose(matte.alpha[32:, 32:], 0.5, atol=0.02)


@pytest.mark.parametrize("precision", LEVELS)
def test_a_hard_mask_of_the_pictures_size_gets_a_soft_edge(precision: Precision) -> None:
    scene = block()
    hard = (scene.alpha > 0.5).astype(np.float32)
    assert error(refine(scene.rgb, hard, precision=precision).alpha, scene.alpha) < 0.65 * error(hard, scene.alpha)


@pytest.mark.parametrize("precision", ULTRA_HIGH_IS_SLOW)
@pytest.mark.parametrize("shape", [(16, 4000), (4000, 16), (16, 16)])
@pytest.mark.parametrize("side", [320, 2000])
def test_extreme_shapes_keep_the_subject(shape: tuple[int, int], side: int, precision: Precision) -> None:
    height, width = shape
    alpha = np.zeros(shape, np.float32)
    alpha[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 1
    rgb = np.where(alpha[..., None] > 0, [200, 80, 40], [20, 90, 160]).astype(np.uint8)
    mask = cv2.resize(alpha, (side, side), interpolation=cv2.INTER_AREA)
    assert np.abs(refine(rgb, mask, precision=precision).alpha - alpha).mean() < 0.05


@pytest.mark.parametrize("precision", ULTRA_HIGH_IS_SLOW)
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
