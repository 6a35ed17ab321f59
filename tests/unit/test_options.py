import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidOptionsError
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
        ({"background_key": ""}, "options.background_key"),
        ({"background_color": "#ffffff", "background_key": "backgrounds/a.jpg"}, "options.background_key"),
    ],
)
def test_a_bad_option_is_named_with_its_value_and_a_remedy(raw: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidOptionsError) as caught:
        Options.parse(raw)
    assert caught.value.field == field
    assert caught.value.value in raw.values()
    assert caught.value.remedy.endswith(".")


@pytest.mark.parametrize("background", [{"background_color": "#ffffff"}, {"background_key": "backgrounds/a.jpg"}])
def test_a_mask_on_a_background_is_a_contradiction(background: dict[str, str]) -> None:
    with pytest.raises(InvalidOptionsError) as caught:
        Options.parse({"output": "mask", **background})
    assert caught.value.field == "options.output"


@given(
    st.dictionaries(st.text() | st.sampled_from(list(Options.model_fields)), st.text() | st.integers() | st.floats())
)
def test_whatever_comes_is_options_or_a_typed_error(raw: dict[str, object]) -> None:
    try:
        options = Options.parse(raw)
    except InvalidOptionsError as error:
        assert error.facts()["field"].startswith("options.")
    else:
        assert Options.parse(options.model_dump(mode="json")) == options
