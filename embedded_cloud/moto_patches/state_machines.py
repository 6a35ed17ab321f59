"""Step Functions: validation of definitions, synchronous executions, and tests of a state."""

import json
import math
import uuid
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from moto.core.exceptions import AWSError
from moto.core.responses import ActionResult
from moto.stepfunctions.parser import api
from moto.stepfunctions.parser.api import (
    HistoryEventType,
    InvalidDefinition,
    InvalidExecutionInput,
    StateMachineTypeNotSupported,
    ValidationException,
)
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import FailureEvent, FailureEventException
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import StatesErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name_type import StatesErrorNameType
from moto.stepfunctions.parser.asl.component.state.choice.state_choice import StateChoice
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser
from moto.stepfunctions.parser.asl.static_analyser.test_state.test_state_analyser import TestStateStaticAnalyser
from moto.stepfunctions.parser.backend.execution import SyncExecution
from moto.stepfunctions.parser.backend.test_state.execution import TestStateExecution
from moto.stepfunctions.parser.models import StepFunctionsParserBackend
from moto.stepfunctions.responses import StepFunctionResponse

from embedded_cloud.definition_check import Diagnostic, check
from embedded_cloud.moto_patches.around import around
from embedded_cloud.moto_patches.stepfunctions import NEVER

MAX_DIAGNOSTICS = 100

# AWS names each error, such as InvalidDefinition; moto returns those of its interpreter without a name.
for _error in AWSError.__subclasses__():
    if _error.__module__ == api.__name__:
        _error.TYPE = _error.__name__


def validate_state_machine_definition(self: Any) -> ActionResult:
    """AWS returns the problems of a definition; moto does not implement the call."""
    definition, limit = self._get_param("definition"), self._get_param("maxResults") or MAX_DIAGNOSTICS
    found = _problems(definition, express=self._get_param("type") == "EXPRESS")
    shown = found if self._get_param("severity") == "WARNING" else [item for item in found if item.severity == "ERROR"]
    fields = ("severity", "code", "message", "location")
    return ActionResult(
        {
            "result": "FAIL" if any(item.severity == "ERROR" for item in found) else "OK",
            "diagnostics": [{name: getattr(item, name) for name in fields} for item in shown[:limit]],
            "truncated": len(shown) > limit,
        }
    )


def _problems(definition: str, *, express: bool) -> list[Diagnostic]:
    found = check(definition, express=express)
    if any(item.severity == "ERROR" for item in found):
        return found
    try:
        AmazonStateLanguageParser.parse(definition)
    except Exception as error:
        message = str(error).removeprefix("ASLParserException ")
        return [Diagnostic("SCHEMA_VALIDATION_FAILED", message), *found]
    return found


StepFunctionResponse.validate_state_machine_definition = validate_state_machine_definition


@around(StepFunctionsParserBackend, "_validate_definition")
def reject_missing_states(original: Any, definition: str) -> None:
    """AWS rejects a definition with transitions to missing states, or without end; moto accepts it."""
    for item in check(definition):
        if item.severity == "ERROR":
            at = f" at {item.location}" if item.location else ""
            raise InvalidDefinition(f"Invalid State Machine Definition: '{item.code}: {item.message}{at}'")
    original(definition)


@around(StateChoice, "_eval_state")
def name_a_choice_without_match(original: Any, self: Any, env: Any) -> None:
    """AWS fails with States.NoChoiceMatched if no rule matches and there is no default; moto with States.Runtime."""
    try:
        original(self, env)
    except RuntimeError:
        name = StatesErrorName(StatesErrorNameType.StatesNoChoiceMatched)
        cause = f"No choice rule matched in state {self.name}, and the state has no Default."
        details = EventDetails(taskFailedEventDetails={"error": name.error_name, "cause": cause})
        raise FailureEventException(FailureEvent(env, name, HistoryEventType.TaskFailed, details)) from None


def start_sync_execution(self: Any) -> ActionResult:
    """AWS runs an Express workflow and returns its outcome; moto has the engine, but not the call."""
    machine = self.stepfunction_backend.describe_state_machine(self._get_param("stateMachineArn"))
    if machine.type != "EXPRESS":
        raise StateMachineTypeNotSupported("This operation is not supported by this type of state machine")
    name = self._get_param("name") or str(uuid.uuid4())
    execution = SyncExecution(
        sm_type=machine.type,
        exec_arn=f"{machine.arn.replace(':stateMachine:', ':express:')}:{name}:{uuid.uuid4()}",
        role_arn=machine.roleArn,
        state_machine=machine,
        cloud_watch_logging_session=None,
        trace_header=self._get_param("traceHeader"),
        **_start(self, name),
    )
    execution.announced = NEVER  # only Standard workflows send events
    execution.start()
    duration_ms = (execution.stop_date - execution.start_date).total_seconds() * 1000
    billing = {"billedDurationInMilliseconds": math.ceil(duration_ms / 100) * 100, "billedMemoryUsedInMB": 64}
    outcome = {**execution.to_start_sync_execution_output(), "billingDetails": billing}
    if self._get_param("includedData") == "METADATA_ONLY":
        outcome = {key: value for key, value in outcome.items() if key not in ("input", "output")}
        outcome |= {"inputDetails": {"included": False}, "outputDetails": {"included": False}}
    return ActionResult(outcome)


def _start(response: Any, name: str) -> dict[str, Any]:
    text = response._get_param("input") or "{}"
    try:
        json.loads(text)
    except ValueError as error:
        raise InvalidExecutionInput(f"Invalid State Machine Execution Input: '{error}'") from None
    return {
        "name": name,
        "account_id": response.current_account,
        "region_name": response.region,
        "start_date": datetime.now(UTC),
        "activity_store": {},
        "input_data": text,
    }


def test_state(self: Any) -> ActionResult:
    """AWS runs one state without a state machine; moto has the engine, but not the call.

    As on AWS, a failure is neither retried nor caught: the status says whether the state would do so.
    """
    for name in ("mock", "context", "variables", "stateConfiguration"):
        if self._get_param(name):
            raise ValidationException(f"The embedded cloud does not support {name} in TestState.")
    state = _state(self._get_param("definition"), self._get_param("stateName"))
    alone = {key: value for key, value in state.items() if key not in ("Next", "Retry", "Catch")}
    if state.get("Type") not in ("Choice", "Succeed", "Fail"):
        alone["End"] = True
    handling = {key: state[key] for key in ("Retry", "Catch") if key in state}
    definition = json.dumps(alone)
    try:
        TestStateStaticAnalyser().analyse(json.dumps({**alone, **handling}))
    except Exception as error:
        message = str(error).removeprefix("ASLParserException ")
        raise InvalidDefinition(f"Invalid State Machine Definition: '{message}'") from None
    arn, name = f"arn:aws:states:{self.region}:{self.current_account}", str(uuid.uuid4())
    role = self._get_param("roleArn") or f"arn:aws:iam::{self.current_account}:role/test-state"
    execution = TestStateExecution(
        exec_arn=f"{arn}:express:TestState:{name}",
        role_arn=role,
        state_machine=SimpleNamespace(
            arn=f"{arn}:stateMachine:TestState", name="TestState", sm_type="STANDARD", definition=definition
        ),
        **_start(self, name),
    )
    execution.announced = NEVER
    execution.start()
    outcome = dict(execution.to_test_state_output(self._get_param("inspectionLevel") or "INFO"))
    if outcome["status"] == "SUCCEEDED":
        outcome |= {"nextState": state["Next"]} if "Next" in state else {}
    else:
        outcome |= _handling(state, outcome, execution.input_data)
    return ActionResult(outcome)


def _state(definition: str, name: str | None) -> dict[str, Any]:
    """Return the state of a definition: that of a state, or that of a machine with the name of a state."""
    try:
        state = json.loads(definition)
        if name is not None or "States" in state:
            state = state["States"][name]
        return {**state}
    except (ValueError, TypeError):
        raise InvalidDefinition("Invalid State Machine Definition: 'The state must be a JSON object.'") from None
    except KeyError:
        raise ValidationException(f"The definition has no state with the stateName {name}.") from None


def _handling(state: dict[str, Any], failure: dict[str, Any], given: Any) -> dict[str, Any]:
    """Return what the first matching retrier or catcher changes in the outcome of a failed state."""
    error = failure.get("error") or ""
    if any(_matches(retrier, error) for retrier in state.get("Retry", ())):
        return {"status": "RETRIABLE"}
    for catcher in state.get("Catch", ()):
        if _matches(catcher, error):
            caught = {"Error": error, "Cause": failure.get("cause") or ""}
            output = _put(given, catcher.get("ResultPath", "$"), caught)
            return {"status": "CAUGHT_ERROR", "nextState": catcher["Next"], "output": json.dumps(output)}
    return {}


def _matches(rule: dict[str, Any], error: str) -> bool:
    names = rule["ErrorEquals"]
    if error in names:
        return True
    if error in ("States.Runtime", "States.DataLimitExceeded"):
        return False
    timeout = error in ("States.Timeout", "States.HeartbeatTimeout")
    return "States.ALL" in names or ("States.Timeout" if timeout else "States.TaskFailed") in names


def _put(given: Any, path: str | None, value: Any) -> Any:
    """Return the input with the value at a reference path: ``$``, ``$.a.b`` or None, which drops the value."""
    if path is None:
        return given
    *outer, last = ("", *path.split(".")[1:])
    if not last:
        return value
    copy = json.loads(json.dumps(given))
    target = copy
    for name in outer[1:]:
        target = target.setdefault(name, {})
    target[last] = value
    return copy


StepFunctionResponse.start_sync_execution = start_sync_execution
StepFunctionResponse.test_state = test_state
