"""A deployed stack in memory: the few calls that the client makes, answered as AWS answers them."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from io import BytesIO
from typing import Any

from botocore.exceptions import ClientError

from client.stack import Stack

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
MACHINE = "arn:aws:states:eu-west-1:123456789012:stateMachine:pbr"
OUTPUTS = {
    "UploadsBucket": "uploads",
    "ResultsBucket": "results",
    "WorkBucket": "work",
    "StateMachineArn": MACHINE,
    "QueueUrl": "https://queue",
}


class Buckets:
    """S3."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], bytes] = {}
        self.puts: list[dict[str, Any]] = []

    def put_object(self, **request: Any) -> dict[str, Any]:
        self.puts.append(request)
        self.objects[request["Bucket"], request["Key"]] = request["Body"]
        date = format_datetime(NOW, usegmt=True)
        return {"VersionId": f"v{len(self.puts)}", "ResponseMetadata": {"HTTPHeaders": {"date": date}}}

    def get_object(self, **request: Any) -> dict[str, Any]:
        place = request["Bucket"], request["Key"]
        if place not in self.objects:
            raise ClientError({"Error": {"Code": "NoSuchKey", "Message": "no such key"}}, "GetObject")
        return {"Body": BytesIO(self.objects[place])}


class Executions:
    """Step Functions. ``histories`` gives an execution's events, one list for each time they are asked for."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, Any]] = {}
        self.histories: dict[str, list[list[dict[str, Any]]]] = {}
        self.described: list[str] = []

    def add(self, name: str, execution_input: dict[str, Any], *, after_s: float = 0, **facts: Any) -> str:
        arn = f"{MACHINE.replace('stateMachine', 'execution')}:{name}"
        self.known[arn] = {
            "executionArn": arn,
            "name": name,
            "status": "RUNNING",
            "startDate": NOW + timedelta(seconds=after_s),
            "input": json.dumps(execution_input),
            **facts,
        }
        return arn

    def describe_execution(self, **request: Any) -> dict[str, Any]:
        self.described.append(request["executionArn"])
        return self.known[request["executionArn"]]

    def get_paginator(self, operation: str) -> "_Pages":
        return _Pages(self, operation)


class _Pages:
    def __init__(self, executions: Executions, operation: str) -> None:
        self._executions, self._operation = executions, operation

    def paginate(self, **request: Any) -> Iterator[dict[str, Any]]:
        if self._operation == "get_execution_history":
            looks = self._executions.histories[request["executionArn"]]
            events = looks.pop(0) if len(looks) > 1 else looks[0]
            for start in range(0, len(events), 3):
                yield {"events": events[start : start + 3]}
        else:
            newest_first = sorted(self._executions.known.values(), key=lambda found: found["startDate"], reverse=True)
            for execution in newest_first[: request["PaginationConfig"].get("MaxItems")]:
                yield {"executions": [execution]}


def uploaded(key: str, version: str, bucket: str = "uploads") -> dict[str, Any]:
    """The event that S3 sends, as far as it matters."""
    return {"source": "aws.s3", "detail": {"bucket": {"name": bucket}, "object": {"key": key, "version-id": version}}}


def stack(executions: Executions | None = None, buckets: Buckets | None = None) -> Stack:
    return Stack(
        name="pbr",
        region="eu-west-1",
        endpoint_url=None,
        outputs=OUTPUTS,
        parameters={},
        s3=buckets or Buckets(),
        stepfunctions=executions or Executions(),
        sqs=None,
        poll_s=0.001,
    )


class History:
    """A history as it grows: states follow one another, a millisecond apart unless told otherwise."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._at = NOW
        self.add("ExecutionStarted")

    def add(self, kind: str, *, ms: int = 1, **details: Any) -> "History":
        self._at += timedelta(milliseconds=ms)
        number = len(self.events) + 1
        self.events.append(
            {"id": number, "previousEventId": number - 1, "type": kind, "timestamp": self._at, **details}
        )
        return self

    def enter(self, name: str, kind: str = "Task", given: Any = None) -> "History":
        details = {"name": name, "input": json.dumps(given)} if given is not None else {"name": name}
        return self.add(f"{kind}StateEntered", stateEnteredEventDetails=details)

    def exit(self, name: str, kind: str = "Task", *, ms: int = 1, made: Any = None) -> "History":
        details = {"name": name, "output": json.dumps(made)} if made is not None else {"name": name}
        return self.add(f"{kind}StateExited", ms=ms, stateExitedEventDetails=details)

    def attempt(self) -> "History":
        resource = {"resourceType": "lambda", "resource": "invoke"}
        return self.add("TaskScheduled", taskScheduledEventDetails=resource).add("TaskStarted")

    def fail(self, error: str, cause: str, *, ms: int = 1) -> "History":
        return self.add("TaskFailed", ms=ms, taskFailedEventDetails={"error": error, "cause": cause})

    def task(self, name: str, *, ms: int = 1) -> "History":
        return self.enter(name).attempt().add("TaskSucceeded", ms=ms).exit(name)
