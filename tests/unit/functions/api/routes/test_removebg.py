"""Routes for clients of remove.bg."""

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

CODES = {  # from remove.bg's API description, except the last two lines
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
        parsed(fields, {"image_file": PHOTO} if files is None else files)
    assert caught.value.status == 400
    assert caught.value.field in caught.value.detail  # type: ignore[operator]
    return caught.value


def test_default_parameters():
    assert with_photo() == ProcessRequest(
        PHOTO.data, {"output": "cutout", "format": "png", "max_megapixels": 0.25, "crop": False}, name="cup.jpg"
    )


def test_image_as_file_base64_or_url():
    text = base64.encodebytes(b"photo" * 40).decode()  # with line breaks
    assert parsed({"image_file_b64": text}).image == b"photo" * 40
    assert parsed({"image_file_b64": "data:image/png;base64,aGk="}).image == b"hi"
    assert parsed({"image_url": URL}).image == URL


def test_several_images_or_backgrounds_are_rejected():
    assert refused({}).code == "missing_source"
    assert refused({}, image_url="", image_file_b64=None).code == "missing_source"
    assert refused(image_url=URL).code == "multiple_sources"
    assert refused({}, image_url=URL, image_file_b64="aGk=").code == "multiple_sources"
    both = {"image_file": PHOTO, "bg_image_file": PHOTO}
    assert refused(both, bg_color="red").code == "multiple_bg_sources"
    assert refused(bg_image_url=URL, bg_color="red").code == "multiple_bg_sources"


def test_invalid_base64_is_rejected():
    assert refused({}, image_file_b64="@@@").code == "failed_to_read_image"


@pytest.mark.parametrize("field", ["image_url", "bg_image_url"])
@pytest.mark.parametrize(
    "url", ["cup.jpg", "ftp://example.com/cup.jpg", "https://", "http://[::1", "file:///etc/passwd"]
)
def test_invalid_urls_are_rejected(field, url):
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
def test_size_limits_megapixels_and_png_to_ten(size, format_, megapixels):
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
def test_format_auto_is_png_for_transparent_results_else_jpg(fields, format_):
    assert with_photo(**fields).options["format"] == format_


@pytest.mark.parametrize(
    ("color", "expected"),
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
def test_background_color_is_hex_or_a_name(color, expected):
    assert with_photo(bg_color=color).options.get("background_color") == expected


@pytest.mark.parametrize("color", ["12345", "#1234567", "nocolour", "rgb(1,2,3)", "#", "##fff", "ffffff\nffffff", True])
def test_invalid_colors_are_rejected(color):
    assert refused(bg_color=color).code == "invalid_bg_color"


def test_background_as_file_or_url():
    files = {"image_file": PHOTO, "bg_image_file": UploadedFile("sky.jpg", b"sky")}
    assert parsed({}, files).background == b"sky"
    assert with_photo(bg_image_url=URL).background == URL


@pytest.mark.parametrize(
    ("margin", "expected"),
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
def test_margin_without_a_unit_is_in_pixels(margin, expected):
    assert with_photo(crop=True, crop_margin=margin).options["crop_margin"] == expected


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
        *[("crop", value) for value in ("maybe", 2, [])],  # type: ignore[var-annotated]
        *[("add_shadow", value) for value in ("true", True, 1, "perhaps")],
        *[("semitransparency", value) for value in ("false", False, 0)],
        *[("shadow_type", value) for value in ("drop", "3D", "car")],
        *[("shadow_opacity", value) for value in (-1, 101, "dark", float("nan"))],
    ],
)
def test_invalid_values_are_rejected_by_parameter(name, value):
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
def test_conflicting_parameters_are_rejected(fields, code):
    assert refused(**fields).code == code


def test_unknown_parameters_are_rejected_by_name():
    problem = refused(sise="full")
    assert (problem.code, problem.field) == ("unknown_parameter", "sise")
    assert refused({"image_file": PHOTO, "mask": PHOTO}).field == "mask"


def test_geometry_parameters_are_passed_on():
    parameters = {"crop": "true", "roi": "10px,20px,50%,60%", "scale": "80%", "position": "10%  90%"}
    options = with_photo(**parameters).options
    assert options["crop"] is True
    assert options["roi"] == "10px 20px 50% 60%"
    assert (options["scale"], options["position"]) == ("80%", "10% 90%")
    assert with_photo(channels="alpha").options["output"] == "mask"


@pytest.mark.parametrize("kind", ["person", "product", "car", "animal", "graphic", "transportation"])
def test_type_is_accepted_with_a_warning(kind):
    parameters = removebg.parse_parameters(Body({"type": kind, "image_url": URL}))
    assert f"type={kind}" in removebg.result_headers(RESULT_OF_JOB, parameters)["X-Warnings"]


def sidecar(**image: Any) -> dict[str, Any]:
    box = {"left": 10, "top": 20, "width": 100, "height": 200}
    return {"image": {"width": 320, "height": 240, "foreground": box, **image}, "warnings": []}


RESULT_OF_JOB = JobResult(sidecar(), b"", None, 1)


def test_result_headers():
    assert removebg.result_headers(RESULT_OF_JOB, removebg.parse_parameters(Body())) == {
        "X-Width": "320",
        "X-Height": "240",
        "X-Type": "other",
        "X-Credits-Charged": "1",
        "X-Foreground-Left": "10",
        "X-Foreground-Top": "20",
        "X-Foreground-Width": "100",
        "X-Foreground-Height": "200",
    }


def test_result_headers_omit_unknown_and_unwanted_values():
    expected = removebg.result_headers(
        JobResult(sidecar(foreground=None), b"", None, 1), removebg.parse_parameters(Body({"type_level": "none"}))
    )
    assert set(expected) == {"X-Width", "X-Height", "X-Credits-Charged"}


def test_all_result_headers_are_exposed_to_browsers():
    assert set(removebg.result_headers(RESULT_OF_JOB, removebg.parse_parameters(Body()))) == set(removebg.HEADERS)


def test_warnings_header_is_one_line_of_ascii():
    document = {**sidecar(), "warnings": ["naïve\r\nSet-Cookie: a", "x" * 5000]}
    text = removebg.result_headers(JobResult(document, b"", None, 1), removebg.parse_parameters(Body()))["X-Warnings"]
    assert text.startswith("na?ve??Set-Cookie: a; xxx")
    assert len(text) == 1000


def test_json_result_has_the_data_or_a_url():
    place = {"foreground_top": 20, "foreground_left": 10, "foreground_width": 100, "foreground_height": 200}
    assert removebg.json_result(JobResult(sidecar(), b"png", None, 1)) == {"data": {"result_b64": "cG5n", **place}}
    assert removebg.json_result(JobResult(sidecar(), None, URL, 1)) == {"data": {"result_url": URL, **place}}


def test_account_credits_are_the_remaining_quota():
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
    ("problem", "expected"),
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
def test_problems_are_translated_to_remove_bgs_statuses_and_codes(problem, expected):
    assert removebg.translate(problem) == expected


def test_error_response_has_one_error_with_title_code_and_detail():
    response = removebg.error_response(Problem(429, "rate_limit_exceeded", "Slow.", headers={"Retry-After": "7"}), "r1")
    assert (response.status_code, response.headers["Retry-After"], response.headers["X-Request-Id"]) == (429, "7", "r1")
    error = {"title": "Rate limit exceeded", "code": "rate_limit_exceeded", "detail": "Slow."}
    assert json.loads(response.body) == {"errors": [error]}


def test_internal_error_reveals_only_the_request_id():
    response = removebg.error_response(Problem(500, "internal_error", "secret", remedy="secret"), "r1")
    error = {"title": "Internal error", "code": "internal_error", "detail": "Request r1"}
    assert json.loads(response.body) == {"errors": [error]}


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
def test_arbitrary_bodies_are_mapped_or_rejected_with_a_documented_code(document):
    try:
        request = removebg.to_process_request(removebg.parse_parameters(document))
    except Problem as problem:
        assert problem.status == 400
        assert problem.code in CODES
        assert json.loads(removebg.error_response(problem, "r").body)["errors"][0]["code"] == problem.code
    else:
        Options.parse(request.options)
        assert isinstance(request.image, bytes | str)


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with api_in_memory() as api:
        yield api


def send(api: Api, accept: str | None = None, **fields: Any) -> Any:
    form = {"image_file": (io.BytesIO(PNG), "cup.png"), **fields}
    return api.call("POST", "/v1.0/removebg", data=form, headers={"Accept": accept} if accept else {})


def test_response_is_the_result(api: Api):
    response = send(api, format="webp")
    assert (response.status_code, response.content_type, response.data) == (200, "image/webp", RESULT)
    assert (response.headers["X-Width"], response.headers["X-Credits-Charged"]) == ("320", "1")
    assert int(response.headers["X-RateLimit-Remaining"]) < int(response.headers["X-RateLimit-Limit"])


@pytest.mark.parametrize("accept", ["application/json", "application/json; charset=utf-8"])
def test_clients_that_accept_only_json_get_json(api: Api, accept):
    response = send(api, accept)
    assert response.content_type == "application/json"
    assert base64.b64decode(response.get_json()["data"]["result_b64"]) == RESULT


@pytest.mark.parametrize(
    "accept", ["application/json, text/plain, */*", "application/json;q=0.9, image/*", "image/png"]
)
def test_clients_that_accept_json_among_others_get_the_result(api: Api, accept):
    assert send(api, accept).data == RESULT


def test_too_large_result_is_a_redirect_or_a_url(api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(api.stepfunctions, "result", bytes(MAX_INLINE_BYTES + 1))
    response = send(api)
    assert (response.status_code, response.headers["X-Width"], response.data) == (303, "320", b"")
    assert "X-Amz-Signature" in response.headers["Location"]
    data = send(api, "application/json").get_json()["data"]
    assert "X-Amz-Signature" in data["result_url"]
    assert "result_b64" not in data


def test_failed_job_has_remove_bgs_code(api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(api.stepfunctions, "on_start", api.stepfunctions.fail(UNKNOWN_FOREGROUND))
    response = send(api)
    assert (response.status_code, response.get_json()["errors"][0]["code"]) == (400, "unknown_foreground")


def test_all_errors_under_remove_bgs_paths_have_its_format(api: Api):
    signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20260101/eu-west-1/execute-api/aws4_request"}
    for path, headers, status in (
        ("/v1.0/account", {}, 403),
        ("/v1.0/improve", {}, 404),
        ("/iam/v1.0/improve", signed, 404),
    ):
        response = api.call("GET", path, key=None, headers=headers)
        assert (response.status_code, list(response.get_json())) == (status, ["errors"])
    poor = api.make_key(Scope.PROCESS, monthly_quota=1)
    codes = []
    for _ in range(2):
        form = {"image_file": (io.BytesIO(PNG), "cup.png")}
        response = api.call("POST", "/v1.0/removebg", key=poor, data=form)
        codes.append((response.status_code, (response.get_json(silent=True) or {}).get("errors", [{}])[0].get("code")))
    assert codes == [(200, None), (402, "insufficient_credits")]


def test_account_requires_the_read_scope(api: Api):
    reader = api.make_key(Scope.READ, monthly_quota=7)
    response = api.call("GET", "/v1.0/account", key=reader)
    assert response.get_json()["data"]["attributes"]["credits"]["total"] == 7
