"""Rules of the Amazon States Language that asl-validator does not check, for the states of all machines."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

MACHINES = {path.name: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "statemachine").glob("*.asl.yaml"))}
REFERENCE_PATH = re.compile(r"\$(\.\w+|\[\d+\]|\['[^']+'\])*")
PREDEFINED = {
    "States.ALL",
    "States.BranchFailed",
    "States.DataLimitExceeded",
    "States.ExceedToleratedFailureThreshold",
    "States.HeartbeatTimeout",
    "States.Http.Socket",
    "States.IntrinsicFailure",
    "States.ItemReaderFailed",
    "States.NoChoiceMatched",
    "States.ParameterPathFailure",
    "States.Permissions",
    "States.QueryEvaluationError",
    "States.ResultPathMatchFailure",
    "States.ResultWriterFailed",
    "States.Runtime",
    "States.TaskFailed",
    "States.Timeout",
}


def states_of(machine: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the states of a machine, with those of branches and maps."""
    for name, state in machine["States"].items():
        yield name, state
        for inner in [*state.get("Branches", []), *filter(None, [state.get("ItemProcessor")])]:
            yield from states_of(inner)


STATES = [
    pytest.param(state, id=f"{machine}-{name}")
    for machine, definition in MACHINES.items()
    for name, state in states_of(definition)
    if state["Type"] in {"Task", "Parallel", "Map"}
]


@pytest.mark.parametrize("state", STATES)
def test_all_errors_are_matched_alone_and_last(state: dict[str, Any]) -> None:
    for clauses in (state.get("Retry", []), state.get("Catch", [])):
        assert all("States.ALL" not in clause["ErrorEquals"] for clause in clauses[:-1])
        assert all(
            clause["ErrorEquals"] == ["States.ALL"] for clause in clauses if "States.ALL" in clause["ErrorEquals"]
        )


@pytest.mark.parametrize("state", STATES)
def test_names_of_errors_are_those_of_step_functions(state: dict[str, Any]) -> None:
    names = {name for clause in [*state.get("Retry", []), *state.get("Catch", [])] for name in clause["ErrorEquals"]}
    assert {name for name in names if name.startswith("States.")} <= PREDEFINED


@pytest.mark.parametrize("state", STATES)
def test_a_retry_waits_and_backs_off(state: dict[str, Any]) -> None:
    for retrier in state.get("Retry", []):
        assert retrier["IntervalSeconds"] >= 1 and retrier["BackoffRate"] >= 1
        assert retrier["IntervalSeconds"] < retrier["MaxDelaySeconds"] < 31_622_400
        assert retrier["JitterStrategy"] == "FULL"


@pytest.mark.parametrize("state", STATES)
def test_a_caught_error_has_a_reference_path(state: dict[str, Any]) -> None:
    for catcher in state.get("Catch", []):
        assert REFERENCE_PATH.fullmatch(catcher["ResultPath"])


@pytest.mark.parametrize("state", STATES)
def test_a_heartbeat_is_due_before_the_timeout(state: dict[str, Any]) -> None:
    assert state.get("HeartbeatSeconds", 0) < state.get("TimeoutSeconds", 1)


@pytest.mark.parametrize("state", STATES)
def test_a_map_run_has_a_label_that_step_functions_accepts(state: dict[str, Any]) -> None:
    assert re.fullmatch(r"[\w-]{0,40}", state.get("Label", ""))
