import json
from typing import Any

import pytest

from client.executions.steps import Step, degradations_of, failure_of, newest_state, steps_of
from functions.contracts.history import REDACTED, redact, rows
from tests.fakes.stack_in_memory import History
from tests.state_machine import STATES

JOB = {"execution": {"name": "a"}, "keys": {"mask": "work/m"}}
FACTS = {"error": "CorruptImageError", "message": "damaged", "field": "f", "value": "v", "remedy": "save it again"}


def facts(steps: list[Step]) -> list[tuple[str, str, float | None]]:
    return [(step.name, step.outcome, step.seconds and round(step.seconds, 3)) for step in steps]


def test_steps_have_outcome_and_duration() -> None:
    history = History().task("Validate", ms=40).enter("Refine").attempt()
    assert facts(steps_of(history.events)) == [("Validate", "succeeded", 0.043), ("Refine", "running", None)]


def test_steps_have_data_and_attempts() -> None:
    history = History().enter("Refine", data={"a": 1})
    scheduled = {"resourceType": "lambda", "resource": "invoke", "parameters": json.dumps({"Payload": {"a": 1}})}
    history.add("TaskScheduled", taskScheduledEventDetails=scheduled).add("TaskStarted")
    history.fail("StorageUnavailableError", "later", ms=500)
    history.add("TaskScheduled", taskScheduledEventDetails=scheduled).add("TaskStarted").add("TaskSucceeded", ms=250)
    [step] = steps_of(history.exit("Refine", data={"b": 2}).events)
    assert (step.input, step.parameters, step.output) == ({"a": 1}, {"Payload": {"a": 1}}, {"b": 2})
    assert [round(attempt.seconds, 3) for attempt in step.attempts] == [0.5, 0.25]
    assert step.errors == ["StorageUnavailableError: later"] and step.resource == "lambda:invoke"
    assert step.outcome == "succeeded"


def test_a_caught_error_is_no_failure_of_the_execution() -> None:
    history = History().enter("Validate").attempt().fail("E", "c").exit("Validate").enter("KeepRawInput", "Pass")
    assert [step.outcome for step in steps_of(history.events)] == ["caught", "running"]


@pytest.mark.parametrize(
    ("last", "outcome"),
    [("ExecutionFailed", "failed"), ("ExecutionTimedOut", "failed"), ("ExecutionAborted", "failed")],
)
def test_an_uncaught_error_fails_its_step(last: str, outcome: str) -> None:
    history = History().enter("Refine").attempt().fail("E", "c").add(last)
    assert steps_of(history.events)[0].outcome == outcome


def test_a_step_that_was_running_at_the_end_was_stopped() -> None:
    history = History().task("Validate").enter("WaitForOwner", "Wait").add("ExecutionTimedOut", ms=900)
    assert facts(steps_of(history.events))[1] == ("WaitForOwner", "stopped", 0.9)


def branches(history: History) -> History:
    """Two branches at the same time, as Step Functions writes them: the events refer to their branch."""
    history.enter("P", "Parallel").add("ParallelStateStarted")
    start = history.events[-1]["id"]
    history.enter("A", "Wait")
    a = history.events[-1]["id"]
    history.add("PassStateEntered", previousEventId=start, stateEnteredEventDetails={"name": "B"})
    history.exit("B", "Pass")
    history.add("WaitStateExited", ms=70, previousEventId=a, stateExitedEventDetails={"name": "A"})
    return history.add("ParallelStateSucceeded").exit("P", "Parallel").enter("Next", "Pass")


def test_steps_of_branches_belong_to_their_state() -> None:
    parallel, a, b, following = steps_of(branches(History()).events)
    assert (a.parent, b.parent, following.parent) == (parallel.id, parallel.id, None)
    assert (a.outcome, b.outcome, parallel.outcome, following.outcome) == (*["succeeded"] * 3, "running")
    assert a.seconds == pytest.approx(0.072)


def test_a_failed_branch_stops_the_others() -> None:
    history = History().enter("P", "Parallel").add("ParallelStateStarted").enter("A", "Wait")
    start = history.events[-2]["id"]
    history.add("TaskStateEntered", previousEventId=start, stateEnteredEventDetails={"name": "B"}).attempt()
    history.fail("E", "c").add("ParallelStateFailed").exit("P", "Parallel")
    parallel, a, b = steps_of(history.events)
    assert (parallel.outcome, a.outcome, b.outcome) == ("caught", "stopped", "stopped")
    assert b.errors == ["E: c"]


def test_a_redrive_continues_the_step_that_failed() -> None:
    history = History().enter("Refine").attempt().fail("E", "c").add("ExecutionFailed").add("ExecutionRedriven")
    history.add("TaskScheduled", taskScheduledEventDetails={"resourceType": "lambda", "resource": "invoke"})
    history.events[-2]["previousEventId"] = history.events[-4]["id"]
    [step] = steps_of(history.events)
    assert step.outcome == "running"
    [step] = steps_of(history.add("TaskSucceeded").exit("Refine").events)
    assert (step.outcome, len(step.attempts)) == ("succeeded", 2)


@pytest.mark.parametrize("name", ["token", "Token", "TaskToken", "taskToken", "task_token"])
def test_task_tokens_are_redacted_at_any_depth(name: str) -> None:
    data = {"MessageBody": [{name: "AQCEAAAA", "job": {"token_count": 3}}]}
    assert redact(data) == {"MessageBody": [{name: REDACTED, "job": {"token_count": 3}}]}


def names_of_tokens(value: Any) -> list[str]:
    """Return the names under which a definition sends task tokens."""
    if isinstance(value, dict):
        own = [name.removesuffix(".$") for name, item in value.items() if item == "$$.Task.Token"]
        return own + [name for item in value.values() for name in names_of_tokens(item)]
    return [name for item in value for name in names_of_tokens(item)] if isinstance(value, list) else []


def test_names_of_tokens_in_the_state_machine_are_redacted() -> None:
    found = [name for state in STATES.values() for name in names_of_tokens(state.get("Parameters", {}))]
    assert len(found) >= 2 and all(redact({name: "AQCEAAAA"})[name] == REDACTED for name in found)


def test_no_step_and_no_row_has_a_token() -> None:
    secret = json.dumps({"MessageBody": {"token": "AQCEAAAA"}})
    history = History().enter("SegmentOnEcs", data={"token": "AQCEAAAA"})
    details = {"resourceType": "sqs", "resource": "sendMessage.waitForTaskToken", "parameters": secret}
    history.add("TaskScheduled", taskScheduledEventDetails=details).exit(
        "SegmentOnEcs", data={"x": {"token": "AQCEAAAA"}}
    )
    assert "AQCEAAAA" not in repr(steps_of(history.events)) + repr(rows(history.events))
    assert REDACTED in repr(steps_of(history.events))


def test_newest_state_is_that_of_the_last_stage() -> None:
    history = History().enter("Validate", data={"detail": {}}).exit("Validate", data=JOB)
    history.enter("Refine", data=JOB).exit("Refine", data={**JOB, "refine": {}}).enter("Done", "Succeed")
    assert newest_state(steps_of(history.events)) == {**JOB, "refine": {}}
    assert newest_state(steps_of(History().enter("Validate", data={"detail": {}}).events)) == {}


def test_failure_is_that_of_the_report() -> None:
    failure = {"stage": "Validate", "report_key": "failed/a.jpg.json", "facts": {"stage": "Validate", **FACTS}}
    history = History().enter("Failed", "Fail", data={"failure": failure}).add("ExecutionFailed")
    found = failure_of({"status": "FAILED"}, steps_of(history.events))
    assert found and (found.stage, found.remedy, found.key) == ("Validate", "save it again", "failed/a.jpg.json")


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"status": "TIMED_OUT"}, "The execution timed out"),
        ({"status": "ABORTED"}, "The execution was stopped"),
        ({"status": "ABORTED", "error": "Mine", "cause": "x"}, "The stage failed unexpectedly: x"),
        ({"status": "FAILED", "error": "States.Timeout"}, "The stage timed out"),
    ],
)
def test_failure_without_report_is_explained(described: dict[str, Any], message: str) -> None:
    history = History().task("Validate").enter("Refine").attempt().add("ExecutionFailed")
    found = failure_of(described, steps_of(history.events))
    assert found and (found.stage, found.message, found.key) == ("Refine", message, None) and found.remedy


@pytest.mark.parametrize("status", ["RUNNING", "SUCCEEDED"])
def test_other_executions_have_no_failure(status: str) -> None:
    assert failure_of({"status": status}, []) is None


def test_fallback_and_failed_second_attempt_are_degradations() -> None:
    caught = {"Error": "States.HeartbeatTimeout", "Cause": ""}
    found = degradations_of({"fallback": {"SegmentOnEcs": caught}, "degraded": {"SaveCache": caught}})
    assert [(one.stage, one.error) for one in found] == [
        ("SegmentOnEcs", "States.HeartbeatTimeout"),
        ("SaveCache", "States.HeartbeatTimeout"),
    ]
    assert found[0].consequence == "Segmentation ran on Lambda instead." and "next upload" in found[1].consequence
    assert degradations_of({}) == []
