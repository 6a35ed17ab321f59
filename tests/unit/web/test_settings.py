"""The options that the controls of the page Remove stand for."""

import pytest

from core.options import Metadata, Options, OutputFormat
from core.presets import BUILT_IN
from core.segmentation.registry import MODELS
from core.types import Precision
from web.settings import Choices, label
from web.views.remove import has_alpha, is_aligned


def test_controls_that_nobody_touched_set_nothing() -> None:
    assert (
        Choices(more={"canvas": "", "outline": " ", "max_megapixels": None, "metadata": Metadata.NO_LOCATION}).options()
        == {}
    )


def test_only_what_differs_is_set() -> None:
    choices = Choices(
        precision=Precision.DRAFT,
        background="color",
        background_value="#00ff00",
        format=OutputFormat.WEBP,
        crop=True,
        margin=" 5% ",
        model="u2netp",
        more={"canvas": "4:5", "quality": 90, "metadata": "none"},
    )
    assert choices.options() == {
        "precision_level": "draft",
        "background_color": "#00ff00",
        "format": "webp",
        "crop": True,
        "crop_margin": "5%",
        "model": "u2netp",
        "canvas": "4:5",
        "metadata": "none",
    }
    Options.parse(choices.options())


def test_a_preset_keeps_its_background_and_format_unless_they_are_overridden() -> None:
    kept = Options.parse(Choices("white-square", background="preset").options())
    assert (kept.background_color, kept.format, kept.canvas) == ("#ffffff", "jpeg", "2000x2000")
    changed = Choices("white-square", background="transparent", format=OutputFormat.PNG, more={"canvas": "original"})
    parsed = Options.parse(changed.options())
    assert (parsed.background_color, parsed.format, parsed.canvas) == (None, "png", "original")


@pytest.mark.parametrize("kind", ["color", "image", "blur"])
def test_a_background_that_is_not_chosen_yet_is_none(kind: str) -> None:
    assert Choices(background=kind).options() == {}


@pytest.mark.parametrize(
    ("kind", "option"), [("color", "background_color"), ("image", "background_key"), ("blur", "background_blur")]
)
def test_each_background_has_its_option(kind: str, option: str) -> None:
    assert Choices(background=kind, background_value="x").options() == {option: "x"}
    assert option in Options.model_fields


def test_models_that_may_not_be_used_commercially_are_marked() -> None:
    assert label("u2netp", MODELS) == "u2netp"
    assert label("bria-rmbg", MODELS) == "bria-rmbg (non-commercial)"
    assert label("classical", MODELS) == "classical"


@pytest.mark.parametrize(
    ("options", "aligned"),
    [
        ({}, True),
        ({"background_color": "#ffffff", "max_megapixels": 0.1, "outline": "4px"}, True),
        ({"crop": True}, False),
        ({"canvas": "4:5"}, False),
        ({"scale": "80%"}, False),
        ({"position": "center"}, False),
        ({"position": "original"}, True),
        *(({"preset": name}, False) for name in BUILT_IN),
    ],
)
def test_a_slider_is_for_results_with_the_layout_of_the_original(options: dict[str, object], aligned: bool) -> None:
    assert is_aligned(Options.parse(options)) is aligned


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, True),
        ({"format": "webp"}, True),
        ({"format": "jpeg"}, False),
        ({"background_color": "#ff0000"}, False),
        ({"background_color": "#ff000080"}, False),
        ({"background_key": "backgrounds/a.jpg"}, False),
        ({"background_blur": "3%"}, False),
        ({"outline": "4px"}, False),
    ],
)
def test_the_transparency_of_some_results_is_their_alpha(options: dict[str, object], expected: bool) -> None:
    assert has_alpha(Options.parse(options)) is expected
