"""The HTTP API end to end: API Gateway, function, state machine and result."""

import base64
import hashlib
import io
import json
from typing import Any

import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from PIL import Image
from werkzeug.test import Client

from client.stack import Stack
from embedded_cloud.cloud import EmbeddedCloud
from embedded_cloud.gateway import Gateway
from functions.contracts.api_key import ApiKey, Scope
from tests.conftest import client, disc
from tests.integration.api.conftest import ended, make_key, process, replicas, replicate
from tests.integration.deployment import until

IMAGE = disc(seed=61)


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def objects(stack: Stack, text: str) -> set[str]:
    """Keys of all object versions that contain a text."""
    return {
        version["Key"]
        for bucket in ("UploadsBucket", "ResultsBucket")
        for version in stack.s3.list_object_versions(Bucket=stack.outputs[bucket]).get("Versions", [])
        if text in version["Key"]
    }


def executions(stack: Stack) -> set[str]:
    listed = stack.stepfunctions.list_executions(stateMachineArn=stack.outputs["StateMachineArn"])
    return {execution["name"] for execution in listed["executions"]}


@pytest.fixture(scope="module")
def response(api: httpx.Client) -> dict[str, Any]:
    """The response to one processed image."""
    response = process(api, files={"image": ("photos/cup.png", IMAGE)}, data={"format": "webp", "crop": "true"})
    assert response.status_code == 200, response.text
    return dict(response.json())


def test_process_returns_the_cutout(response: dict[str, Any]) -> None:
    cut = opened(base64.b64decode(response["image"]))
    assert (cut.format, response["content_type"]) == ("WEBP", "image/webp")
    assert cut.getchannel("A").getextrema() == (0, 255)
    assert cut.width < 320 and cut.height < 240
    assert response["success"] is True
    assert response["metrics"]["source"]["width"] == 320


def test_job_has_its_result_and_events(api: httpx.Client, response: dict[str, Any]) -> None:
    job = api.get(f"/jobs/{response['job_id']}").json()
    assert job["status"] == "succeeded"
    assert job["source_key"].endswith(f"/{response['job_id']}/cup.png")
    assert opened(httpx.get(job["result"]["url"]).content).format == "WEBP"
    steps = api.get(f"/jobs/{response['job_id']}/events").json()["events"]
    assert steps[0]["type"] == "ExecutionStarted"
    assert {"Validate", "SegmentOnLambda", "Refine", "Encode"} <= {step["state"] for step in steps}


def test_api_uploads_start_exactly_one_execution(stack: Stack, response: dict[str, Any]) -> None:
    started = [
        json.loads(stack.stepfunctions.describe_execution(executionArn=execution["executionArn"])["input"])
        for execution in stack.stepfunctions.list_executions(stateMachineArn=stack.outputs["StateMachineArn"])[
            "executions"
        ]
    ]
    assert len([given for given in started if response["job_id"] in json.dumps(given)]) == 1


def test_repeated_request_starts_one_job(api: httpx.Client, stack: Stack) -> None:
    before = executions(stack)
    request = {"image": base64.b64encode(IMAGE).decode(), "name": "again.png"}
    responses = [api.post("/process", json=request, headers={"Idempotency-Key": "order-1"}).json() for _ in range(2)]
    assert responses[0]["job_id"] == responses[1]["job_id"]
    assert responses[0]["image"] == responses[1]["image"]
    assert executions(stack) - before == {responses[0]["job_id"]}


def test_jobs_of_one_upload_have_separate_results(api: httpx.Client) -> None:
    form = api.post("/uploads", json={"name": "cup.png", "content_type": "image/png"}).json()
    assert httpx.post(form["url"], data=form["fields"], files={"file": IMAGE}).status_code == 204
    jobs = []
    for output in ("mask", "cutout", "mask"):  # the last one is a cache hit
        accepted = api.post("/jobs", json={"source": {"key": form["key"]}, "options": {"output": output}})
        assert (accepted.status_code, accepted.json()["location"]) == (202, accepted.headers["Location"])
        jobs.append(ended(api, accepted.headers["Location"])["job_id"])
    # A job whose sidecar a later one has replaced is running again until its metrics are published.
    again = [ended(api, f"/jobs/{job_id}")["result"]["url"] for job_id in jobs]
    assert [opened(httpx.get(url).content).mode for url in again] == ["L", "RGBA", "L"]
    refused = api.post("/jobs", json={"source": {"key": form["key"]}, "options": {"roi": "0px 0px 999px 9px"}})
    error = ended(api, refused.headers["Location"])["error"]
    assert (error["code"], error["field"]) == ("invalid_option", "options.roi"), "without a report beside the result"


def test_callers_do_not_share_cached_results(cloud: EmbeddedCloud, stack: Stack, api: httpx.Client) -> None:
    image = disc(seed=62)
    other = httpx.Client(base_url=cloud.outputs["ApiUrl"], headers={"X-API-Key": make_key(stack).reveal()}, timeout=40)
    with other:
        hits = [
            process(client, files={"image": ("cup.png", image)}).json()["metrics"]["cache_hit"]
            for client in (api, other, api, other)
        ]
    assert hits == [False, False, True, True]


def test_upload_form_takes_the_announced_file_only(api: httpx.Client) -> None:
    digest = hashlib.sha256(IMAGE).hexdigest()
    form = api.post("/uploads", json={"content_type": "image/png", "max_bytes": len(IMAGE), "sha256": digest}).json()
    other = IMAGE[:-1] + b"!"
    posts = [
        httpx.post(form["url"], data={**form["fields"], **fields}, files={"file": file})
        for fields, file in [
            ({}, other),
            ({}, IMAGE + b"!"),
            ({"key": "api/other/a.png"}, IMAGE),
            ({"x-amz-checksum-sha256": base64.b64encode(hashlib.sha256(other).digest()).decode()}, other),
            ({}, IMAGE),
        ]
    ]
    assert [post.status_code for post in posts] == [400, 400, 403, 403, 204], posts[0].text


def test_unfinished_job_is_accepted_with_its_location(stack: Stack, api: httpx.Client, key: ApiKey) -> None:
    [name] = [
        f["FunctionName"] for f in stack.functions.list_functions()["Functions"] if "ApiFunction" in f["FunctionName"]
    ]

    def invoke_late(event: dict[str, Any]) -> Any:
        event["requestContext"]["timeEpoch"] -= 30_000
        return json.load(stack.functions.invoke(FunctionName=name, Payload=json.dumps(event))["Payload"])

    request = {"image": base64.b64encode(IMAGE).decode(), "model": "classical", "max_megapixels": 7.5}  # uncached
    response = Client(Gateway(invoke_late)).post("/process", json=request, headers={"X-API-Key": key.reveal()})
    assert (response.status_code, response.json["location"]) == (202, response.headers["Location"])
    assert ended(api, response.headers["Location"])["status"] == "succeeded"


def test_corrupt_image_is_reported_to_the_caller_who_deletes_it(api: httpx.Client, stack: Stack) -> None:
    half = IMAGE[: len(IMAGE) // 2]
    refused = process(api, files={"image": ("half.png", half), "background": ("sea.png", IMAGE)})
    problem = refused.json()
    assert (refused.status_code, refused.headers["Content-Type"]) == (422, "application/problem+json")
    assert (problem["code"], problem["status"]) == ("corrupt_image", 422)
    job = api.get(f"/jobs/{problem['job_id']}").json()
    assert (job["status"], job["error"]["code"]) == ("failed", "corrupt_image")
    assert len(objects(stack, problem["job_id"])) == 3, "image, background, report"
    assert api.delete(f"/jobs/{problem['job_id']}").status_code == 204
    assert objects(stack, problem["job_id"]) == set()


def test_delete_removes_all_objects(api: httpx.Client, stack: Stack, response: dict[str, Any]) -> None:
    def cached() -> set[str]:
        found = stack.s3.list_objects_v2(Bucket=stack.outputs["WorkBucket"]).get("Contents", [])
        return {entry["Key"] for entry in found if cache_key in entry["Key"]}

    image = disc(seed=63)
    other, again = (process(api, files={"image": ("gone.png", image)}).json()["job_id"] for _ in range(2))
    assert len(objects(stack, other)) == 3, "image, result, sidecar"
    [sidecar] = [key for key in objects(stack, other) if key.endswith(".json")]
    document = stack.s3.get_object(Bucket=stack.outputs["ResultsBucket"], Key=sidecar)["Body"].read()
    cache_key = json.loads(document)["cache"]["key"]
    assert len(cached()) == 3, "mask, alpha, cached copy"
    assert len(replicate(stack, sidecar.removeprefix("results/").rpartition("/")[0])) == 2
    assert api.delete(f"/jobs/{other}").status_code == 204
    assert objects(stack, other) == cached() == set(replicas(stack)) == set()
    assert api.get(f"/jobs/{again}").json()["status"] == "succeeded"
    assert not process(api, files={"image": ("gone.png", image)}).json()["metrics"]["cache_hit"]
    assert api.get(f"/jobs/{other}").json()["code"] == "job_not_found"
    assert api.get(f"/jobs/{response['job_id']}").json()["status"] == "succeeded"


def test_deleted_running_job_leaves_no_failure_report(api: httpx.Client, cloud: EmbeddedCloud, stack: Stack) -> None:
    form = api.post("/uploads", json={"name": "big.png", "content_type": "image/png"}).json()
    httpx.post(form["url"], data=form["fields"], files={"file": disc(width=1600, height=1200)}).raise_for_status()
    job = api.post("/jobs", json={"source": {"key": form["key"]}}).json()
    assert api.delete(job["location"]).status_code == 204
    logs, group = client("logs", cloud.endpoint_url, cloud.region), f"/aws/lambda/{cloud.stack_name}-reconcile"

    def is_reconciled() -> bool:
        lines = [event["message"] for event in logs.filter_log_events(logGroupName=group)["events"]]
        return any(job["job_id"] in line and "stage done" in line for line in lines)

    until(is_reconciled)
    assert not objects(stack, f"failed/{form['key']}")


def test_routes_require_a_key_with_the_scope(cloud: EmbeddedCloud, stack: Stack) -> None:
    url = f"{cloud.outputs['ApiUrl']}/uploads"
    refused = httpx.post(url, json={})
    assert (refused.status_code, refused.json()["code"]) == (401, "auth_failed")
    reader = make_key(stack, Scope.READ).reveal()
    refused = httpx.post(url, json={}, headers={"Authorization": f"Bearer {reader}"})
    assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")


def test_signed_requests_need_no_key_and_have_their_own_jobs(cloud: EmbeddedCloud, response: dict[str, Any]) -> None:
    def signed(path: str) -> httpx.Response:
        request = AWSRequest("GET", f"{cloud.outputs['ApiUrl']}/iam{path}")
        SigV4Auth(Credentials("AKIDEXAMPLE", "secret"), "execute-api", cloud.region).add_auth(request)
        return httpx.get(request.url, headers=dict(request.headers))

    assert signed("/v1.0/account").status_code == 200
    assert signed(f"/jobs/{response['job_id']}").json()["code"] == "job_not_found"
    assert httpx.get(f"{cloud.outputs['ApiUrl']}/iam/v1.0/account").status_code == 403


def test_ready(api: httpx.Client) -> None:
    response = api.get("/ready")
    assert (response.status_code, set(response.json().values())) == (200, {True})


def test_cors_allows_configured_origins(api: httpx.Client) -> None:
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    allowed = api.options("/process", headers={"Origin": "https://shop.example", **preflight})
    assert allowed.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    assert (
        "Access-Control-Allow-Origin"
        not in api.options("/process", headers={"Origin": "https://evil.example", **preflight}).headers
    )
