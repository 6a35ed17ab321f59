import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidRequestError
from functions.validate.upload import Upload, options_in, read_upload
from tests.conftest import ROOT

S3_EVENT = json.loads((ROOT / "events/validate.json").read_text())["input"]


def test_an_upload_event_names_the_version_that_was_uploaded() -> None:
    event = json.loads(json.dumps(S3_EVENT))
    event["detail"]["object"] |= {"key": "my photos/ö+1.jpg", "version-id": "v7", "etag": "e1"}
    assert read_upload(event) == Upload(bucket="uploads", key="my photos/ö+1.jpg", version_id="v7", etag="e1")


def test_a_request_names_an_object_and_its_options() -> None:
    request = {"source": {"bucket": "uploads", "key": "a.jpg"}, "options": {"format": "webp"}}
    assert read_upload(request) == Upload(bucket="uploads", key="a.jpg", options={"format": "webp"})


@pytest.mark.parametrize(
    ("event", "field"),
    [
        ({}, "input"),
        ({"Records": []}, "input"),
        ({"source": {"bucket": "uploads"}}, "source.key"),
        ({"source": {"bucket": "uploads", "key": "a", "version": "1"}}, "source.version"),
        ({"detail": {"bucket": {"name": "uploads"}}}, "detail.object"),
        ({"source": "s3://uploads/a.jpg"}, "source"),
    ],
)
def test_anything_else_is_refused_by_the_field_at_fault(event: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read_upload(event)
    assert caught.value.field == field


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["source", "detail", "options", "x"]), json_values))
def test_no_input_breaks_the_reader(event: dict[str, object]) -> None:
    try:
        read_upload(event)
    except InvalidRequestError as error:
        json.dumps(error.facts())


def test_options_are_the_metadata_that_start_with_our_prefix() -> None:
    metadata = {"pbr-crop-margin": "0.1", "PBR-Format": "webp", "camera": "X100"}
    assert options_in(metadata) == {"crop_margin": "0.1", "format": "webp"}
