import base64
import io
import json
from collections.abc import Iterator

import pytest

from core.errors import FileTooLargeError
from core.outbound import UrlRefusedError
from functions.api import native
from functions.shared.api_keys import Scope
from tests.unit.api_in_memory import RESULT, UNKNOWN_FOREGROUND, Api, api_in_memory

PNG = b"\x89PNG\r\n\x1a\npicture"
IMAGE = base64.b64encode(PNG).decode()


@pytest.fixture
def api() -> Iterator[Api]:
    with api_in_memory() as api:
        yield api


def test_a_picture_in_json_is_answered_with_its_cutout(api: Api) -> None:
    answer = api.call("POST", "/process", json={"image": IMAGE, "format": "webp", "name": "cup.png"})
    said = answer.get_json()
    assert answer.status_code == 200, said
    assert (said["success"], base64.b64decode(said["image"]), said["content_type"]) == (True, RESULT, "image/webp")
    [(name, request)] = api.machine.inputs.items()
    assert said["job_id"] == name
    assert request["options"] == {"format": "webp"}
    assert request["source"]["key"].startswith("api/") and request["source"]["key"].endswith(f"/{name}/cup.png")
    assert api.s3.get_object(Bucket="uploads", Key=request["source"]["key"])["Body"].read() == PNG
    assert said["metrics"]["timings_s"] == {"validate": 0.1}
    assert int(answer.headers["X-RateLimit-Remaining"]) < int(answer.headers["X-RateLimit-Limit"])
