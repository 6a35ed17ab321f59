"""The API's own routes, from the request to the state machine's input and back to the answer."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError

from core.errors import FileTooLargeError, PermanentError, TransientError
from functions.api.problems import problem_from_error, problem_from_report
from functions.api.processing import MAX_INLINE_BYTES
from functions.contracts.api_key import Scope
from functions.contracts.errors import StorageDeniedError, StorageUnavailableError
from functions.runtime.safe_http import UrlAnswerError, UrlError, UrlRefusedError
from tests.fakes.api_in_memory import RESULT, UNKNOWN_FOREGROUND, Api, api_in_memory

PNG = b"\x89PNG\r\n\x1a\npicture"
IMAGE = base64.b64encode(PNG).decode()
PART = b'--x\r\nContent-Disposition: form-data; name="name"\r\nContent-Type: text/plain; charset=%s\r\n\r\n'


@pytest.fixture
def api() -> Iterator[Api]:
    with api_in_memory() as api:
        yield api


def only(started: dict[str, Any]) -> tuple[str, Any]:
    [item] = started.items()
    return item


# ---- POST /process


def test_a_picture_in_json_is_answered_with_its_cutout(api: Api) -> None:
    answer = api.call("POST", "/process", json={"image": IMAGE, "format": "webp", "name": "cup.png"})
    said = answer.get_json()
    assert answer.status_code == 200, said
    assert (said["success"], base64.b64decode(said["image"]), said["content_type"]) == (True, RESULT, "image/webp")
    name, request = only(api.machine.inputs)
    assert said["job_id"] == name
    assert request["options"] == {"format": "webp"}
    assert request["source"]["key"].startswith("api/") and request["source"]["key"].endswith(f"/{name}/cup.png")
    assert api.s3.get_object(Bucket="uploads", Key=request["source"]["key"])["Body"].read() == PNG
    assert said["metrics"]["timings_s"] == {"validate": 0.1}
    assert int(answer.headers["X-RateLimit-Remaining"]) < int(answer.headers["X-RateLimit-Limit"])


def test_a_data_url_is_taken_for_the_base64_that_it_holds(api: Api) -> None:
    answer = api.call("POST", "/process", json={"image": f"data:image/png;base64,{IMAGE}"})
    assert answer.status_code == 200
    assert api.s3.get_object(Bucket="uploads", Key=api.keys_in("uploads")[0])["Body"].read() == PNG


def test_a_form_with_files_is_taken_as_json_is(api: Api) -> None:
    form = {
        "image": (io.BytesIO(PNG), "Tasse à café.png"),
        "background": (io.BytesIO(PNG + b"2"), "sky.png"),
        "crop": "true",
        "quality": "80",
    }
    answer = api.call("POST", "/process", data=form)
    assert answer.status_code == 200, answer.get_json()
    _, request = only(api.machine.inputs)
    options = request["options"]
    assert (options["crop"], options["quality"]) == ("true", "80")
    assert options["background_key"] == f"backgrounds/{request['source']['key']}"
    assert api.s3.get_object(Bucket="uploads", Key=options["background_key"])["Body"].read() == PNG + b"2"
    assert request["source"]["key"].endswith("/Tasse_caf_.png")


def test_a_url_is_fetched_and_gives_the_result_its_name(api: Api) -> None:
    api.web.files["https://shop.example/photos/shoe.jpg?v=2"] = PNG
    answer = api.call("POST", "/process", json={"image_url": "https://shop.example/photos/shoe.jpg?v=2"})
    assert answer.status_code == 200
    assert only(api.machine.inputs)[1]["source"]["key"].endswith("/shoe.jpg")


def test_a_large_result_is_answered_by_a_url_that_leads_to_it(api: Api) -> None:
    api.machine.result = bytes(MAX_INLINE_BYTES + 1)
    said = api.call("POST", "/process", json={"image": IMAGE}).get_json()
    assert "image" not in said
    assert requests.get(said["result_url"]).content == api.machine.result  # moto answers for S3


def test_the_largest_result_that_is_sent_in_base64_fits_into_an_answer_of_lambda(api: Api) -> None:
    api.machine.result = bytes(MAX_INLINE_BYTES)
    answer = api.call("POST", "/process", json={"image": IMAGE})
    assert (answer.status_code, len(base64.b64decode(answer.get_json()["image"]))) == (200, MAX_INLINE_BYTES)


def test_a_url_can_be_asked_for(api: Api) -> None:
    said = api.call("POST", "/process", json={"image": IMAGE, "delivery": "url"}).get_json()
    assert "image" not in said and requests.get(said["result_url"]).content == RESULT


def test_a_failure_is_answered_by_its_code_and_not_counted(api: Api) -> None:
    api.machine.fate = api.machine.fail(UNKNOWN_FOREGROUND)
    answer = api.call("POST", "/process", json={"image": IMAGE})
    said = answer.get_json()
    assert (answer.status_code, said["code"], said["remedy"]) == (
        422,
        "unknown_foreground",
        UNKNOWN_FOREGROUND["remedy"],
    )
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert said["job_id"] in api.machine.inputs
    assert api.used() == 0
    api.call("GET", f"/jobs/{said['job_id']}")
    assert api.used() == 0  # given back once


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ({}, 400, "invalid_request", "image"),
        ({"image": IMAGE, "image_url": "https://a.example/b"}, 400, "invalid_request", "image"),
        ({"image": "no base64!"}, 400, "invalid_body", "image"),
        ({"image": 7}, 400, "invalid_body", "image"),
        ({"image": IMAGE, "format": "gif"}, 400, "invalid_option", "format"),
        ({"image": IMAGE, "colour": "red"}, 400, "invalid_option", "colour"),
        ({"image": IMAGE, "model": "best"}, 400, "invalid_option", "model"),
        ({"image": IMAGE, "delivery": "post"}, 400, "invalid_request", "delivery"),
        ({"image": IMAGE, "webhook_url": "http://a.example/"}, 400, "url_refused", "webhook_url"),
        ({"image": IMAGE, "webhook_url": "https://169.254.169.254/"}, 400, "url_refused", "webhook_url"),
        ({"image": IMAGE, "webhook_url": ["https://a.example/"]}, 400, "invalid_request", "webhook_url"),
        ({"image": base64.b64encode(b"GIF, or so I say").decode()}, 415, "unsupported_format", "image.format"),
        ({"image": ""}, 415, "unsupported_format", "image.format"),
        ({"image": IMAGE, "background": "bm8gcGljdHVyZQ=="}, 400, "invalid_option", "background"),
    ],
)
def test_a_wrong_request_is_refused_by_field_and_starts_and_counts_nothing(
    api: Api, body: dict[str, Any], status: int, code: str, field: str
) -> None:
    answer = api.call("POST", "/process", json=body)
    said = answer.get_json()
    assert (answer.status_code, said["code"], said["field"]) == (status, code, field), said
    assert not api.machine.inputs and api.used() == 0 and not api.dynamodb.scan(TableName="jobs")["Items"]


@pytest.mark.parametrize(
    ("content_type", "data", "status", "code"),
    [
        ("application/json", b"{", 400, "invalid_body"),
        ("application/json", b"[]", 400, "invalid_body"),
        ("application/json", b"[" * 100_000, 400, "invalid_body"),
        ("application/json", b"\xff", 400, "invalid_body"),
        ("application/xml", b"<image/>", 415, "unsupported_media_type"),
        ("", b"", 415, "unsupported_media_type"),
        ("multipart/form-data", b"x", 400, "invalid_body"),
        ("multipart/form-data; boundary=x", b"--y", 400, "invalid_body"),
        ("application/x-www-form-urlencoded", b"image=%ff", 400, "invalid_body"),
        ("application/x-www-form-urlencoded", b"a=1&a=2", 400, "invalid_body"),
        ("multipart/form-data; boundary=x", PART % b"undefined" + b"a\r\n--x--\r\n", 400, "invalid_body"),
        ("multipart/form-data; boundary=x", PART % b"punycode" + 10**6 * b"a" + b"\r\n--x--\r\n", 400, "invalid_body"),
        ("application/json", b'{"image": "", "name": NaN}', 400, "invalid_request"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(
    api: Api, content_type: str, data: bytes, status: int, code: str
) -> None:
    answer = api.call("POST", "/process", data=data, headers={"Content-Type": content_type})
    assert (answer.status_code, answer.get_json()["code"]) == (status, code)
    assert b"NaN" not in answer.data


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/process", {"image": [3_000_000 * "é"]}),
        ("/process", {"image": IMAGE, "delivery": 2_000_000 * "é"}),
        ("/process", {"image": IMAGE, "name": [2_000_000 * "é"]}),
        ("/v1.0/removebg", {"image_url": f"http://{1_500_000 * '℀'}"}),
    ],
)
def test_an_answer_repeats_a_little_of_a_value_and_no_megabytes(api: Api, path: str, body: dict[str, Any]) -> None:
    data = json.dumps(body, ensure_ascii=False).encode()
    answer = api.call("POST", path, data=data, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert len(answer.data) < 10_000


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (UrlRefusedError("It leads inside", url="https://a.example/", field="image_url"), 400, "url_refused"),
        (UrlAnswerError("It answers 404", url="https://a.example/", field="image_url"), 422, "download_failed"),
    ],
)
def test_a_url_that_leads_to_no_picture_is_answered_so_and_counts_nothing(
    api: Api, error: UrlError, status: int, code: str
) -> None:
    api.web.files["https://a.example/"] = error
    answer = api.call("POST", "/process", json={"image_url": "https://a.example/"})
    assert (answer.status_code, answer.get_json()["code"], api.used()) == (status, code, 0)
    assert not api.dynamodb.scan(TableName="jobs")["Items"]


# ---- Idempotency


def test_the_same_key_with_the_same_request_starts_and_counts_one_job(api: Api) -> None:
    def send() -> Any:
        return api.call("POST", "/process", json={"image": IMAGE}, headers={"Idempotency-Key": "order-7"}).get_json()

    assert send() == send()
    assert len(api.machine.inputs) == 1 and api.used() == 1


def test_of_two_at_once_with_the_same_key_one_starts_the_job_and_both_get_its_result(api: Api) -> None:
    answers: list[Any] = []

    def send() -> None:
        answers.append(api.call("POST", "/process", json={"image": IMAGE}, headers={"Idempotency-Key": "7"}))

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200, 200]
    assert len({answer.get_json()["job_id"] for answer in answers}) == len(api.machine.inputs) == api.used() == 1


def test_the_same_key_with_another_request_is_refused(api: Api) -> None:
    headers = {"Idempotency-Key": "order-7"}
    api.call("POST", "/process", json={"image": IMAGE}, headers=headers)
    answer = api.call("POST", "/process", json={"image": IMAGE, "crop": True}, headers=headers)
    assert (answer.status_code, answer.get_json()["code"]) == (422, "idempotency_key_reused")


def test_two_callers_may_use_the_same_idempotency_key(api: Api) -> None:
    headers = {"Idempotency-Key": "1"}
    for key in (api.key, api.make_key(Scope.PROCESS)):
        assert api.call("POST", "/process", key=key, json={"image": IMAGE}, headers=headers).status_code == 200
    assert len(api.machine.inputs) == 2


def test_a_request_that_broke_off_before_its_job_started_is_taken_up_again(api: Api) -> None:
    def breaks(name: str, request: dict[str, Any]) -> None:
        del api.machine.inputs[name], api.machine.statuses[name]
        raise SystemExit  # as if the function's process ended here

    headers = {"Idempotency-Key": "1"}
    api.machine.fate = breaks
    with pytest.raises(SystemExit):
        api.call("POST", "/process", json={"image": IMAGE}, headers=headers)
    api.machine.fate = api.machine.succeed
    assert api.call("POST", "/process", json={"image": IMAGE}, headers=headers).status_code == 200
    assert len(api.machine.inputs) == 1 and api.used() == 1


def test_nothing_is_started_for_a_second_request_that_comes_before_the_first_is_counted(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send() -> Any:
        return api.call("POST", "/process", key=key, json={"image": IMAGE}, headers={"Idempotency-Key": "1"})

    def update_item(**request: Any) -> Any:
        if request["Key"]["meter"]["S"].startswith("quota#"):
            monkeypatch.setattr(api.dynamodb, "update_item", counted)
            answers.append(send())
        return counted(**request)

    key, counted = api.make_key(Scope.PROCESS, monthly_quota=1), api.dynamodb.update_item
    assert api.call("POST", "/process", key=key, json={"image": IMAGE}).status_code == 200  # the month's only one
    api.machine.inputs.clear()
    answers: list[Any] = []
    monkeypatch.setattr(api.dynamodb, "update_item", update_item)
    answers.append(send())
    assert [answer.status_code for answer in answers] == [402, 402]
    assert not api.machine.inputs


def test_a_job_that_a_second_request_got_further_with_is_not_given_back_by_the_first(api: Api) -> None:
    class Server(dict[str, bytes | Exception]):
        def __getitem__(self, url: str) -> bytes | Exception:
            if answers:
                return PNG
            answers.append(None)
            answers.append(send())
            return UrlAnswerError("The server answers with status 404", url=url, field="image_url")

    def send() -> Any:
        request = {"image_url": "https://a.example/b.png"}
        return api.call("POST", "/process", json=request, headers={"Idempotency-Key": "1"})

    answers: list[Any] = []
    api.web.files = Server()
    assert send().status_code == 422
    assert answers[1].status_code == 200
    assert api.used() == 1


def test_a_key_whose_job_was_deleted_is_refused_and_counts_nothing(api: Api) -> None:
    def send() -> Any:
        return api.call("POST", "/process", json={"image": IMAGE}, headers={"Idempotency-Key": "1"})

    api.call("DELETE", f"/jobs/{send().get_json()['job_id']}")
    answer = send()
    assert (answer.status_code, answer.get_json()["code"]) == (422, "idempotency_key_reused")
    assert api.used() == 1


@pytest.mark.parametrize(
    ("client", "call", "code"),
    [
        ("dynamodb", "put_item", "ProvisionedThroughputExceededException"),
        ("machine", "start_execution", "ExecutionLimitExceeded"),
    ],
)
def test_a_job_that_aws_does_not_take_for_the_moment_is_not_counted(
    api: Api, monkeypatch: pytest.MonkeyPatch, client: str, call: str, code: str
) -> None:
    def refuses(**_: Any) -> None:
        raise ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 400}}, call)

    monkeypatch.setattr(getattr(api, client), call, refuses)
    assert api.call("POST", "/process", json={"image": IMAGE}).status_code == 503
    assert api.used() == 0


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_an_idempotency_key_has_a_length(api: Api, key: str) -> None:
    answer = api.call("POST", "/process", json={"image": IMAGE}, headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.get_json()["field"]) == (400, "Idempotency-Key")


# ---- Uploads and jobs


def test_an_uploaded_picture_is_processed_as_a_job(api: Api) -> None:
    form = api.call("POST", "/uploads", json={"name": "cup.png", "content_type": "image/png"}).get_json()
    assert form["fields"]["Content-Type"] == "image/png" and form["key"].endswith("/cup.png")
    policy = json.loads(base64.b64decode(form["fields"]["policy"]))["conditions"]
    assert ["content-length-range", 1, 104_857_600] in policy and {"Content-Type": "image/png"} in policy
    api.s3.put_object(Bucket="uploads", Key=form["key"], Body=PNG)
    request = {"source": {"key": form["key"]}, "options": {"crop": True}, "webhook_url": "https://shop.example/hook"}
    answer = api.call("POST", "/jobs", json=request)
    assert answer.status_code == 202, answer.get_json()
    name, started = only(api.machine.inputs)
    assert started["source"] == {"bucket": "uploads", "key": form["key"]}
    assert started["options"] == {"crop": True}
    assert started["webhook"] == {"url": "https://shop.example/hook", "key_id": form["key"].split("/")[1]}
    assert api.call("GET", f"/jobs/{name}").get_json()["status"] == "succeeded"


def test_a_job_can_be_made_of_a_url(api: Api) -> None:
    api.web.files["https://a.example/b.png"] = PNG
    assert api.call("POST", "/jobs", json={"image_url": "https://a.example/b.png"}).status_code == 202


def test_other_objects_of_the_bucket_are_only_for_keys_with_that_scope(api: Api) -> None:
    request = {"source": {"key": "photos/a.png"}}
    answer = api.call("POST", "/jobs", key=api.make_key(Scope.PROCESS), json=request)
    assert (answer.status_code, answer.get_json()["code"]) == (403, "scope_missing")
    assert api.call("POST", "/jobs", json=request).status_code == 202


def test_backgrounds_of_the_bucket_are_only_for_keys_with_that_scope(api: Api) -> None:
    key, others = api.make_key(Scope.PROCESS), "photos/a.png"
    own = api.call("POST", "/uploads", key=key, json={}).get_json()["key"]
    for path, request in (
        ("/process", lambda background: {"image": IMAGE, "background_key": background}),
        ("/jobs", lambda background: {"source": {"key": own}, "options": {"background_key": background}}),
    ):
        answer = api.call("POST", path, key=key, json=request(others))
        assert (answer.status_code, answer.get_json()["code"]) == (403, "scope_missing")
        assert api.call("POST", path, key=key, json=request(own)).status_code < 300
    assert api.call("POST", "/process", json={"image": IMAGE, "background_key": others}).status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "source"),
        ({"source": {"key": "a"}, "image_url": "https://a.example/"}, "source"),
        ({"source": {"key": ""}}, "source.key"),
        ({"source": {"key": "a", "bucket": "b"}}, "source.bucket"),
        ({"source": {"key": "a"}, "options": []}, "options"),
        ({"source": {"key": "a"}, "options": {"format": "gif"}}, "options.format"),
        ({"source": {"key": "a"}, "callback": "x"}, "callback"),
    ],
)
def test_a_wrong_request_for_a_job_is_refused_by_field(api: Api, body: dict[str, Any], field: str) -> None:
    answer = api.call("POST", "/jobs", json=body)
    assert (answer.status_code, answer.get_json()["field"]) == (400, field)


def test_a_second_job_of_one_object_does_not_pass_for_the_first(api: Api) -> None:
    api.machine.fate = api.machine.run_on
    first, second = (
        api.call("POST", "/jobs", json={"source": {"key": "photos/a.png"}, "options": options}).get_json()["job_id"]
        for options in ({}, {"crop": True})
    )
    api.machine.succeed(second, api.machine.inputs[second])
    states = [api.call("GET", f"/jobs/{name}").get_json()["status"] for name in (first, second)]
    assert states == ["running", "succeeded"]


def test_the_failure_of_another_job_of_its_picture_does_not_give_a_job_back() -> None:
    with api_in_memory(answer_within_s=0) as api:
        api.machine.fate = api.machine.run_on
        job = api.call("POST", "/process", json={"image": IMAGE}).get_json()["job_id"]
        source = api.call("GET", f"/jobs/{job}").get_json()["source_key"]
        api.machine.fate = api.machine.fail(UNKNOWN_FOREGROUND)
        api.call("POST", "/jobs", json={"source": {"key": source}})
        assert api.call("GET", f"/jobs/{job}").get_json()["status"] == "running"
        assert api.used() == 2


def test_a_job_that_was_brought_back_has_the_result_of_its_second_execution(api: Api) -> None:
    api.machine.fate = api.machine.fail(UNKNOWN_FOREGROUND)
    job = api.call("POST", "/process", json={"image": IMAGE}).get_json()["job_id"]
    api.machine.succeed(f"{job}-retry-1", api.machine.inputs[job])
    assert api.call("GET", f"/jobs/{job}").get_json()["status"] == "succeeded"


def test_a_job_that_ended_without_a_report_has_failed_and_tells_no_more(api: Api) -> None:
    api.machine.fate = api.machine.run_on
    name = api.call("POST", "/jobs", json={"source": {"key": "photos/a.png"}}).get_json()["job_id"]
    api.machine.statuses[name] = "TIMED_OUT"
    said = api.call("GET", f"/jobs/{name}").get_json()
    assert (said["status"], said["error"]["code"]) == ("failed", "internal_error")
    assert set(said["error"]) == {"type", "title", "status", "code", "job_id", "request_id"}


def test_a_jobs_steps_can_be_seen(api: Api) -> None:
    name = api.call("POST", "/process", json={"image": IMAGE}).get_json()["job_id"]
    steps = api.call("GET", f"/jobs/{name}/events").get_json()["events"]
    assert [(step["type"], step["state"]) for step in steps] == [
        ("ExecutionStarted", ""),
        ("TaskStateEntered", "Validate"),
    ]


def test_a_job_that_was_not_started_is_queued_and_has_no_steps(api: Api) -> None:
    api.machine.fate = api.machine.run_on
    name = api.call("POST", "/jobs", json={"source": {"key": "photos/a.png"}}).get_json()["job_id"]
    api.machine.statuses.clear()  # as if the function's process had ended before
    assert api.call("GET", f"/jobs/{name}").get_json()["status"] == "queued"
    assert api.call("GET", f"/jobs/{name}/events").get_json() == {"events": []}


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/events"), ("DELETE", "")])
def test_nobody_sees_or_deletes_the_job_of_another(api: Api, method: str, path: str) -> None:
    name = api.call("POST", "/process", json={"image": IMAGE}).get_json()["job_id"]
    answer = api.call(method, f"/jobs/{name}{path}", key=api.make_key(*Scope))
    assert (answer.status_code, answer.get_json()["code"]) == (404, "job_not_found")
    assert api.call("GET", f"/jobs/{name}").status_code == 200


def test_there_is_no_job_whose_name_is_longer_than_dynamodb_takes(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def get_item(**request: Any) -> Any:
        assert all(len(value["S"]) <= 2048 for value in request["Key"].values())  # moto takes any
        return found(**request)

    found = api.dynamodb.get_item
    monkeypatch.setattr(api.dynamodb, "get_item", get_item)
    assert api.call("GET", f"/jobs/{'a' * 3000}").get_json()["code"] == "job_not_found"


def test_a_deleted_job_leaves_no_picture_behind(api: Api) -> None:
    api.s3.put_object(Bucket="uploads", Key="photos/other.png", Body=PNG)
    name = api.call("POST", "/process", json={"image": IMAGE, "background": IMAGE}).get_json()["job_id"]
    assert len(api.keys_in("uploads")) == 3 and len(api.keys_in("results")) == 2
    assert api.call("DELETE", f"/jobs/{name}").status_code == 204
    assert (api.keys_in("uploads"), api.keys_in("results")) == (["photos/other.png"], [])
    assert api.call("GET", f"/jobs/{name}").status_code == 404
    assert api.machine.stopped == []


def test_a_deleted_job_takes_the_upload_with_it(api: Api) -> None:
    key = api.call("POST", "/uploads", json={}).get_json()["key"]
    api.s3.put_object(Bucket="uploads", Key=key, Body=PNG)
    name = api.call("POST", "/jobs", json={"source": {"key": key}}).get_json()["job_id"]
    assert api.call("DELETE", f"/jobs/{name}").status_code == 204
    assert (api.keys_in("uploads"), api.keys_in("results")) == ([], [])


def test_a_deleted_job_leaves_objects_that_did_not_come_through_the_api(api: Api) -> None:
    api.s3.put_object(Bucket="uploads", Key="photos/a.png", Body=PNG)
    name = api.call("POST", "/jobs", json={"source": {"key": "photos/a.png"}}).get_json()["job_id"]
    assert api.call("DELETE", f"/jobs/{name}").status_code == 204
    assert api.keys_in("uploads") == ["photos/a.png"] and len(api.keys_in("results")) == 2
    assert api.call("GET", f"/jobs/{name}").status_code == 404


def test_a_running_job_is_stopped_when_it_is_deleted(api: Api) -> None:
    api.machine.fate = api.machine.run_on
    key = api.call("POST", "/uploads", json={}).get_json()["key"]
    name = api.call("POST", "/jobs", json={"source": {"key": key}}).get_json()["job_id"]
    assert api.call("DELETE", f"/jobs/{name}").status_code == 204
    assert api.machine.stopped == [name]


# ---- Who may what, and what is answered when nothing can be done


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/process", Scope.PROCESS),
        ("POST", "/uploads", Scope.PROCESS),
        ("POST", "/jobs", Scope.PROCESS),
        ("GET", "/jobs/x", Scope.READ),
        ("GET", "/jobs/x/events", Scope.READ),
        ("DELETE", "/jobs/x", Scope.DELETE),
    ],
)
def test_every_route_asks_for_a_key_with_its_scope(api: Api, method: str, path: str, scope: Scope) -> None:
    body = {"json": {"source": {"key": "a"}} if path == "/jobs" else {}} if method == "POST" else {}
    nobody = api.call(method, path, key=None, **body)
    assert (nobody.status_code, nobody.get_json()["code"]) == (401, "auth_failed")
    other = api.call(method, path, key=api.make_key(*(set(Scope) - {scope})), **body)
    assert (other.status_code, other.get_json()["code"], other.get_json()["value"]) == (403, "scope_missing", scope)


def test_iams_callers_have_the_same_routes_under_a_path_of_their_own(api: Api) -> None:
    signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20260101/eu-west-1/execute-api/aws4_request"}
    assert api.call("POST", "/iam/process", key=None, json={"image": IMAGE}, headers=signed).status_code == 200
    assert api.call("POST", "/iam/process", key=None, json={"image": IMAGE}).status_code == 403
    assert api.call("POST", "/process", key=None, json={"image": IMAGE}, headers=signed).status_code == 401


def test_iams_callers_are_led_to_their_own_route() -> None:
    signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20261123/eu-west-1/execute-api/aws4_request"}
    with api_in_memory(answer_within_s=0) as api:
        api.machine.fate = api.machine.run_on
        answer = api.call("POST", "/iam/process", key=None, json={"image": IMAGE}, headers=signed)
        assert answer.headers["Location"] == answer.get_json()["location"]
        assert api.call("GET", answer.headers["Location"], key=None, headers=signed).status_code == 200


@pytest.mark.parametrize("path", ["/process", "/v1.0/removebg", "/api/remove"])
def test_a_refusal_says_how_the_callers_requests_stand(api: Api, path: str) -> None:
    answer = api.call("POST", path, json={})
    assert answer.status_code >= 400
    assert answer.headers["X-RateLimit-Remaining"] == "999"
    assert "X-RateLimit-Remaining" not in api.call("POST", path, key=None, json={}).headers


def test_a_spent_quota_refuses_the_next_picture_and_leaves_nothing(api: Api) -> None:
    key = api.make_key(Scope.PROCESS, monthly_quota=1)
    answers = [api.call("POST", "/process", key=key, json={"image": IMAGE}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 402]
    assert answers[1].get_json()["code"] == "quota_exceeded"
    assert len(api.machine.inputs) == len(api.keys_in("uploads")) == 1


def test_health_asks_for_nothing_and_looks_at_nothing(api: Api) -> None:
    assert api.call("GET", "/health", key=None).get_json() == {"status": "ok"}


def test_ready_says_that_all_is_there(api: Api) -> None:
    assert api.call("GET", "/ready", key=None).get_json()["ready"] is True


def test_ready_says_what_is_missing() -> None:
    with api_in_memory(uploads_bucket="gone") as api:
        answer = api.call("GET", "/ready", key=None)
    assert answer.status_code == 503
    assert answer.get_json() == {"ready": False, "bucket": False, "table": True, "machine": True, "queue": True}


def test_an_unknown_route_is_a_problem_too(api: Api) -> None:
    answer = api.call("GET", "/nowhere")
    assert (answer.status_code, answer.get_json()["code"]) == (404, "not_found")


def test_a_defect_of_ours_says_its_request_id_and_nothing_else(api: Api) -> None:
    def breaks(name: str, request: dict[str, Any]) -> None:
        raise RuntimeError("the password is swordfish")

    api.machine.fate = breaks
    answer = api.call("POST", "/process", json={"image": IMAGE})
    said = answer.get_json()
    assert (answer.status_code, said["code"]) == (500, "internal_error")
    assert set(said) == {"type", "title", "status", "code", "request_id"}
    assert answer.headers["X-Request-Id"] == said["request_id"]
    assert not api.dynamodb.scan(TableName="jobs")["Items"] and api.used() == 0


PREFLIGHT = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}


def test_no_web_page_may_call_where_no_origin_is_named(api: Api) -> None:
    assert "Access-Control-Allow-Origin" not in api.call("OPTIONS", "/process", key=None, headers=PREFLIGHT).headers


def test_web_pages_of_the_origins_that_are_named_may_call() -> None:
    headers = PREFLIGHT
    with api_in_memory(cors_origins="https://shop.example, https://www.shop.example") as open_api:
        for origin in ("https://shop.example", "https://www.shop.example"):
            answer = open_api.call("OPTIONS", "/process", key=None, headers={**headers, "Origin": origin})
            assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (204, origin)
            assert "X-API-Key" in answer.headers["Access-Control-Allow-Headers"]
        other = open_api.call("OPTIONS", "/process", key=None, headers={**headers, "Origin": "https://evil.example"})
        assert "Access-Control-Allow-Origin" not in other.headers
        refused = open_api.call("POST", "/process", key=None, json={}, headers=headers)
        assert refused.headers["Access-Control-Allow-Origin"] == "https://shop.example"  # else no page reads the error


# ---- Errors


def leaves(error: type[Exception]) -> set[type[Exception]]:
    return {leaf for child in error.__subclasses__() for leaf in leaves(child)} or {error}


def test_each_error_of_a_picture_or_a_request_has_a_code_and_each_of_the_stack_has_none() -> None:
    of_the_stack = {"WeightsHashMismatchError", "StorageDeniedError", "WorkerCrashedError", "WebhookRefusedError"}
    for error in leaves(PermanentError) | leaves(UrlError):
        report = {"error": error.__name__, "message": "m", "field": "f", "value": None, "remedy": "r"}
        assert (problem_from_report(report).status >= 500) == (error.__name__ in of_the_stack), error


def test_what_passes_is_unavailable_and_says_when_to_come_again() -> None:
    for error in leaves(TransientError):
        problem = problem_from_report(
            {"error": error.__name__, "message": "m", "field": "f", "value": None, "remedy": "r"}
        )
        assert (problem.status, problem.code, problem.headers) == (503, "unavailable", {"Retry-After": "5"}), error


def test_a_problem_of_the_stack_says_nothing_of_it() -> None:
    denied = StorageDeniedError("S3 refuses", field="source.key", value="s3://secret-bucket/key", remedy="Grant it.")
    assert "secret-bucket" not in problem_from_error(denied).body("1") and "Grant" not in problem_from_error(
        denied
    ).body("1")
    assert problem_from_error(StorageUnavailableError("m", field="f", value=None, remedy="r")).status == 503


def test_a_problem_of_the_caller_names_field_value_and_remedy() -> None:
    error = FileTooLargeError("The file is too large", field="source.bytes", value=7, remedy="Scale it down.")
    said = problem_from_error(error).document("1")
    assert said == {
        "type": "about:blank",
        "title": "File too large",
        "status": 413,
        "code": "file_too_large",
        "detail": "The file is too large.",
        "field": "source.bytes",
        "value": 7,
        "remedy": "Scale it down.",
        "request_id": "1",
    }
