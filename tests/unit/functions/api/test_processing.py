"""What is answered when a result is not there in time."""

import io
from collections.abc import Iterator

import pytest
import requests
from werkzeug.test import TestResponse

from tests.fakes.api_in_memory import RESULT, Api, api_in_memory

PNG = b"\x89PNG\r\n\x1a\npicture"


@pytest.fixture
def api() -> Iterator[Api]:
    with api_in_memory(answer_within_s=0.3) as api:
        api.machine.fate = api.machine.run_on
        yield api


def send(api: Api, path: str, field: str, **headers: str) -> TestResponse:
    return api.call("POST", path, data={field: (io.BytesIO(PNG), "cup.png")}, headers=headers)


def test_the_apis_own_callers_get_the_address_of_the_job_which_goes_on(api: Api) -> None:
    answer = send(api, "/process", "image")
    said = answer.get_json()
    assert (answer.status_code, said["status"]) == (202, "running")
    assert answer.headers["Location"] == said["location"] == f"/jobs/{said['job_id']}"
    running = api.call("GET", said["location"]).get_json()
    assert (running["status"], running["stage"]) == ("running", "Validate")
    api.machine.succeed(said["job_id"], api.machine.inputs[said["job_id"]])
    done = api.call("GET", said["location"]).get_json()
    assert (done["status"], done["result"]["content_type"]) == ("succeeded", "image/png")
    assert requests.get(done["result"]["url"], timeout=5).content == RESULT  # moto answers for S3


def test_callers_of_remove_bg_are_to_ask_again_and_are_charged_for_the_answer_that_has_the_result(api: Api) -> None:
    answer = send(api, "/v1.0/removebg", "image_file")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.get_json()["errors"][0]["code"] == "not_done_yet"
    assert api.used() == 0


def test_a_job_that_the_same_request_finds_again_is_charged_at_once(api: Api) -> None:
    for _ in range(2):
        assert send(api, "/v1.0/removebg", "image_file", **{"Idempotency-Key": "once"}).status_code == 503
    assert api.used() == 1
