"""Each error that the definition names, thrown at each state that names it: retried and then good, or not retried."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.integration.machine.conftest import Deployed
from tests.integration.machine.mocks import GOOD_CASE, PERMANENT, RETRIED, case_of, create_machine, run_case
from tests.state_machine import ANSWERABLE, STATES

Outcome = tuple[dict[str, Any], list[str]]


@pytest.fixture(scope="module")
def outcomes(stack: Deployed) -> dict[str, Outcome]:
    """All cases, run side by side: each waits out a back-off or two."""
    machine_arn = create_machine(stack.sfn)
    cases = [case_of("Once", *pair) for pair in RETRIED] + [case_of("Always", *pair) for pair in PERMANENT]
    with ThreadPoolExecutor(16) as pool:
        return dict(zip(cases, pool.map(lambda case: run_case(stack.sfn, machine_arn, case), cases), strict=True))


@pytest.mark.parametrize(("state", "error"), RETRIED)
def test_a_transient_error_is_retried_and_then_good(outcomes: dict[str, Outcome], state: str, error: str) -> None:
    described, states = outcomes[case_of("Once", state, error)]
    assert states.count(state) == 1, "a retry is no new visit"
    fails_anyway = GOOD_CASE[state] in {"NoSubject", "NotAPicture"}
    assert ("RecordFailure" in states) == fails_anyway
    assert described["status"] == ("FAILED" if fails_anyway else "SUCCEEDED")


@pytest.mark.parametrize(("state", "error"), PERMANENT)
def test_a_permanent_error_is_caught_at_once(outcomes: dict[str, Outcome], state: str, error: str) -> None:
    described, states = outcomes[case_of("Always", state, error)]
    catching = ANSWERABLE[state]
    catcher = next(c for c in STATES[catching]["Catch"] if {error, "States.ALL"} & set(c["ErrorEquals"]))
    ways = [name for name in states if ANSWERABLE[name] == name]
    assert ways[ways.index(catching) + 1] == catcher["Next"]
    if catcher["Next"] in {"RecordFailure", "SecondAttempt?"}:
        assert (described["status"], states[-1]) == ("FAILED", "Failed")
