"""Clients, state machines and states of the tests."""

import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embedded_cloud.cloud import EmbeddedCloud
from embedded_cloud.faults import ErrorResponse
from tests import conftest

REFUSALS = {
    "s3": ErrorResponse(503, "SlowDown"),
    "dynamodb": ErrorResponse(400, "ProvisionedThroughputExceededException"),
    "lambda": ErrorResponse(429, "TooManyRequestsException"),
}
STACK = Path(__file__).parents[1] / "stack"
ROLE = "arn:aws:iam::123456789012:role/tests"


def client(cloud: EmbeddedCloud, service: str) -> Any:
    return conftest.client(service, cloud.endpoint_url, cloud.region)


def until(condition: Callable[[], Any], timeout_s: float = 30) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"condition not met within {timeout_s} s"
        time.sleep(0.02)
    return value


class Machines:
    """Creates and runs state machines."""

    def __init__(self, cloud: EmbeddedCloud) -> None:
        self.api = client(cloud, "stepfunctions")

    def create(self, states: dict[str, Any], name: str | None = None, **top: Any) -> str:
        definition = json.dumps({"StartAt": next(iter(states)), "States": states, **top})
        machine = self.api.create_state_machine(name=name or uuid.uuid4().hex, definition=definition, roleArn=ROLE)
        return str(machine["stateMachineArn"])

    def start(self, machine: str, given: Any = None) -> str:
        started = self.api.start_execution(stateMachineArn=machine, input=json.dumps(given or {}))
        return str(started["executionArn"])

    def end(self, execution: str) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            described: dict[str, Any] = self.api.describe_execution(executionArn=execution)
            return described if described["status"] != "RUNNING" else None

        result: dict[str, Any] = until(ended, 20)
        return result

    def run(self, states: dict[str, Any], given: Any = None, **top: Any) -> dict[str, Any]:
        return self.end(self.start(self.create(states, **top), given))

    def output(self, states: dict[str, Any], given: Any = None) -> Any:
        result = self.run(states, given)
        assert result["status"] == "SUCCEEDED", result.get("cause")
        return json.loads(result["output"])

    def history(self, execution: str) -> list[dict[str, Any]]:
        pages = self.api.get_paginator("get_execution_history").paginate(executionArn=execution)
        return [event for page in pages for event in page["events"]]


def task(resource: str, parameters: Any, **more: Any) -> dict[str, Any]:
    return {"Type": "Task", "Resource": f"arn:aws:states:::{resource}", "Parameters": parameters, "End": True, **more}


def invoke(function: str, payload: Any = None, **more: Any) -> dict[str, Any]:
    return task("lambda:invoke", {"FunctionName": function, "Payload": payload or {}}, **more)


def wait_for_token(queue_url: str, **more: Any) -> dict[str, Any]:
    return task(
        "sqs:sendMessage.waitForTaskToken", {"QueueUrl": queue_url, "MessageBody": {"token.$": "$$.Task.Token"}}, **more
    )


def receive_token(cloud: EmbeddedCloud) -> str:
    sqs = client(cloud, "sqs")
    url = cloud.outputs["QueueUrl"]
    message = until(lambda: sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5).get("Messages"))[0]
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return str(json.loads(message["Body"])["token"])


def invoke_directly(cloud: EmbeddedCloud, output: str, event: Any = None) -> tuple[Any, bool]:
    response = client(cloud, "lambda").invoke(FunctionName=cloud.outputs[output], Payload=json.dumps(event or {}))
    return json.load(response["Payload"]), "FunctionError" in response
