"""Step Functions: service integrations, task tokens and error names of Task states."""

import functools
import json
import sys
from typing import Any

import botocore.session
from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError
from moto.stepfunctions.parser import models as _models  # noqa: F401  imports every user of boto_client_for
from moto.stepfunctions.parser.api import HistoryEventType
from moto.stepfunctions.parser.asl.component.common.error_name.error_equals_decl import ErrorEqualsDecl
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import (
    FailureEvent,
    FailureEventException,
)
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import StatesErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name_type import StatesErrorNameType
from moto.stepfunctions.parser.asl.component.common.retry.jitter_strategy_decl import JitterStrategyDecl
from moto.stepfunctions.parser.asl.component.state.exec.state_parallel import branches_decl
from moto.stepfunctions.parser.asl.component.state.exec.state_task import mock_eval_utils
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service import StateTaskService
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_aws_sdk import (
    StateTaskServiceAwsSdk,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_callback import (
    StateTaskServiceCallback,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_dynamodb import (
    StateTaskServiceDynamoDB,
)
from moto.stepfunctions.parser.asl.component.state.fail import state_fail
from moto.stepfunctions.parser.asl.eval.callback.callback import CallbackEndpoint, HeartbeatTimeoutError
from moto.stepfunctions.parser.asl.eval.environment import Environment
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.utils import boto_client
from moto.stepfunctions.parser.asl.utils.encoding import to_json_str

from embedded_cloud.moto_patches.around import around
from embedded_cloud.moto_patches.host import running
from embedded_cloud.moto_patches.server import one_at_a_time

SDK_SERVICES = {  # name in a state machine: name in boto3
    "cloudwatchlogs": "logs",
    "eventbridge": "events",
    "sagemakerruntime": "sagemaker-runtime",
    "sfn": "stepfunctions",
}
ERROR_PREFIXES = {  # prefix of error names, where it is not the capitalized service name
    "cloudwatch": "CloudWatch",
    "cloudwatchlogs": "CloudWatchLogs",
    "dynamodb": "DynamoDb",
    "eventbridge": "EventBridge",
    "sagemakerruntime": "SageMakerRuntime",
}
TIMEOUT = StatesErrorName(StatesErrorNameType.StatesTimeout)
HEARTBEAT_TIMEOUT = StatesErrorName(StatesErrorNameType.StatesHeartbeatTimeout)
ALL = StatesErrorName(StatesErrorNameType.StatesALL)
TERMINAL = (
    StatesErrorName(StatesErrorNameType.StatesRuntime),
    StatesErrorName(StatesErrorNameType.StatesStatesDataLimitExceeded),
)


def client_of_the_cloud(region: str, service: str, state_credentials: Any = None) -> Any:
    """AWS knows every service, and calls it with the state machine's role.

    moto creates a client per task (50 ms), has no roles, and lacks some service names.
    """
    return running().client(SDK_SERVICES.get(service, service), state_credentials.role_arn if state_credentials else "")


for _module in list(sys.modules.values()):
    if getattr(_module, "boto_client_for", None) is boto_client.boto_client_for and _module is not boto_client:
        _module.boto_client_for = client_of_the_cloud  # type: ignore[attr-defined]


def _service_model(service: str) -> Any:
    with one_at_a_time:
        return _load(SDK_SERVICES.get(service, service))


@functools.lru_cache
def _load(service: str) -> Any:
    return botocore.session.Session().get_service_model(service)  # moto's own model defines more errors than AWS


@functools.lru_cache
def _operation(service: str, action: str) -> Any:
    model = _service_model(service)
    return model.operation_model(next(name for name in model.operation_names if xform_name(name) == action))


def _model_of(task: Any, boto_service_name: Any = None, service_action_name: Any = None) -> Any:
    service = task._get_boto_service_name(boto_service_name)
    return _operation(service, task._get_boto_service_action(service_action_name))


@around(StateTaskService, "_normalise_parameters")
def send_as_the_service_expects(_original: Any, self: Any, parameters: Any, **api: Any) -> None:
    """AWS converts PascalCase, JSON bodies and objects to the service's format; moto does not."""
    if shape := _model_of(self, **api).input_shape:
        self._to_boto_request(parameters, shape)


@around(StateTaskService, "_normalise_response")
def answer_as_states_expect(_original: Any, self: Any, response: Any, **api: Any) -> None:
    """AWS returns PascalCase and JSON; moto the SDK's case, streams and dates."""
    if shape := _model_of(self, **api).output_shape:
        self._from_boto_response(response, shape)
        response.update(json.loads(to_json_str(response)))


@around(StateTaskServiceAwsSdk, "_normalise_service_error_name")
def name_the_service(_original: Any, service: str) -> str:
    """AWS writes S3, Sfn, SageMakerRuntime in error names; moto uses lower case."""
    return ERROR_PREFIXES.get(service.lower(), service[:1].upper() + service[1:])


@around(StateTaskServiceAwsSdk, "_normalise_exception_name")
def name_the_error(_original: Any, prefix: str, error: Any) -> str:
    """AWS names an error by the Java SDK's class, S3.NoSuchKeyException; moto by boto3's, S3.ClientErrorException.

    An error that the service model does not define becomes S3.S3Exception.
    """
    service = next((name for name, known in ERROR_PREFIXES.items() if known == prefix), prefix.lower())
    code = error.response["Error"]["Code"]
    if code == "404":  # a HEAD response has no error body
        code = {"HeadObject": "NoSuchKey", "HeadBucket": "NoSuchBucket"}.get(error.operation_name, prefix)
    modelled = {
        shape.metadata.get("error", {}).get("code", shape.name): shape.name
        for shape in _service_model(service).error_shapes
    }
    name = modelled.get(code, code if code in modelled.values() else prefix)
    return f"{prefix}.{name.removesuffix('Exception')}Exception"


@around(StateTaskServiceDynamoDB, "_from_error")
def blame_dynamodb_for_its_own_errors(original: Any, self: Any, env: Any, ex: Exception) -> Any:
    """AWS keeps the name of a timeout, missing path or mocked error; moto calls each AmazonDynamoDBException."""
    if isinstance(ex, ClientError | BotoCoreError):
        return original(self, env=env, ex=ex)
    return super(StateTaskServiceDynamoDB, self)._from_error(env=env, ex=ex)


@around(mock_eval_utils, "_eval_mocked_response_throw")
def throw_what_the_service_throws(original: Any, env: Any, mocked_response: Any) -> None:
    """AWS Step Functions Local lets a mock throw States.Timeout; moto rejects names that start with States."""
    try:
        original(env=env, mocked_response=mocked_response)
    except ValueError:
        details = {"error": mocked_response.error, "cause": mocked_response.cause}
        name = StatesErrorName(StatesErrorNameType.from_name(mocked_response.error))
        event = EventDetails(taskFailedEventDetails=details)
        raise FailureEventException(FailureEvent(env, name, HistoryEventType.TaskFailed, event)) from None


@around(Environment, "is_mocked_mode")
def run_what_the_case_does_not_mock(original: Any, self: Any) -> bool:
    """AWS Step Functions Local runs attempts without a mock for real; moto fails."""
    if not original(self):
        return False
    mocked = self.mock_test_case.state_mocked_responses[self.next_state_name].mocked_responses
    attempts: int = self.states.context_object.context_object_data["State"]["RetryCount"]
    return attempts < len(mocked)


@around(StateTaskServiceCallback, "_eval_execution")
def issue_a_token_per_attempt(original: Any, self: Any, env: Any) -> None:
    """AWS issues a task token per attempt; moto replays the first attempt's result to each retry."""
    if self.resource.condition == "waitForTaskToken":
        env.callback_pool_manager.add(env.states.context_object.update_task_token())
    original(self, env)


@around(StateTaskServiceCallback, "_from_error")
def name_heartbeat_timeouts(original: Any, self: Any, env: Any, ex: Exception) -> Any:
    """AWS reports a missed heartbeat as States.HeartbeatTimeout; moto as States.Timeout."""
    failure = original(self, env, ex)
    if isinstance(ex, HeartbeatTimeoutError):
        failure.error_name = HEARTBEAT_TIMEOUT
        failure.event_details["taskTimedOutEventDetails"]["error"] = HEARTBEAT_TIMEOUT.error_name
    return failure


@around(ErrorEqualsDecl, "_eval_body")
def match_errors(original: Any, self: Any, env: Any) -> None:
    """AWS matches States.Timeout with heartbeat timeouts, and States.ALL with no terminal error; moto does neither."""
    error = env.stack[-1]
    if error == HEARTBEAT_TIMEOUT and TIMEOUT in self.error_names:
        env.stack[-1] = TIMEOUT
    if error in TERMINAL and ALL in self.error_names:
        env.stack[-1] = False
        return
    original(self, env)


@around(JitterStrategyDecl, "_eval_body")
def retry_at_the_cloud_s_pace(original: Any, self: Any, env: Any) -> None:
    """AWS and moto wait between attempts as the definition says. This scales the delay for tests.

    The jitter is the last step that computes the delay.
    """
    original(self, env)
    env.stack.append(env.stack.pop() * running().retry_pace)


@around(branches_decl, "CustomErrorName")
@around(state_fail, "CustomErrorName")
def name_what_ended_a_branch_or_all(original: Any, error_name: str) -> Any:
    """AWS lets a branch or a Fail state end with any error name; moto rejects names that start with States."""
    if error_name.startswith("States."):
        return StatesErrorName(StatesErrorNameType.from_name(error_name))
    return original(error_name=error_name)


@around(CallbackEndpoint, "setup_heartbeat_endpoint")
def accept_early_results(original: Any, self: Any, heartbeat_seconds: int) -> Any:
    """AWS accepts a result at any time; moto misses one that arrives before it waits for heartbeats."""
    heartbeat = original(self, heartbeat_seconds)
    if self.get_outcome() is not None:
        heartbeat.notify()
    return heartbeat
