import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.errors import ExecutionNotFoundError
from client.history import LONGEST_S, StageReader, find, named
from functions.contracts.history import rows
from tests.fakes.stack_in_memory import MACHINE, Executions, History, stack, uploaded
from tests.state_machine import DEFINITION


def stage_events(history: History) -> list[tuple[str, str, str]]:
    return [(event.stage, event.kind, event.detail) for event in StageReader().read(history.events)]


def wire(error: str, message: str, remedy: str) -> str:
    facts = {"error": error, "message": message, "field": "f", "value": 1, "remedy": remedy}
    return json.dumps({"errorType": error, "errorMessage": json.dumps(facts), "stackTrace": []})


def finished() -> History:
    return (
        History()
        .task("Validate")
        .enter("CacheHit?", "Choice")
        .exit("CacheHit?", "Choice")
        .enter("SegmentOnLambda")
        .attempt()
        .fail("StorageUnavailableError", "later")
        .attempt()
        .add("TaskSucceeded")
        .exit("SegmentOnLambda")
        .add("ExecutionSucceeded")
    )


def test_task_and_wait_states_are_stages() -> None:
    history = History().enter("CacheHit?", "Choice").exit("CacheHit?", "Choice")
    history.enter("WaitForOwner", "Wait").exit("WaitForOwner", "Wait").task("Validate")
    assert stage_events(history) == [
        ("WaitForOwner", "started", ""),
        ("WaitForOwner", "finished", ""),
        ("Validate", "started", ""),
        ("Validate", "finished", ""),
    ]


@pytest.mark.parametrize("ended", ["ParallelStateSucceeded", "ParallelStateFailed"])
def test_a_parallel_state_is_one_stage(ended: str) -> None:
    history = History().enter("SegmentOnSageMakerAsync", "Parallel").add("ParallelStateStarted")
    history.enter("AwaitMask").attempt().task("FindRequest").task("InvokeEndpoint")
    if ended == "ParallelStateFailed":
        history.fail("UnknownForegroundError", "no subject")
    else:
        history.add("TaskSucceeded").exit("AwaitMask")
    history.add(ended).exit("SegmentOnSageMakerAsync", "Parallel")
    assert stage_events(history) == [
        ("SegmentOnSageMakerAsync", "started", ""),
        ("SegmentOnSageMakerAsync", "finished", "")
        if ended == "ParallelStateSucceeded"
        else ("SegmentOnSageMakerAsync", "failed", "UnknownForegroundError: no subject"),
    ]


def test_stage_duration_includes_all_attempts() -> None:
    history = History().enter("Refine").attempt().fail("E", "c", ms=500).attempt().add("TaskSucceeded", ms=500)
    *_, last = StageReader().read(history.exit("Refine").events)
    assert last.kind == "finished" and last.seconds == pytest.approx(1.005)


def test_a_retried_stage_has_one_retry_event() -> None:
    assert ("SegmentOnLambda", "retried", "StorageUnavailableError: later") in stage_events(finished())
    assert [kind for stage, kind, _ in stage_events(finished()) if stage == "SegmentOnLambda"] == [
        "started",
        "retried",
        "finished",
    ]


def test_a_caught_error_has_message_and_remedy() -> None:
    history = History().enter("Validate").attempt()
    history.fail("EmptyImageError", wire("EmptyImageError", "The file is empty", "Send another.")).exit("Validate")
    assert stage_events(history)[-1] == ("Validate", "failed", "EmptyImageError: The file is empty. Send another.")


def test_an_uncaught_error_ends_execution_and_stage() -> None:
    history = (
        History().enter("Validate").attempt().add("TaskTimedOut", taskTimedOutEventDetails={"error": "States.Timeout"})
    )
    reader = StageReader()
    events = list(reader.read(history.add("ExecutionFailed").events))
    assert reader.ended and (events[-1].kind, events[-1].detail) == ("failed", "States.Timeout")


@pytest.mark.parametrize("kind", ["ExecutionSucceeded", "ExecutionFailed", "ExecutionAborted", "ExecutionTimedOut"])
def test_every_final_event_ends_the_history(kind: str) -> None:
    reader = StageReader()
    list(reader.read(History().task("Validate").events))
    assert not reader.ended
    list(reader.read(History().task("Validate").add(kind).events))
    assert reader.ended


@settings(max_examples=30)
@given(st.lists(st.integers(0, len(finished().events)), max_size=5))
def test_stage_events_do_not_depend_on_the_polling_times(looks: list[int]) -> None:
    events = finished().events
    reader = StageReader()
    read = [event for look in [*sorted(looks), len(events)] for event in reader.read(events[:look])]
    assert read == list(StageReader().read(events))


def test_event_rows_have_time_type_and_state() -> None:
    history = History().enter("Validate", data={"a": 1}).attempt().add("TaskSucceeded", ms=40)
    history.exit("Validate", data={"b": 2}).add("ExecutionSucceeded")
    table = rows(history.events)
    assert [(row.ms, row.type, row.state) for row in table] == [
        (0, "ExecutionStarted", ""),
        (1, "TaskStateEntered", "Validate"),
        (2, "TaskScheduled", "Validate"),
        (3, "TaskStarted", "Validate"),
        (43, "TaskSucceeded", "Validate"),
        (44, "TaskStateExited", "Validate"),
        (45, "ExecutionSucceeded", ""),
    ]
    assert (table[1].data, table[5].data, table[2].detail) == ({"a": 1}, {"b": 2}, "lambda:invoke")


def test_a_unique_prefix_finds_an_execution() -> None:
    executions = Executions()
    arns = {name: executions.add(name, {}) for name in ("abc", "abd", "ab")}
    deployed = stack(executions)
    assert find(deployed, "abc") == find(deployed, arns["abc"]) == arns["abc"]
    assert find(deployed, "ab") == arns["ab"], "a whole name is meant as one"
    with pytest.raises(ExecutionNotFoundError, match=r"3 executions .* Pass a longer prefix\.$"):
        find(deployed, "a")
    with pytest.raises(ExecutionNotFoundError, match=r"pbr history --match 'my horse\.jpg' --stack pbr --region"):
        find(deployed, "my horse.jpg")
    with pytest.raises(ExecutionNotFoundError, match="Pass an execution"):
        find(deployed, "")


def test_named_executions_are_summarized_once() -> None:
    executions = Executions()
    arn = executions.add("abc", uploaded("a.jpg", "1"))
    executions.add("xyz", uploaded("b.jpg", "1"))
    assert [one.source_key for one in named(stack(executions), ["x", arn, "abc"])] == ["b.jpg", "a.jpg"]


@pytest.mark.parametrize("arn", [f"{MACHINE.replace('stateMachine', 'execution')}:gone", "arn:aws:states:::other:abc"])
def test_executions_that_the_stack_does_not_have_are_an_error(arn: str) -> None:
    executions = Executions()
    executions.add("abc", {})
    with pytest.raises(ExecutionNotFoundError, match="90 days"):
        named(stack(executions), ["abc", arn])


def test_longest_duration_is_the_timeout_of_the_state_machine() -> None:
    assert DEFINITION["TimeoutSeconds"] == LONGEST_S
