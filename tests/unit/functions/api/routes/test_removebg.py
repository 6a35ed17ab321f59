"""remove.bg's dialect: from its parameters to an order, and from what became of it to its answers."""

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.options import REGION_EXCEEDS_PICTURE, Options
from functions.api.auth import Usage
from functions.api.body import Body, UploadedFile
from functions.api.problems import Problem, problem_from_report
from functions.api.processing import MAX_INLINE_BYTES, JobResult
from functions.api.requests import ProcessRequest
from functions.api.routes import removebg
from functions.contracts.api_key import Scope
from tests.fakes.api_in_memory import RESULT, UNKNOWN_FOREGROUND, Api, api_in_memory

PHOTO = UploadedFile("cup.jpg", b"\xff\xd8photo")
PNG = b"\x89PNG\r\n\x1a\npicture"
URL = "https://example.com/cup.jpg"

CODES = {  # of remove.bg's own description, but for the last two lines
    *("missing_source", "multiple_sources", "invalid_image_url", "failed_image_download", "failed_to_read_image"),
    *("invalid_file_type", "invalid_dimensions", "file_too_large", "resolution_too_high", "unknown_foreground"),
    *("invalid_size", "invalid_format", "invalid_channels", "invalid_roi", "roi_exceeds_bounds", "roi_region_empty"),
    *("invalid_crop_margin", "invalid_scale", "invalid_position", "invalid_bg_color", "invalid_bg_image_url"),
    *("failed_bg_download", "multiple_bg_sources", "invalid_semitransparency", "insufficient_credits", "auth_failed"),
    *("rate_limit_exceeded", "unknown_parameter", "invalid_type", "invalid_type_level", "invalid_crop"),
    *("invalid_add_shadow", "invalid_shadow_type", "invalid_shadow_opacity", "invalid_image_file"),
    *("invalid_image_file_b64", "invalid_bg_image_file"),
}


def parsed(fields: dict[str, Any], files: dict[str, UploadedFile] | None = None) -> ProcessRequest:
    return removebg.to_process_request(removebg.parse_parameters(Body(fields, files or {})))


def with_photo(**fields: Any) -> ProcessRequest:
    return parsed(fields, {"image_file": PHOTO})


def refused(files: dict[str, UploadedFile] | None = None, /, **fields: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        removebg.to_process_request(
            removebg.parse_parameters(Body(fields, {"image_file": PHOTO} if files is None else files))
        )
    assert caught.value.status == 400
    assert caught.value.field in caught.value.detail
    return caught.value


def test_a_picture_alone_is_a_small_png_of_the_whole():
    assert with_photo() == ProcessRequest(
        PHOTO.data, {"output": "cutout", "format": "png", "max_megapixels": 0.25, "crop": False}, name="cup.jpg"
    )


def test_a_picture_comes_as_a_file_in_base64_or_by_its_url():
    text = base64.encodebytes(b"photo" * 40).decode()  # in lines
    assert parsed({"image_file_b64": text}).image == b"photo" * 40
    assert (
        removebg.to_process_request(
            removebg.parse_parameters(Body({"image_file_b64": "data:image/png;base64,aGk="}))
        ).image
        == b"hi"
    )
    assert parsed({"image_url": URL}).image == URL


def test_there_is_one_picture_and_one_background_at_most():
    assert refused({}).code == "missing_source"
    assert refused({}, image_url="", image_file_b64=None).code == "missing_source"
    assert refused(image_url=URL).code == "multiple_sources"
    assert refused({}, image_url=URL, image_file_b64="aGk=").code == "multiple_sources"
    both = {"image_file": PHOTO, "bg_image_file": PHOTO}
    assert refused(both, bg_color="red").code == "multiple_bg_sources"
    assert refused(bg_image_url=URL, bg_color="red").code == "multiple_bg_sources"


def test_what_is_no_base64_cannot_be_read():
    assert refused({}, image_file_b64="@@@").code == "failed_to_read_image"


@pytest.mark.parametrize("field", ["image_url", "bg_image_url"])
@pytest.mark.parametrize(
    "url", ["cup.jpg", "ftp://example.com/cup.jpg", "https://", "http://[::1", "file:///etc/passwd"]
)
def test_what_is_no_url_of_a_file_is_refused(field, url):
    assert refused({} if field == "image_url" else None, **{field: url}).code == f"invalid_{field}"


@pytest.mark.parametrize(
    ("size", "format_", "megapixels"),
    [
        ("preview", "png", 0.25),
        ("small", "jpg", 0.25),
        ("regular", "zip", 0.25),
        ("medium", "png", 1.5),
        ("hd", "webp", 4),
        ("4k", "png", 10),
        ("full", "auto", 10),
        ("auto", "png", 10),
        ("50MP", "png", 10),
        ("4k", "jpg", 25),
        ("full", "webp", 25),
        ("auto", "zip", 25),
        ("50MP", "zip", 50),
    ],
)
def test_a_size_is_so_many_megapixels_at_most_and_a_png_has_ten(size, format_, megapixels):
    assert with_photo(size=size, format=format_).options["max_megapixels"] == megapixels


@pytest.mark.parametrize(
    ("fields", "format_"),
    [
        ({}, "png"),
        ({"bg_color": "81d4fa77"}, "png"),
        ({"bg_color": "81d4fa00"}, "png"),
        ({"bg_color": "green"}, "jpeg"),
        ({"bg_image_url": URL}, "jpeg"),
        ({"channels": "alpha"}, "png"),
        ({"format": "jpg"}, "jpeg"),
        ({"format": "webp"}, "webp"),
        ({"format": "png", "bg_color": "green"}, "png"),
    ],
)
def test_the_format_auto_is_png_where_something_is_transparent_and_jpg_otherwise(fields, format_):
    assert with_photo(**fields).options["format"] == format_


@pytest.mark.parametrize(
    ("color", "told"),
    [
        ("81d4fa", "#81d4fa"),
        ("#81D4FA", "#81d4fa"),
        ("fff", "#ffffff"),
        ("#fa8", "#ffaa88"),
        ("fa87", "#ffaa8877"),
        ("81d4fa77", "#81d4fa77"),
        ("81d4faff", "#81d4fa"),
        ("81d4fa00", None),
        ("f000", None),
        (123456, "#123456"),
        ("green", "#008000"),
        ("DarkSlateGray", "#2f4f4f"),
        ("", None),
    ],
)
def test_a_background_colour_is_a_hex_code_of_any_length_or_a_name(color, told):
    assert with_photo(bg_color=color).options.get("background_color") == told


@pytest.mark.parametrize("color", ["12345", "#1234567", "nocolour", "rgb(1,2,3)", "#", "##fff", "ffffff\nffffff", True])
def test_what_is_no_colour_is_refused(color):
    assert refused(bg_color=color).code == "invalid_bg_color"


def test_a_background_is_a_file_or_a_url():
    files = {"image_file": PHOTO, "bg_image_file": UploadedFile("sky.jpg", b"sky")}
    assert parsed({}, files).background == b"sky"
    assert with_photo(bg_image_url=URL).background == URL


@pytest.mark.parametrize(
    ("margin", "told"),
    [
        ("0", "0px"),
        (0, "0px"),
        ("30", "30px"),
        ("30px", "30px"),
        ("10%", "10%"),
        ("10%  20px", "10% 20px"),
        ("10%,20", "10% 20px"),
        ("1 2 3% 4", "1px 2px 3% 4px"),
        ("500px 50%", "500px 50%"),
    ],
)
def test_a_margin_without_a_unit_counts_pixels(margin, told):
    assert with_photo(crop=True, crop_margin=margin).options["crop_margin"] == told


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("crop_margin", value) for value in ("501", "51%", "1px 2px 3px", "1 2 3 4 5", "-1px", "wide", "1em")],
        *[("roi", value) for value in ("0 0 9 9", "0% 0% 100%", "0% 0% 101% 100%x", "a b c d", "0px 0px 9px -9px")],
        *[("scale", value) for value in ("9%", "101%", "50", "big", "50px")],
        *[("position", value) for value in ("left", "101%", "10% 20% 30%", "10px", "center center")],
        *[("size", value) for value in ("big", "4K", "0.25", 4)],
        *[("format", value) for value in ("jpeg", "gif", "PNG")],
        *[("channels", value) for value in ("rgb", "mask")],
        *[("type", value) for value in ("cat", "Person")],
        *[("type_level", value) for value in ("3", 3, 1.0, [1])],
        *[("crop", value) for value in ("maybe", 2, [])],
        *[("add_shadow", value) for value in ("true", True, 1, "perhaps")],
        *[("semitransparency", value) for value in ("false", False, 0)],
        *[("shadow_type", value) for value in ("drop", "3D", "car")],
        *[("shadow_opacity", value) for value in (-1, 101, "dark", float("nan"))],
    ],
)
def test_what_a_parameter_cannot_be_is_refused_by_the_parameters_name(name, value):
    problem = refused(**{name: value})
    assert (problem.code, problem.field) == (f"invalid_{name}", name)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"channels": "alpha", "bg_color": "red"}, "invalid_channels"),
        ({"channels": "alpha", "bg_image_url": URL}, "invalid_channels"),
        ({"format": "zip", "bg_color": "red"}, "invalid_format"),
        ({"format": "zip", "bg_image_url": URL}, "invalid_format"),
        ({"format": "zip", "channels": "alpha"}, "invalid_format"),
        ({"format": "jpg", "bg_color": "81d4fa77"}, "invalid_bg_color"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(fields, code):
    assert refused(**fields).code == code


def test_what_remove_bg_does_not_know_is_refused_by_its_name():
    problem = refused(sise="full")
    assert (problem.code, problem.field) == ("unknown_parameter", "sise")
    assert refused({"image_file": PHOTO, "mask": PHOTO}).field == "mask"


def test_geometry_is_handed_on_as_it_came():
    asked = {"crop": "true", "roi": "10px,20px,50%,60%", "scale": "80%", "position": "10%  90%"}
    options = with_photo(**asked).options
    assert options["crop"] is True
    assert options["roi"] == "10px 20px 50% 60%"
    assert (options["scale"], options["position"]) == ("80%", "10% 90%")
    assert with_photo(channels="alpha").options["output"] == "mask"


@pytest.mark.parametrize("kind", ["person", "product", "car", "animal", "graphic", "transportation"])
def test_a_type_is_taken_and_its_being_without_effect_is_said(kind):
    asked = removebg.parse_parameters(Body({"type": kind, "image_url": URL}))
    assert f"type={kind}" in removebg.result_headers(sidecar(), asked)["X-Warnings"]


def sidecar(**image: Any) -> dict[str, Any]:
    box = {"left": 10, "top": 20, "width": 100, "height": 200}
    return {"image": {"width": 320, "height": 240, "foreground": box, **image}, "warnings": []}


def test_headers_tell_of_the_picture():
    assert removebg.result_headers(sidecar(), removebg.parse_parameters(Body())) == {
        "X-Width": "320",
        "X-Height": "240",
        "X-Type": "other",
        "X-Credits-Charged": "1",
        "X-Foreground-Left": "10",
        "X-Foreground-Top": "20",
        "X-Foreground-Width": "100",
        "X-Foreground-Height": "200",
    }


def test_headers_leave_out_what_is_not_known_or_not_wanted():
    told = removebg.result_headers(sidecar(foreground=None), removebg.parse_parameters(Body({"type_level": "none"})))
    assert set(told) == {"X-Width", "X-Height", "X-Credits-Charged"}


def test_every_header_is_one_that_browsers_are_shown():
    assert set(removebg.result_headers(sidecar(), removebg.parse_parameters(Body()))) == set(removebg.HEADERS)


def test_warnings_are_one_line_of_ascii():
    said = {**sidecar(), "warnings": ["naïve\r\nSet-Cookie: a", "x" * 5000]}
    text = removebg.result_headers(said, removebg.parse_parameters(Body()))["X-Warnings"]
    assert text.startswith("na?ve??Set-Cookie: a; xxx")
    assert len(text) == 1000


def test_a_json_answer_has_the_result_or_its_url():
    place = {"foreground_top": 20, "foreground_left": 10, "foreground_width": 100, "foreground_height": 200}
    assert removebg.json_result(JobResult(sidecar(), b"png", None)) == {"data": {"result_b64": "cG5n", **place}}
    assert removebg.json_result(JobResult(sidecar(), None, URL)) == {"data": {"result_url": URL, **place}}


def test_an_account_has_as_many_credits_as_the_month_has_pictures_left():
    assert removebg.account(Usage(quota=50, used=8)) == {
        "data": {
            "attributes": {
                "credits": {"total": 42, "subscription": 42, "payg": 0, "enterprise": 0},
                "api": {"free_calls": 0, "sizes": "all"},
            }
        }
    }
    assert removebg.account(Usage(quota=5, used=8))["data"]["attributes"]["credits"]["total"] == 0


def report(error: str, field: str = "image", message: str = "No") -> Problem:
    return problem_from_report({"error": error, "message": message, "field": field, "value": None, "remedy": "Do so."})


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (report("UnknownForegroundError"), (400, "unknown_foreground")),
        (report("CorruptImageError"), (400, "failed_to_read_image")),
        (report("EmptyImageError"), (400, "failed_to_read_image")),
        (report("UnsupportedFormatError"), (400, "invalid_file_type")),
        (report("AnimatedImageError"), (400, "invalid_file_type")),
        (report("FileTooLargeError"), (400, "file_too_large")),
        (report("TooManyPixelsError"), (400, "resolution_too_high")),
        (report("ImageTooSmallError"), (400, "invalid_dimensions")),
        (report("UrlRefusedError", "image_url"), (400, "invalid_image_url")),
        (report("UrlRefusedError", "background_url"), (400, "invalid_bg_image_url")),
        (report("UrlTooLargeError", "image_url"), (400, "file_too_large")),
        *[
            (report(f"Url{kind}Error", field), (400, code))
            for kind in ("Untrusted", "Unreachable", "Timeout", "Busy", "Answer")
            for field, code in (("image_url", "failed_image_download"), ("background_url", "failed_bg_download"))
        ],
        (report("InvalidOptionsError", "options.roi", f"{REGION_EXCEEDS_PICTURE}, so"), (400, "roi_exceeds_bounds")),
        (report("InvalidOptionsError", "options.roi"), (400, "roi_region_empty")),
        (report("InvalidOptionsError", "options.background_key"), (400, "failed_to_read_image")),
        (report("InvalidOptionsError", "options.max_megapixels"), (400, "invalid_size")),
        (Problem(401, "auth_failed"), (403, "auth_failed")),
        (Problem(403, "scope_missing"), (403, "auth_failed")),
        (Problem(402, "quota_exceeded"), (402, "insufficient_credits")),
        (Problem(429, "rate_limit_exceeded"), (429, "rate_limit_exceeded")),
        (Problem(415, "unsupported_media_type"), (400, "unsupported_media_type")),
        (Problem(422, "idempotency_key_reused"), (400, "idempotency_key_reused")),
        (Problem(404, "not_found"), (404, "not_found")),
        (Problem(503, "not_done_yet"), (503, "not_done_yet")),
        (Problem(500, "internal_error"), (500, "internal_error")),
    ],
)
def test_problems_have_remove_bgs_statuses_and_codes(problem, told):
    assert removebg.translate(problem) == told


def test_a_refusal_has_one_error_with_title_code_and_detail():
    answer = removebg.error_response(Problem(429, "rate_limit_exceeded", "Slow.", headers={"Retry-After": "7"}), "r1")
    assert (answer.status_code, answer.headers["Retry-After"], answer.headers["X-Request-Id"]) == (429, "7", "r1")
    error = {"title": "Rate limit exceeded", "code": "rate_limit_exceeded", "detail": "Slow."}
    assert json.loads(answer.body) == {"errors": [error]}


def test_an_error_of_ours_tells_the_requests_id_and_nothing_else():
    answer = removebg.error_response(Problem(500, "internal_error", "secret", remedy="secret"), "r1")
    error = {"title": "Internal error", "code": "internal_error", "detail": "Request r1"}
    assert json.loads(answer.body) == {"errors": [error]}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
LIKELY = st.sampled_from(
    ["auto", "png", "zip", "alpha", "full", "true", "0", "10%", "1px 2px", "0% 0% 50% 50%", "fff", "#0000", "red", URL]
)
NAMES = st.sampled_from(sorted(removebg.Parameters.model_fields)) | st.text(max_size=8)
BODIES = st.builds(
    Body,
    st.dictionaries(NAMES, LIKELY | ANYTHING, max_size=5),
    st.dictionaries(
        st.sampled_from(["image_file", "bg_image_file", "image_url", "else"]),
        st.builds(UploadedFile, st.text(max_size=8), st.binary(max_size=8)),
        max_size=2,
    ),
)


@given(BODIES)
def test_whatever_comes_makes_options_that_exist_or_an_error_that_is_documented(said):
    try:
        order = removebg.to_process_request(removebg.parse_parameters(said))
    except Problem as problem:
        assert problem.status == 400
        assert problem.code in CODES
        assert json.loads(removebg.error_response(problem, "r").body)["errors"][0]["code"] == problem.code
    else:
        Options.parse(order.options)
        assert isinstance(order.image, bytes | str)


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with api_in_memory() as api:
        yield api


def send(api: Api, accept: str | None = None, **fields: Any) -> Any:
    form = {"image_file": (io.BytesIO(PNG), "cup.png"), **fields}
    return api.call("POST", "/v1.0/removebg", data=form, headers={"Accept": accept} if accept else {})


def test_an_answer_is_the_picture(api: Api):
    answer = send(api, format="webp")
    assert (answer.status_code, answer.content_type, answer.data) == (200, "image/webp", RESULT)
    assert (answer.headers["X-Width"], answer.headers["X-Credits-Charged"]) == ("320", "1")
    assert int(answer.headers["X-RateLimit-Remaining"]) < int(answer.headers["X-RateLimit-Limit"])


@pytest.mark.parametrize("accept", ["application/json", "application/json; charset=utf-8"])
def test_who_accepts_json_and_nothing_else_is_answered_in_json(api: Api, accept):
    answer = send(api, accept)
    assert answer.content_type == "application/json"
    assert base64.b64decode(answer.get_json()["data"]["result_b64"]) == RESULT


@pytest.mark.parametrize(
    "accept", ["application/json, text/plain, */*", "application/json;q=0.9, image/*", "image/png"]
)
def test_who_accepts_json_among_others_is_answered_with_the_picture(api: Api, accept):
    assert send(api, accept).data == RESULT


def test_a_result_that_no_answer_can_hold_is_led_to(api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(api.machine, "result", bytes(MAX_INLINE_BYTES + 1))
    answer = send(api)
    assert (answer.status_code, answer.headers["X-Width"], answer.data) == (303, "320", b"")
    assert "X-Amz-Signature" in answer.headers["Location"]
    data = send(api, "application/json").get_json()["data"]
    assert "X-Amz-Signature" in data["result_url"]
    assert "result_b64" not in data


def test_a_job_that_failed_is_told_in_remove_bgs_words(api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(api.machine, "fate", api.machine.fail(UNKNOWN_FOREGROUND))
    answer = send(api)
    assert (answer.status_code, answer.get_json()["errors"][0]["code"]) == (400, "unknown_foreground")


def test_whatever_fails_under_remove_bgs_paths_is_told_in_its_words(api: Api):
    signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20260101/eu-west-1/execute-api/aws4_request"}
    for path, headers, status in (
        ("/v1.0/account", {}, 403),
        ("/v1.0/improve", {}, 404),
        ("/iam/v1.0/improve", signed, 404),
    ):
        answer = api.call("GET", path, key=None, headers=headers)
        assert (answer.status_code, list(answer.get_json())) == (status, ["errors"])
    poor = api.make_key(Scope.PROCESS, monthly_quota=1)
    codes = []
    for _ in range(2):
        form = {"image_file": (io.BytesIO(PNG), "cup.png")}
        answer = api.call("POST", "/v1.0/removebg", key=poor, data=form)
        codes.append((answer.status_code, (answer.get_json(silent=True) or {}).get("errors", [{}])[0].get("code")))
    assert codes == [(200, None), (402, "insufficient_credits")]


def test_an_account_is_answered_to_keys_that_may_read(api: Api):
    reader = api.make_key(Scope.READ, monthly_quota=7)
    answer = api.call("GET", "/v1.0/account", key=reader)
    assert answer.get_json()["data"]["attributes"]["credits"]["total"] == 7
