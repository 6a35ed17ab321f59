"""In-memory fake of a deployed stack, with the AWS calls that the client makes."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from io import BytesIO
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError, ParamValidationError
from botocore.response import StreamingBody

from client.stack import Stack

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
MACHINE = "arn:aws:states:eu-west-1:123456789012:stateMachine:pbr"
OUTPUTS = {
    "UploadsBucket": "uploads",
    "ResultsBucket": "results",
    "WorkBucket": "work",
    "StateMachineArn": MACHINE,
    "StateMachineAlias": f"{MACHINE}:live",
    "QueueUrl": "https://queue",
}
RECOVERY_OUTPUTS = {
    "UploadsDeadLetterQueueUrl": "https://uploads-dlq",
    "ReconcileDeadLetterQueueUrl": "https://reconcile-dlq",
    "SegmentationDeadLetterQueueUrl": "https://segmentation-dlq",
    "ReconcileFunctionArn": "reconcile",
    "WebhooksDeadLetterQueueUrl": "https://webhooks-dlq",
    "WebhookMachineArn": "arn:aws:states:eu-west-1:123456789012:stateMachine:pbr-webhooks",
    "WebhookMachineAlias": "arn:aws:states:eu-west-1:123456789012:stateMachine:pbr-webhooks:live",
}


class Buckets:
    """S3. ``newest`` has the newest version of each key; ``denied`` denies all reads."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, ...], bytes] = {}
        self.puts: list[dict[str, Any]] = []
        self.newest: dict[str, str] = {}
        self.denied = False

    def put_object(self, **request: Any) -> dict[str, Any]:
        self.puts.append(request)
        self.objects[request["Bucket"], request["Key"]] = request["Body"]
        date = format_datetime(NOW, usegmt=True)
        return {"VersionId": f"v{len(self.puts)}", "ResponseMetadata": {"HTTPHeaders": {"date": date}}}

    def copy_object(self, **request: Any) -> dict[str, Any]:
        source = request["CopySource"]
        if (place := (source["Bucket"], source["Key"])) not in self.objects:
            raise ClientError({"Error": {"Code": "NoSuchKey", "Message": "no such key"}}, "CopyObject")
        kept = {name: request[name] for name in ("Bucket", "Key", "ContentType", "Metadata")}
        return self.put_object(**kept, Body=self.objects[place])

    def get_object(self, **request: Any) -> dict[str, Any]:
        place = tuple(request[name] for name in ("Bucket", "Key", "VersionId") if name in request)
        if self.denied:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "Access Denied"}}, "GetObject")
        if place not in self.objects:
            raise ClientError({"Error": {"Code": "NoSuchKey", "Message": "no such key"}}, "GetObject")
        data = self.objects[place]
        return {"Body": StreamingBody(BytesIO(data), len(data)), "ContentLength": len(data)}

    def head_object(self, **request: Any) -> dict[str, Any]:
        if not request["Key"]:
            raise ParamValidationError(report="Invalid length for parameter Key, value: 0, valid min length: 1")
        if request["Key"].startswith("../"):
            raise ClientError({"Error": {"Code": "400", "Message": "Bad Request"}}, "HeadObject")
        if version := self.newest.get(request["Key"]):
            return {"VersionId": version}
        raise ClientError({"Error": {"Code": "404", "Message": "Not Found"}}, "HeadObject")


def _error(name: str) -> Any:
    return type(name, (ClientError,), {})({"Error": {"Code": name, "Message": "no"}}, "")


_ERRORS = {name: _error(name) for name in ("ExecutionAlreadyExists", "ExecutionDoesNotExist", "ExecutionNotRedrivable")}


def _arn(machine: str, name: str) -> str:
    return f"{machine.replace('stateMachine', 'execution')}:{name}"


class Executions:
    """Step Functions.

    Executions that are started or redriven run until ``end`` is called.

    Attributes:
        histories: events of an execution by ARN, one list per call.
        calls: ``start``, ``redrive`` or ``definition``, with the name of the execution.
    """

    exceptions = SimpleNamespace(**{name: type(refusal) for name, refusal in _ERRORS.items()})

    def __init__(self) -> None:
        self.known: dict[str, dict[str, Any]] = {}
        self.histories: dict[str, list[list[dict[str, Any]]]] = {}
        self.described: list[str] = []
        self.calls: list[tuple[str, str]] = []

    def add(self, name: str, execution_input: Any, *, machine: str = MACHINE, after_s: float = 0, **facts: Any) -> str:
        arn = _arn(machine, name)
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
        if request["executionArn"] not in self.known:
            raise _ERRORS["ExecutionDoesNotExist"]
        return self.known[request["executionArn"]]

    def describe_state_machine_for_execution(self, **request: Any) -> dict[str, Any]:
        self.calls.append(("definition", self.known[request["executionArn"]]["name"]))
        return {"definition": "{}"}

    def get_execution_history(self, **request: Any) -> dict[str, Any]:
        [events] = self.histories.get(request["executionArn"], [[]])
        return {"events": events[::-1][: request["maxResults"]]}

    def start_execution(self, **request: Any) -> dict[str, Any]:
        machine, _, qualifier = request["stateMachineArn"].rpartition(":")
        assert qualifier == "live", "executions start with the alias"
        arn = _arn(machine, request["name"])
        if arn in self.known and self.known[arn]["status"] != "RUNNING":
            raise _ERRORS["ExecutionAlreadyExists"]
        if arn not in self.known:
            self.calls.append(("start", request["name"]))
            self.add(request["name"], json.loads(request["input"]), machine=machine)
        return {"executionArn": arn}

    def redrive_execution(self, **request: Any) -> dict[str, Any]:
        found = self.known[request["executionArn"]]
        if found["status"] == "RUNNING":
            raise _ERRORS["ExecutionNotRedrivable"]
        self.calls.append(("redrive", found["name"]))
        found |= {"status": "RUNNING", "redriveCount": found.get("redriveCount", 0) + 1}
        return {}

    def end(self, name: str, status: str, **facts: Any) -> None:
        self.known[_arn(MACHINE, name)] |= {"status": status, **facts}

    def get_paginator(self, operation: str) -> "_Pages":
        return _Pages(self, operation)


class _Pages:
    def __init__(self, executions: Executions, operation: str) -> None:
        self._executions, self._operation = executions, operation

    def paginate(self, **request: Any) -> Iterator[dict[str, Any]]:
        if self._operation == "get_execution_history":
            reads = self._executions.histories[request["executionArn"]]
            events = reads.pop(0) if len(reads) > 1 else reads[0]
            for start in range(0, len(events), 3):
                yield {"events": events[start : start + 3]}
        else:
            status = request.get("statusFilter")
            known = [found for found in self._executions.known.values() if status in (None, found["status"])]
            newest_first = sorted(known, key=lambda found: found["startDate"], reverse=True)
            size = request["PaginationConfig"]["PageSize"]
            listed = newest_first[: request["PaginationConfig"].get("MaxItems")]
            for start in range(0, len(listed), size):
                yield {"executions": listed[start : start + size]}


def uploaded(key: str, version: str, bucket: str = "uploads") -> dict[str, Any]:
    """Return an S3 event with the fields that the pipeline reads."""
    return {"source": "aws.s3", "detail": {"bucket": {"name": bucket}, "object": {"key": key, "version-id": version}}}


def stack(
    executions: Executions | None = None,
    buckets: Buckets | None = None,
    sqs: Any = None,
    functions: Any = None,
    dynamodb: Any = None,
    secrets: Any = None,
) -> Stack:
    clients = {
        "s3": buckets or Buckets(),
        "stepfunctions": executions or Executions(),
        "sqs": sqs,
        "lambda": functions,
        "dynamodb": dynamodb,
        "secretsmanager": secrets,
    }
    return Stack(
        name="pbr",
        region="eu-west-1",
        endpoint_url=None,
        outputs={**OUTPUTS, **RECOVERY_OUTPUTS},
        parameters={},
        client=clients.__getitem__,
        poll_s=0.001,
    )


class History:
    """Builder of an execution history. Events are 1 ms apart by default."""

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

    def enter(self, name: str, kind: str = "Task", data: Any = None) -> "History":
        details = {"name": name, "input": json.dumps(data)} if data is not None else {"name": name}
        return self.add(f"{kind}StateEntered", stateEnteredEventDetails=details)

    def exit(self, name: str, kind: str = "Task", *, ms: int = 1, data: Any = None) -> "History":
        details = {"name": name, "output": json.dumps(data)} if data is not None else {"name": name}
        return self.add(f"{kind}StateExited", ms=ms, stateExitedEventDetails=details)

    def attempt(self) -> "History":
        resource = {"resourceType": "lambda", "resource": "invoke"}
        return self.add("TaskScheduled", taskScheduledEventDetails=resource).add("TaskStarted")

    def fail(self, error: str, cause: str, *, ms: int = 1) -> "History":
        return self.add("TaskFailed", ms=ms, taskFailedEventDetails={"error": error, "cause": cause})

    def task(self, name: str, *, ms: int = 1) -> "History":
        return self.enter(name).attempt().add("TaskSucceeded", ms=ms).exit(name)
