"""Presets: how they merge with explicit options, a stack's own, and the geometry of each built-in one."""

import io
import json
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from core.arrays import Alpha, Rgb
from core.errors import InvalidOptionsError
from core.image.encode import encode
from core.options import NEWER, Options, read_presets
from core.presets import BUILT_IN, merge

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from(["auto", "u2net", "classical"]),
    "output": st.sampled_from(["cutout", "mask"]),
    "format": st.sampled_from(["png", "webp", "jpeg", "avif", "zip"]),
    "quality": st.integers(1, 100),
    "background_color": st.sampled_from(["#ffffff", "#00ff0080", "transparent"]),
    "background_key": st.just("backgrounds/oak.jpg"),
    "background_blur": st.sampled_from(["0.5%", "20%"]),
    "crop": st.booleans(),
    "scale": st.sampled_from(["original", "10%", "85%", "100%"]),
    "position": st.sampled_from(["original", "center", "auto", "0% 100%"]),
    "canvas": st.sampled_from(["original", "4:5", "2000x2000", "16x16"]),
    "outline": st.sampled_from(["0", "8px", "100px", "2%"]),
    "outline_color": st.sampled_from(["#ffffff", "#000000"]),
}
options = st.fixed_dictionaries({}, optional=VALUES)


@given(options, options)
def test_explicit_options_override_those_of_a_preset(preset: dict[str, Any], explicit: dict[str, Any]) -> None:
    merged = merge(preset, explicit)
    assert {name: merged[name] for name in explicit} == explicit
    assert all(merged[name] == preset[name] for name in merged.keys() - explicit.keys())
    gone = preset.keys() - merged.keys()
    assert gone <= {"background_color", "background_key", "background_blur", "outline", "outline_color"}
    assert merge(preset, {}) == preset and merge({}, explicit) == explicit
    assert merge(preset, merged) == merged


def error_of(raw: dict[str, Any]) -> InvalidOptionsError | None:
    try:
        Options.parse(raw)
    except InvalidOptionsError as error:
        return error
    return None


@given(st.sampled_from(sorted(BUILT_IN)), options)
def test_valid_options_stay_valid_with_a_built_in_preset_unless_two_values_exclude_each_other(
    name: str, explicit: dict[str, Any]
) -> None:
    if error_of(explicit) is None and (error := error_of({**explicit, "preset": name})):
        assert (error.field, error.value) in [
            ("options.background_color", "#00ff0080"),
            ("options.outline", "8px"),
        ] or (error.field == "options.outline" and explicit.get("outline") == "100px")


@given(st.sampled_from(sorted(BUILT_IN)), options)
def test_a_preset_is_the_same_as_its_options(name: str, explicit: dict[str, Any]) -> None:
    by_hand = merge(BUILT_IN[name], explicit)
    if error_of(by_hand) is None:
        resolved = Options.parse({**explicit, "preset": name})
        assert resolved == Options.parse(by_hand).model_copy(update={"preset": name})


def test_an_unknown_preset_is_named_with_those_that_exist() -> None:
    for name in ("amazon", "White-Square", 7, ["sticker"]):
        with pytest.raises(InvalidOptionsError) as caught:
            Options.parse({"preset": name})
        assert caught.value.field == "options.preset"
        assert all(one in caught.value.remedy for one in BUILT_IN)
    with pytest.raises(InvalidOptionsError) as caught:
        Options.parse({"preset": "amazon"}, read_presets('{"catalog": {}}'))
    assert "catalog" in caught.value.remedy


def test_explicit_options_are_checked_without_the_preset() -> None:
    checked = Options.parse_explicit({"preset": "of-a-stack", "quality": "70"})
    assert (checked.preset, checked.quality, checked.canvas) == ("of-a-stack", 70, "original")
    for preset in ("Not a name", "", 7):
        with pytest.raises(InvalidOptionsError, match="This value of preset is not allowed"):
            Options.parse_explicit({"preset": preset})


@given(options)
def test_options_that_workers_of_version_0_2_do_not_know_are_passed_on_only_if_they_are_set(
    explicit: dict[str, Any],
) -> None:
    if error_of(explicit) is None:
        parsed = Options.parse(explicit)
        state = parsed.set_or_known()
        assert Options.model_validate(state) == parsed
        defaults = Options().model_dump(mode="json")
        assert all(state[name] != defaults[name] for name in state.keys() & NEWER)
        assert defaults.keys() - state.keys() <= NEWER


# ---- A stack's own presets


def test_a_stack_adds_presets_of_its_own_and_replaces_built_in_ones() -> None:
    own = {"catalog": {"preset": "white-square", "canvas": "3000x3000"}, "sticker": {"outline": "3%"}, "plain": {}}
    presets = read_presets(json.dumps(own))
    assert set(presets) == {*BUILT_IN, "catalog", "plain"}
    catalog = Options.parse({"preset": "catalog", "quality": 80}, presets)
    assert (catalog.preset, catalog.canvas, catalog.scale, catalog.quality) == ("catalog", "3000x3000", "85%", 80)
    sticker = Options.parse({"preset": "sticker"}, presets)
    assert (sticker.outline, sticker.canvas, sticker.format) == ("3%", "original", "png")
    assert read_presets("") == read_presets(" ") == BUILT_IN


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"a": {"scale": "5%"}}', "Presets.a.scale"),
        ('{"good": {}, "a": {"colour": "red"}}', "Presets.a.colour"),
        ('{"a": {"preset": "good"}, "good": {}}', "Presets.a.preset"),
        ('{"a": {"output": "mask", "background_color": "#ffffff"}}', "Presets.a.output"),
        ('{"a": []}', "Presets.a"),
        ('{"A b": {}}', "Presets.A b"),
        ('{"a": {}, "a": {}}', "Presets"),
        ("[]", "Presets"),
        ("{", "Presets"),
        ('{"a": ' * 2000, "Presets"),
    ],
)
def test_an_error_in_a_stacks_presets_names_the_preset_and_the_option(text: str, field: str) -> None:
    with pytest.raises(InvalidOptionsError) as caught:
        read_presets(text)
    assert caught.value.field == field and caught.value.remedy


# ---- Geometry of the built-in presets, on drawn subjects

BLUE, GREEN = (30, 60, 200), (40, 160, 60)


def drawn(width: int, height: int, *corners: int) -> tuple[Rgb, Alpha]:
    """A blue subject with a soft edge between these corners, with a speck and haze beside it."""
    left, top, right, bottom = corners
    alpha = np.zeros((height, width), np.float32)
    alpha[top:bottom, left:right] = 1
    alpha[3, 3], alpha[-40:, -40:] = 1, np.maximum(alpha[-40:, -40:], 0.004)
    return np.full((height, width, 3), BLUE, np.uint8), cv2.blur(alpha, (3, 3))


SUBJECTS = {
    "tall": (1200, 1600, 400, 300, 800, 1500),
    "wide": (1600, 1200, 200, 500, 1400, 800),
    "square": (1000, 1000, 100, 100, 900, 900),
    "cut below": (1200, 1600, 300, 300, 900, 1600),
}


def finished(preset: str, subject: str) -> tuple[np.ndarray, Any]:
    rgb, alpha = drawn(*SUBJECTS[subject][:2], *SUBJECTS[subject][2:])
    encoded = encode(rgb, alpha, Options.parse({"preset": preset}))
    with Image.open(io.BytesIO(encoded.data)) as picture:
        return np.asarray(picture), (picture.format, picture.mode, picture.size)


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, width and height of what a mask shows."""
    return cv2.boundingRect(mask.astype(np.uint8))


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize(("preset", "size"), [("white-square", (2000, 2000)), ("portrait", (1600, 2000))])
def test_a_white_result_has_the_subject_at_85_percent_and_exactly_white_around_it(
    preset: str, size: tuple[int, int], subject: str
) -> None:
    pixels, facts = finished(preset, subject)
    assert facts == ("JPEG", "RGB", size)
    left, top, width, height = box(pixels.min(axis=2) < 128)
    assert max(width / size[0], height / size[1]) == pytest.approx(0.85, abs=0.003)
    outside = np.ones(pixels.shape[:2], bool)
    outside[max(top - 16, 0) : top + height + 16, max(left - 16, 0) : left + width + 16] = False
    assert (pixels[outside] == 255).all()
    assert abs(2 * left + width - size[0]) <= 3
    if preset == "portrait" and subject == "cut below":
        assert top + height == size[1]
    else:
        assert abs(2 * top + height - size[1]) <= 3


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_transparent_square_has_the_subject_at_85_percent(subject: str) -> None:
    pixels, facts = finished("transparent-square", subject)
    assert facts == ("PNG", "RGBA", (2000, 2000))
    left, top, width, height = box(pixels[..., 3] > 128)
    assert max(width, height) == pytest.approx(1700, abs=5)
    assert abs(2 * left + width - 2000) <= 3 >= abs(2 * top + height - 2000)
    assert not pixels[: top - 60, :, 3].any() and not pixels[:, : left - 60, 3].any()


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_sticker_has_a_margin_of_16_px_and_a_white_outline_of_8_px(subject: str) -> None:
    pixels, facts = finished("sticker", subject)
    assert facts == ("WEBP", "RGBA", (512, 512))
    opaque = pixels[..., 3] > 128
    left, top, width, height = box(opaque)
    assert max(width, height) == pytest.approx(480, abs=2)
    assert abs(2 * left + width - 512) <= 2 >= abs(2 * top + height - 512)
    inner = box(opaque & (pixels[..., 0] < 140))
    assert np.subtract(inner[:2], (left, top)) == pytest.approx(8, abs=1)
    assert np.subtract((width, height), inner[2:]) == pytest.approx(16, abs=2)
    middle = pixels[top + height // 2, left + 3 : left + 6]
    assert (middle[:, 3] > 250).all() and (middle[:, :3] > 250).all()
    corner = pixels[top, left]
    assert corner[3] == 0, "the outline has round corners"
