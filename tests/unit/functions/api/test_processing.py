"""Responses when a job does not finish in time."""

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
        api.stepfunctions.on_start = api.stepfunctions.keep_running
        yield api


def send(api: Api, path: str, field: str, **headers: str) -> TestResponse:
    return api.call("POST", path, data={field: (io.BytesIO(PNG), "cup.png")}, headers=headers)


def test_process_responds_with_the_location_of_a_running_job(api: Api) -> None:
    response = send(api, "/process", "image")
    document = response.get_json()
    assert (response.status_code, document["status"]) == (202, "running")
    assert response.headers["Location"] == document["location"] == f"/jobs/{document['job_id']}"
    running = api.call("GET", document["location"]).get_json()
    assert (running["status"], running["stage"]) == ("running", "Validate")
    api.stepfunctions.succeed(document["job_id"], api.stepfunctions.inputs[document["job_id"]])
    done = api.call("GET", document["location"]).get_json()
    assert (done["status"], done["result"]["content_type"]) == ("succeeded", "image/png")
    assert requests.get(done["result"]["url"], timeout=5).content == RESULT  # served by moto


def test_unfinished_job_of_a_removebg_client_is_not_charged(api: Api) -> None:
    response = send(api, "/v1.0/removebg", "image_file")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert response.get_json()["errors"][0]["code"] == "not_done_yet"
    assert api.used() == 0


def test_unfinished_job_with_an_idempotency_key_is_charged_once(api: Api) -> None:
    for _ in range(2):
        assert send(api, "/v1.0/removebg", "image_file", **{"Idempotency-Key": "once"}).status_code == 503
    assert api.used() == 1
