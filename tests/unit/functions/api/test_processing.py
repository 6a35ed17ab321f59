"""Responses when a job does not finish in time."""

import io
from collections.abc import Iterator

import pytest
import requests
from werkzeug.test import TestResponse

from functions.contracts.api_key import Scope
from tests.fakes.api_in_memory import RESULT, UNKNOWN_FOREGROUND, Api, api_in_memory

PNG = b"\x89PNG\r\n\x1a\npicture"


@pytest.fixture
def api() -> Iterator[Api]:
    with api_in_memory(answer_within_s=0.3) as api:
        api.stepfunctions.on_start = api.stepfunctions.keep_running
        yield api


def send(api: Api, path: str, field: str, *, key: str | None = "", image: bytes = PNG, **headers: str) -> TestResponse:
    return api.call("POST", path, key=key, data={field: (io.BytesIO(image), "cup.png")}, headers=headers)


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


@pytest.mark.parametrize(("path", "field"), [("/v1.0/removebg", "image_file"), ("/api/remove", "file")])
def test_repeated_request_gets_the_paid_job_that_was_not_done_in_time(api: Api, path: str, field: str) -> None:
    key = api.make_key(Scope.PROCESS, monthly_quota=1)
    for _ in range(2):
        response = send(api, path, field, key=key)
        assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
        assert "not_done_yet" in response.text
    [(name, request)] = api.stepfunctions.inputs.items()
    assert send(api, path, field, image=PNG + b"2", key=key).status_code == 402, "the quota is used up"
    api.stepfunctions.succeed(name, request)
    done = send(api, path, field, key=key)
    assert (done.status_code, done.data) == (200, RESULT)
    assert api.used() == 1 and len(api.stepfunctions.inputs) == 1
    assert send(api, path, field, key=key).status_code == 402, "the result was delivered"


def test_each_paid_job_is_delivered(api: Api) -> None:
    names = []
    for _ in range(2):  # two requests at the same time: neither finds the job of the other
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(api.services.repository, "unfinished", lambda *_: None)
            assert send(api, "/v1.0/removebg", "image_file").status_code == 503
        names = list(api.stepfunctions.inputs)
    for name in names:
        api.stepfunctions.succeed(name, api.stepfunctions.inputs[name])
    for _ in names:
        assert send(api, "/v1.0/removebg", "image_file").status_code == 200
    assert api.used() == len(api.stepfunctions.inputs) == 2


def test_failure_of_an_unfinished_job_is_reported_once(api: Api) -> None:
    assert send(api, "/v1.0/removebg", "image_file").status_code == 503
    [(name, request)] = api.stepfunctions.inputs.items()
    api.stepfunctions.fail({**UNKNOWN_FOREGROUND, "error": "StorageUnavailableError"})(name, request)
    assert send(api, "/v1.0/removebg", "image_file").status_code == 503
    assert api.used() == 0
    api.stepfunctions.on_start = api.stepfunctions.succeed
    assert send(api, "/v1.0/removebg", "image_file").status_code == 200


def test_unfinished_job_with_an_idempotency_key_is_charged_once(api: Api) -> None:
    for _ in range(2):
        assert send(api, "/v1.0/removebg", "image_file", **{"Idempotency-Key": "once"}).status_code == 503
    assert api.used() == 1
