"""What no linter checks of the state machines, and what has to agree with the code."""

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
"""What is tried again for longer than the rest: it passes, but not within a minute."""


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
        "what nobody named is caught last"
    )


@pytest.mark.parametrize("name", TASKS_OF_BOTH)
def test_every_retry_backs_off_with_a_cap_and_full_jitter(name: str) -> None:
    for retrier in TASKS_OF_BOTH[name]["Retry"]:
        assert retrier["BackoffRate"] >= 2
        assert retrier["JitterStrategy"] == "FULL"
        assert retrier["IntervalSeconds"] <= retrier["MaxDelaySeconds"]
        assert 1 <= retrier["MaxAttempts"] <= (15 if PATIENT & set(retrier["ErrorEquals"]) else 6)


@pytest.mark.parametrize("name", TASKS_OF_BOTH)
def test_no_permanent_error_is_retried_and_all_is_never_retried_wholesale(name: str) -> None:
    retried = names_in(TASKS_OF_BOTH[name]["Retry"])
    assert not retried & leaves(PermanentError)
    assert not retried & {"States.ALL", "States.TaskFailed"}


@pytest.mark.parametrize("name", CATCHING)
def test_an_error_is_caught_under_the_name_of_the_state_that_failed(name: str) -> None:
    for catcher in CATCHING[name]["Catch"]:
        if catcher["Next"] in {"RecordFailure", "SecondAttempt?"}:
            assert catcher["ResultPath"] == f"$.failed.{name}"
        elif catcher["ResultPath"].count(".") == 2:
            assert catcher["ResultPath"].endswith(f".{name}")


def test_names_of_our_errors_agree_with_the_code_both_ways() -> None:
    retried = ours({name for task in TASKS_OF_BOTH.values() for name in names_in(task["Retry"])})
    caught = ours({name for state in CATCHING.values() for name in names_in(state["Catch"])})
    assert retried == leaves(TransientError)
    assert caught == of_a_job(PermanentError), "a delivery makes the same of all that it does not try again"


def test_no_state_of_a_job_waits_for_what_only_a_delivery_meets() -> None:
    assert not OF_A_DELIVERY & ours({name for task in TASKS.values() for name in names_in(task["Retry"])})
    assert leaves(TransientError) | leaves(PermanentError) >= OF_A_DELIVERY


@pytest.mark.parametrize("name", LAMBDA_TASKS)
def test_storage_that_fails_and_a_lambda_service_that_fails_are_retried_in_every_function(name: str) -> None:
    retried = names_in(LAMBDA_TASKS[name]["Retry"])
    storage = set() if name in DELIVERY["States"] else {"StorageUnavailableError"}  # a delivery reads nothing of it
    assert {"Lambda.ServiceException", "Lambda.TooManyRequestsException"} | storage <= retried


@pytest.mark.parametrize("name", LAMBDA_TASKS)
def test_a_throttled_function_is_waited_for_through_a_burst_and_a_resting_one_until_it_is_back(name: str) -> None:
    [patient] = [r for r in LAMBDA_TASKS[name]["Retry"] if "Lambda.TooManyRequestsException" in r["ErrorEquals"]]
    assert {"Lambda.CodeArtifactUserPendingException", "Lambda.ResourceConflictException"} <= set(
        patient["ErrorEquals"]
    )
    assert sum(waits_s(patient)) / 2 > 300, "full jitter waits half as long on average"


def test_who_waits_for_an_owner_survives_a_throttled_question() -> None:
    [catcher] = [c for c in TASKS["CheckOwner"]["Catch"] if "Sfn.SfnException" in c["ErrorEquals"]]
    assert catcher["Next"] == "WaitedBefore?"


def test_no_state_is_left_over() -> None:
    reachable, todo = set(), [DEFINITION["StartAt"], DELIVERY["StartAt"]]
    while todo:
        name = todo.pop()
        if name not in reachable:
            reachable.add(name)
            todo += re.findall(r"'(?:Next|Default|StartAt)': '([^']+)'", str(STATES_OF_BOTH[name]))
    assert reachable == set(STATES_OF_BOTH)


def test_a_receiver_that_does_not_answer_is_asked_for_hours() -> None:
    [patient] = [r for r in DELIVERY["States"]["Deliver"]["Retry"] if "WebhookUnansweredError" in r["ErrorEquals"]]
    assert sum(waits_s(patient)) / 2 > 3 * 3600, "full jitter waits half as long on average"
    assert waits_s(patient)[0] <= 10, "most are asked again soon"


HOSTS = [name for name in STATES if name.startswith("SegmentOn")]


@pytest.mark.parametrize("name", [*HOSTS, "Refine"])
def test_what_fails_in_a_second_attempt_cannot_lose_the_first(name: str) -> None:
    ends = {catcher["Next"] for catcher in STATES[name]["Catch"]} - set(HOSTS)
    assert ends <= {"SecondAttempt?"}


@pytest.mark.parametrize("name", sorted(set(HOSTS) - {"SegmentOnLambda"}))
def test_permanent_errors_of_a_host_s_own_are_not_tried_again_on_lambda(name: str) -> None:
    [permanent, *others] = STATES[name]["Catch"]
    if name == "SegmentOnSageMaker":  # its container's errors arrive under one name
        assert permanent["Next"] == "SegmentOnLambda"
    else:
        assert set(permanent["ErrorEquals"]) == of_a_job(PermanentError) - {"WorkerCrashedError"}
        assert permanent["Next"] == "SecondAttempt?"
    assert {catcher["Next"] for catcher in others} <= {"SegmentOnLambda"}
