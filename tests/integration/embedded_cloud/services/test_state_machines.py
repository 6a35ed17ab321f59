"""Definitions of state machines are validated."""

import json
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from embedded_cloud.cloud import EmbeddedCloud
from tests.integration.embedded_cloud.services.testbed import ROLE, Machines, client

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
