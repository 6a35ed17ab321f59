"""rembg's dialect: from its parameters to an order, and what is said of those that have no effect."""

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


def asked(**query: Any) -> dict[str, Any]:
    return rembg.parse_parameters(query).options


def warned(**query: Any) -> list[str]:
    return [warning.partition(" ")[0] for warning in rembg.parse_parameters(query).warnings]


def refused(**query: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        rembg.from_url({"url": URL, **query})
    assert (caught.value.status, caught.value.code) == (422, "invalid_parameter")
    return caught.value


def test_the_parameters_are_those_of_rembgs_server():
    package = find_spec("rembg")
    source = (Path(package.origin).parent / "commands" / "s_command.py").read_text()
    theirs = [name for name in rembg.Parameters.model_fields if f"self.{name} = " in source]
    assert theirs == list(rembg.Parameters.model_fields) == NAMES


def test_a_picture_alone_is_cut_out_by_the_stacks_model_without_matting():
    assert rembg.from_upload({}, Body({}, {"file": PHOTO})) == (
        ProcessRequest(
            PHOTO.data, {"model": "auto", "precision_level": "standard", "output": "cutout"}, name="cup.jpg"
        ),
        [],
    )


def test_a_picture_is_named_by_its_url():
    order, warnings = rembg.from_url({"url": URL, "model": "u2net"})
    assert (order.image, order.options["model"], warnings) == (URL, "u2net", [])


def test_alpha_matting_is_the_precision_that_solves_for_alpha():
    assert asked(a="true")["precision_level"] == "high"
    assert asked(a="false")["precision_level"] == "standard"
    assert asked(vm="1")["precision_level"] == "high"


@pytest.mark.parametrize("yes", ["1", "true", "True", "on", "yes"])
def test_only_the_mask_is_an_output(yes):
    assert asked(om=yes)["output"] == "mask"


@pytest.mark.parametrize(
    ("color", "told"),
    [("255,0,10,255", "#ff000aff"), ("1, 2, 3, 4", "#01020304"), ("0,0,0,0", "#00000000"), ("", None)],
)
def test_a_background_colour_has_four_channels(color, told):
    assert asked(bgc=color).get("background_color") == told


def test_a_mask_has_no_background_as_with_rembg_and_that_is_said():
    query = {"om": "true", "bgc": "255,0,0,255"}
    assert "background_color" not in asked(**query)
    assert warned(**query) == ["bgc"]


@pytest.mark.parametrize("name", ["af", "ab", "ae"])
def test_thresholds_of_a_trimap_have_no_effect_and_are_named(name):
    assert warned(a="true", **{name: "7"}) == [name]


def test_what_asks_for_what_happens_anyhow_is_not_named():
    assert warned(ppm="false", dc="true", vm="false", a="true", om="false", model="u2net") == []


def test_what_has_no_effect_is_named():
    assert warned(ppm="true", dc="false", vm="true", extras="{}") == ["ppm", "dc", "vm", "extras"]


def test_what_rembg_does_not_know_is_named():
    order, warnings = rembg.from_upload({"v": "2"}, Body({"url": URL}, {"file": PHOTO, "mask": PHOTO}))
    assert order.image == PHOTO.data
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
def test_what_a_parameter_cannot_be_is_refused_by_its_name(name, value):
    assert refused(**{name: value}).field == name


def test_a_picture_has_to_be_there():
    assert refused(url="").field == "url"
    for said in (Body(), Body({"file": "text"}), Body({}, {"image": PHOTO})):
        with pytest.raises(Problem) as caught:
            rembg.from_upload({}, said)
        assert (caught.value.status, caught.value.field) == (422, "file")


def test_a_parameter_stands_in_the_query_or_in_the_form():
    assert rembg.from_upload({"om": "1"}, Body({"a": "1"}, {"file": PHOTO}))[0].options["output"] == "mask"
    with pytest.raises(Problem) as caught:
        rembg.from_upload({"om": "1"}, Body({"om": "0"}, {"file": PHOTO}))
    assert caught.value.field == "om"


@pytest.mark.parametrize(("field", "told"), [("image_url", "url"), ("options.model", "model"), ("image", "image")])
def test_a_refusal_is_a_problem_that_names_the_field_as_rembg_does(field, told):
    answer = rembg.error_response(Problem(400, "url_refused", "No.", field=field, headers={"Retry-After": "1"}), "r1")
    assert (answer.status_code, answer.headers["Retry-After"]) == (400, "1")
    said = json.loads(answer.body)
    assert (said["code"], said["field"], said["detail"], said["request_id"]) == ("url_refused", told, "No.", "r1")


@given(
    st.dictionaries(
        st.sampled_from(NAMES) | st.text(max_size=6),
        st.sampled_from(["1", "true", "0", "255,0,0,9", "u2net", "{}", "[]"]) | st.text(max_size=20),
        max_size=6,
    )
)
def test_whatever_is_asked_for_makes_options_that_exist_or_is_refused(query):
    try:
        order, warnings = rembg.from_url({**query, "url": URL})
    except Problem as problem:
        assert (problem.status, problem.code) == (422, "invalid_parameter")
    else:
        Options.parse(order.options)
        assert len(warnings) <= len(query)


def test_an_answer_is_a_png_with_warnings():
    with api_in_memory() as api:
        api.web.files[URL] = PNG
        fetched = api.call("GET", f"/api/remove?url={URL}&om=true&af=200")
        assert (fetched.status_code, fetched.content_type, fetched.data) == (200, "image/png", RESULT)
        assert fetched.headers["X-Warnings"].startswith("af has no effect")
        form = {"file": (io.BytesIO(PNG), "cup.png"), "a": "true"}
        assert api.call("POST", "/api/remove?bgc=1,2,3,255", data=form).data == RESULT
        assert [request["options"] for request in api.machine.inputs.values()] == [
            {"model": "auto", "precision_level": "standard", "output": "mask"},
            {"model": "auto", "precision_level": "high", "output": "cutout", "background_color": "#010203ff"},
        ]


def test_failures_name_the_parameters_that_were_sent():
    with api_in_memory() as api:
        api.web.files[URL] = UrlAnswerError("The server answers with status 404", url=URL, field="image_url")
        missing = api.call("GET", f"/api/remove?url={URL}")
        assert (missing.status_code, missing.get_json()["field"]) == (422, "url")
        unknown = api.call("POST", "/api/remove", data={"file": (io.BytesIO(PNG), "cup.png"), "model": "u3net"})
        assert (unknown.status_code, unknown.get_json()["field"]) == (400, "model")
        assert api.call("POST", "/api/remove", key=None).status_code == 401
