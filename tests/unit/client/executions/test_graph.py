import re
from itertools import pairwise
from typing import Any

import pytest

from client.executions import graph
from client.executions.steps import Step, steps_of
from tests.fakes.stack_in_memory import History
from tests.state_machine import DEFINITION


def nodes(dot: str) -> dict[str, str]:
    """Return the attributes of each node."""
    return dict(re.findall(r'^"([^"]+)" \[(label=.*)\]$', dot, re.MULTILINE))


def edges(dot: str) -> dict[tuple[str, str], str]:
    return {(a, b): facts for a, b, facts in re.findall(r'^"([^"]+)" -> "([^"]+)" \[(.*)\]$', dot, re.MULTILINE)}


def failed_upload() -> list[Step]:
    history = History().enter("Validate").attempt().fail("StorageUnavailableError", "later", ms=200).attempt()
    history.fail("CorruptImageError", "damaged", ms=800).exit("Validate")
    history.enter("KeepRawInput", "Pass").exit("KeepRawInput", "Pass").task("RecordFailure", ms=50)
    history.enter("HoldsClaim?", "Choice").exit("HoldsClaim?", "Choice").task("PublishMetrics")
    history.enter("Outcome?", "Choice").exit("Outcome?", "Choice").enter("Failed", "Fail").add("ExecutionFailed")
    return steps_of(history.events)


def test_only_the_states_that_were_entered_are_drawn() -> None:
    drawn = graph.dot(DEFINITION, failed_upload(), every_state=False)
    path = ["Validate", "KeepRawInput", "RecordFailure", "HoldsClaim?", "PublishMetrics", "Outcome?", "Failed"]
    assert sorted(nodes(drawn)) == sorted(path)
    assert sorted(edges(drawn)) == sorted(pairwise(path))


def test_a_state_shows_outcome_duration_and_retries() -> None:
    drawn = nodes(graph.dot(DEFINITION, failed_upload(), every_state=False))
    assert r"Validate\nfailed, handled, 1.00 s, 1 retry" in drawn["Validate"]
    assert r"RecordFailure\n53 ms" in drawn["RecordFailure"]
    assert 'label="HoldsClaim?"' in drawn["HoldsClaim?"], "a Choice takes no time"


def test_the_state_that_made_the_execution_fail_has_failed() -> None:
    drawn = nodes(graph.dot(DEFINITION, failed_upload(), every_state=False, blamed="Validate"))
    assert r"Validate\nfailed, 1.00 s, 1 retry" in drawn["Validate"]
    assert "#b3261e" in drawn["Validate"] and "#b3261e" not in drawn["RecordFailure"]


def test_states_that_were_not_entered_are_gray() -> None:
    drawn = graph.dot(DEFINITION, failed_upload(), every_state=True)
    inside = {"AwaitMask", "FindRequest", "InvokeEndpoint"}
    assert set(nodes(drawn)) == set(DEFINITION["States"]) | inside
    assert "#e6e9e8" in nodes(drawn)["Refine"] and "#e6e9e8" not in nodes(drawn)["Validate"]
    caught = edges(drawn)["Validate", "KeepRawInput"]
    assert "dashed" in caught and "1.8" in caught
    assert "0.8" in edges(drawn)["Validate", "ClaimWork"]
    assert ("SegmentOnSageMakerAsync", "AwaitMask") in edges(drawn)


def test_every_transition_of_the_definition_is_drawn_once() -> None:
    lines = [line for line in graph.dot(DEFINITION, [], every_state=True).splitlines() if "->" in line]
    assert len(lines) == len({line.split("[")[0] for line in lines})
    drawn = edges("\n".join(lines))
    assert ("CacheHit?", "CheckOwner") in drawn and ("CacheHit?", "ServeCached") in drawn
    assert ("ServeCached", "TakeOverClaim") in drawn, "of two Catches"


@pytest.mark.parametrize(
    ("processor"), [{"ItemProcessor": {"StartAt": "X", "States": {"X": {"Type": "Pass", "End": True}}}}]
)
def test_branches_of_a_map_are_drawn_inside_it(processor: dict[str, Any]) -> None:
    machine = {"StartAt": "M", "States": {"M": {"Type": "Map", **processor, "End": True}}}
    history = History().enter("M", "Map").add("MapStateStarted").add("MapIterationStarted")
    history.enter("X", "Pass").exit("X", "Pass").add("MapIterationSucceeded").add("MapStateSucceeded")
    drawn = graph.dot(machine, steps_of(history.exit("M", "Map").events), every_state=False)
    assert ("M", "X") in edges(drawn) and "M: each item" in drawn


def test_text_alternative_names_the_states_in_order() -> None:
    text = graph.summary(failed_upload())
    assert (
        text.index("Validate (failed, handled, 1.00 s, 1 retry)") < text.index("RecordFailure") < text.index("Failed")
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "40 ms"), (2.309, "2.31 s"), (31.25, "31.2 s"), (250.2, "4 min 10 s"), (7500, "2 h 5 min")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert graph.duration(seconds) == text


def test_names_are_quoted() -> None:
    name = 'a "quoted" \\ name'
    drawn = graph.dot({"States": {name: {"Type": "Pass", "End": True}}}, [], every_state=True)
    assert r'"a \"quoted\" \\ name"' in drawn
