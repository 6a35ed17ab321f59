"""The API's own routes, with a fake Step Functions."""

import base64
import io
import json
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
import requests
from botocore.exceptions import ClientError

from core.errors import FileTooLargeError, InvalidOptionsError, PermanentError, TransientError
from functions.api.problems import problem_from_error, problem_from_report
from functions.api.processing import MAX_INLINE_BYTES
from functions.contracts.api_key import Scope
from functions.contracts.errors import StorageDeniedError, StorageUnavailableError
from functions.runtime.handler import logger
from functions.runtime.safe_http import UrlAnswerError, UrlError, UrlRefusedError
from tests.conftest import ROOT
from tests.fakes.api_in_memory import RESULT, UNKNOWN_FOREGROUND, Api, api_in_memory, client, execution_arn
from tests.fakes.edge_keys import secret as edge_secret
from tests.fakes.edge_keys import signed_until

PNG = b"\x89PNG\r\n\x1a\npicture"
IMAGE = base64.b64encode(PNG).decode()
JSON = "application/json"
PART = b'--x\r\nContent-Disposition: form-data; name="name"\r\nContent-Type: text/plain; charset=%s\r\n\r\n'


@pytest.fixture
def api() -> Iterator[Api]:
    with api_in_memory() as api:
        yield api


def only(started: dict[str, Any]) -> tuple[str, Any]:
    [item] = started.items()
    return item


# ---- POST /process


def test_process_image_in_json(api: Api) -> None:
    response = api.call("POST", "/process", json={"image": IMAGE, "format": "webp", "name": "cup.png"})
    document = response.get_json()
    assert response.status_code == 200, document
    assert (document["success"], base64.b64decode(document["image"]), document["content_type"]) == (
        True,
        RESULT,
        "image/webp",
    )
    name, request = only(api.stepfunctions.inputs)
    assert document["job_id"] == name
    assert request["options"] == {"format": "webp"}
    assert request["source"]["key"].startswith("api/") and request["source"]["key"].endswith(f"/{name}/cup.png")
    assert api.s3.get_object(Bucket="uploads", Key=request["source"]["key"])["Body"].read() == PNG
    assert document["metrics"]["timings_s"] == {"validate": 0.1}
    assert int(response.headers["X-RateLimit-Remaining"]) < int(response.headers["X-RateLimit-Limit"])


@pytest.mark.parametrize(
    ("path", "body"), [("/process", {"image": IMAGE}), ("/jobs", {"image_url": "https://a.example/b"})]
)
def test_a_preset_decides_the_format_and_so_where_the_result_is(api: Api, path: str, body: dict[str, Any]) -> None:
    api.web.files["https://a.example/b"] = PNG
    asked = {"preset": "sticker", "quality": 70}
    response = api.call("POST", path, json={**body, **(asked if path == "/process" else {"options": asked})})
    job = response.get_json()["job_id"]
    assert response.status_code in (200, 202), response.get_json()
    assert api.stepfunctions.inputs[job]["options"] == asked
    document = api.call("GET", f"/jobs/{job}").get_json()
    assert document["status"] == "succeeded" and document["result"]["key"].endswith(".webp")


def test_a_preset_that_validate_does_not_know_is_an_invalid_option(api: Api) -> None:
    remedy = "The presets are: card."
    error = InvalidOptionsError("Unknown preset", field="options.preset", value="amazon", remedy=remedy)
    api.stepfunctions.on_start = api.stepfunctions.fail({**error.facts(), "stage": "Validate"})
    response = api.call("POST", "/process", json={"image": IMAGE, "preset": "amazon"})
    document = response.get_json()
    assert (response.status_code, document["code"], document["field"]) == (400, "invalid_option", "preset")
    assert document["remedy"] == remedy and api.used() == 0


def test_process_data_url(api: Api) -> None:
    response = api.call("POST", "/process", json={"image": f"data:image/png;base64,{IMAGE}"})
    assert response.status_code == 200
    assert api.s3.get_object(Bucket="uploads", Key=api.keys_in("uploads")[0])["Body"].read() == PNG


def test_process_form_with_files(api: Api) -> None:
    form = {
        "image": (io.BytesIO(PNG), "Tasse à café.png"),
        "background": (io.BytesIO(PNG + b"2"), "sky.png"),
        "crop": "true",
        "quality": "80",
    }
    response = api.call("POST", "/process", data=form)
    assert response.status_code == 200, response.get_json()
    _, request = only(api.stepfunctions.inputs)
    options = request["options"]
    assert (options["crop"], options["quality"]) == ("true", "80")
    assert options["background_key"] == f"backgrounds/{request['source']['key']}"
    assert api.s3.get_object(Bucket="uploads", Key=options["background_key"])["Body"].read() == PNG + b"2"
    assert request["source"]["key"].endswith("/Tasse_caf_.png")


def test_process_image_url_names_the_result_after_the_url(api: Api) -> None:
    api.web.files["https://shop.example/photos/shoe.jpg?v=2"] = PNG
    response = api.call("POST", "/process", json={"image_url": "https://shop.example/photos/shoe.jpg?v=2"})
    assert response.status_code == 200
    assert only(api.stepfunctions.inputs)[1]["source"]["key"].endswith("/shoe.jpg")


def test_large_result_is_returned_as_url(api: Api) -> None:
    api.stepfunctions.result = bytes(MAX_INLINE_BYTES + 1)
    document = api.call("POST", "/process", json={"image": IMAGE}).get_json()
    assert "image" not in document
    assert requests.get(document["result_url"]).content == api.stepfunctions.result  # served by moto


def test_largest_inline_result_fits_into_a_lambda_response(api: Api) -> None:
    api.stepfunctions.result = bytes(MAX_INLINE_BYTES)
    response = api.call("POST", "/process", json={"image": IMAGE})
    assert (response.status_code, len(base64.b64decode(response.get_json()["image"]))) == (200, MAX_INLINE_BYTES)


def test_url_delivery(api: Api) -> None:
    document = api.call("POST", "/process", json={"image": IMAGE, "delivery": "url"}).get_json()
    assert "image" not in document and requests.get(document["result_url"]).content == RESULT


def test_failed_job_is_reported(api: Api) -> None:
    api.stepfunctions.on_start = api.stepfunctions.fail(UNKNOWN_FOREGROUND)
    response = api.call("POST", "/process", json={"image": IMAGE})
    document = response.get_json()
    assert (response.status_code, document["code"], document["remedy"]) == (
        422,
        "unknown_foreground",
        UNKNOWN_FOREGROUND["remedy"],
    )
    assert response.headers["Content-Type"] == "application/problem+json"
    assert document["job_id"] in api.stepfunctions.inputs


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ({}, 400, "invalid_request", "image"),
        ({"image": IMAGE, "image_url": "https://a.example/b"}, 400, "invalid_request", "image"),
        ({"image": "no base64!"}, 400, "invalid_body", "image"),
        ({"image": 7}, 400, "invalid_body", "image"),
        ({"image": IMAGE, "format": "gif"}, 400, "invalid_option", "format"),
        ({"image": IMAGE, "colour": "red"}, 400, "invalid_option", "colour"),
        ({"image": IMAGE, "preset": "No preset!"}, 400, "invalid_option", "preset"),
        ({"image": IMAGE, "preset": "card", "quality": 0}, 400, "invalid_option", "quality"),
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
def test_invalid_request_is_rejected_by_field_without_start_or_charge(
    api: Api, body: dict[str, Any], status: int, code: str, field: str
) -> None:
    response = api.call("POST", "/process", json=body)
    document = response.get_json()
    assert (response.status_code, document["code"], document["field"]) == (status, code, field), document
    assert not api.stepfunctions.inputs and api.used() == 0 and not api.dynamodb.scan(TableName="jobs")["Items"]


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
        ("application/json", b'{"image": "", "name": NaN}', 400, "invalid_body"),
    ],
)
def test_unparsable_body_is_rejected(api: Api, content_type: str, data: bytes, status: int, code: str) -> None:
    response = api.call("POST", "/process", data=data, headers={"Content-Type": content_type})
    assert (response.status_code, response.get_json()["code"]) == (status, code)
    assert b"NaN" not in response.data


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/process", {"image": [3_000_000 * "é"]}),
        ("/process", {"image": IMAGE, "delivery": 2_000_000 * "é"}),
        ("/process", {"image": IMAGE, "name": [2_000_000 * "é"]}),
        ("/v1.0/removebg", {"image_url": f"http://{1_500_000 * '℀'}"}),
    ],
)
def test_error_responses_truncate_values(api: Api, path: str, body: dict[str, Any]) -> None:
    data = json.dumps(body, ensure_ascii=False).encode()
    response = api.call("POST", path, data=data, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert len(response.data) < 10_000


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (UrlRefusedError("It leads inside", url="https://a.example/", field="image_url"), 400, "url_refused"),
        (UrlAnswerError("It responses 404", url="https://a.example/", field="image_url"), 422, "download_failed"),
    ],
)
def test_failed_download_is_reported_and_not_charged(api: Api, error: UrlError, status: int, code: str) -> None:
    api.web.files["https://a.example/"] = error
    response = api.call("POST", "/process", json={"image_url": "https://a.example/"})
    assert (response.status_code, response.get_json()["code"], api.used()) == (status, code, 0)
    assert not api.dynamodb.scan(TableName="jobs")["Items"]


# ---- Idempotency


def test_repeated_request_with_the_same_key_starts_and_charges_one_job(api: Api) -> None:
    def send() -> Any:
        return api.call("POST", "/process", json={"image": IMAGE}, headers={"Idempotency-Key": "order-7"}).get_json()

    assert send() == send()
    assert len(api.stepfunctions.inputs) == 1 and api.used() == 1


def test_concurrent_requests_with_the_same_key_share_one_job(api: Api) -> None:
    responses: list[Any] = []

    def send() -> None:
        responses.append(api.call("POST", "/process", json={"image": IMAGE}, headers={"Idempotency-Key": "7"}))

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [response.status_code for response in responses] == [200, 200]
    assert (
        len({response.get_json()["job_id"] for response in responses})
        == len(api.stepfunctions.inputs)
        == api.used()
        == 1
    )


def test_key_reused_with_a_different_request_is_rejected(api: Api) -> None:
    headers = {"Idempotency-Key": "order-7"}
    api.call("POST", "/process", json={"image": IMAGE}, headers=headers)
    response = api.call("POST", "/process", json={"image": IMAGE, "crop": True}, headers=headers)
    assert (response.status_code, response.get_json()["code"]) == (422, "idempotency_key_reused")


def test_idempotency_keys_are_per_caller(api: Api) -> None:
    headers = {"Idempotency-Key": "1"}
    for key in (api.key, api.make_key(Scope.PROCESS)):
        assert api.call("POST", "/process", key=key, json={"image": IMAGE}, headers=headers).status_code == 200
    assert len(api.stepfunctions.inputs) == 2


def test_request_interrupted_before_the_start_can_be_repeated(api: Api) -> None:
    def breaks(name: str, request: dict[str, Any]) -> None:
        del api.stepfunctions.inputs[name], api.stepfunctions.statuses[name]
        raise SystemExit  # simulates a crash of the function

    headers = {"Idempotency-Key": "1"}
    api.stepfunctions.on_start = breaks
    with pytest.raises(SystemExit):
        api.call("POST", "/process", json={"image": IMAGE}, headers=headers)
    api.stepfunctions.on_start = api.stepfunctions.succeed
    assert api.call("POST", "/process", json={"image": IMAGE}, headers=headers).status_code == 200
    assert len(api.stepfunctions.inputs) == 1 and api.used() == 1


@pytest.mark.parametrize("quota", [1, 1000])
def test_request_concurrent_with_the_same_key_gets_the_job_that_used_up_the_quota(
    api: Api, monkeypatch: pytest.MonkeyPatch, quota: int
) -> None:
    def send() -> Any:
        return api.call("POST", "/process", key=key, json={"image": IMAGE}, headers={"Idempotency-Key": "1"})

    def transact_write_items(**request: Any) -> Any:
        monkeypatch.setattr(api.dynamodb, "transact_write_items", write)
        responses.append(send())  # the other request arrives after this one has found no job
        return write(**request)

    key, write = api.make_key(Scope.PROCESS, monthly_quota=quota), api.dynamodb.transact_write_items
    responses: list[Any] = []
    monkeypatch.setattr(api.dynamodb, "transact_write_items", transact_write_items)
    responses.append(send())
    assert [response.status_code for response in responses] == [200, 200]
    assert len(api.stepfunctions.inputs) == api.used() == 1


def test_failed_request_does_not_cancel_a_job_that_a_concurrent_request_started(api: Api) -> None:
    class Server(dict[str, bytes | Exception]):
        def __getitem__(self, url: str) -> bytes | Exception:
            if responses:
                return PNG
            responses.append(None)
            responses.append(send())
            return UrlAnswerError("The server responses with status 404", url=url, field="image_url")

    def send() -> Any:
        request = {"image_url": "https://a.example/b.png"}
        return api.call("POST", "/process", json=request, headers={"Idempotency-Key": "1"})

    responses: list[Any] = []
    api.web.files = Server()
    assert send().status_code == 422
    assert responses[1].status_code == 200
    assert api.used() == 1


def test_key_of_a_deleted_job_is_rejected_and_not_charged(api: Api) -> None:
    def send() -> Any:
        return api.call("POST", "/process", json={"image": IMAGE}, headers={"Idempotency-Key": "1"})

    api.call("DELETE", f"/jobs/{send().get_json()['job_id']}")
    response = send()
    assert (response.status_code, response.get_json()["code"]) == (422, "idempotency_key_reused")
    assert api.used() == 1


@pytest.mark.parametrize(
    ("client", "call", "code"),
    [
        ("dynamodb", "transact_write_items", "ProvisionedThroughputExceededException"),
        ("stepfunctions", "start_execution", "ExecutionLimitExceeded"),
    ],
)
def test_job_is_not_charged_when_aws_throttles_its_creation(
    api: Api, monkeypatch: pytest.MonkeyPatch, client: str, call: str, code: str
) -> None:
    def refuses(**_: Any) -> None:
        raise ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 400}}, call)

    monkeypatch.setattr(getattr(api, client), call, refuses)
    assert api.call("POST", "/process", json={"image": IMAGE}).status_code == 503
    assert api.used() == 0


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_idempotency_key_length_is_checked(api: Api, key: str) -> None:
    response = api.call("POST", "/process", json={"image": IMAGE}, headers={"Idempotency-Key": key})
    assert (response.status_code, response.get_json()["field"]) == (400, "Idempotency-Key")


# ---- Uploads and jobs


def test_job_for_an_uploaded_image(api: Api) -> None:
    form = api.call("POST", "/uploads", json={"name": "cup.png", "content_type": "image/png"}).get_json()
    assert form["fields"]["Content-Type"] == "image/png" and form["key"].endswith("/cup.png")
    policy = json.loads(base64.b64decode(form["fields"]["policy"]))["conditions"]
    assert ["content-length-range", 1, 104_857_600] in policy and {"Content-Type": "image/png"} in policy
    api.s3.put_object(Bucket="uploads", Key=form["key"], Body=PNG)
    request = {"source": {"key": form["key"]}, "options": {"crop": True}, "webhook_url": "https://shop.example/hook"}
    response = api.call("POST", "/jobs", json=request)
    assert response.status_code == 202, response.get_json()
    name, started = only(api.stepfunctions.inputs)
    assert started["source"] == {"bucket": "uploads", "key": form["key"]}
    assert started["options"] == {"crop": True}
    assert started["webhook"] == {"url": "https://shop.example/hook", "key_id": form["key"].split("/")[1]}
    assert api.call("GET", f"/jobs/{name}").get_json()["status"] == "succeeded"


def test_job_for_an_image_url(api: Api) -> None:
    api.web.files["https://a.example/b.png"] = PNG
    assert api.call("POST", "/jobs", json={"image_url": "https://a.example/b.png"}).status_code == 202


def test_objects_of_others_require_the_bucket_scope(api: Api) -> None:
    request = {"source": {"key": "photos/a.png"}}
    response = api.call("POST", "/jobs", key=api.make_key(Scope.PROCESS), json=request)
    assert (response.status_code, response.get_json()["code"]) == (403, "scope_missing")
    assert api.call("POST", "/jobs", json=request).status_code == 202


@pytest.mark.parametrize("path", ["..", "../{other}/a.png", "./../{other}/a.png", "a/../../{other}/a.png"])
def test_prefix_of_the_caller_with_dots_is_not_the_callers(api: Api, path: str) -> None:
    key = api.make_key(Scope.PROCESS)
    own = api.call("POST", "/uploads", key=key, json={}).get_json()["key"].split("/")[1]
    source = f"api/{own}/{path.format(other=api.key.split('_')[1])}"
    for body in (
        {"source": {"key": source}},
        {"image_url": "https://a.example/", "options": {"background_key": source}},
    ):
        response = api.call("POST", "/jobs", key=key, json=body)
        assert (response.status_code, response.get_json()["code"]) == (403, "scope_missing")
    assert not api.stepfunctions.inputs


@pytest.mark.parametrize(
    "number", ["1" * 300_000, "0." + "0" * 300_000 + "1", "1e" + "0" * 300_000, "-" + "0" * 300 + "1"]
)
def test_numbers_of_very_many_digits_are_rejected(api: Api, number: str) -> None:
    responses = [
        api.call("POST", "/process", data=f'{{"image": "{IMAGE}", "max_megapixels": {number}}}', content_type=JSON),
        api.call("POST", "/process", json={"image": IMAGE, "max_megapixels": number}),
        api.call("POST", "/process", data={"image": (io.BytesIO(PNG), "a.png"), "max_megapixels": number}),
        api.call("POST", "/v1.0/removebg", data={"image_file_b64": IMAGE, "shadow_opacity": number}),
        api.call("POST", "/api/remove?af=" + number[:5000], data={"file": (io.BytesIO(PNG), "a.png")}),
    ]
    assert {response.status_code for response in responses} <= {400, 422}
    assert all(len(response.data) < 2000 for response in responses)
    assert not api.stepfunctions.inputs


@pytest.mark.parametrize(
    "text",
    [
        '{"image": "%s", "format": "png", "format": "webp"}',
        '{"image": "%s", "name": "a", "n\\u0061me": "b"}',
        '{"image": "%s", "quality": NaN}',
        '{"image": "%s", "quality": Infinity}',
    ],
)
def test_ambiguous_json_is_rejected(api: Api, text: str) -> None:
    response = api.call("POST", "/process", data=text % IMAGE, content_type=JSON)
    assert (response.status_code, response.get_json()["code"]) == (400, "invalid_body")
    assert not api.stepfunctions.inputs


def test_backgrounds_of_others_require_the_bucket_scope(api: Api) -> None:
    key, others = api.make_key(Scope.PROCESS), "photos/a.png"
    own = api.call("POST", "/uploads", key=key, json={}).get_json()["key"]
    for path, request in (
        ("/process", lambda background: {"image": IMAGE, "background_key": background}),
        ("/jobs", lambda background: {"source": {"key": own}, "options": {"background_key": background}}),
    ):
        response = api.call("POST", path, key=key, json=request(others))
        assert (response.status_code, response.get_json()["code"]) == (403, "scope_missing")
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
def test_invalid_job_request_is_rejected_by_field(api: Api, body: dict[str, Any], field: str) -> None:
    response = api.call("POST", "/jobs", json=body)
    assert (response.status_code, response.get_json()["field"]) == (400, field)


def test_jobs_of_one_object_have_separate_states(api: Api) -> None:
    api.stepfunctions.on_start = api.stepfunctions.keep_running
    first, second = (
        api.call("POST", "/jobs", json={"source": {"key": "photos/a.png"}, "options": options}).get_json()["job_id"]
        for options in ({}, {"crop": True})
    )
    api.stepfunctions.succeed(second, api.stepfunctions.inputs[second])
    states = [api.call("GET", f"/jobs/{name}").get_json()["status"] for name in (first, second)]
    assert states == ["running", "succeeded"]


def test_results_of_one_object_in_several_formats_are_kept_apart(api: Api) -> None:
    jobs = []
    for number, format_ in enumerate(("png", "webp")):
        api.stepfunctions.result = RESULT + bytes([number])
        body = {"source": {"key": "photos/a.png"}, "options": {"format": format_}}
        jobs.append(api.call("POST", "/jobs", json=body).get_json()["job_id"])
    results = [api.call("GET", f"/jobs/{job}").get_json()["result"] for job in jobs]
    assert [result["key"] for result in results] == ["results/photos/a.png.png", "results/photos/a.png.webp"]
    assert [requests.get(result["url"]).content for result in results] == [RESULT + b"\0", RESULT + b"\1"]


def test_format_in_the_metadata_of_an_object_decides_where_its_result_is(api: Api) -> None:
    api.stepfunctions.on_start = api.stepfunctions.keep_running
    job = api.call("POST", "/jobs", json={"source": {"key": "photos/a.png"}}).get_json()["job_id"]
    request = {**api.stepfunctions.inputs[job], "options": {"format": "webp"}}
    api.stepfunctions.succeed(f"{job}-retry-1", request)
    assert api.call("GET", f"/jobs/{job}").get_json()["result"]["key"] == "results/photos/a.png.webp"


def test_job_of_an_earlier_version_has_its_result_and_is_deleted_with_it(api: Api) -> None:
    job = api.call("POST", "/process", json={"image": IMAGE, "name": "a.jpg"}).get_json()["job_id"]
    rename_to_old_names(api, job)
    assert api.call("GET", f"/jobs/{job}").get_json()["result"]["key"].endswith("/a.png")
    assert api.call("DELETE", f"/jobs/{job}").status_code == 204
    assert (api.keys_in("uploads"), api.keys_in("results")) == ([], [])


def rename_to_old_names(api: Api, job: str) -> None:
    """Give a job's result and sidecar the keys that version 0.2 gave them."""
    api.dynamodb.update_item(TableName="jobs", Key={"job_id": {"S": job}}, UpdateExpression="REMOVE extension")
    result_key, sidecar_key = sorted(api.keys_in("results"), key=len)
    sidecar = json.loads(api.s3.get_object(Bucket="results", Key=sidecar_key)["Body"].read())
    old = result_key.removesuffix(".jpg.png")
    sidecar["result"] |= {"key": f"{old}.png", "sidecar_key": f"{old}.json", "version_id": None}
    for key, data in ((f"{old}.png", RESULT), (f"{old}.json", json.dumps(sidecar))):
        api.s3.put_object(Bucket="results", Key=key, Body=data)
    for version in api.s3.list_object_versions(Bucket="results")["Versions"]:
        if version["Key"] in (result_key, sidecar_key):
            api.s3.delete_object(Bucket="results", Key=version["Key"], VersionId=version["VersionId"])


def test_failure_of_another_job_of_the_same_image_does_not_refund() -> None:
    with api_in_memory(answer_within_s=0) as api:
        api.stepfunctions.on_start = api.stepfunctions.keep_running
        job = api.call("POST", "/process", json={"image": IMAGE}).get_json()["job_id"]
        source = api.call("GET", f"/jobs/{job}").get_json()["source_key"]
        api.stepfunctions.on_start = api.stepfunctions.fail(UNKNOWN_FOREGROUND)
        api.call("POST", "/jobs", json={"source": {"key": source}})
        assert api.call("GET", f"/jobs/{job}").get_json()["status"] == "running"
        assert api.used() == 2


def test_failed_jobs_of_one_object_have_separate_errors(api: Api) -> None:
    jobs = []
    for message in ("No subject was found", "No subject was found again"):
        api.stepfunctions.on_start = api.stepfunctions.fail({**UNKNOWN_FOREGROUND, "message": message})
        jobs.append(api.call("POST", "/jobs", json={"source": {"key": "photos/a.png"}}).get_json()["job_id"])
    errors = [api.call("GET", f"/jobs/{job}").get_json()["error"] for job in jobs]
    assert [error["detail"] for error in errors] == ["No subject was found.", "No subject was found again."]
    assert all(error["remedy"] == UNKNOWN_FOREGROUND["remedy"] for error in errors)


def test_redriven_job_has_the_result_of_its_second_execution(api: Api) -> None:
    api.stepfunctions.on_start = api.stepfunctions.fail(UNKNOWN_FOREGROUND)
    job = api.call("POST", "/process", json={"image": IMAGE}).get_json()["job_id"]
    api.stepfunctions.succeed(f"{job}-retry-1", api.stepfunctions.inputs[job])
    assert api.call("GET", f"/jobs/{job}").get_json()["status"] == "succeeded"


def test_job_that_ended_without_a_report_is_an_internal_error(api: Api) -> None:
    api.stepfunctions.on_start = api.stepfunctions.keep_running
    name = api.call("POST", "/jobs", json={"source": {"key": "photos/a.png"}}).get_json()["job_id"]
    api.stepfunctions.statuses[name] = "TIMED_OUT"
    document = api.call("GET", f"/jobs/{name}").get_json()
    assert (document["status"], document["error"]["code"]) == ("failed", "internal_error")
    assert set(document["error"]) == {"type", "title", "status", "code", "job_id", "request_id"}


def test_list_events(api: Api) -> None:
    name = api.call("POST", "/process", json={"image": IMAGE}).get_json()["job_id"]
    steps = api.call("GET", f"/jobs/{name}/events").get_json()["events"]
    assert [(step["type"], step["state"]) for step in steps] == [
        ("ExecutionStarted", ""),
        ("TaskStateEntered", "Validate"),
    ]


def test_job_without_an_execution_is_queued_and_has_no_events(api: Api) -> None:
    api.stepfunctions.on_start = api.stepfunctions.keep_running
    name = api.call("POST", "/jobs", json={"source": {"key": "photos/a.png"}}).get_json()["job_id"]
    api.stepfunctions.statuses.clear()  # simulates a crash before the start
    assert api.call("GET", f"/jobs/{name}").get_json()["status"] == "queued"
    assert api.call("GET", f"/jobs/{name}/events").get_json() == {"events": []}


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/events"), ("DELETE", "")])
def test_jobs_of_other_callers_are_not_found(api: Api, method: str, path: str) -> None:
    name = api.call("POST", "/process", json={"image": IMAGE}).get_json()["job_id"]
    response = api.call(method, f"/jobs/{name}{path}", key=api.make_key(*Scope))
    assert (response.status_code, response.get_json()["code"]) == (404, "job_not_found")
    assert api.call("GET", f"/jobs/{name}").status_code == 200


def test_clients_of_a_lost_region_learn_to_send_the_request_again(api: Api) -> None:
    problem = api.call("GET", "/jobs/00000000-0000-0000-0000-000000000000").get_json()
    assert problem["remedy"] == (
        "Use the API key that created the job. Jobs are kept for 7 days, in the Region that accepted them: after a "
        "failover, send the request again, with the same Idempotency-Key."
    )


def test_job_ids_too_long_for_dynamodb_are_not_found(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def get_item(**request: Any) -> Any:
        assert all(len(value["S"]) <= 2048 for value in request["Key"].values())  # moto accepts any length
        return found(**request)

    found = api.dynamodb.get_item
    monkeypatch.setattr(api.dynamodb, "get_item", get_item)
    assert api.call("GET", f"/jobs/{'a' * 3000}").get_json()["code"] == "job_not_found"


def test_delete_removes_images_and_results(api: Api) -> None:
    api.s3.put_object(Bucket="uploads", Key="photos/other.png", Body=PNG)
    name = api.call("POST", "/process", json={"image": IMAGE, "background": IMAGE}).get_json()["job_id"]
    assert len(api.keys_in("uploads")) == 3 and len(api.keys_in("results")) == 2
    assert api.call("DELETE", f"/jobs/{name}").status_code == 204
    assert (api.keys_in("uploads"), api.keys_in("results")) == (["photos/other.png"], [])
    assert api.call("GET", f"/jobs/{name}").status_code == 404
    assert api.stepfunctions.stopped == []


def test_delete_removes_replicas_and_keeps_the_job_until_it_can() -> None:
    with api_in_memory(results_replica_bucket="replica") as api:
        name = api.call("POST", "/process", json={"image": IMAGE}).get_json()["job_id"]
        assert api.call("DELETE", f"/jobs/{name}").status_code >= 400  # the replica does not exist
        assert api.call("GET", f"/jobs/{name}").get_json()["status"] == "succeeded"

        elsewhere = boto3.client("s3", region_name="us-west-2")
        elsewhere.create_bucket(Bucket="replica", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
        elsewhere.put_bucket_versioning(Bucket="replica", VersioningConfiguration={"Status": "Enabled"})
        for key in (stored := api.keys_in("results")):  # moto does not replicate
            api.s3.put_object(Bucket="replica", Key=key, Body=b"")
        assert len(stored) == 2
        assert api.call("DELETE", f"/jobs/{name}").status_code == 204
        assert api.keys_in("replica") == []


@pytest.fixture
def cached(api: Api) -> tuple[str, str]:
    """A job with all objects that it leaves in the work bucket, and its cache key."""
    name = api.call("POST", "/process", json={"image": IMAGE}).get_json()["job_id"]
    cache_key = api.stepfunctions.validated[name]["cache_key"]
    for key in (f"work/{cache_key}/mask.png", f"work/{cache_key}/second/alpha.png", f"cache/{cache_key}.png"):
        api.s3.put_object(Bucket="work", Key=key, Body=PNG)
    api.s3.put_object(Bucket="work", Key=f"cache/{cache_key}0.png", Body=PNG)  # of another key
    return name, cache_key


def put_entry(api: Api, cache_key: str, status: str, owner: str) -> None:
    item = {"cache_key": cache_key, "status": status, "owner": owner}
    api.dynamodb.put_item(TableName="cache", Item={name: {"S": value} for name, value in item.items()})


@pytest.mark.parametrize("entry", ["done", "own claim", "none"])
def test_delete_removes_cached_copies_and_intermediate_files(api: Api, cached: tuple[str, str], entry: str) -> None:
    name, cache_key = cached
    match entry:
        case "done":
            put_entry(api, cache_key, "DONE", "arn:of:the:execution:that:computed:it")
        case "own claim":
            put_entry(api, cache_key, "IN_PROGRESS", f"arn:aws:states:eu-west-1:123456789012:execution:pbr:{name}")
    assert api.call("DELETE", f"/jobs/{name}").status_code == 204
    assert api.dynamodb.scan(TableName="cache")["Items"] == []
    assert api.keys_in("work") == [f"cache/{cache_key}0.png"]


def test_delete_keeps_what_another_job_of_the_caller_computes(api: Api, cached: tuple[str, str]) -> None:
    name, cache_key = cached
    put_entry(api, cache_key, "IN_PROGRESS", execution_arn("another"))
    api.stepfunctions.statuses["another"] = "RUNNING"
    assert api.call("DELETE", f"/jobs/{name}").status_code == 204
    assert len(api.keys_in("work")) == 4 and len(api.dynamodb.scan(TableName="cache")["Items"]) == 1
    assert api.keys_in("results") == []


def test_delete_keeps_a_claim_that_is_taken_over_meanwhile(
    api: Api, cached: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def delete_item(**request: Any) -> Any:
        put_entry(api, cache_key, "IN_PROGRESS", "arn:of:another:execution")
        monkeypatch.setattr(api.dynamodb, "delete_item", delete)
        return delete(**request)

    name, cache_key = cached
    put_entry(api, cache_key, "DONE", "arn")
    delete = api.dynamodb.delete_item
    monkeypatch.setattr(api.dynamodb, "delete_item", delete_item)
    assert api.call("DELETE", f"/jobs/{name}").status_code == 204
    assert len(api.dynamodb.scan(TableName="cache")["Items"]) == 1


@pytest.mark.parametrize("history", ["kept", "expired"])
def test_delete_removes_results_without_a_history(api: Api, history: str) -> None:
    name = api.call("POST", "/process", json={"image": IMAGE, "format": "webp"}).get_json()["job_id"]
    if history == "expired":
        del api.stepfunctions.statuses[name]
    assert api.call("DELETE", f"/jobs/{name}").status_code == 204
    assert api.keys_in("results") == []


def test_delete_removes_the_upload_and_its_results_in_all_formats(api: Api) -> None:
    key = api.call("POST", "/uploads", json={}).get_json()["key"]
    api.s3.put_object(Bucket="uploads", Key=key, Body=PNG)
    for format_ in ("webp", "png"):
        body = {"source": {"key": key}, "options": {"format": format_}}
        name = api.call("POST", "/jobs", json=body).get_json()["job_id"]
    assert len(api.keys_in("results")) == 4
    assert api.call("DELETE", f"/jobs/{name}").status_code == 204
    assert (api.keys_in("uploads"), api.keys_in("results")) == ([], [])


def test_delete_keeps_objects_that_were_not_uploaded_through_the_api(api: Api) -> None:
    api.s3.put_object(Bucket="uploads", Key="photos/a.png", Body=PNG)
    name = api.call("POST", "/jobs", json={"source": {"key": "photos/a.png"}}).get_json()["job_id"]
    assert api.call("DELETE", f"/jobs/{name}").status_code == 204
    assert api.keys_in("uploads") == ["photos/a.png"] and len(api.keys_in("results")) == 2
    assert api.call("GET", f"/jobs/{name}").status_code == 404


def test_delete_stops_a_running_job(api: Api) -> None:
    api.stepfunctions.on_start = api.stepfunctions.keep_running
    key = api.call("POST", "/uploads", json={}).get_json()["key"]
    name = api.call("POST", "/jobs", json={"source": {"key": key}}).get_json()["job_id"]
    assert api.call("DELETE", f"/jobs/{name}").status_code == 204
    assert api.stepfunctions.stopped == [name]


# ---- Authorization, status routes and CORS


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
def test_all_routes_require_their_scope(api: Api, method: str, path: str, scope: Scope) -> None:
    body = {"json": {"source": {"key": "a"}} if path == "/jobs" else {}} if method == "POST" else {}
    anonymous = api.call(method, path, key=None, **body)
    assert (anonymous.status_code, anonymous.get_json()["code"]) == (401, "auth_failed")
    other = api.call(method, path, key=api.make_key(*(set(Scope) - {scope})), **body)
    assert (other.status_code, other.get_json()["code"], other.get_json()["value"]) == (403, "scope_missing", scope)


def test_iam_routes_accept_signed_requests_only(api: Api) -> None:
    signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20260101/eu-west-1/execute-api/aws4_request"}
    assert api.call("POST", "/iam/process", key=None, json={"image": IMAGE}, headers=signed).status_code == 200
    assert api.call("POST", "/iam/process", key=None, json={"image": IMAGE}).status_code == 403
    assert api.call("POST", "/process", key=None, json={"image": IMAGE}, headers=signed).status_code == 401


@pytest.fixture
def behind_edge() -> Iterator[Api]:
    with api_in_memory(edge_secret_arn="edge", aws_region="eu-west-1") as api:
        client("secretsmanager").create_secret(Name="edge", SecretString=edge_secret())
        yield api


@pytest.mark.parametrize("path", ["/process", "/v1.0/removebg", "/api/remove", "/jobs", "/ready", "/docs", "/nothing"])
def test_requests_that_bypass_the_edge_are_rejected(behind_edge: Api, path: str) -> None:
    for headers in ({}, {"X-Origin-Verify": "wrong"}):
        response = behind_edge.call("POST", path, json={"image": IMAGE}, headers=headers)
        assert response.status_code == 403
        assert "X-RateLimit-Remaining" not in response.headers, "no key was looked up"
    response = behind_edge.call("GET", "/ready", key=None)
    assert response.get_json()["code"] == "not_through_edge" and "ApiUrl" in response.get_json()["remedy"]


def test_the_edge_reaches_all_routes_and_results_are_at_its_address(behind_edge: Api) -> None:
    sent = {"X-Origin-Verify": "current"}
    response = behind_edge.call("POST", "/process", json={"image": IMAGE, "delivery": "url"}, headers=sent)
    assert signed_until(response.get_json()["result_url"]) > time.time()
    assert behind_edge.call("GET", "/ready", key=None, headers=sent).status_code in (200, 503)
    assert behind_edge.call("POST", "/process", key=None, json={"image": IMAGE}, headers=sent).status_code == 401


def test_health_checks_and_signed_requests_may_bypass_the_edge(behind_edge: Api) -> None:
    signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20260101/eu-west-1/execute-api/aws4_request"}
    assert behind_edge.call("GET", "/health", key=None).status_code == 200
    assert behind_edge.call("POST", "/iam/process", key=None, json={"image": IMAGE}, headers=signed).status_code == 200
    assert behind_edge.call("POST", "/process", key=None, json={"image": IMAGE}, headers=signed).status_code == 403


def test_location_keeps_the_iam_prefix() -> None:
    signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20261123/eu-west-1/execute-api/aws4_request"}
    with api_in_memory(answer_within_s=0) as api:
        api.stepfunctions.on_start = api.stepfunctions.keep_running
        response = api.call("POST", "/iam/process", key=None, json={"image": IMAGE}, headers=signed)
        assert response.headers["Location"] == response.get_json()["location"]
        assert api.call("GET", response.headers["Location"], key=None, headers=signed).status_code == 200


@pytest.mark.parametrize("path", ["/process", "/v1.0/removebg", "/api/remove"])
def test_error_responses_have_rate_limit_headers(api: Api, path: str) -> None:
    response = api.call("POST", path, json={})
    assert response.status_code >= 400
    assert response.headers["X-RateLimit-Remaining"] == "999"
    assert "X-RateLimit-Remaining" not in api.call("POST", path, key=None, json={}).headers


def test_exceeded_quota_stores_and_starts_nothing(api: Api) -> None:
    key = api.make_key(Scope.PROCESS, monthly_quota=1)
    responses = [api.call("POST", "/process", key=key, json={"image": IMAGE}) for _ in range(2)]
    assert [response.status_code for response in responses] == [200, 402]
    assert responses[1].get_json()["code"] == "quota_exceeded"
    assert len(api.stepfunctions.inputs) == len(api.keys_in("uploads")) == 1


def test_health_requires_no_key(api: Api) -> None:
    assert api.call("GET", "/health", key=None).get_json() == {"status": "ok"}


def test_ready(api: Api) -> None:
    assert api.call("GET", "/ready", key=None).get_json()["ready"] is True


def test_ready_reports_missing_resources() -> None:
    with api_in_memory(uploads_bucket="gone") as api:
        response = api.call("GET", "/ready", key=None)
    assert response.status_code == 503
    assert response.get_json() == {"ready": False, "bucket": False, "table": True, "machine": True, "queue": True}


def test_unknown_route_is_not_found(api: Api) -> None:
    response = api.call("GET", "/nowhere")
    assert (response.status_code, response.get_json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health", 200),
        ("GET", "/v1.0/account", 200),
        ("POST", "/api/remove", 422),
        ("POST", "/v1.0/removebg", 400),
        ("POST", "/uploads", 201),
        ("DELETE", "/jobs/none", 404),
        ("GET", "/nowhere", 404),
        ("GET", "/docs", 200),
    ],
)
def test_no_response_may_be_stored_or_sniffed(api: Api, method: str, path: str, status: int) -> None:
    json_body: dict[str, Any] = {"json": {}} if method == "POST" else {}
    response = api.call(method, path, **json_body)
    assert response.status_code == status
    assert response.headers.getlist("Cache-Control") == ["no-store"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_documents_are_open_and_load_nothing_from_elsewhere(api: Api) -> None:
    served = api.call("GET", "/openapi.json", key=None)
    assert (served.status_code, served.content_type) == (200, "application/json")
    assert served.get_json() == json.loads((ROOT / "docs/reference/openapi.json").read_text())
    page = api.call("GET", "/docs", key=None)
    assert (page.status_code, page.mimetype) == (200, "text/html")
    assert "SwaggerUIBundle" in page.text and "/v1.0/removebg" in page.text
    assert not re.search(r"<script[^>]*\ssrc=", page.text) and "<link" not in page.text


def test_a_failed_stage_is_logged_with_its_error_and_not_sent(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    failure = {"error": "Lambda.ResourceNotFoundException", "message": "Encode is missing", "remedy": "Restore it."}
    api.stepfunctions.on_start = api.stepfunctions.fail({**failure, "field": None, "value": None})
    monkeypatch.setattr(logger.registered_handler, "stream", logged := io.StringIO())
    response = api.call("POST", "/process", json={"image": IMAGE})
    assert response.status_code == 500 and "Encode" not in response.get_data(as_text=True)
    [line] = [one for one in map(json.loads, logged.getvalue().splitlines()) if one.get("message") == "request failed"]
    assert (line["level"], line["code"], line["failure"]) == ("ERROR", "internal_error", failure)
    assert "exception" not in line


def test_internal_error_reveals_only_the_request_id(api: Api) -> None:
    def breaks(name: str, request: dict[str, Any]) -> None:
        raise RuntimeError("the password is swordfish")

    api.stepfunctions.on_start = breaks
    response = api.call("POST", "/process", json={"image": IMAGE})
    document = response.get_json()
    assert (response.status_code, document["code"]) == (500, "internal_error")
    assert set(document) == {"type", "title", "status", "code", "request_id"}
    assert response.headers["X-Request-Id"] == document["request_id"]
    assert not api.dynamodb.scan(TableName="jobs")["Items"] and api.used() == 0


PREFLIGHT = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}


def test_cors_is_off_by_default(api: Api) -> None:
    assert "Access-Control-Allow-Origin" not in api.call("OPTIONS", "/process", key=None, headers=PREFLIGHT).headers


def test_cors_allows_configured_origins() -> None:
    headers = PREFLIGHT
    with api_in_memory(cors_origins="https://shop.example, https://www.shop.example") as open_api:
        for origin in ("https://shop.example", "https://www.shop.example"):
            response = open_api.call("OPTIONS", "/process", key=None, headers={**headers, "Origin": origin})
            assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (204, origin)
            assert "X-API-Key" in response.headers["Access-Control-Allow-Headers"]
        other = open_api.call("OPTIONS", "/process", key=None, headers={**headers, "Origin": "https://evil.example"})
        assert "Access-Control-Allow-Origin" not in other.headers
        refused = open_api.call("POST", "/process", key=None, json={}, headers=headers)
        assert (
            refused.headers["Access-Control-Allow-Origin"] == "https://shop.example"
        )  # required for pages to read the error


# ---- Errors


def leaves(error: type[Exception]) -> set[type[Exception]]:
    return {leaf for child in error.__subclasses__() for leaf in leaves(child)} or {error}


def test_input_errors_have_codes_and_internal_errors_have_none() -> None:
    of_the_stack = {"WeightsHashMismatchError", "StorageDeniedError", "WorkerCrashedError", "WebhookRefusedError"}
    for error in leaves(PermanentError) | leaves(UrlError):
        report = {"error": error.__name__, "message": "m", "field": "f", "value": None, "remedy": "r"}
        assert (problem_from_report(report).status >= 500) == (error.__name__ in of_the_stack), error


def test_transient_errors_are_unavailable_with_retry_after() -> None:
    for error in leaves(TransientError):
        problem = problem_from_report(
            {"error": error.__name__, "message": "m", "field": "f", "value": None, "remedy": "r"}
        )
        assert (problem.status, problem.code, problem.headers) == (503, "unavailable", {"Retry-After": "5"}), error


def test_internal_problem_reveals_no_details() -> None:
    denied = StorageDeniedError("S3 refuses", field="source.key", value="s3://secret-bucket/key", remedy="Grant it.")
    assert "secret-bucket" not in problem_from_error(denied).body("1") and "Grant" not in problem_from_error(
        denied
    ).body("1")
    assert problem_from_error(StorageUnavailableError("m", field="f", value=None, remedy="r")).status == 503


def test_input_problem_names_field_value_and_remedy() -> None:
    error = FileTooLargeError("The file is too large", field="source.bytes", value=7, remedy="Scale it down.")
    document = problem_from_error(error).document("1")
    assert document == {
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
