"""Step Functions: its API and the making of state machines."""

import copy
import functools
import json
import threading
import uuid
from datetime import UTC, datetime
from typing import Any

from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, EmptyResult
from moto.stepfunctions import models
from moto.stepfunctions.models import StateMachine
from moto.stepfunctions.parser.api import ExecutionStatus, HistoryEventType
from moto.stepfunctions.parser.asl.eval.callback.callback import CallbackConsumerTimeout, CallbackEndpoint
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser
from moto.stepfunctions.parser.backend.execution_worker import ExecutionWorker
from moto.stepfunctions.parser.mocking import mock_config
from moto.stepfunctions.parser.models import StepFunctionsParserBackend, stepfunctions_parser_backends
from moto.stepfunctions.responses import StepFunctionResponse

from local.patches.around import around
from local.patches.host import running

# CloudFormation makes its state machines where the API and the interpreter look for them.
models.stepfunctions_backends = stepfunctions_parser_backends

_starting = threading.local()


@around(StateMachine, "create_from_cloudformation_json")
def substitute_in_definition(original: Any, cls: Any, name: str, resource: Any, *args: Any, **kwargs: Any) -> Any:
    """AWS fills in DefinitionSubstitutions and keeps Type, logging and tracing; moto takes the bare definition."""
    properties = resource["Properties"]
    for key, value in properties.get("DefinitionSubstitutions", {}).items():
        properties["DefinitionString"] = properties["DefinitionString"].replace(f"${{{key}}}", str(value))
    machine = original(cls, name, resource, *args, **kwargs)
    machine.type = machine.sm_type = properties.get("StateMachineType", "STANDARD")
    machine.loggingConfiguration = _lower_camel(properties.get("LoggingConfiguration"))
    machine.tracingConfiguration = _lower_camel(properties.get("TracingConfiguration"))
    return machine


def _lower_camel(value: Any) -> Any:
    if isinstance(value, dict):
        return {key[0].lower() + key[1:]: _lower_camel(item) for key, item in value.items()}
    return [_lower_camel(item) for item in value] if isinstance(value, list) else value


@around(StateMachine, "has_cfn_attr")
def has_arn(original: Any, cls: Any, attribute: str) -> bool:
    """AWS lets a template get a state machine's Arn; moto does not."""
    return attribute == "Arn" or bool(original(cls, attribute))


@around(StateMachine, "get_cfn_attribute")
def get_arn(original: Any, self: Any, attribute: str) -> Any:
    """AWS lets a template get a state machine's Arn; moto does not."""
    return self.arn if attribute == "Arn" else original(self, attribute)


@around(StepFunctionsParserBackend, "start_execution")
def start_without_name(original: Any, self: Any, machine_arn: str, name: str | None = None, *args: Any) -> Any:
    """AWS makes up a name where none is given; moto lets the second such execution clash with the first.

    ``stateMachineArn#TestCase`` runs a test case of the mock configuration, as AWS Step Functions Local does.
    """
    machine_arn, _, test_case = machine_arn.partition("#")
    _starting.test_case = test_case and _load_test_case(machine_arn.rsplit(":", 1)[1], test_case)
    try:
        return original(self, machine_arn, name or str(uuid.uuid4()), *args)
    finally:
        _starting.test_case = None


def _load_test_case(machine: str, name: str) -> Any:
    path = running().mock_config
    if path is None:
        raise ServiceException("ValidationException", "No mock configuration file was given")
    config = json.loads(path.read_text())
    states = config["StateMachines"][machine]["TestCases"][name].items()
    return mock_config.MockTestCase(
        machine,
        name,
        [
            mock_config.StateMockedResponses(state, key, _load_responses(config["MockedResponses"][key]))
            for state, key in states
        ],
    )


def _load_responses(attempts: dict[str, Any]) -> list[Any]:
    responses = []
    for attempt, response in attempts.items():
        first, last = mock_config._parse_mocked_response_range(attempt)
        if "Return" in response:
            responses.append(mock_config.MockedResponseReturn(first, last, response["Return"]))
        else:
            error = response["Throw"]
            responses.append(mock_config.MockedResponseThrow(first, last, error["Error"], error.get("Cause", "")))
    return responses


@around(ExecutionWorker, "__init__")
def run_the_test_case(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    """AWS Step Functions Local reads MockConfigFile.json; moto has its engine and never loads the file."""
    original(self, *args, **{"mock_test_case": getattr(_starting, "test_case", None) or None, **kwargs})


@around(StepFunctionResponse, "get_execution_history")
def page_the_history(original: Any, self: Any) -> Any:
    """AWS pages the history and reverses it on request; moto answers with all of it, oldest first."""
    events = list(original(self).result["events"])
    if self._get_param("reverseOrder"):
        events.reverse()
    first, size = int(self._get_param("nextToken") or 0), int(self._get_param("maxResults") or 100)
    more = {"nextToken": str(first + size)} if first + size < len(events) else {}
    return ActionResult({"events": events[first : first + size], **more})


@around(StepFunctionResponse, "describe_execution")
def say_how_it_ended(original: Any, self: Any) -> Any:
    """AWS gives a timed out execution a stop date, and every execution a count of redrives; moto forgets both."""
    response = original(self)
    execution = self.stepfunction_backend.describe_execution(self._get_param("executionArn"))
    if execution.stop_date:
        response.result["stopDate"] = execution.stop_date
    response.result["redriveCount"] = getattr(execution, "redrive_count", 0)
    return response


@around(StepFunctionResponse, "stop_execution")
def stop_at_once(_original: Any, self: Any) -> Any:
    """AWS ends the execution whatever its task does, with error and cause; moto waits for the task and drops both."""
    execution = self.stepfunction_backend.describe_execution(self._get_param("executionArn"))
    error, cause = self._get_param("error"), self._get_param("cause")
    execution.stop(stop_date=datetime.now(UTC), error=error, cause=cause)
    execution.exec_status, execution.stop_date = ExecutionStatus.ABORTED, datetime.now(UTC)
    execution.error, execution.cause = error, cause
    for endpoint in list(execution.exec_worker.env.callback_pool_manager._pool.values()):
        endpoint.interrupt_all()
    return ActionResult({"stopDate": execution.stop_date})


@around(StepFunctionResponse, "send_task_failure")
def keep_the_cause(_original: Any, self: Any) -> Any:
    """AWS hands on error and cause; moto drops the cause."""
    token, error, cause = (self._get_param(name) for name in ("taskToken", "error", "cause"))
    self.stepfunction_backend.send_task_failure(token, error=error, cause=cause)
    return EmptyResult()


@around(StepFunctionsParserBackend, "_get_executions")
def look_for_tokens_everywhere(original: Any, self: Any, _status: Any = None) -> list[Any]:
    """AWS knows the tokens of ended executions too, as timed out; moto calls them invalid, and trips over new ones."""
    return [execution for execution in original(self) if execution.exec_worker and execution.exec_worker.env]


@around(CallbackEndpoint, "interrupt_all")
def refuse_late_answers(original: Any, self: Any) -> None:
    """AWS answers TaskTimedOut to who reports on a task that is over; moto takes the report and drops it."""
    self.report(CallbackConsumerTimeout())
    original(self)


@around(AmazonStateLanguageParser, "parse")
@functools.lru_cache
def parse_once(original: Any, definition: str) -> Any:
    """AWS parses a definition when it is deployed; moto does for every execution, 0.2 s of one core each time."""
    return original(definition)


def redrive_execution(self: Any) -> Any:
    """AWS takes a failed execution up again at the state that failed, in the same history; moto has no such call."""
    execution = self.stepfunction_backend.describe_execution(self._get_param("executionArn"))
    if execution.status in ("RUNNING", "SUCCEEDED"):
        raise ServiceException("ExecutionNotRedrivable", f"{execution.execution_arn} is {execution.status}")
    former, worker = execution.exec_worker.env, execution._get_start_execution_worker()
    program = copy.copy(worker._get_evaluation_entrypoint())
    entered = [
        event["stateEnteredEventDetails"]
        for event in former.event_manager.get_event_history()
        if event.get("stateEnteredEventDetails", {}).get("name") in program.states.states
    ]
    program.start_at = copy.copy(program.start_at)
    program.start_at.start_at_name = entered[-1]["name"]

    worker.env = env = worker._get_evaluation_environment()
    env.event_manager = former.event_manager
    env.event_history_context.integrate(former.event_history_context)
    env.states.reset(json.loads(entered[-1]["input"]))
    execution.redrive_count = getattr(execution, "redrive_count", 0) + 1
    details = EventDetails(executionRedrivenEventDetails={"redriveCount": execution.redrive_count})
    env.event_manager.add_event(env.event_history_context, HistoryEventType.ExecutionRedriven, details)

    def run() -> None:
        program.eval(env)
        worker._execution_communication.terminated()

    execution.exec_worker, execution.exec_status = worker, ExecutionStatus.RUNNING
    execution.stop_date = execution.error = execution.cause = None
    threading.Thread(target=run, daemon=True).start()
    return ActionResult({"redriveDate": datetime.now(UTC)})


StepFunctionResponse.redrive_execution = redrive_execution
