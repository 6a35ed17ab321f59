"""EventBridge: targets that moto does not support."""

import copy
import itertools
import json
import re
import threading
import uuid
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from jsonpath_ng.parser import parse
from moto.awslambda.utils import get_backend as lambda_backend
from moto.events.models import EventPattern, Rule
from moto.events.responses import EventsHandler

from embedded_cloud.moto_patches.around import around
from embedded_cloud.moto_patches.host import Host, running

NAME = re.compile(r"<([^<>]+)>")
JSON_STRING_OR_NAME = re.compile(r'"(?:[^"\\]|\\.)*"|<[^<>]+>')


_DELAYS_S = [2.0**attempt for attempt in range(7)]  # AWS retries for up to 24 hours
_ASYNCHRONOUS_DELAYS_S = [60.0, 120.0]
_UNANSWERED = "SDK_CLIENT_ERROR"  # EventBridge's error code for a missing response
_TRANSIENT = {_UNANSWERED, "ThrottlingException", "TooManyRequestsException", "ServiceException", "InternalFailure"}


@around(Rule, "send_to_targets")
def start_machines_and_functions(original: Any, self: Any, event: Any, transform_input: bool = True) -> None:
    """AWS delivers to state machines and functions, with input transformation; moto supports neither target.

    Throttled and unanswered deliveries are retried as RetryPolicy says. Then the event goes to the
    target's dead-letter queue.
    """
    if self.state == "DISABLED" or not self.event_pattern.matches_event(event):
        return
    deliveries = {"states": _start_machine, "lambda": call_function}
    others = copy.copy(self)
    others.targets = []
    for target in self.targets:
        service = target["Arn"].split(":")[2]
        if service in deliveries:
            delivery = (running(), deliveries[service], self.arn, target, json.dumps(_shape(target, event)))
            threading.Thread(target=deliver, args=delivery, daemon=True).start()
        else:
            others.targets.append(target)
    if others.targets:
        original(others, event, transform_input)


@around(Rule, "send_to_targets")
def match_no_event_without_a_pattern(original: Any, self: Any, event: Any, transform_input: bool = True) -> None:
    """On AWS a rule with a schedule and without a pattern matches no event; in moto it matches every event."""
    if self.event_pattern.get_pattern():
        original(self, event, transform_input)


def deliver(
    host: Host, send: Callable[[Host, dict[str, Any], str], None], rule_arn: str, target: dict[str, Any], payload: str
) -> None:
    """Send a payload to a target, with retries, and then to the target's dead-letter queue."""
    delays_s = _DELAYS_S[: target.get("RetryPolicy", {}).get("MaximumRetryAttempts", len(_DELAYS_S))]
    for attempt in itertools.count():
        try:
            return send(host, target, payload)
        except ClientError as error:
            code, message = error.response["Error"]["Code"], error.response["Error"]["Message"]
        except BotoCoreError as error:
            code, message = _UNANSWERED, str(error)
        if code not in _TRANSIENT or attempt == len(delays_s):
            break
        if not host.wait(delays_s[attempt]):
            return
    if "DeadLetterConfig" in target and host.wait(0):  # the queue is gone when the cloud is closed
        facts = {"RULE_ARN": rule_arn, "TARGET_ARN": target["Arn"], "ERROR_CODE": code, "ERROR_MESSAGE": message}
        _send_dead_letter(host, target["DeadLetterConfig"]["Arn"], payload, {**facts, "RETRY_ATTEMPTS": str(attempt)})


def _start_machine(host: Host, target: dict[str, Any], payload: str) -> None:
    client = host.client("stepfunctions", target.get("RoleArn", ""))
    client.start_execution(stateMachineArn=target["Arn"], name=str(uuid.uuid4()), input=payload)


def call_function(host: Host, target: dict[str, Any], payload: str) -> None:
    """Invoke asynchronously as Lambda does: two retries, then the function's dead-letter queue."""
    arn = target["Arn"]
    for delay_s in (*_ASYNCHRONOUS_DELAYS_S, None):
        answer = host.client("lambda").invoke(FunctionName=arn, Payload=payload)
        if "FunctionError" not in answer:
            return
        if delay_s is not None and not host.wait(delay_s):
            return
    _, _, _, region, account_id, *_ = arn.split(":")
    function = lambda_backend(account_id, region).get_function(arn)
    if queue_arn := function.dead_letter_arn:
        message = json.loads(answer["Payload"].read()).get("errorMessage", "none")
        facts = {"ErrorCode": "200", "ErrorMessage": message[:1024]}
        _send_dead_letter(host, queue_arn, payload, facts, function.role)


def _send_dead_letter(host: Host, queue_arn: str, body: str, facts: dict[str, str], role_arn: str = "") -> None:
    queue_url = host.client("sqs").get_queue_url(QueueName=queue_arn.rpartition(":")[2])["QueueUrl"]
    attributes = {name: {"DataType": "String", "StringValue": value} for name, value in facts.items()}
    host.client("sqs", role_arn).send_message(QueueUrl=queue_url, MessageBody=body, MessageAttributes=attributes)


def _shape(target: dict[str, Any], event: Any) -> Any:
    if "Input" in target:
        return json.loads(target["Input"])
    if "InputPath" in target:
        return _at(target["InputPath"], event)
    if "InputTransformer" in target:
        paths = target["InputTransformer"].get("InputPathsMap", {})
        values = {name: _at(path, event) for name, path in paths.items()}
        return json.loads(
            JSON_STRING_OR_NAME.sub(lambda match: _fill(match[0], values), target["InputTransformer"]["InputTemplate"])
        )
    return event


def _fill(token: str, values: dict[str, Any]) -> str:
    """Return the value as JSON, or inside a JSON string the text with each name replaced by its value."""
    if token.startswith("<"):
        return json.dumps(values[token[1:-1]])
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    return NAME.sub(lambda match: json.dumps(texts[match[1]])[1:-1], token)


def _at(path: str, event: Any) -> Any:
    found = parse(path).find(event)
    return found[0].value if found else None


@around(EventsHandler, "test_event_pattern")
def match_the_pattern(_original: Any, self: Any) -> str:
    """AWS says whether a pattern matches an event; moto returns nothing."""
    event = json.loads(self._get_param("Event"))
    return json.dumps({"Result": EventPattern.load(self._get_param("EventPattern")).matches_event(event)})
