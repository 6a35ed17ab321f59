"""Step Functions: the API, and state machines from CloudFormation."""

import copy
import functools
import json
import threading
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
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
from embedded_cloud.moto_patches.distributed_map import redrive_map_runs
from embedded_cloud.moto_patches.host import running
from embedded_cloud.moto_patches.service_metrics import count, record
from embedded_cloud.moto_patches.versions import machine_arn_of

# CloudFormation must create state machines in the backend of the interpreter.
models.stepfunctions_backends = stepfunctions_parser_backends

_starting = threading.local()

NEVER = "never"
_NOT_REDRIVABLE = {"RUNNING", "SUCCEEDED"}


@around(StateMachine, "create_from_cloudformation_json")
def complete_the_definition(original: Any, cls: Any, name: str, resource: Any, *args: Any, **kwargs: Any) -> Any:
    """AWS reads definitions in S3, substitutes in them, and keeps type, logging and tracing; moto does not."""
    properties = resource["Properties"]
    return _configured(
        original(cls, name, {**resource, "Properties": _with_definition(properties)}, *args, **kwargs), properties
    )


@around(StateMachine, "update_from_cloudformation_json")
def complete_the_definition_in_updates(original: Any, cls: Any, **given: Any) -> Any:
    """AWS reads definitions in S3, substitutes in them, and keeps type, logging and tracing; moto does not."""
    resource = given.pop("cloudformation_json")
    properties = resource["Properties"]
    changed = {**resource, "Properties": _with_definition(properties)}
    return _configured(original(cls, cloudformation_json=changed, **given), properties)


def _with_definition(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the properties of a state machine with the text of its definition."""
    if location := properties.get("DefinitionS3Location"):
        body = running().client("s3").get_object(Bucket=location["Bucket"], Key=location["Key"])["Body"].read()
        text = json.dumps(yaml.load(body, Loader=yaml.CSafeLoader))
    else:
        text = properties["DefinitionString"]
    for key, value in properties.get("DefinitionSubstitutions", {}).items():
        text = text.replace(f"${{{key}}}", str(value))
    return {**properties, "DefinitionString": text}


def _configured(machine: Any, properties: dict[str, Any]) -> Any:
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
    """AWS writes EnteredTime in milliseconds with a Z; moto in microseconds with an offset."""
    state = env.states.context_object.context_object_data["State"]
    entered = datetime.fromisoformat(state["EnteredTime"])
    state["EnteredTime"] = entered.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    original(self, env)


@around(StepFunctionsParserBackend, "start_execution")
def start_without_name(original: Any, self: Any, machine_arn: str, name: str | None = None, *args: Any) -> Any:
    """AWS generates a name if none is given; moto rejects the second such execution as a duplicate.

    See getmoto/moto#9500.

    ``stateMachineArn#TestCase`` runs a test case of the mock configuration, as AWS Step Functions Local does.
    """
    machine_arn, _, test_case = machine_arn.partition("#")
    _starting.test_case = test_case and _load_test_case(machine_arn.split(":")[6], test_case)
    try:
        execution = original(self, machine_arn, name or str(uuid.uuid4()), *args)
    finally:
        _starting.test_case = None
    if not hasattr(execution, "counted"):  # AWS returns a running execution with the same name and input again
        execution.counted = True
        count("AWS/States", "ExecutionsStarted", StateMachineArn=machine_arn_of(execution.state_machine.arn))
    return execution


def _load_test_case(machine: str, name: str) -> Any:
    path = running().mock_config
    if path is None:
        raise AWSError("No mock configuration file. Start the cloud with mock_config.", "ValidationException")
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
    """Read a mock configuration, again only after a change."""
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
    """AWS Step Functions Local reads MockConfigFile.json; moto has the engine but never loads the file."""
    original(self, *args, **{"mock_test_case": getattr(_starting, "test_case", None) or None, **kwargs})


@around(StepFunctionResponse, "get_execution_history")
def page_the_history(original: Any, self: Any) -> Any:
    """AWS pages the history and reverses it on request; moto returns all events, oldest first.

    moto's serializer needs a millisecond per event; this returns JSON directly.
    """
    events = list(original(self).result["events"])
    if self._get_param("includeExecutionData") is False:
        events = [_without_data(event) for event in events]
    if self._get_param("reverseOrder"):
        events.reverse()
    first, size = int(self._get_param("nextToken") or 0), int(self._get_param("maxResults") or 100)
    more = {"nextToken": str(first + size)} if first + size < len(events) else {}
    page = {"events": events[first : first + size], **more}
    return 200, {"Content-Type": "application/x-amz-json-1.0"}, json.dumps(page, default=datetime.timestamp)


def _without_data(event: dict[str, Any]) -> dict[str, Any]:
    hidden = ("input", "output", "parameters")
    return {
        key: {name: item for name, item in value.items() if name not in hidden} if isinstance(value, dict) else value
        for key, value in event.items()
    }


@around(StepFunctionResponse, "describe_execution")
def describe_stop_date_and_redrives(original: Any, self: Any) -> Any:
    """AWS returns the stop date of a timed-out execution and its redrive status; moto returns neither."""
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
def list_stop_dates(original: Any, self: Any) -> Any:
    """AWS lists a timed-out execution with its stop date; moto omits it."""
    response = original(self)
    for listed in response.result["executions"]:
        execution = self.stepfunction_backend.describe_execution(listed["executionArn"])
        if execution.stop_date:
            listed["stopDate"] = execution.stop_date
    return response


@around(StepFunctionResponse, "stop_execution")
def stop_with_error_and_cause(_original: Any, self: Any) -> Any:
    """AWS stops the execution at once with error and cause; moto waits for the task and drops both."""
    execution = self.stepfunction_backend.describe_execution(self._get_param("executionArn"))
    execution.error, execution.cause = self._get_param("error"), self._get_param("cause")
    execution.exec_status, execution.stop_date = ExecutionStatus.ABORTED, datetime.now(UTC)
    execution.stop(execution.stop_date, execution.error, execution.cause)
    _send_status_event(execution)
    return ActionResult({"stopDate": execution.stop_date})


@around(Execution, "__init__")
def run_from_the_beginning(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    """AWS lists a new execution as RUNNING; in moto it has no status at first, and listing fails."""
    original(self, *args, **kwargs)
    self.exec_status = ExecutionStatus.RUNNING


@around(BaseExecutionWorkerCommunication, "terminated")
def send_status_event(original: Any, self: Any) -> None:
    """AWS sends an EventBridge event when an execution ends; moto sends none."""
    original(self)
    _send_status_event(self.execution)


def _measure(execution: Any) -> None:
    """Record the outcome and the duration, as AWS does."""
    outcome = "Executions" + "".join(part.capitalize() for part in execution.status.split("_"))
    duration_ms = 1000 * (execution.stop_date - execution.start_date).total_seconds()
    measurements = {outcome: (1.0, "Count"), "ExecutionTime": (duration_ms, "Milliseconds")}
    record("AWS/States", {"StateMachineArn": machine_arn_of(execution.state_machine.arn)}, measurements)


def _send_status_event(execution: Any) -> None:
    """Send the event once: the last task of a stopped execution ends later and would send it again."""
    ending = (execution.status, getattr(execution, "redrive_count", 0))
    if getattr(execution, "announced", None) in (ending, NEVER):
        return
    execution.announced = ending
    _measure(execution)
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
    """Stop running executions, so that none continues in the next cloud."""
    for execution in _executions():
        execution.announced = NEVER
        if execution.status == "RUNNING" and execution.exec_worker.env:
            execution.stop(datetime.now(UTC), None, None)


def is_any_execution_running() -> bool:
    """Return whether an execution is running."""
    return any(execution.status == "RUNNING" for execution in _executions())


def _executions() -> list[Any]:
    backends = [backend for regions in list(stepfunctions_parser_backends.values()) for backend in regions.values()]
    machines = [machine for backend in backends for machine in list(backend.state_machines)]
    return [execution for machine in machines for execution in list(machine.executions)]


@around(Environment, "set_stop")
def stop_at_once(original: Any, self: Any, stop_date: Any, cause: Any, error: Any) -> None:
    """AWS ends the history at once, and no task event follows; moto waits for the task.

    moto also stops the other branches of a failed Parallel, but they keep writing events.
    """
    self.event_history_context.closed = self.is_frame()
    original(self, stop_date, cause, error)
    _end(self, "Aborted", {"error": error, "cause": cause})


@around(Environment, "set_timed_out")
def time_out_at_once(original: Any, self: Any) -> None:
    """AWS ends the history at once, and no task event follows; moto waits for the task."""
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
    """AWS never changes the final status of an execution; moto lets the interrupted task fail it."""
    if not isinstance(self.program_state(), ProgramStopped | ProgramTimedOut):
        original(self, error)


@around(Environment, "close_frame")
def close_history_of_timed_out_tasks(original: Any, self: Any, frame: Any) -> None:
    """AWS drops a task that timed out; moto's continues in its thread and reports success later."""
    original(self, frame)
    frame.event_history_context.closed = True


@around(EventManager, "add_event")
def add_no_late_event(original: Any, self: Any, context: Any, *args: Any, **kwargs: Any) -> None:
    """AWS writes no events after the end; moto does."""
    if not getattr(self, "ended", False) and not getattr(context, "closed", False):
        original(self, context, *args, **kwargs)


def _endpoint(response: Any) -> Any:
    """Return the endpoint of the request's task token.

    AWS distinguishes unknown tokens from those of finished tasks, and accepts only the first result; moto fails on
    both kinds of tokens, and accepts results until the task has noticed the first one.
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
    """AWS validates the token; see :func:`_endpoint`."""
    _endpoint(self).notify(CallbackOutcomeSuccess(self._get_param("taskToken"), self._get_param("output")))
    return EmptyResult()


@around(StepFunctionResponse, "send_task_failure")
def take_a_failure_with_its_cause(_original: Any, self: Any) -> Any:
    """AWS passes on error and cause; moto drops the cause."""
    token, error, cause = (self._get_param(name) for name in ("taskToken", "error", "cause"))
    _endpoint(self).notify(CallbackOutcomeFailure(token, error, cause))
    return EmptyResult()


@around(StepFunctionResponse, "send_task_heartbeat")
def take_a_heartbeat(_original: Any, self: Any) -> Any:
    """AWS validates the token; see :func:`_endpoint`."""
    _endpoint(self).notify_heartbeat()
    return EmptyResult()


@around(CallbackEndpoint, "interrupt_all")
def reject_late_results(original: Any, self: Any) -> None:
    """AWS rejects the result of a finished task; moto accepts and drops it."""
    self.report(CallbackConsumerTimeout())
    original(self)


@around(Execution, "get_start_execution_details")
def start_time_as_text(original: Any, self: Any) -> Any:
    """AWS has ISO 8601 text in the context object; moto a datetime, which JSON cannot represent."""
    details = original(self)
    details.start_time = self.start_date.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return details


@around(AmazonStateLanguageParser, "parse")
@functools.lru_cache
def parse_once(original: Any, definition: str) -> Any:
    """AWS parses a definition once; moto for every execution, which takes 0.2 s."""
    return original(definition)


@around(json_path, "parse")
@around(result_path, "parse")
@functools.lru_cache(maxsize=1024)
def parse_path_once(original: Any, path: str) -> Any:
    """AWS parses a path once; moto at every use, which takes 1 ms."""
    return original(path)


def redrive_execution(self: Any) -> Any:
    """AWS restarts a failed execution at the failed state, in the same history; moto does not implement the call."""
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
    redrive_map_runs(former, env, entered[-1]["name"])
    # A task of the earlier run that is still running must write no events.
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
