"""Prices of jobs, and what remains charged when they end; jobs in flight."""

import base64
import io
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from core.types import Precision
from functions.api import repository
from functions.api.billing import credits_for, credits_of_result, is_free
from functions.contracts.api_key import Scope
from functions.runtime.outcomes import DELETED
from tests.fakes.api_in_memory import UNKNOWN_FOREGROUND, Api, api_in_memory

PNG = b"\x89PNG\r\n\x1a\npicture"
IMAGE = base64.b64encode(PNG).decode()


@pytest.fixture
def api() -> Iterator[Api]:
    with api_in_memory() as api:
        yield api


@pytest.mark.parametrize(
    ("precision", "width", "height", "price"),
    [
        (Precision.DRAFT, 1, 1, 1),
        (Precision.HIGH, 5000, 5000, 1),
        (Precision.HIGH, 5000, 5001, 2),
        (Precision.STANDARD, 10_000, 10_000, 4),
        (Precision.ULTRA_HIGH, 1, 1, 4),
        (Precision.ULTRA_HIGH, 8000, 6000, 8),
    ],
)
def test_price_depends_on_size_and_precision(precision: Precision, width: int, height: int, price: int) -> None:
    assert credits_for(precision, width, height) == price


def test_a_result_that_is_larger_than_its_image_costs_as_much_as_an_image_of_its_size() -> None:
    def price(source: tuple[int, int], result: tuple[int, int]) -> int:
        sizes = {"source": source, "image": result}
        return credits_of_result(
            {"options": {}, **{name: {"width": size[0], "height": size[1]} for name, size in sizes.items()}}
        )

    assert price((640, 480), (10_000, 10_000)) == 4
    assert price((10_000, 5000), (2000, 2000)) == 2


def test_failures_are_free_if_nothing_was_computed_or_the_fault_is_ours() -> None:
    assert is_free({"error": "CorruptImageError", "stage": "Validate"})
    assert not is_free({"error": "UnknownForegroundError", "stage": "Refine"})
    assert is_free({"error": "StorageUnavailableError", "stage": "Encode"})
    assert is_free({"error": "States.Timeout"})
    assert not is_free({"error": DELETED}), "the caller stopped it"


def process(api: Api, key: str = "", **options: Any) -> dict[str, Any]:
    return dict(api.call("POST", "/process", key=key, json={"image": IMAGE, **options}).get_json())


def sized(api: Api, width: int, height: int) -> None:
    """Let jobs succeed with an image of this size."""
    api.stepfunctions.size = (width, height)


def test_result_is_charged_by_its_size_and_precision_on_all_routes(api: Api) -> None:
    sized(api, 8000, 6000)
    assert process(api, precision_level="ultra_high")["credits"] == api.used() == 8
    removebg = api.call("POST", "/v1.0/removebg", data={"image_file": (io.BytesIO(PNG), "cup.png")})
    assert removebg.headers["X-Credits-Charged"] == "2"
    assert api.used() == 10
    assert api.call("POST", "/api/remove", data={"file": (io.BytesIO(PNG), "cup.png")}).status_code == 200
    assert api.used() == 12


def test_repeated_reads_of_a_job_charge_nothing(api: Api) -> None:
    sized(api, 8000, 6000)
    job = api.call("POST", "/jobs", json={"source": {"key": "photos/a.png"}}).get_json()["job_id"]
    assert api.used() == 1, "the size is not known yet"
    for _ in range(3):
        assert api.call("GET", f"/jobs/{job}").get_json()["credits"] == 2
        assert api.used() == 2


@pytest.mark.parametrize(
    ("error", "stage", "used"),
    [("CorruptImageError", "Validate", 0), ("UnknownForegroundError", "Refine", 4), ("States.Timeout", "Refine", 0)],
)
def test_failed_job_is_refunded_once(api: Api, error: str, stage: str, used: int) -> None:
    api.stepfunctions.on_start = api.stepfunctions.fail({**UNKNOWN_FOREGROUND, "error": error, "stage": stage})
    process(api, precision_level="ultra_high")
    [job] = api.stepfunctions.inputs
    for _ in range(2):
        assert api.call("GET", f"/jobs/{job}").get_json()["credits"] == used
        assert api.used() == used


def test_refund_goes_to_the_month_of_the_charge(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    api.stepfunctions.on_start = api.stepfunctions.keep_running
    job = api.call("POST", "/jobs", json={"source": {"key": "photos/a.png"}}).get_json()["job_id"]
    monkeypatch.setattr(repository, "quota_meter", lambda caller, _now: f"quota#{caller}#next-month")
    api.call("POST", "/jobs", json={"source": {"key": "photos/b.png"}})
    report = {**UNKNOWN_FOREGROUND, "error": "States.Timeout"}
    api.stepfunctions.fail(report)(job, api.stepfunctions.inputs[job])
    api.call("GET", f"/jobs/{job}")
    used = {
        item["meter"]["S"]: item["used"]["N"]
        for item in api.dynamodb.scan(TableName="usage")["Items"]
        if "used" in item
    }
    assert sorted(used.values()) == ["0", "1"]
    assert next(value for meter, value in used.items() if meter.endswith("next-month")) == "1"


def test_price_above_the_quota_is_rejected_before_anything_is_stored(api: Api) -> None:
    for quota in (0, 3):
        problem = process(api, api.make_key(Scope.PROCESS, monthly_quota=quota), precision_level="ultra_high")
        assert (problem["status"], problem["code"]) == (402, "quota_exceeded")
    assert not api.stepfunctions.inputs and not api.dynamodb.scan(TableName="jobs")["Items"] and api.used() == 0


def test_concurrent_charges_do_not_exceed_the_quota(api: Api) -> None:
    key, statuses = api.make_key(Scope.PROCESS, monthly_quota=3), []
    threads = [threading.Thread(target=lambda: statuses.append(process(api, key).get("status", 200))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 200, 200, 402, 402, 402]
    assert api.used() == len(api.stepfunctions.inputs) == 3


def test_conflicting_transactions_are_repeated(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def conflicts(**request: Any) -> Any:
        if codes:
            response: Any = {"Error": {"Code": "TransactionCanceledException"}}
            response["CancellationReasons"] = [{"Code": codes.pop()}, {"Code": "None"}, {"Code": "None"}]
            raise api.dynamodb.exceptions.TransactionCanceledException(response, "TransactWriteItems")
        return write(**request)

    codes, write = ["TransactionConflict", "ThrottlingError"], api.dynamodb.transact_write_items
    monkeypatch.setattr(api.dynamodb, "transact_write_items", conflicts)
    assert process(api)["success"] and not codes
    assert api.used() == 1


def test_job_that_cannot_be_settled_is_settled_later(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    sized(api, 8000, 6000)
    settle = api.services.repository.settle
    monkeypatch.setattr(api.services.repository, "settle", lambda *_: None)
    job = process(api)["job_id"]
    assert api.used() == 1
    monkeypatch.setattr(api.services.repository, "settle", settle)
    api.call("GET", f"/jobs/{job}")
    assert api.used() == 2


# ---- Jobs in flight


@pytest.fixture
def narrow() -> Iterator[Api]:
    """An API that admits two jobs at a time, which keep running."""
    with api_in_memory(jobs_in_flight=2) as api:
        api.stepfunctions.on_start = api.stepfunctions.keep_running
        yield api


def start(api: Api, key: str = "") -> Any:
    return api.call("POST", "/jobs", key=key, json={"source": {"key": "photos/a.png"}})


def test_jobs_in_flight_are_limited_per_caller(narrow: Api) -> None:
    assert [start(narrow).status_code for _ in range(3)] == [202, 202, 429]
    refused = start(narrow)
    assert (refused.get_json()["code"], refused.headers["Retry-After"]) == ("too_many_jobs", "5")
    assert narrow.used() == len(narrow.stepfunctions.inputs) == 2
    assert start(narrow, narrow.make_key(*Scope)).status_code == 202, "another caller"


@pytest.mark.parametrize("how", ["succeeds", "fails", "is deleted", "expires"])
def test_job_that_ends_makes_room_although_nobody_asked_for_it(narrow: Api, how: str) -> None:
    names = [start(narrow).get_json()["job_id"] for _ in range(2)]
    request = narrow.stepfunctions.inputs[names[0]]
    match how:
        case "succeeds":
            narrow.stepfunctions.succeed(names[0], request)
        case "fails":
            narrow.stepfunctions.fail(UNKNOWN_FOREGROUND)(names[0], request)
        case "is deleted":
            assert narrow.call("DELETE", f"/jobs/{names[0]}").status_code == 204
        case "expires":
            narrow.dynamodb.delete_item(TableName="jobs", Key={"job_id": {"S": names[0]}})
    assert start(narrow).status_code == 202


def test_full_flight_is_not_searched_by_each_refused_request(narrow: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        start(narrow)
    calls: list[str] = []
    monkeypatch.setattr("functions.api.repository._SCAN_PAUSE_S", 3600)  # however long the five requests take
    describe = narrow.stepfunctions.describe_execution
    monkeypatch.setattr(
        narrow.stepfunctions,
        "describe_execution",
        lambda executionArn: calls.append(executionArn) or describe(executionArn=executionArn),  # noqa: N803
    )
    assert [start(narrow).status_code for _ in range(5)] == [429] * 5
    assert len(calls) <= 4, "5 refused requests, 2 jobs"


def test_job_whose_request_was_interrupted_is_refunded(narrow: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(name: str, request: dict[str, Any]) -> None:
        del narrow.stepfunctions.inputs[name], narrow.stepfunctions.statuses[name]
        raise SystemExit  # simulates a crash of the function

    narrow.stepfunctions.on_start = breaks
    for _ in range(2):
        with pytest.raises(SystemExit):
            start(narrow)
    assert start(narrow).status_code == 429, "they may still be started"
    narrow.stepfunctions.on_start = narrow.stepfunctions.succeed
    monkeypatch.setattr("functions.api.jobs._MAX_START_S", -1)
    monkeypatch.setattr(repository, "_SCAN_PAUSE_S", 0)
    assert start(narrow).status_code == 202
    assert narrow.used() == 1


def test_dynamodb_errors_other_than_conflicts_are_not_hidden(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(**_: Any) -> None:
        raise ClientError(
            {"Error": {"Code": "AccessDeniedException"}, "ResponseMetadata": {"HTTPStatusCode": 400}},
            "TransactWriteItems",
        )

    monkeypatch.setattr(api.dynamodb, "transact_write_items", denied)
    assert process(api)["code"] == "internal_error"
    assert not api.stepfunctions.inputs
