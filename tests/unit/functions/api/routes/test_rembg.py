"""Routes for clients of rembg's server."""

import io
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.options import Options
from functions.api.body import Body, UploadedFile
from functions.api.problems import Problem
from functions.api.requests import ProcessRequest
from functions.api.routes import rembg
from functions.runtime.safe_http import UrlAnswerError
from tests.fakes.api_in_memory import RESULT, api_in_memory

PHOTO = UploadedFile("cup.jpg", b"\xff\xd8photo")
PNG = b"\x89PNG\r\n\x1a\npicture"
URL = "https://example.com/cup.jpg"
NAMES = ["model", "a", "af", "ab", "ae", "om", "ppm", "dc", "vm", "bgc", "extras"]


def options(**query: Any) -> dict[str, Any]:
    return rembg.parse_parameters(query).options


def warned(**query: Any) -> list[str]:
    return [warning.partition(" ")[0] for warning in rembg.parse_parameters(query).warnings]


def refused(**query: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        rembg.from_url({"url": URL, **query})
    assert (caught.value.status, caught.value.code) == (422, "invalid_parameter")
    return caught.value


def test_parameters_equal_those_of_rembgs_server():
    package = find_spec("rembg")
    source = (Path(package.origin).parent / "commands" / "s_command.py").read_text()
    theirs = [name for name in rembg.Parameters.model_fields if f"self.{name} = " in source]
    assert theirs == list(rembg.Parameters.model_fields) == NAMES


def test_default_parameters():
    assert rembg.from_upload({}, Body({}, {"file": PHOTO})) == (
        ProcessRequest(
            PHOTO.data, {"model": "auto", "precision_level": "standard", "output": "cutout"}, name="cup.jpg"
        ),
        [],
    )


def test_image_url():
    request, warnings = rembg.from_url({"url": URL, "model": "u2net"})
    assert (request.image, request.options["model"], warnings) == (URL, "u2net", [])


def test_alpha_matting_is_high_precision():
    assert options(a="true")["precision_level"] == "high"
    assert options(a="false")["precision_level"] == "standard"
    assert options(vm="1")["precision_level"] == "high"


@pytest.mark.parametrize("yes", ["1", "true", "True", "on", "yes"])
def test_only_mask(yes):
    assert options(om=yes)["output"] == "mask"


@pytest.mark.parametrize(
    ("color", "expected"),
    [("255,0,10,255", "#ff000aff"), ("1, 2, 3, 4", "#01020304"), ("0,0,0,0", "#00000000"), ("", None)],
)
def test_background_color_has_four_channels(color, expected):
    assert options(bgc=color).get("background_color") == expected


def test_background_color_of_a_mask_is_reported_as_ignored():
    query = {"om": "true", "bgc": "255,0,0,255"}
    assert "background_color" not in options(**query)
    assert warned(**query) == ["bgc"]


@pytest.mark.parametrize("name", ["af", "ab", "ae"])
def test_trimap_thresholds_are_reported_as_ignored(name):
    assert warned(a="true", **{name: "7"}) == [name]


def test_parameters_that_match_the_behavior_cause_no_warning():
    assert warned(ppm="false", dc="true", vm="false", a="true", om="false", model="u2net") == []


def test_ignored_parameters_are_reported():
    assert warned(ppm="true", dc="false", vm="true", extras="{}") == ["ppm", "dc", "vm", "extras"]


def test_unknown_parameters_are_reported_as_ignored():
    request, warnings = rembg.from_upload({"v": "2"}, Body({"url": URL}, {"file": PHOTO, "mask": PHOTO}))
    assert request.image == PHOTO.data
    assert [warning.partition(" ")[0] for warning in warnings] == ["v", "url", "mask"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("a", value) for value in ("maybe", "2")],
        *[("om", value) for value in ("maybe", "png")],
        *[("af", value) for value in ("256", "-1", "high", "1.5")],
        *[("ab", value) for value in ("256", "-1")],
        *[("ae", value) for value in ("-1", "wide")],
        *[("bgc", value) for value in ("255,0,0", "256,0,0,0", "-1,0,0,0", "red", "1,2,3,4,5", ",,,")],
        *[("extras", value) for value in ("{", "[" * 100_000)],
    ],
)
def test_invalid_values_are_rejected_by_parameter(name, value):
    assert refused(**{name: value}).field == name


def test_missing_image_is_rejected():
    assert refused(url="").field == "url"
    for document in (Body(), Body({"file": "text"}), Body({}, {"image": PHOTO})):
        with pytest.raises(Problem) as caught:
            rembg.from_upload({}, document)
        assert (caught.value.status, caught.value.field) == (422, "file")


def test_parameter_in_both_query_and_form_is_rejected():
    assert rembg.from_upload({"om": "1"}, Body({"a": "1"}, {"file": PHOTO}))[0].options["output"] == "mask"
    with pytest.raises(Problem) as caught:
        rembg.from_upload({"om": "1"}, Body({"om": "0"}, {"file": PHOTO}))
    assert caught.value.field == "om"


@pytest.mark.parametrize(("field", "expected"), [("image_url", "url"), ("options.model", "model"), ("image", "image")])
def test_error_response_uses_rembgs_field_names(field, expected):
    response = rembg.error_response(Problem(400, "url_refused", "No.", field=field, headers={"Retry-After": "1"}), "r1")
    assert (response.status_code, response.headers["Retry-After"]) == (400, "1")
    document = json.loads(response.body)
    assert (document["code"], document["field"], document["detail"], document["request_id"]) == (
        "url_refused",
        expected,
        "No.",
        "r1",
    )


@given(
    st.dictionaries(
        st.sampled_from(NAMES) | st.text(max_size=6),
        st.sampled_from(["1", "true", "0", "255,0,0,9", "u2net", "{}", "[]"]) | st.text(max_size=20),
        max_size=6,
    )
)
def test_arbitrary_parameters_are_mapped_or_rejected(query):
    try:
        request, warnings = rembg.from_url({**query, "url": URL})
    except Problem as problem:
        assert (problem.status, problem.code) == (422, "invalid_parameter")
    else:
        Options.parse(request.options)
        assert len(warnings) <= len(query)


def test_response_is_a_png_with_warnings():
    with api_in_memory() as api:
        api.web.files[URL] = PNG
        fetched = api.call("GET", f"/api/remove?url={URL}&om=true&af=200")
        assert (fetched.status_code, fetched.content_type, fetched.data) == (200, "image/png", RESULT)
        assert fetched.headers["X-Warnings"].startswith("af has no effect")
        form = {"file": (io.BytesIO(PNG), "cup.png"), "a": "true"}
        assert api.call("POST", "/api/remove?bgc=1,2,3,255", data=form).data == RESULT
        assert [request["options"] for request in api.stepfunctions.inputs.values()] == [
            {"model": "auto", "precision_level": "standard", "output": "mask"},
            {"model": "auto", "precision_level": "high", "output": "cutout", "background_color": "#010203ff"},
        ]


def test_errors_name_the_sent_parameters():
    with api_in_memory() as api:
        api.web.files[URL] = UrlAnswerError("The server responses with status 404", url=URL, field="image_url")
        missing = api.call("GET", f"/api/remove?url={URL}")
        assert (missing.status_code, missing.get_json()["field"]) == (422, "url")
        unknown = api.call("POST", "/api/remove", data={"file": (io.BytesIO(PNG), "cup.png"), "model": "u3net"})
        assert (unknown.status_code, unknown.get_json()["field"]) == (400, "model")
        assert api.call("POST", "/api/remove", key=None).status_code == 401
