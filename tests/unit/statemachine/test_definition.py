"""Properties of the state machines that linters do not check, and their agreement with the code."""

import re
from typing import Any

import pytest

from core.errors import PermanentError, TransientError
from tests.state_machine import (
    ANSWERABLE,
    DEFINITION,
    DELIVERY,
    OF_A_DELIVERY,
    STATES,
    STATES_OF_BOTH,
    TASKS,
    TASKS_OF_BOTH,
    leaves,
    of_a_job,
    waits_s,
)

CATCHING = {name: state for name, state in STATES_OF_BOTH.items() if "Catch" in state}
LAMBDA_TASKS = {name: state for name, state in TASKS_OF_BOTH.items() if state["Resource"].endswith("lambda:invoke")}
PATIENT = {"Lambda.TooManyRequestsException", "WebhookUnansweredError"}
"""Errors that are retried for longer, because they take more than a minute to resolve."""


def names_in(clauses: list[dict[str, Any]]) -> set[str]:
    return {name for clause in clauses for name in clause["ErrorEquals"]}


def ours(names: set[str]) -> set[str]:
    return {name for name in names if "." not in name}


@pytest.mark.parametrize("name", TASKS_OF_BOTH)
def test_every_task_is_bounded_retried_and_caught(name: str) -> None:
    task = TASKS_OF_BOTH[name]
    assert task["TimeoutSeconds"] > task.get("HeartbeatSeconds", 0)
    assert task["Retry"]
    assert STATES_OF_BOTH[ANSWERABLE.get(name, name)]["Catch"][-1]["ErrorEquals"] == ["States.ALL"], (
        "the last Catch handles all other errors"
    )


@pytest.mark.parametrize("name", TASKS_OF_BOTH)
def test_every_retry_backs_off_with_a_cap_and_full_jitter(name: str) -> None:
    for retrier in TASKS_OF_BOTH[name]["Retry"]:
        assert retrier["BackoffRate"] >= 2
        assert isinstance(retrier["BackoffRate"], float), "statelint rejects integers"
        assert retrier["JitterStrategy"] == "FULL"
        assert retrier["IntervalSeconds"] <= retrier["MaxDelaySeconds"]
        assert 1 <= retrier["MaxAttempts"] <= (15 if PATIENT & set(retrier["ErrorEquals"]) else 6)


@pytest.mark.parametrize("name", TASKS_OF_BOTH)
def test_neither_permanent_errors_nor_all_errors_are_retried(name: str) -> None:
    retried = names_in(TASKS_OF_BOTH[name]["Retry"])
    assert not retried & leaves(PermanentError)
    assert not retried & {"States.ALL", "States.TaskFailed"}


@pytest.mark.parametrize("name", CATCHING)
def test_a_caught_error_is_stored_under_the_name_of_its_state(name: str) -> None:
    for catcher in CATCHING[name]["Catch"]:
        if catcher["Next"] in {"RecordFailure", "SecondAttempt?"}:
            assert catcher["ResultPath"] == f"$.failed.{name}"
        elif catcher["ResultPath"].count(".") == 2:
            assert catcher["ResultPath"].endswith(f".{name}")


def test_only_validate_does_not_retry_timeouts_of_its_function() -> None:
    retrying = {name for name in LAMBDA_TASKS if "Sandbox.Timedout" in names_in(LAMBDA_TASKS[name]["Retry"])}
    assert set(LAMBDA_TASKS) - retrying == {"Validate"}
    assert {"States.Timeout", "Runtime.ExitError"} <= names_in(LAMBDA_TASKS["Validate"]["Retry"])


def test_error_names_match_the_error_classes() -> None:
    retried = ours({name for task in TASKS_OF_BOTH.values() for name in names_in(task["Retry"])})
    caught = ours({name for state in CATCHING.values() for name in names_in(state["Catch"])})
    assert retried == leaves(TransientError)
    assert caught == of_a_job(PermanentError), "a delivery handles all errors that it does not retry in the same way"


def test_no_state_of_a_job_retries_delivery_errors() -> None:
    assert not OF_A_DELIVERY & ours({name for task in TASKS.values() for name in names_in(task["Retry"])})
    assert leaves(TransientError) | leaves(PermanentError) >= OF_A_DELIVERY


@pytest.mark.parametrize("name", LAMBDA_TASKS)
def test_every_function_retries_storage_and_lambda_service_errors(name: str) -> None:
    retried = names_in(LAMBDA_TASKS[name]["Retry"])
    storage = set() if name in DELIVERY["States"] else {"StorageUnavailableError"}  # a delivery uses no storage
    assert {"Lambda.ServiceException", "Lambda.TooManyRequestsException"} | storage <= retried


@pytest.mark.parametrize("name", LAMBDA_TASKS)
def test_throttled_and_inactive_functions_are_retried_for_minutes(name: str) -> None:
    [patient] = [r for r in LAMBDA_TASKS[name]["Retry"] if "Lambda.TooManyRequestsException" in r["ErrorEquals"]]
    assert {"Lambda.CodeArtifactUserPendingException", "Lambda.ResourceConflictException"} <= set(
        patient["ErrorEquals"]
    )
    assert sum(waits_s(patient)) / 2 > 300, "full jitter halves the average wait"


def test_a_throttled_owner_check_waits_again() -> None:
    [catcher] = [c for c in TASKS["CheckOwner"]["Catch"] if "Sfn.SfnException" in c["ErrorEquals"]]
    assert catcher["Next"] == "WaitedBefore?"


def test_every_state_is_reachable() -> None:
    reachable, todo = set(), [DEFINITION["StartAt"], DELIVERY["StartAt"]]
    while todo:
        name = todo.pop()
        if name not in reachable:
            reachable.add(name)
            todo += re.findall(r"'(?:Next|Default|StartAt)': '([^']+)'", str(STATES_OF_BOTH[name]))
    assert reachable == set(STATES_OF_BOTH)


def test_an_unresponsive_receiver_is_retried_for_hours() -> None:
    [patient] = [r for r in DELIVERY["States"]["Deliver"]["Retry"] if "WebhookUnansweredError" in r["ErrorEquals"]]
    assert sum(waits_s(patient)) / 2 > 3 * 3600, "full jitter halves the average wait"
    assert waits_s(patient)[0] <= 10, "the first retry is soon"


HOSTS = [name for name in STATES if name.startswith("SegmentOn")]


@pytest.mark.parametrize("name", [*HOSTS, "Refine"])
def test_a_failed_second_attempt_keeps_the_first(name: str) -> None:
    ends = {catcher["Next"] for catcher in STATES[name]["Catch"]} - set(HOSTS)
    assert ends <= {"SecondAttempt?"}


@pytest.mark.parametrize("name", sorted(set(HOSTS) - {"SegmentOnLambda"}))
def test_permanent_errors_of_a_host_do_not_fall_back_to_lambda(name: str) -> None:
    [permanent, *others] = STATES[name]["Catch"]
    if name == "SegmentOnSageMaker":  # it returns all container errors under one name
        assert permanent["Next"] == "SegmentOnLambda"
    else:
        assert set(permanent["ErrorEquals"]) == of_a_job(PermanentError) - {"WorkerCrashedError"}
        assert permanent["Next"] == "SecondAttempt?"
    assert {catcher["Next"] for catcher in others} <= {"SegmentOnLambda"}
