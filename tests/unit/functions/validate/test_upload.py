import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import InvalidOptionsError, InvalidRequestError
from core.options import Options
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


def ordered(**more: object) -> dict[str, object]:
    return {"source": {"bucket": "uploads", "key": "a.jpg"}, **more}


def test_a_request_can_have_a_webhook() -> None:
    request = ordered(webhook={"url": "https://example.com/told?of=it", "key_id": "iam0f"})
    assert read_upload(request) == Upload(bucket="uploads", key="a.jpg")


@pytest.mark.parametrize(
    ("event", "field"),
    [
        ({}, "input"),
        ({"Records": []}, "input"),
        ({"source": {"bucket": "uploads"}}, "source.key"),
        ({"source": {"bucket": "uploads", "key": "a", "version": "1"}}, "source.version"),
        ({"detail": {"bucket": {"name": "uploads"}}}, "detail.object"),
        ({"source": "s3://uploads/a.jpg"}, "source"),
        ({"source": {"bucket": "uploads", "key": "\ud800"}}, "source.key"),
        (ordered(webhook="https://example.com"), "webhook"),
        (ordered(webhook={"url": "https://example.com"}), "webhook.key_id"),
        (ordered(webhook={"url": "ftp://example.com", "key_id": "k1"}), "webhook.url"),
        (ordered(webhook={"url": "https://\ud800", "key_id": "k1"}), "webhook.url"),
        (ordered(webhook={"url": "https://example.com", "key_id": "../k1"}), "webhook.key_id"),
        (ordered(webhook={"url": "https://example.com", "key_id": "k1", "secret": "s"}), "webhook.secret"),
        ({"detail": {"bucket": {"name": "uploads"}, "object": {"key": "\udc00"}}}, "detail.object.key"),
    ],
)
def test_other_input_is_rejected_with_the_invalid_field(event: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read_upload(event)
    assert caught.value.field == field


any_text = st.text(st.characters(codec=None, exclude_categories=()))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text | st.just("x" * 5000),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(any_text, children, max_size=3),
    max_leaves=8,
)
sources = st.fixed_dictionaries({"bucket": json_values, "key": json_values}, optional={"version_id": json_values})
details = st.fixed_dictionaries(
    {
        "bucket": json_values | st.fixed_dictionaries({"name": json_values}),
        "object": json_values
        | st.fixed_dictionaries({"key": json_values}, optional={"version-id": json_values, "etag": json_values}),
    }
)
events = st.fixed_dictionaries(
    {},
    optional={"source": json_values | sources, "detail": json_values | details, "options": json_values, "x": any_text},
)


@settings(max_examples=300)
@given(events)
def test_any_input_is_read_or_rejected(event: dict[str, object]) -> None:
    try:
        upload = read_upload(event)
    except InvalidRequestError as error:
        facts = error.facts()
        assert facts["field"] and facts["remedy"]
        assert len(json.dumps(facts, allow_nan=False, ensure_ascii=False).encode()) < 3000
    else:
        assert upload.bucket.encode() and upload.key.encode()
        assert (upload.version_id or "").encode() == (upload.version_id or "").encode("utf-8", "replace")


@given(st.dictionaries(st.text(), st.text()), st.text())
def test_any_metadata_are_valid_options_or_rejected_by_name(metadata: dict[str, str], value: str) -> None:
    with contextlib.suppress(InvalidOptionsError):
        Options.parse(options_in(metadata | {"PBR-Quality": value}))


def test_metadata_with_the_prefix_are_options() -> None:
    metadata = {"pbr-crop-margin": "0.1", "PBR-Format": "webp", "camera": "X100"}
    assert options_in(metadata) == {"crop_margin": "0.1", "format": "webp"}


@pytest.mark.parametrize(
    ("returned", "written"),
    [
        ("=?UTF-8?Q?backgrounds/gr=C3=B6=C3=9Fe_1.png?=", "backgrounds/größe 1.png"),
        ("=?UTF-8?B?YmFja2dyb3VuZHMvZ3LDtsOfZS5wbmc=?=", "backgrounds/größe.png"),
        ("=?utf-8?b?w4TDhA==?= =?utf-8?b?w4Q=?= 1", "ÄÄÄ 1"),
        ("=?UTF-8?B?w4PChE3Dg8KEWsODwpXDg8KRIFMz?=", "ÄMÄZÕÑ S3"),  # the example of S3's user guide
        ("gr\xc3\xb6\xc3\x9fe", "größe"),  # UTF-8 in the header of a response, as botocore reads it
        ("gr\xf6\xdfe", "größe"),
        ("a=?b?c", "a=?b?c"),
    ],
)
def test_metadata_that_are_not_ascii_are_decoded(returned: str, written: str) -> None:
    assert options_in({"pbr-background-key": returned}) == {"background_key": written}


@pytest.mark.parametrize("value", ["=?UTF-8?B?w?=", "=?UTF-8?B?/w==?=", "=?UTF-7?Q?+2AA-?=", "=?hex?Q?6162?="])
def test_encoded_metadata_that_cannot_be_decoded_are_rejected_by_name(value: str) -> None:
    with pytest.raises(InvalidOptionsError) as caught:
        options_in({"pbr-background-key": value})
    assert (caught.value.field, caught.value.value) == ("options.background_key", value)
