import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import CorruptImageError, DecodingLimitError
from functions.contracts.errors import to_wire
from functions.contracts.failure_report import FailureReport, explain, fatal_errors, source_of
from tests.conftest import ROOT

STATE = json.loads((ROOT / "events/failure.json").read_text())["state"]
ERROR = CorruptImageError("The file ends early", field="image", value="photo.jpg", remedy="Upload it again.")


@pytest.mark.parametrize(
    "cause",
    [
        to_wire(ERROR),
        json.dumps({"errorMessage": to_wire(ERROR), "errorType": "CorruptImageError", "stackTrace": ["secret.py"]}),
    ],
    ids=["worker", "function"],
)
def test_our_errors_are_explained_in_full_without_their_stack_trace(cause: str) -> None:
    assert explain({"Error": "CorruptImageError", "Cause": cause}) == ERROR.facts()


def test_an_unexpected_error_is_explained_by_its_message_without_its_stack_trace() -> None:
    cause = json.dumps({"errorMessage": "division by zero", "errorType": "ZeroDivisionError", "stackTrace": ["x.py"]})
    facts = explain({"Error": "ZeroDivisionError", "Cause": cause})
    assert facts["error"] == "ZeroDivisionError"
    assert "division by zero" in facts["message"]
    assert "x.py" not in json.dumps(facts)


def test_a_timeout_without_a_cause_is_explained() -> None:
    facts = explain({"Error": "States.Timeout"})
    assert "timed out" in facts["message"] and facts["remedy"]


def test_a_timeout_of_validate_is_a_permanent_error_about_the_image() -> None:
    caught = {"Error": "Sandbox.Timedout", "Cause": json.dumps({"errorMessage": "Task timed out after 120.00 seconds"})}
    facts = explain(caught, "Validate")
    assert (facts["error"], facts["field"]) == (DecodingLimitError.__name__, "image")
    assert "120.00 seconds" in facts["value"] and "save it again" in facts["remedy"]
    assert explain(caught, "Encode")["error"] == "Sandbox.Timedout"


def test_the_longest_cause_is_shortened_to_fit_into_the_fail_state() -> None:
    assert len(explain({"Error": "Boom", "Cause": "x" * 32_768})["message"]) < 3000


@given(st.text(), st.text() | st.recursive(st.none() | st.integers(), st.lists).map(json.dumps))
def test_every_caught_error_can_be_explained(error: str, cause: str) -> None:
    assert {"error", "message", "field", "value", "remedy"} == explain({"Error": error, "Cause": cause}).keys()


def test_the_failure_of_a_second_attempt_is_not_fatal() -> None:
    second, fatal = {"Error": "Runtime.ExitError"}, {"Error": "StorageDeniedError"}
    assert fatal_errors({"failed": {"Encode": fatal}}) == [("Encode", fatal)]
    failed = {"Refine": second, "Encode": fatal}
    assert fatal_errors({"failed": failed, "degraded": {"Refine": second}}) == [("Encode", fatal)]
    assert fatal_errors({"failed": {"Refine": second}, "degraded": {"Refine": second}}) == fatal_errors({}) == []


def test_the_source_of_a_rejected_upload_is_read_from_the_event() -> None:
    assert source_of(STATE["input"]) == {"bucket": "uploads", "key": "photos/cup.png", "version_id": None}


def test_the_source_of_a_validated_job_is_read_from_the_state() -> None:
    source = {"bucket": "uploads", "key": "photos/cup.png", "version_id": "v1"}
    assert source_of({"source": {**source, "sha256": "0" * 64}}) == source


JSON = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@pytest.mark.parametrize("key", ["k" * 1025, "é" * 513, "\ud800", 7, None], ids=repr)
def test_a_key_that_s3_does_not_allow_is_none(key: Any) -> None:
    assert source_of({"source": {"bucket": "uploads", "key": key}})["key"] is None


@pytest.mark.slow
@given(JSON, JSON)
def test_any_rejected_request_has_a_source(source: Any, detail: Any) -> None:
    facts = source_of({"source": source, "detail": detail})
    assert all(value is None or isinstance(value, str) for value in facts.values())


@given(st.text(), st.text(), JSON)
def test_every_caught_error_fits_into_a_report(error: str, cause: str, source: Any) -> None:
    document = {
        "status": "FAILED",
        "stage": "Refine",
        **explain({"Error": error, "Cause": cause}),
        "options": {},
        "execution": {"id": "arn", "name": "6f3a", "started_at": "2026-01-05T10:00:00.000Z"},
        "source": source_of({"source": source}),
    }
    report = FailureReport.model_validate(document)
    assert json.dumps(report.model_dump()) == json.dumps(document)


@pytest.mark.parametrize("value", [None, True, 7, 0.5, "photo.jpg"], ids=repr)
def test_a_report_keeps_the_value_of_our_error(value: object) -> None:
    caught = {
        "Error": "CorruptImageError",
        "Cause": to_wire(CorruptImageError("Bad", field="a", value=value, remedy="b")),
    }
    assert json.dumps(explain(caught)["value"]) == json.dumps(value)


@pytest.mark.parametrize("more", [{"extra": 1}, {"value": [1]}, {"error": None}], ids=str)
def test_a_cause_that_only_resembles_our_errors_is_unexpected(more: dict[str, Any]) -> None:
    assert explain({"Error": "Boom", "Cause": json.dumps({**ERROR.facts(), **more})})["error"] == "Boom"
