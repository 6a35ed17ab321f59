import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import CorruptImageError
from functions.contracts.errors import to_wire
from functions.contracts.failure_report import explain, gave_up, source_of
from tests.conftest import ROOT

STATE = json.loads((ROOT / "events/failure.json").read_text())["state"]
ERROR = CorruptImageError("The file ends early", field="image", value="photo.jpg", remedy="Upload it again.")


@pytest.mark.parametrize(
    "cause",
    [
        to_wire(ERROR),
        json.dumps({"errorMessage": to_wire(ERROR), "errorType": "CorruptImageError", "stackTrace": ["secret.py"]}),
    ],
    ids=["from a worker", "from a function"],
)
def test_our_errors_arrive_whole_and_without_their_stack_trace(cause: str) -> None:
    assert explain({"Error": "CorruptImageError", "Cause": cause}) == ERROR.facts()


def test_an_unexpected_error_keeps_its_message_and_loses_its_stack_trace() -> None:
    cause = json.dumps({"errorMessage": "division by zero", "errorType": "ZeroDivisionError", "stackTrace": ["x.py"]})
    told = explain({"Error": "ZeroDivisionError", "Cause": cause})
    assert told["error"] == "ZeroDivisionError"
    assert "division by zero" in told["message"]
    assert "x.py" not in json.dumps(told)


def test_a_timeout_has_no_cause_and_is_explained_all_the_same() -> None:
    told = explain({"Error": "States.Timeout"})
    assert "in time" in told["message"] and told["remedy"]


def test_a_cause_as_long_as_step_functions_allows_is_cut_so_that_the_failed_state_takes_what_is_told() -> None:
    assert len(explain({"Error": "Boom", "Cause": "x" * 32_768})["message"]) < 3000


@given(st.text(), st.text() | st.recursive(st.none() | st.integers(), st.lists).map(json.dumps))
def test_whatever_was_caught_can_be_told(error: str, cause: str) -> None:
    assert {"error", "message", "field", "value", "remedy"} == explain({"Error": error, "Cause": cause}).keys()


def test_what_failed_the_job_is_told_from_what_failed_a_second_attempt() -> None:
    second, fatal = {"Error": "Runtime.ExitError"}, {"Error": "StorageDeniedError"}
    assert gave_up({"failed": {"Encode": fatal}}) == [("Encode", fatal)]
    failed = {"Refine": second, "Encode": fatal}
    assert gave_up({"failed": failed, "degraded": {"Refine": second}}) == [("Encode", fatal)]
    assert gave_up({"failed": {"Refine": second}, "degraded": {"Refine": second}}) == gave_up({}) == []


def test_an_upload_that_validate_refused_is_named_from_the_event() -> None:
    assert source_of(STATE["input"]) == {"bucket": "uploads", "key": "photos/cup.png", "version_id": None}


def test_a_validated_job_is_named_from_its_source() -> None:
    source = {"bucket": "uploads", "key": "photos/cup.png", "version_id": "v1"}
    assert source_of({"source": {**source, "sha256": "0" * 64}}) == source


JSON = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@pytest.mark.parametrize("key", ["k" * 1025, "é" * 513, "\ud800", 7, None], ids=repr)
def test_what_s3_cannot_have_as_a_name_is_none(key: Any) -> None:
    assert source_of({"source": {"bucket": "uploads", "key": key}})["key"] is None


@given(JSON, JSON)
def test_a_refused_request_has_a_source_whatever_it_holds(source: Any, detail: Any) -> None:
    told = source_of({"source": source, "detail": detail})
    assert all(value is None or isinstance(value, str) for value in told.values())
