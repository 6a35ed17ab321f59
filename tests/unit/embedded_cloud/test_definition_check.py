"""Problems of state machine definitions."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from embedded_cloud.definition_check import check
from tests.conftest import ROOT

END = {"Type": "Pass", "End": True}
TASK = {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "End": True}
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("Type", "Next", "End", "Default", "Choices", "Catch", "Branches", "ItemProcessor", "Resource", "Parameters")


def machine(state: Any, **more: Any) -> dict[str, Any]:
    return {"StartAt": "A", "States": {"A": state, **more}}


def problems(definition: Any, **options: Any) -> list[tuple[str, str]]:
    return [(item.code, item.location) for item in check(json.dumps(definition), **options)]


@pytest.mark.parametrize(
    ("definition", "code", "location"),
    [
        (machine({"Type": "Pass", "Next": "B"}, C=END), "MISSING_TRANSITION_TARGET", "/States/A/Next"),
        ({"StartAt": "B", "States": {"A": END}}, "MISSING_TRANSITION_TARGET", "/StartAt"),
        ({"States": {"A": END}}, "SCHEMA_VALIDATION_FAILED", "/StartAt"),
        ({"StartAt": "A"}, "SCHEMA_VALIDATION_FAILED", "/States"),
        (machine({"Type": "Pass", "Next": "A"}), "MISSING_END_STATE", "/States"),
        (machine({"Type": "Pass"}, B=END), "SCHEMA_VALIDATION_FAILED", "/States/A"),
        (machine({"Type": "Loop"}, B=END), "SCHEMA_VALIDATION_FAILED", "/States/A/Type"),
        (machine("A", B=END), "SCHEMA_VALIDATION_FAILED", "/States/A"),
        (machine({**TASK, "Resource": "lambda"}), "INVALID_RESOURCE", "/States/A/Resource"),
        (
            machine({**TASK, "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "B"}]}),
            "MISSING_TRANSITION_TARGET",
            "/States/A/Catch[0]/Next",
        ),
        (
            machine({"Type": "Choice", "Choices": [{"Variable": "$.a", "IsNull": True, "Next": "C"}]}, B=END),
            "MISSING_TRANSITION_TARGET",
            "/States/A/Choices[0]/Next",
        ),
        (machine({"Type": "Choice", "Default": "B"}, B=END), "SCHEMA_VALIDATION_FAILED", "/States/A/Choices"),
        (
            machine({"Type": "Parallel", "Branches": [machine(END)], "End": True}),
            "DUPLICATE_STATE_NAME",
            "/States/A/Branches[0]/States/A",
        ),
        (
            machine({"Type": "Map", "ItemProcessor": {"StartAt": "X", "States": {"B": END}}, "End": True}),
            "MISSING_TRANSITION_TARGET",
            "/States/A/ItemProcessor/StartAt",
        ),
        ({"StartAt": "x" * 81, "States": {"x" * 81: END}}, "INVALID_STATE_NAME", f"/States/{'x' * 81}"),
        ([], "INVALID_JSON_DESCRIPTION", ""),
    ],
)
def test_an_error_is_found_at_its_location(definition: Any, code: str, location: str) -> None:
    assert problems(definition) == [(code, location)]


@pytest.mark.parametrize(
    ("text", "code"),
    [("", "MISSING_DESCRIPTION"), ("{", "INVALID_JSON_DESCRIPTION"), ("[" * 100_000, "INVALID_JSON_DESCRIPTION")],
)
def test_text_that_is_no_definition_is_an_error(text: str, code: str) -> None:
    assert [item.code for item in check(text)] == [code]


def test_an_express_workflow_cannot_wait() -> None:
    waits = machine({**TASK, "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken"})
    assert problems(waits) == []
    assert problems(waits, express=True) == [("SCHEMA_VALIDATION_FAILED", "/States/A/Resource")]


def test_paths_in_static_fields_are_warnings() -> None:
    definition = machine(
        {**TASK, "End": False, "Next": "B", "Parameters": {"key": "$.key", "static": "a", "path.$": "$.path"}},
        B={**END, "Result": ["$.key"]},
    )
    assert problems(definition) == [
        ("NO_DOLLAR", "/States/A/Parameters/key"),
        ("PASS_RESULT_IS_STATIC", "/States/B/Result[0]"),
    ]
    assert {item.severity for item in check(json.dumps(definition))} == {"WARNING"}


@pytest.mark.parametrize("path", sorted((ROOT / "statemachine").glob("*.asl.yaml")), ids=lambda path: path.name)
def test_the_project_s_machines_have_no_problems(path: Any) -> None:
    text = json.dumps(yaml.safe_load(path.read_text())).replace("${", "arn:{")
    assert [item for item in check(text) if item.severity == "ERROR"] == []


@given(start=JSON, states=st.dictionaries(st.text("AB", max_size=1), st.dictionaries(st.sampled_from(FIELDS), JSON)))
def test_no_definition_raises(start: Any, states: Any) -> None:
    assert check(json.dumps({"StartAt": start, "States": states})) is not None
