import json
import math
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import MAX_SHOWN_CHARS, InvalidOptionsError
from core.options import Metadata, Options
from core.types import Precision


def test_text_as_metadata_carries_it_is_read_as_what_it_means() -> None:
    options = Options.parse({"precision_level": "draft", "quality": "75", "crop": "true", "crop_margin": "0.1"})
    assert (options.precision_level, options.quality, options.crop) == (Precision.DRAFT, 75, True)
    assert options.crop_margin == pytest.approx(0.1)


def test_the_location_is_kept_on_request_only() -> None:
    assert Options().metadata is Metadata.NO_LOCATION
    assert Options.parse({"metadata": "all"}).metadata is Metadata.ALL


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({"precission_level": "high"}, "options.precission_level"),
        ({"precision_level": "best"}, "options.precision_level"),
        ({"format": "gif"}, "options.format"),
        ({"quality": 0}, "options.quality"),
        ({"crop_margin": "nan"}, "options.crop_margin"),
        ({"metadata": "gps"}, "options.metadata"),
        ({"background_color": "white"}, "options.background_color"),
        ({"background_color": "#fff"}, "options.background_color"),
        ({"background_color": "#ffffff8"}, "options.background_color"),
        ({"background_key": ""}, "options.background_key"),
        ({"background_color": "#ffffff", "background_key": "backgrounds/a.jpg"}, "options.background_key"),
        ({"background_blur": "2%", "background_color": "#ffffff"}, "options.background_blur"),
        ({"background_blur": "2%", "background_key": "backgrounds/a.jpg"}, "options.background_blur"),
    ],
)
def test_a_bad_option_is_named_with_its_value_and_a_remedy(raw: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidOptionsError) as caught:
        Options.parse(raw)
    assert caught.value.field == field
    assert caught.value.value in raw.values()
    assert caught.value.remedy.endswith(".")


@pytest.mark.parametrize(
    ("option", "texts"),
    [
        (
            "crop_margin",
            ["1.1", "10", "501px", "51%", "1px 2px 3px", "1% 2% 3% 4% 5%", "1px,2px", "-1px", "1em", " 1px"],
        ),
        ("scale", ["9%", "101%", "50", "center", "100.1%", ""]),
        ("position", ["101%", "center center", "10% 20% 30%", "10px", "left", ""]),
        ("max_megapixels", ["0", "-1", "inf", "nan", "4 MP"]),
        (
            "background_blur",
            ["0", "0%", "0.4%", "0.49%", "20.1%", "21%", "30%", "2", "10px", "-2%", "2.%", " 2%", "٢%", ""],
        ),
        (
            "roi",
            [
                "0 0 100 100",
                "00 0 10px 10px",
                "0px 0px 10px",
                "0% 0% 100% 100% ",
                "-1px 0px 10px 10px",
                "1e3px 0px 1px 1px",
                "٣px " * 4,
            ],
        ),
    ],
)
def test_what_a_layout_cannot_be_is_refused_with_what_it_can_be(option: str, texts: list[str]) -> None:
    for text in texts:
        with pytest.raises(InvalidOptionsError) as caught:
            Options.parse({option: text})
        assert (caught.value.field, caught.value.value) == (f"options.{option}", text)
        assert "[0-9]" not in caught.value.message, "no regular expression"


@pytest.mark.parametrize(
    ("option", "texts"),
    [
        ("crop_margin", ["0px", "500px", "50%", "5% 10px", "0.5% 499.9px 50.0% 1px", "0 10px"]),
        ("scale", ["original", "10%", "99.9%", "100%", "100.0%"]),
        ("position", ["original", "center", "0%", "33.3% 100%", "0 50%", "0"]),
        ("background_blur", ["0.5%", "0.75%", "1%", "1.25%", "9.9%", "10%", "10.5%", "19.999999%", "20%", "20.0%"]),
        (
            "roi",
            ["0px 0px 500px 300px", "10% 20% 90% 100%", "0% 1.5px 50.25% 900px", "0 0 100% 100%", "0.0 0 20px 50%"],
        ),
    ],
)
def test_a_layout_is_kept_in_the_words_it_came_in(option: str, texts: list[str]) -> None:
    for text in texts:
        assert getattr(Options.parse({option: text}), option) == text


def test_a_jpeg_has_no_translucent_background() -> None:
    with pytest.raises(InvalidOptionsError) as caught:
        Options.parse({"format": "jpeg", "background_color": "#ffffff80"})
    assert caught.value.field == "options.background_color"
    assert Options.parse({"format": "jpeg", "background_color": "#ffffffFF"}).background_opacity == 1


@pytest.mark.parametrize(
    "other",
    [
        {"output": "mask"},
        {"background_color": "#ffffff"},
        {"background_key": "backgrounds/a.jpg"},
        {"background_blur": "2%"},
    ],
)
def test_a_zip_holds_a_subject_without_a_background(other: dict[str, str]) -> None:
    with pytest.raises(InvalidOptionsError) as caught:
        Options.parse({"format": "zip", **other})
    assert caught.value.field == "options.format"


@pytest.mark.parametrize(
    "background", [{"background_color": "#ffffff"}, {"background_key": "backgrounds/a.jpg"}, {"background_blur": "2%"}]
)
def test_a_mask_on_a_background_is_a_contradiction(background: dict[str, str]) -> None:
    with pytest.raises(InvalidOptionsError) as caught:
        Options.parse({"output": "mask", **background})
    assert caught.value.field == "options.output"


any_text = st.text(st.characters(codec=None, exclude_categories=()))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text | st.just("x" * 5000),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(any_text, children, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300)
@given(st.dictionaries(any_text | st.sampled_from(list(Options.model_fields)), json_values, max_size=3))
def test_whatever_comes_is_options_or_a_typed_error(raw: dict[str, object]) -> None:
    try:
        options = Options.parse(raw)
    except InvalidOptionsError as error:
        facts = error.facts()
        assert facts["field"].startswith("options.") and facts["remedy"]
        assert len(json.dumps(facts, allow_nan=False, ensure_ascii=False).encode()) < 3000
    else:
        assert Options.parse(options.model_dump(mode="json")) == options


@pytest.mark.parametrize(
    ("raw", "field", "value"),
    [
        ({"\ud800": "1"}, "options.?", "1"),
        ({"model": "\ud800"}, "options.model", "?"),
        ({"model": ""}, "options.model", ""),
        ({"crop": "\u202etrue"}, "options.crop", "\u202etrue"),
        ({"background_color": "#ffffff\n"}, "options.background_color", "#ffffff\n"),
        ({"quality": 10**5000}, "options.quality", "a very large int"),
        ({"quality": math.nan}, "options.quality", "nan"),
        ({"format": "x" * 10**6}, "options.format", "x" * (MAX_SHOWN_CHARS - 1) + "…"),
        ({"x" * 10**6: 1}, "options." + "x" * (MAX_SHOWN_CHARS - 9) + "…", 1),
    ],
    ids=[
        "half a pair",
        "half a pair as value",
        "empty",
        "right to left",
        "new line",
        "digits",
        "nan",
        "long",
        "long name",
    ],
)
def test_a_hostile_option_is_repeated_short_and_as_text(raw: dict[str, object], field: str, value: object) -> None:
    with pytest.raises(InvalidOptionsError) as caught:
        Options.parse(raw)
    assert (caught.value.field, caught.value.facts()["value"]) == (field, value)


@pytest.mark.parametrize(
    ("option", "texts"),
    [
        (
            "canvas",
            ["2000", "15x20", "10001x20", "2000 x 2000", "0:1", "4:5:6", "x", "2000X2000", "1:0.5", "11:1"],
        ),
        ("outline", ["5", "101px", "11%", "-1px", "px", "5em", "1px 2px"]),
        ("outline_color", ["white", "#fff", "#ffffff80"]),
    ],
)
def test_what_a_canvas_and_an_outline_cannot_be_is_refused_with_what_they_can_be(option: str, texts: list[str]) -> None:
    for text in texts:
        with pytest.raises(InvalidOptionsError) as caught:
            Options.parse({option: text})
        assert caught.value.field == f"options.{option}" and caught.value.value == text and caught.value.remedy


def test_an_outline_leaves_room_for_the_subject() -> None:
    with pytest.raises(InvalidOptionsError, match="too little room"):
        Options.parse({"canvas": "512x80", "outline": "10.5px"})
    assert Options.parse({"canvas": "512x80", "outline": "10px"}).has_outline


def test_a_mask_has_no_outline() -> None:
    with pytest.raises(InvalidOptionsError, match="A mask has no outline"):
        Options.parse({"output": "mask", "outline": "2%"})
    assert Options.parse({"output": "mask", "outline": "0px"}).outline == "0px"


@given(st.decimals(0, 100, allow_nan=False, places=4))
def test_a_blur_from_half_a_percent_to_20_percent_is_allowed(percent: Decimal) -> None:
    try:
        share = Options.parse({"background_blur": f"{percent}%"}).blur_share
    except InvalidOptionsError:
        assert not Decimal("0.5") <= percent <= 20
    else:
        assert Decimal("0.5") <= percent <= 20
        assert share == pytest.approx(float(percent) / 100)


def test_a_transparent_background_is_none() -> None:
    assert Options.parse({"background_color": "transparent"}) == Options()
