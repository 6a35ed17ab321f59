"""A refused value is named together with the values that are accepted."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.api_in_memory import Api, api_in_memory

PNG = b"\x89PNG\r\n\x1a\npicture"
IMAGE = base64.b64encode(PNG).decode()


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with api_in_memory() as api:
        yield api


@pytest.mark.parametrize(
    ("parameter", "value", "accepted"),
    [
        ("roi", "1 2 3", "left, top, right and bottom, each in px or in % of the upright image, or 0"),
        ("size", "huge", "'50MP' or 'auto'"),
        ("crop", "perhaps", "true or false"),
        ("crop_margin", "501px", "0px to 500px"),
        ("scale", "5%", "10% to 100%"),
        ("position", "left", "0% to 100%, center, original, or auto"),
        ("bg_color", "nocolor", "3, 4, 6 or 8 hexadecimal digits"),
        ("shadow_opacity", "101", "0 to 100"),
        ("image_url", "cup.png", "http or https"),
        ("add_shadow", "true", "send false"),
        ("channels", "rgb", "'rgba' or 'alpha'"),
        ("nosuch", "1", "image_file, image_file_b64, image_url, size"),
    ],
)
def test_removebg(api: Api, parameter: str, value: str, accepted: str) -> None:
    response = api.call("POST", "/v1.0/removebg", json={"image_file_b64": IMAGE, parameter: value})
    [error] = response.get_json()["errors"]
    assert response.status_code == 400
    assert error["detail"].startswith(parameter) and accepted in error["detail"]


@pytest.mark.parametrize(
    ("parameter", "value", "accepted"),
    [
        ("a", "perhaps", "true or false"),
        ("af", "256", "0 to 255"),
        ("ae", "-1", "at least 0"),
        ("bgc", "255,0", "red,green,blue,alpha, each 0 to 255"),
        ("bgc", "1" * 5000 + ",0,0,0", "red,green,blue,alpha, each 0 to 255"),
        ("extras", "{", "JSON"),
    ],
)
def test_rembg(api: Api, parameter: str, value: str, accepted: str) -> None:
    response = api.call("POST", "/api/remove", data={"file": (io.BytesIO(PNG), "cup.png"), parameter: value})
    problem = response.get_json()
    assert (response.status_code, problem["field"]) == (422, parameter)
    assert accepted in problem["detail"]


@pytest.mark.parametrize(
    ("path", "body", "field", "accepted"),
    [
        ("/uploads", {"content_type": "text/html"}, "content_type", "e.g. image/png"),
        ("/uploads", {"max_bytes": 0}, "max_bytes", "from 1 to 104857600"),
        ("/uploads", {"size": 1}, "size", "name, content_type, max_bytes"),
        ("/jobs", {"source": {"key": "a", "bucket": "b"}}, "source.bucket", "key, version_id"),
        ("/jobs", {"source": {"key": 1}}, "source.key", "object key of 1 to"),
        ("/jobs", {"image_url": 1}, "image_url", "URL of up to"),
        ("/jobs", {"image_url": "https://a.example/", "options": []}, "options", "object with options"),
        ("/process", {"image": IMAGE, "format": "gif"}, "format", "png, webp"),
        ("/process", {"image": IMAGE, "roi": "1 2 3"}, "roi", "or 0"),
        ("/process", {"image": IMAGE, "delivery": "mail"}, "delivery", "inline or url"),
        ("/process", {"image": IMAGE, "model": "nosuch"}, "model", "u2netp"),
    ],
)
def test_own_routes(api: Api, path: str, body: dict[str, Any], field: str, accepted: str) -> None:
    response = api.call("POST", path, json=body)
    problem = response.get_json()
    assert (response.status_code, problem["field"]) == (400, field)
    assert accepted in problem["remedy"]


def test_zero_needs_no_unit(api: Api) -> None:
    response = api.call("POST", "/v1.0/removebg", json={"image_file_b64": IMAGE, "roi": "0 0 100% 100%"})
    assert response.status_code == 200
