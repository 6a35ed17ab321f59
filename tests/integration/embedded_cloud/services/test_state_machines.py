"""Validation of definitions, synchronous executions, and tests of single states."""

import json
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from embedded_cloud.cloud import EmbeddedCloud
from tests.integration.embedded_cloud.services.testbed import ROLE, Machines, client, invoke

pytestmark = pytest.mark.slow  # the state machine's tests run on these services

END = {"Type": "Pass", "End": True}


def definition(state: dict[str, Any], **more: Any) -> str:
    return json.dumps({"StartAt": "A", "States": {"A": state, **more}})


def test_a_valid_definition_is_ok(cloud: EmbeddedCloud) -> None:
    found = client(cloud, "stepfunctions").validate_state_machine_definition(definition=definition(END))
    assert (found["result"], found["diagnostics"], found["truncated"]) == ("OK", [], False)


@pytest.mark.parametrize(
    ("text", "code", "location"),
    [
        (definition({"Type": "Pass", "Next": "B"}, C=END), "MISSING_TRANSITION_TARGET", "/States/A/Next"),
        (definition({**END, "InputPath": 5}), "SCHEMA_VALIDATION_FAILED", ""),
        ("not JSON", "INVALID_JSON_DESCRIPTION", ""),
    ],
)
def test_an_invalid_definition_fails_with_diagnostics(
    cloud: EmbeddedCloud, text: str, code: str, location: str
) -> None:
    found = client(cloud, "stepfunctions").validate_state_machine_definition(definition=text)
    assert found["result"] == "FAIL"
    [diagnostic] = found["diagnostics"]
    assert (diagnostic["severity"], diagnostic["code"], diagnostic["location"]) == ("ERROR", code, location)
    assert diagnostic["message"]


def test_warnings_are_returned_on_request(cloud: EmbeddedCloud) -> None:
    validate = client(cloud, "stepfunctions").validate_state_machine_definition
    text = definition({**END, "Result": {"a": "$.a", "b": "$.b"}})
    assert validate(definition=text)["diagnostics"] == []
    found = validate(definition=text, severity="WARNING", maxResults=1)
    assert (found["result"], len(found["diagnostics"]), found["truncated"]) == ("OK", 1, True)


def test_a_machine_with_a_missing_state_cannot_be_created(cloud: EmbeddedCloud, machines: Machines) -> None:
    text = definition({"Type": "Pass", "Next": "B"}, C=END)
    with pytest.raises(ClientError, match=r"MISSING_TRANSITION_TARGET: .* at /States/A/Next"):
        machines.api.create_state_machine(name=uuid.uuid4().hex, definition=text, roleArn=ROLE)


def create_express(machines: Machines, state: dict[str, Any]) -> str:
    created = machines.api.create_state_machine(
        name=uuid.uuid4().hex, definition=definition(state), roleArn=ROLE, type="EXPRESS"
    )
    return str(created["stateMachineArn"])


def test_an_express_workflow_runs_synchronously(cloud: EmbeddedCloud, machines: Machines) -> None:
    machine = create_express(machines, invoke(cloud.outputs["Echo"], {"a.$": "$.a"}, OutputPath="$.Payload.event"))
    outcome = machines.api.start_sync_execution(stateMachineArn=machine, input='{"a": 1}')
    assert (outcome["status"], json.loads(outcome["output"])) == ("SUCCEEDED", {"a": 1})
    assert ":express:" in outcome["executionArn"] and outcome["startDate"] < outcome["stopDate"]
    assert outcome["billingDetails"]["billedDurationInMilliseconds"] % 100 == 0
    hidden = machines.api.start_sync_execution(stateMachineArn=machine, input="{}", includedData="METADATA_ONLY")
    assert "output" not in hidden and hidden["outputDetails"] == {"included": False}


def test_a_synchronous_execution_returns_its_error(machines: Machines) -> None:
    machine = create_express(machines, {"Type": "Fail", "Error": "Mine", "Cause": "because"})
    outcome = machines.api.start_sync_execution(stateMachineArn=machine)
    assert (outcome["status"], outcome["error"], outcome["cause"]) == ("FAILED", "Mine", "because")


def test_a_standard_workflow_does_not_run_synchronously(machines: Machines) -> None:
    with pytest.raises(ClientError, match="StateMachineTypeNotSupported"):
        machines.api.start_sync_execution(stateMachineArn=machines.create({"A": END}))
    with pytest.raises(ClientError, match="InvalidExecutionInput"):
        machines.api.start_sync_execution(stateMachineArn=create_express(machines, END), input="{")


def run_state(machines: Machines, state: dict[str, Any], given: Any = None, **more: Any) -> dict[str, Any]:
    asked = {"definition": json.dumps(state), "input": json.dumps(given or {}), **more}
    outcome: dict[str, Any] = machines.api.test_state(**asked)
    return outcome


def test_a_state_runs_alone(cloud: EmbeddedCloud, machines: Machines) -> None:
    state = {**invoke(cloud.outputs["Echo"], {"a.$": "$.a"}), "ResultSelector": {"b.$": "$.Payload.event.a"}}
    state |= {"ResultPath": "$.c", "Next": "B"}
    del state["End"]
    outcome = run_state(machines, state, {"a": 1}, inspectionLevel="DEBUG")
    assert (outcome["status"], outcome["nextState"]) == ("SUCCEEDED", "B")
    assert json.loads(outcome["output"]) == {"a": 1, "c": {"b": 1}}
    inspected = {name: json.loads(text) for name, text in outcome["inspectionData"].items()}
    assert inspected["input"] == {"a": 1} and inspected["afterParameters"]["Payload"] == {"a": 1}
    assert inspected["afterResultSelector"] == {"b": 1} and inspected["result"]["StatusCode"] == 200
    assert "inspectionData" not in run_state(machines, state, {"a": 1})


def test_a_choice_selects_its_next_state(machines: Machines) -> None:
    rule = {"Variable": "$.a", "NumericEquals": 1, "Next": "B"}
    state = {"Type": "Choice", "Choices": [rule], "Default": "C"}
    assert run_state(machines, state, {"a": 1})["nextState"] == "B"
    assert run_state(machines, state, {"a": 2})["nextState"] == "C"
    machine = {"StartAt": "A", "States": {"A": state}}
    assert run_state(machines, machine, {"a": 1}, stateName="A")["nextState"] == "B"


def test_a_choice_without_match_fails(machines: Machines) -> None:
    rule = {"Variable": "$.a", "NumericEquals": 1, "Next": "B"}
    state = {"Type": "Choice", "Choices": [rule]}
    assert run_state(machines, state, {"a": 2})["error"] == "States.NoChoiceMatched"
    ended = machines.run({"A": state, "B": END}, {"a": 2})
    assert (ended["status"], ended["error"]) == ("FAILED", "States.NoChoiceMatched")


def test_a_failure_says_how_the_state_would_handle_it(cloud: EmbeddedCloud, machines: Machines) -> None:
    state = invoke(cloud.outputs["Raise"])
    failed = run_state(machines, state, {"a": 1})
    assert (failed["status"], failed["error"]) == ("FAILED", "NoSubjectError")
    catch = [{"ErrorEquals": ["Other"], "Next": "B"}, {"ErrorEquals": ["States.ALL"], "Next": "C", "ResultPath": "$.e"}]
    caught = run_state(machines, {**state, "Catch": catch}, {"a": 1})
    assert (caught["status"], caught["nextState"], caught["error"]) == ("CAUGHT_ERROR", "C", "NoSubjectError")
    output = json.loads(caught["output"])
    assert output["a"] == 1 and output["e"]["Error"] == "NoSubjectError"
    retry = [{"ErrorEquals": ["NoSubjectError"], "IntervalSeconds": 60}]
    assert run_state(machines, {**state, "Catch": catch, "Retry": retry})["status"] == "RETRIABLE"


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"definition": '{"Type": "Loop"}'}, "InvalidDefinition"),
        ({"definition": "[]"}, "InvalidDefinition"),
        ({"definition": '{"Type": "Map", "ItemProcessor": {}, "End": true}'}, "InvalidDefinition"),
        ({"definition": json.dumps({**invoke("missing"), "Catch": [{}]})}, "InvalidDefinition"),
        ({"definition": json.dumps({**invoke("missing"), "Retry": 5})}, "InvalidDefinition"),
        ({"definition": definition(END), "stateName": "B"}, "no state with the stateName B"),
        ({"definition": json.dumps(END), "input": "{"}, "InvalidExecutionInput"),
        ({"definition": json.dumps(END), "mock": {"result": "{}"}}, "does not support mock"),
    ],
)
def test_a_state_that_cannot_be_tested_is_rejected(machines: Machines, asked: dict[str, Any], error: str) -> None:
    with pytest.raises(ClientError, match=error):
        machines.api.test_state(**asked)
