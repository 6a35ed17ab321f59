"""Step Functions: its API and the making of state machines."""

import copy
import functools
import json
import threading
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moto.core.exceptions import AWSError
from moto.core.responses import ActionResult, EmptyResult
from moto.events.models import events_backends
from moto.stepfunctions import models
from moto.stepfunctions.models import StateMachine
from moto.stepfunctions.parser.api import ExecutionStatus, HistoryEventType
from moto.stepfunctions.parser.asl.component.common.path import result_path
from moto.stepfunctions.parser.asl.component.state.state import CommonStateField
from moto.stepfunctions.parser.asl.eval.callback.callback import (
    CallbackConsumerTimeout,
    CallbackEndpoint,
    CallbackOutcomeFailure,
    CallbackOutcomeSuccess,
)
from moto.stepfunctions.parser.asl.eval.environment import Environment
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.eval.event.event_manager import EventManager
from moto.stepfunctions.parser.asl.eval.program_state import ProgramStopped, ProgramTimedOut
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser
from moto.stepfunctions.parser.asl.utils import json_path
from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication, Execution
from moto.stepfunctions.parser.backend.execution_worker import ExecutionWorker
from moto.stepfunctions.parser.mocking import mock_config
from moto.stepfunctions.parser.models import StepFunctionsParserBackend, stepfunctions_parser_backends
from moto.stepfunctions.responses import StepFunctionResponse

from embedded_cloud.moto_patches.around import around
from embedded_cloud.moto_patches.host import running

# CloudFormation makes its state machines where the API and the interpreter look for them.
models.stepfunctions_backends = stepfunctions_parser_backends

_starting = threading.local()

_NEVER = "never"
_NOT_REDRIVABLE = {"RUNNING", "SUCCEEDED"}


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


@around(CommonStateField, "_eval_state_input")
def note_when_a_state_was_entered(original: Any, self: Any, env: Any) -> None:
    """AWS writes EnteredTime to the millisecond and with a Z; moto to the microsecond and with an offset."""
    state = env.states.context_object.context_object_data["State"]
    entered = datetime.fromisoformat(state["EnteredTime"])
    state["EnteredTime"] = entered.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    original(self, env)


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
        raise AWSError("No mock configuration file was given", "ValidationException")
    config = _read_mocks(path, path.stat().st_mtime_ns)
    states = config["StateMachines"][machine]["TestCases"][name].items()
    return mock_config.MockTestCase(
        machine,
        name,
        [
            mock_config.StateMockedResponses(state, key, _load_responses(copy.deepcopy(config["MockedResponses"][key])))
            for state, key in states
        ],
    )


@functools.lru_cache(maxsize=1)
def _read_mocks(path: Path, changed_ns: int) -> Any:
    """Read a mock configuration once for each time that it was changed."""
    return json.loads(path.read_text())


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
    """AWS pages the history and reverses it on request; moto answers with all of it, oldest first.

    Moto's way to make JSON of it takes a millisecond per event.
    """
    events = list(original(self).result["events"])
    if self._get_param("reverseOrder"):
        events.reverse()
    first, size = int(self._get_param("nextToken") or 0), int(self._get_param("maxResults") or 100)
    more = {"nextToken": str(first + size)} if first + size < len(events) else {}
    page = {"events": events[first : first + size], **more}
    return 200, {"Content-Type": "application/x-amz-json-1.0"}, json.dumps(page, default=datetime.timestamp)


@around(StepFunctionResponse, "describe_execution")
def say_how_it_ended(original: Any, self: Any) -> Any:
    """AWS gives a timed out execution a stop date, and tells of redrives, made and possible; moto forgets them."""
    response = original(self)
    execution = self.stepfunction_backend.describe_execution(self._get_param("executionArn"))
    if execution.stop_date:
        response.result["stopDate"] = execution.stop_date
    response.result["redriveCount"] = getattr(execution, "redrive_count", 0)
    if execution.status in _NOT_REDRIVABLE:
        reason = f"Execution is {execution.status} and cannot be redriven"
        response.result.update(redriveStatus="NOT_REDRIVABLE", redriveStatusReason=reason)
    else:
        response.result["redriveStatus"] = "REDRIVABLE"
    return response


@around(StepFunctionResponse, "list_executions")
def say_when_each_ended(original: Any, self: Any) -> Any:
    """AWS lists a timed out execution with its stop date; moto without."""
    response = original(self)
    for listed in response.result["executions"]:
        execution = self.stepfunction_backend.describe_execution(listed["executionArn"])
        if execution.stop_date:
            listed["stopDate"] = execution.stop_date
    return response


@around(StepFunctionResponse, "stop_execution")
def stop_with_error_and_cause(_original: Any, self: Any) -> Any:
    """AWS ends the execution whatever its task does, with error and cause; moto waits for the task and drops both."""
    execution = self.stepfunction_backend.describe_execution(self._get_param("executionArn"))
    execution.error, execution.cause = self._get_param("error"), self._get_param("cause")
    execution.exec_status, execution.stop_date = ExecutionStatus.ABORTED, datetime.now(UTC)
    execution.stop(execution.stop_date, execution.error, execution.cause)
    _announce(execution)
    return ActionResult({"stopDate": execution.stop_date})


@around(Execution, "__init__")
def run_from_the_beginning(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    """AWS's executions run as soon as they are listed; moto's have no status at first, and listing them fails."""
    original(self, *args, **kwargs)
    self.exec_status = ExecutionStatus.RUNNING


@around(BaseExecutionWorkerCommunication, "terminated")
def announce_the_end(original: Any, self: Any) -> None:
    """AWS tells EventBridge how each execution ends; moto tells nobody."""
    original(self)
    _announce(self.execution)


def _announce(execution: Any) -> None:
    """Tell of each end once: a stopped execution ends when it is stopped, and its last task some time later."""
    ending = (execution.status, getattr(execution, "redrive_count", 0))
    if getattr(execution, "announced", None) in (ending, _NEVER):
        return
    execution.announced = ending
    event = {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Step Functions Execution Status Change",
        "source": "aws.states",
        "account": execution.account_id,
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": execution.region_name,
        "resources": [execution.exec_arn],
        "detail": {
            "executionArn": execution.exec_arn,
            "stateMachineArn": execution.state_machine.arn,
            "name": execution.name,
            "status": execution.status,
            "startDate": int(execution.start_date.timestamp() * 1000),
            "stopDate": int(execution.stop_date.timestamp() * 1000),
            "input": json.dumps(execution.input_data),
            "output": json.dumps(execution.output) if execution.status == "SUCCEEDED" else None,
            "inputDetails": {"included": True},
            "outputDetails": {"included": True},
            "error": execution.error,
            "cause": execution.cause,
        },
    }
    rules = events_backends[execution.account_id][execution.region_name].event_buses["default"].rules
    for rule in list(rules.values()):
        rule.send_to_targets(event, transform_input=False)


def stop_every_execution() -> None:
    """Stop what still runs, lest it goes on in the cloud that follows."""
    for regions in stepfunctions_parser_backends.values():
        for backend in regions.values():
            for machine in backend.state_machines:
                for execution in machine.executions:
                    execution.announced = _NEVER
                    if execution.status == "RUNNING" and execution.exec_worker.env:
                        execution.stop(datetime.now(UTC), None, None)


@around(Environment, "set_stop")
def stop_at_once(original: Any, self: Any, stop_date: Any, cause: Any, error: Any) -> None:
    """AWS writes the end into the history at once, and no task reports after it; moto waits for the task.

    It also stops the branches that are left when one of a Parallel has failed, and lets them write on.
    """
    self.event_history_context.closed = self.is_frame()
    original(self, stop_date, cause, error)
    _end(self, "Aborted", {"error": error, "cause": cause})


@around(Environment, "set_timed_out")
def time_out_at_once(original: Any, self: Any) -> None:
    """AWS writes the end into the history at once, and no task reports after it; moto waits for the task."""
    original(self)
    _end(self, "TimedOut", {})


def _end(env: Any, how: str, details: dict[str, Any]) -> None:
    if env.is_frame():
        return
    details = EventDetails(**{f"execution{how}EventDetails": details})
    env.event_manager.add_event(env.event_history_context, HistoryEventType[f"Execution{how}"], details)
    env.event_manager.ended = True
    for endpoint in list(env.callback_pool_manager._pool.values()):
        endpoint.interrupt_all()


@around(Environment, "set_error")
def stay_ended(original: Any, self: Any, error: Any) -> None:
    """AWS lets nothing change how an execution ended; moto lets the interrupted task fail it."""
    if not isinstance(self.program_state(), ProgramStopped | ProgramTimedOut):
        original(self, error)


@around(Environment, "close_frame")
def forget_what_timed_out(original: Any, self: Any, frame: Any) -> None:
    """AWS is done with a task that timed out; moto's goes on in its thread and reports success afterwards."""
    original(self, frame)
    frame.event_history_context.closed = True


@around(EventManager, "add_event")
def add_no_late_event(original: Any, self: Any, context: Any, *args: Any, **kwargs: Any) -> None:
    """AWS writes nothing of what is over; moto does."""
    if not getattr(self, "ended", False) and not getattr(context, "closed", False):
        original(self, context, *args, **kwargs)


def _endpoint(response: Any) -> Any:
    """AWS tells tokens that were never issued from those of tasks that are over; moto fails on both.

    AWS's tasks are over with their first answer; moto's take another until they notice.
    """
    token = response._get_param("taskToken")
    for machine in response.stepfunction_backend.state_machines:
        for execution in machine.executions:
            if (env := execution.exec_worker.env) and (endpoint := env.callback_pool_manager.get(token)):
                if endpoint.consumer_error or endpoint.get_outcome():
                    raise AWSError("Task Timed Out: 'Provided task does not exist anymore'", "TaskTimedOut")
                return endpoint
    raise AWSError("Invalid Token: 'Invalid token'", "InvalidToken")


@around(StepFunctionResponse, "send_task_success")
def take_a_success(_original: Any, self: Any) -> Any:
    """See _endpoint."""
    _endpoint(self).notify(CallbackOutcomeSuccess(self._get_param("taskToken"), self._get_param("output")))
    return EmptyResult()


@around(StepFunctionResponse, "send_task_failure")
def take_a_failure_with_its_cause(_original: Any, self: Any) -> Any:
    """AWS hands on error and cause; moto drops the cause."""
    token, error, cause = (self._get_param(name) for name in ("taskToken", "error", "cause"))
    _endpoint(self).notify(CallbackOutcomeFailure(token, error, cause))
    return EmptyResult()


@around(StepFunctionResponse, "send_task_heartbeat")
def take_a_heartbeat(_original: Any, self: Any) -> Any:
    """See _endpoint."""
    _endpoint(self).notify_heartbeat()
    return EmptyResult()


@around(CallbackEndpoint, "interrupt_all")
def refuse_later_answers(original: Any, self: Any) -> None:
    """AWS takes no answer to a task that is over; moto takes it and drops it."""
    self.report(CallbackConsumerTimeout())
    original(self)


@around(Execution, "get_start_execution_details")
def start_time_as_text(original: Any, self: Any) -> Any:
    """AWS has ISO 8601 text in the context object; moto a datetime, which is no JSON."""
    details = original(self)
    details.start_time = self.start_date.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return details


@around(AmazonStateLanguageParser, "parse")
@functools.lru_cache
def parse_once(original: Any, definition: str) -> Any:
    """AWS parses a definition when it is deployed; moto does for every execution, 0.2 s of one core each time."""
    return original(definition)


@around(json_path, "parse")
@around(result_path, "parse")
@functools.lru_cache(maxsize=1024)
def parse_path_once(original: Any, path: str) -> Any:
    """AWS knows a definition's paths; moto makes a parser for each one that it follows, 1 ms of one core each time."""
    return original(path)


def redrive_execution(self: Any) -> Any:
    """AWS takes a failed execution up again at the state that failed, in the same history; moto has no such call."""
    execution = self.stepfunction_backend.describe_execution(self._get_param("executionArn"))
    if execution.status in _NOT_REDRIVABLE:
        raise AWSError(f"{execution.execution_arn} is {execution.status}", "ExecutionNotRedrivable")
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
    env.event_manager.ended = False
    env.event_history_context.integrate(former.event_history_context)
    env.states.reset(json.loads(entered[-1]["input"]))
    # A task that the earlier run still has under way ends unseen.
    former.event_history_context.closed = True
    execution.exec_worker._execution_communication.execution = copy.copy(execution)
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
