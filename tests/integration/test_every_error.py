"""Each error that the definition names, thrown at each state that names it: retried and then good, or never retried."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml

from local.cloud import EmbeddedCloud
from tests.conftest import ROOT
from tests.integration.test_mocked_cases import EMPTY_TEMPLATE, MOCKS, Engine, definition

DEFINITION = yaml.safe_load((ROOT / "statemachine/remove_background.asl.yaml").read_text())["States"]
TASKS = {name: state for name, state in DEFINITION.items() if state["Type"] == "Task"}
CONFIG = json.loads(MOCKS.read_text())
RESPONSES = CONFIG["MockedResponses"]
TEST_CASES = CONFIG["StateMachines"]["RemoveBackground"]["TestCases"]
HAPPY = {state: case for case in reversed(TEST_CASES) for state in TEST_CASES[case]}
HAPPY |= {"CheckOwner": "OwnerGaveUp", "TakeOverClaim": "OwnerGaveUp", "PublishMetrics": "Processed"}

RETRIED = [
    (name, error) for name, task in TASKS.items() for retrier in task["Retry"] for error in retrier["ErrorEquals"]
]
PERMANENT = [
    *((name, error) for name in TASKS for error in ("UnknownForegroundError", "ZeroDivisionError")),
    *(("SegmentOnEcs", error) for error in TASKS["SegmentOnEcs"]["Catch"][0]["ErrorEquals"]),
]


def case_of(kind: str, state: str, error: str) -> str:
    return re.sub(r"\W", "", f"{kind}{state}{error}")


def first_answer(state: str) -> dict[str, Any]:
    """What the state answers in its happy case."""
    return RESPONSES[TEST_CASES[HAPPY[state]][state]]["0"]


def mocks() -> dict[str, Any]:
    """Per pair of state and error: the state's happy case, with that error thrown first or thrown for good."""
    cases: dict[str, dict[str, str]] = {}
    responses = dict(RESPONSES)
    for kind, pairs in (("Once", RETRIED), ("Always", PERMANENT)):
        for state, error in pairs:
            case = case_of(kind, state, error)
            throw = {"Throw": {"Error": error, "Cause": "mocked"}}
            responses[case] = {"0": throw, "1": first_answer(state)} if kind == "Once" else {"0": throw}
            cases[case] = {"RecordFailure": "Recorded", **TEST_CASES[HAPPY[state]], state: case}
            cases[case].setdefault("SegmentOnLambda", "Mask")
            for claimed in ("ReleaseClaim", "ClaimWork", "TakeOverClaim"):
                cases[case].setdefault(claimed, "Written")
    return {"StateMachines": {"RemoveBackground": {"TestCases": cases}}, "MockedResponses": responses}


Outcome = tuple[dict[str, Any], list[str]]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    """All cases, run side by side: each waits out a back-off or two."""
    folder = tmp_path_factory.mktemp("errors")
    (folder / "template.yaml").write_text(EMPTY_TEMPLATE)
    (folder / "mocks.json").write_text(json.dumps(mocks()))
    with EmbeddedCloud(folder / "template.yaml", mock_config=folder / "mocks.json") as cloud:
        engine = Engine(cloud.endpoint_url)
        machine_arn = engine.create(definition())
        cases = [case_of("Once", *pair) for pair in RETRIED] + [case_of("Always", *pair) for pair in PERMANENT]
        with ThreadPoolExecutor(16) as pool:
            yield dict(zip(cases, pool.map(lambda case: engine.run(machine_arn, case), cases), strict=True))


@pytest.mark.parametrize(("state", "error"), RETRIED)
def test_a_transient_error_is_retried_and_then_good(outcomes: dict[str, Outcome], state: str, error: str) -> None:
    described, states = outcomes[case_of("Once", state, error)]
    assert states.count(state) == 1, "a retry is no new visit"
    expected = "FAILED" if states[-1] == "Failed" else "SUCCEEDED"
    assert described["status"] == expected
    assert ("RecordFailure" in states) == (HAPPY[state] in {"NoSubject", "NotAPicture"})


@pytest.mark.parametrize(("state", "error"), PERMANENT)
def test_a_permanent_error_is_not_retried(outcomes: dict[str, Outcome], state: str, error: str) -> None:
    described, states = outcomes[case_of("Always", state, error)]
    caught = next(c for c in TASKS[state]["Catch"] if {error, "States.ALL"} & set(c["ErrorEquals"]))
    assert states[states.index(state) + 1] == caught["Next"]
    if caught["Next"] == "RecordFailure":
        assert described["status"] == "FAILED"
        assert states[-1] == "Failed"
