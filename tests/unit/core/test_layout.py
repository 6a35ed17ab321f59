import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from core.arrays import Alpha, Rgb
from core.errors import InvalidOptionsError
from core.layout import Box, Layout, largest_canvas, lay_out, place, region, solid, visible
from core.options import REGION_EXCEEDS_PICTURE, Options

RED = (220, 30, 40)


def number(low: float, high: float) -> st.SearchStrategy[str]:
    return st.one_of(st.integers(int(low), int(high)).map(str), st.floats(low, high).map(lambda value: f"{value:.3f}"))


def percent(low: float, high: float) -> st.SearchStrategy[str]:
    return number(low, high).map("{}%".format)


def texts(length: st.SearchStrategy[str], *counts: int) -> st.SearchStrategy[str]:
    return st.one_of(st.lists(length, min_size=count, max_size=count).map(" ".join) for count in counts)


margins = st.floats(0, 1) | texts(number(0, 500).map("{}px".format) | percent(0, 50), 1, 2, 4)
positions = st.none() | st.sampled_from(["original", "center", "auto"]) | texts(percent(0, 100), 1, 2)
layouts = st.fixed_dictionaries(
    {
        "crop": st.booleans(),
        "crop_margin": margins,
        "scale": st.just("original") | percent(10, 100),
        "position": positions,
        "max_megapixels": st.none() | st.floats(1e-7, 1e-2),
    }
).map(Options.parse)

canvases = st.one_of(
    st.just("original"),
    st.tuples(st.integers(16, 900), st.integers(16, 900)).map(lambda size: f"{size[0]}x{size[1]}"),
    st.tuples(st.integers(1, 10), st.integers(1, 10)).map(lambda shape: f"{shape[0]}:{shape[1]}"),
)
outlines = st.just("0") | number(0, 100).map("{}px".format) | percent(0, 10)
fitted = st.tuples(layouts, canvases, outlines).map(
    lambda drawn: drawn[0].model_copy(update={"canvas": drawn[1], "outline": drawn[2]})
)


@st.composite
def subjects(draw: st.DrawFn) -> tuple[Box, int, int]:
    """A subject's box in a picture of that width and height."""
    width, height = draw(st.integers(16, 400)), draw(st.integers(16, 400))
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return Box(left, top, draw(st.integers(1, width - left)), draw(st.integers(1, height - top))), width, height


def within(box: Box, width: int, height: int) -> bool:
    right, bottom = box.left + box.width, box.top + box.height
    return 0 <= box.left < right <= width and 0 <= box.top < bottom <= height


@given(subjects(), layouts)
def test_any_layout_shows_a_part_of_the_picture_within_the_result_and_its_limit(
    subject: tuple[Box, int, int], options: Options
) -> None:
    box, width, height = subject
    layout = lay_out(box, width, height, options)
    assert within(layout.source, width, height)
    assert within(layout.target, layout.width, layout.height)
    assert layout.width <= width and layout.height <= height, "never larger than the picture"
    if options.max_megapixels:
        assert layout.width * layout.height <= max(1, options.max_megapixels * 1e6)
    assert within(Box(box.left - layout.source.left, box.top - layout.source.top, box.width, box.height), width, height)


@pytest.mark.slow
@given(subjects(), layouts)
def test_a_scaled_subject_takes_that_share_of_the_result(subject: tuple[Box, int, int], options: Options) -> None:
    assume(options.scale != "original")
    layout = lay_out(*subject, options)
    share = float(options.scale.removesuffix("%")) / 100
    taken = max(layout.target.width / layout.width, layout.target.height / layout.height)
    assert abs(taken - share) <= 1 / min(layout.width, layout.height)


@given(subjects(), layouts, st.floats(0, 100), st.floats(0, 100))
def test_a_position_shares_out_the_room_beside_the_subject(
    subject: tuple[Box, int, int], options: Options, across: float, down: float
) -> None:
    layout = lay_out(*subject, options.model_copy(update={"position": f"{across:.6f}% {down:.6f}%"}))
    assert abs(layout.target.left - (layout.width - layout.target.width) * across / 100) <= 1
    assert abs(layout.target.top - (layout.height - layout.target.height) * down / 100) <= 1


@pytest.mark.parametrize(
    ("options", "target"),
    [
        (Options(scale="50%", position="100%"), Box(5, 5, 6, 6)),
        (Options(scale="10%", position="100%", max_megapixels=1e-6), Box(0, 0, 1, 1)),
    ],
    ids=["both halves", "less than one"],
)
def test_pixels_that_are_rounded_up_stay_within_the_result(options: Options, target: Box) -> None:
    assert lay_out(Box(2, 2, 4, 4), 11, 11, options).target == target


@given(subjects(), layouts)
def test_a_scale_alone_puts_the_subject_in_the_middle(subject: tuple[Box, int, int], options: Options) -> None:
    assume(options.scale != "original")
    alone, centred, one, two = (
        lay_out(*subject, options.model_copy(update={"position": position}))
        for position in (None, "center", "50%", "50% 50%")
    )
    assert alone == centred == one == two


def test_a_subject_that_is_scaled_in_place_keeps_its_centre_unless_it_would_leave_the_picture() -> None:
    middle, corner = Box(40, 30, 20, 20), Box(0, 0, 20, 20)
    smaller, larger = Options(scale="10%", position="original"), Options(scale="50%", position="original")
    assert lay_out(middle, 100, 100, smaller).target == Box(45, 35, 10, 10)
    assert lay_out(middle, 100, 100, larger).target == Box(25, 15, 50, 50)
    assert lay_out(corner, 100, 100, larger).target == Box(0, 0, 50, 50)


@pytest.mark.parametrize(
    ("margin", "source"),
    [
        (0.1, Box(92, 192, 96, 56)),
        ("5px", Box(95, 195, 90, 50)),
        ("50%", Box(60, 180, 160, 80)),
        ("10% 20px", Box(80, 196, 120, 48)),
        ("1px 2px 3px 4px", Box(96, 199, 86, 44)),
        ("0px 500px 0px 0px", Box(100, 200, 200, 40)),
    ],
)
def test_margins_are_in_the_order_of_css_and_end_with_the_picture(margin: float | str, source: Box) -> None:
    layout = lay_out(Box(100, 200, 80, 40), 300, 400, Options(crop=True, crop_margin=margin))
    assert layout == Layout(source, Box(0, 0, source.width, source.height), source.width, source.height, source)


def test_a_scale_is_relative_to_what_the_crop_leaves() -> None:
    options = Options(crop=True, crop_margin="10px", scale="50%", position="0% 100%")
    layout = lay_out(Box(100, 200, 80, 40), 300, 400, options)
    assert (layout.width, layout.height) == (100, 60)
    assert layout.target == Box(0, 35, 50, 25)


@given(layouts)
def test_where_nothing_is_visible_there_is_nothing_to_lay_out(options: Options) -> None:
    layout = lay_out(visible(np.full((40, 60), 0.01, np.float32)), 60, 40, options)
    assert layout.source == Box(0, 0, 60, 40)
    assert layout.target == Box(0, 0, layout.width, layout.height)


@pytest.mark.parametrize(
    ("megapixels", "size"),
    [(0.25, (577, 433)), (12, (4000, 3000)), (50, (4000, 3000)), (1e-6, (1, 1)), (1e-7, (1, 1))],
)
def test_a_result_is_scaled_down_to_so_many_megapixels_and_never_up(megapixels: float, size: tuple[int, int]) -> None:
    layout = lay_out(None, 4000, 3000, Options(max_megapixels=megapixels))
    assert (layout.width, layout.height) == size


def test_the_thinnest_picture_keeps_within_its_megapixels() -> None:
    rgb, alpha = np.zeros((16, 100_000, 3), np.uint8), np.ones((16, 100_000), np.float32)
    layout = lay_out(visible(alpha), 100_000, 16, Options(max_megapixels=0.005))
    assert (layout.width, layout.height) == (5000, 1)
    assert layout.arrange(rgb, alpha)[1].shape == (1, 5000)
    upright = lay_out(None, 16, 100_000, Options(max_megapixels=0.005))
    assert (upright.width, upright.height) == (1, 5000)


def soft_disc(height: int = 90, width: int = 120) -> Alpha:
    y, x = np.mgrid[:height, :width]
    return np.clip((30 - np.hypot(y - height / 2, x - width / 2)) / 6, 0, 1).astype(np.float32)


def plain(alpha: Alpha) -> Rgb:
    """Red wherever anything is visible, and else black, as decontaminated colours are."""
    return np.where((alpha > 0)[..., None], np.uint8(RED), np.uint8(0))


@pytest.mark.parametrize(
    "options",
    [Options(scale="20%"), Options(scale="100%"), Options(max_megapixels=0.001), Options(crop=True, scale="37.5%")],
    ids=["smaller", "larger", "megapixels", "cropped"],
)
def test_the_edge_of_a_scaled_subject_is_neither_darker_nor_lighter(options: Options) -> None:
    alpha = soft_disc()
    rgb, scaled = lay_out(visible(alpha), 120, 90, options).arrange(plain(alpha), alpha)
    soft = (scaled > 1 / 255) & (scaled < 1)
    assert soft.any()
    assert np.abs(rgb[scaled > 1 / 255].astype(int) - RED).max() <= 1
    assert scaled.min() >= 0 and scaled.max() == 1


@given(st.integers(0, 99), st.floats(1e-4, 0.02))
def test_scaling_down_keeps_the_amount_of_colour(seed: int, megapixels: float) -> None:
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (90, 120, 3), np.uint8)
    alpha = cv2.GaussianBlur(rng.random((90, 120), np.float32), (0, 0), 3)
    layout = lay_out(visible(alpha), 120, 90, Options(max_megapixels=megapixels))
    small_rgb, small = layout.arrange(rgb, alpha)
    assert small.mean() == pytest.approx(alpha.mean(), rel=1e-3)
    seen, small_seen = ((rgb * alpha[..., None]).mean(), (small_rgb * small[..., None]).mean())
    assert small_seen == pytest.approx(seen, rel=0.01)


def test_a_subject_that_is_only_moved_keeps_its_pixels() -> None:
    alpha = soft_disc()
    rgb = np.random.default_rng(1).integers(0, 256, (90, 120, 3), np.uint8)
    box = visible(alpha)
    assert box
    moved_rgb, moved = lay_out(box, 120, 90, Options(position="100% 0%")).arrange(rgb, alpha)
    corner = Box(120 - box.width, 0, box.width, box.height).window
    assert np.array_equal(moved[corner], alpha[box.window])
    assert np.array_equal(moved_rgb[corner], rgb[box.window])
    assert np.count_nonzero(moved) == np.count_nonzero(alpha[box.window])


def test_the_visible_subject_is_found_to_the_pixel() -> None:
    alpha = np.full((40, 60), 0.02, np.float32)
    assert visible(alpha) is None
    alpha[3, 50] = alpha[30, 7] = 0.03
    assert visible(alpha) == Box(7, 3, 44, 28)


@pytest.mark.parametrize(
    ("roi", "box"),
    [
        ("0px 0px 600px 400px", Box(0, 0, 600, 400)),
        ("10% 20% 90% 100%", Box(60, 80, 480, 320)),
        ("30px 25% 50% 300.4px", Box(30, 100, 270, 200)),
    ],
)
def test_a_region_is_read_in_pixels_and_in_percent(roi: str, box: Box) -> None:
    assert region(roi, 600, 400).box == box


@pytest.mark.parametrize("roi", ["0px 0px 601px 400px", "0% 0% 100% 101%", "0px 401px 600px 100%", "500% 0% 90% 90%"])
def test_a_region_beyond_the_picture_is_refused_and_told_from_a_wrong_one(roi: str) -> None:
    with pytest.raises(InvalidOptionsError, match=f"^{REGION_EXCEEDS_PICTURE}") as caught:
        region(roi, 600, 400)
    assert (caught.value.field, caught.value.value) == ("options.roi", roi)


@pytest.mark.parametrize("roi", ["90% 0% 10% 100%", "0px 0px 15px 100%", "50% 50% 50% 50%"])
def test_a_region_without_room_for_a_subject_is_refused(roi: str) -> None:
    with pytest.raises(InvalidOptionsError) as caught:
        region(roi, 600, 400)
    assert caught.value.field == "options.roi" and REGION_EXCEEDS_PICTURE not in caught.value.message


@given(texts(number(0, 500).map("{}px".format) | percent(0, 120), 4), st.integers(16, 400), st.integers(16, 400))
def test_any_four_lengths_are_a_region_of_the_picture_or_refused(roi: str, width: int, height: int) -> None:
    asked = Options.parse({"roi": roi})
    try:
        found = region(asked.roi, width, height)
    except InvalidOptionsError as error:
        assert error.field == "options.roi"
    else:
        assert within(found.box, width, height) and min(found.box.width, found.box.height) >= 16
        part = found.cut(np.ones((height, width, 3), np.uint8))
        assert part.shape[:2] == (found.box.height, found.box.width)
        whole = found.put_back(np.ones(part.shape[:2], np.float32))
        assert whole.shape == (height, width) and visible(whole) == found.box


def test_a_region_is_decoded_as_large_as_it_is_looked_at() -> None:
    part = region("25% 25% 75% 50%", 4000, 3000)
    assert part.at_least_px(640) == 2560
    assert min(part.cut(np.zeros((2560, 3413, 3), np.uint8)).shape[:2]) == 640
    assert region(None, 4000, 3000).at_least_px(640) == 640


@given(subjects(), fitted)
def test_a_canvas_has_its_size_or_shape_and_holds_the_subject_with_its_outline(
    subject: tuple[Box, int, int], options: Options
) -> None:
    box, width, height = subject
    layout = lay_out(box, width, height, options)
    assert within(layout.source, width, height)
    assert within(layout.target, layout.width, layout.height)
    assert layout.width * layout.height <= largest_canvas(width, height, options) * 1.02 + 2 * (width + height)
    if options.canvas_size and not options.max_megapixels:
        assert (layout.width, layout.height) == options.canvas_size
    if options.canvas_shape and not options.max_megapixels:
        wide, high = layout.width, layout.height
        assert abs(wide - high * options.canvas_shape) <= max(1, options.canvas_shape)


@given(subjects(), canvases.filter(lambda canvas: "x" in canvas), st.integers(10, 100))
def test_a_scaled_subject_takes_that_share_of_a_canvas_in_its_middle_and_keeps_its_shape(
    subject: tuple[Box, int, int], canvas: str, scale: int
) -> None:
    box, width, height = subject
    shown = on_canvas(lay_out(box, width, height, Options(canvas=canvas, scale=f"{scale}%")), box)
    canvas_width, canvas_height = map(int, canvas.split("x"))
    assert max(shown[2] / canvas_width, shown[3] / canvas_height) == pytest.approx(scale / 100, abs=2 / 16)
    assert abs(shown[0] * 2 + shown[2] - canvas_width) <= 2 + shown[2] / box.width
    assert abs(shown[1] * 2 + shown[3] - canvas_height) <= 2 + shown[3] / box.height


def on_canvas(layout: Layout, box: Box) -> tuple[float, float, float, float]:
    """Left, top, width and height of a box of the picture in the result."""
    across, down = layout.target.width / layout.source.width, layout.target.height / layout.source.height
    left = layout.target.left + (box.left - layout.source.left) * across
    top = layout.target.top + (box.top - layout.source.top) * down
    return left, top, box.width * across, box.height * down


@pytest.mark.parametrize(
    ("options", "size", "shown"),
    [
        ({"canvas": "300x300"}, (300, 300), (50, 150, 150, 75)),  # the whole picture, 200 x 150, at 1.5
        ({"canvas": "300x300", "crop": True}, (300, 300), (0, 75, 300, 150)),
        ({"canvas": "300x300", "scale": "50%"}, (300, 300), (75, 112, 150, 75)),
        ({"canvas": "300x300", "scale": "50%", "position": "0% 100%"}, (300, 300), (0, 225, 150, 75)),
        ({"canvas": "300x300", "position": "100%"}, (300, 300), (150, 225, 150, 75)),
        ({"canvas": "1:1"}, (200, 200), (33, 100, 100, 50)),
        ({"canvas": "1:1", "crop": True}, (100, 100), (0, 25, 100, 50)),
        ({"canvas": "1:2", "scale": "80%"}, (125, 250), (12, 100, 100, 50)),
        ({"canvas": "1:1", "scale": "10%"}, (200, 200), (90, 95, 20, 10)),  # no larger than the picture in that shape
        ({"canvas": "300x300", "max_megapixels": 0.01}, (100, 100), (17, 50, 50, 25)),
        ({"canvas": "300x300", "scale": "100%", "outline": "10px"}, (300, 300), (10, 80, 280, 140)),
        ({"canvas": "240x240", "scale": "100%", "outline": "10%"}, (240, 240), (20, 70, 200, 100)),
        ({"crop": True, "outline": "10px"}, (120, 70), (10, 10, 100, 50)),
        ({"outline": "10px"}, (200, 150), (33, 75, 100, 50)),
        ({"outline": "10px", "scale": "100%"}, (200, 150), (10, 30, 180, 90)),
    ],
    ids=lambda value: " ".join(f"{key}={one}" for key, one in value.items()) if isinstance(value, dict) else "",
)
def test_the_subject_has_the_expected_place_on_the_canvas(
    options: dict[str, object], size: tuple[int, int], shown: tuple[int, int, int, int]
) -> None:
    box = Box(33, 75, 100, 50)
    layout = lay_out(box, 200, 150, Options.parse(options))
    assert (layout.width, layout.height) == size
    assert on_canvas(layout, box) == pytest.approx(shown, abs=1.5)


@pytest.mark.parametrize(
    ("box", "left", "top"),
    [
        (Box(40, 50, 50, 50), 75, 150),
        (Box(40, 25, 50, 50), 75, 75),
        (Box(0, 0, 50, 50), 0, 0),
        (Box(50, 0, 50, 50), 150, 0),
        (Box(25, 0, 50, 100), 75, 0),
    ],
    ids=["cut below", "not cut", "cut above and left", "cut above and right", "cut above and below"],
)
def test_the_position_auto_leaves_a_cut_side_at_the_border(box: Box, left: int, top: int) -> None:
    shown = on_canvas(lay_out(box, 100, 100, Options(canvas="300x300", scale="50%", position="auto")), box)
    assert shown[:2] == pytest.approx((left if box.height < 100 else 112.5, top if box.height < 100 else 75), abs=1.5)


def test_specks_and_haze_do_not_count_as_the_subject_on_a_canvas() -> None:
    alpha = np.zeros((3000, 2000), np.float32)
    alpha[1000:2000, 500:1500] = 1
    alpha[100:120, 100:120], alpha[2500:, 1800:], alpha[950:1000, 700:800] = 1, 0.1, 0.2
    assert solid(alpha) == Box(500, 1000, 1000, 1000) and visible(alpha) == Box(100, 100, 1900, 2900)
    layout = place(alpha, Options(canvas="1000x1000", scale="80%"))
    assert on_canvas(layout, Box(500, 1000, 1000, 1000)) == pytest.approx((100, 100, 800, 800), abs=1)
    assert layout.source.top == 1000 - 30 < 1000, "what is just around the subject is shown, too"
    assert place(np.full((50, 50), 0.1, np.float32), Options(canvas="100x100", scale="50%")).target == Box(
        25, 25, 50, 50
    )
