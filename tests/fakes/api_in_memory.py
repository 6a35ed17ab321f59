"""The API in this process: its handler behind the embedded gateway, with moto and a fake Step Functions."""

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from types import SimpleNamespace
from typing import Any

import boto3
from botocore.exceptions import ClientError
from moto import mock_aws
from werkzeug.test import Client, TestResponse

from core.options import Options
from embedded_cloud.gateway import Gateway
from functions.api.config import ApiConfig
from functions.api.resolver import create_handler
from functions.api.services import Services
from functions.contracts.api_key import ApiKey, KeyRecord, Scope, SecretHash
from functions.contracts.object_keys import failure_key, result_key, sidecar_key
from functions.runtime.safe_http import Fetched
from functions.runtime.store import S3_SDK

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "POWERTOOLS_SERVICE_NAME": "api",
}
TABLES = {"keys": "key_id", "usage": "meter", "jobs": "job_id", "cache": "cache_key"}
MACHINE_ARN = "arn:aws:states:eu-west-1:123456789012:stateMachine:pbr"
RESULT = b"\x89PNG\r\n\x1a\nresult"

UNKNOWN_FOREGROUND = {
    "stage": "Refine",
    "error": "UnknownForegroundError",
    "message": "No subject was found",
    "field": "image",
    "value": None,
    "remedy": "Send an image with a subject.",
}


class StepFunctions:
    """A fake Step Functions client with one state machine.

    Attributes:
        inputs: inputs of executions, by name.
        statuses: statuses of executions, by name.
        outputs: outputs of successful executions, by name.
        errors: errors of executions that failed without a report, by name.
        validated: outputs of Validate, by name; None for executions that failed there.
        failures: what RecordFailure added to the workflow state of a failed execution, by name.
        stopped: names of stopped executions.
        on_start: called with the name and input of each new execution, and decides its outcome.
        result: the result that :meth:`succeed` stores.
        size: width and height of the source.
    """

    def __init__(self, s3: Any) -> None:
        self._s3 = s3
        self.inputs: dict[str, dict[str, Any]] = {}
        self.statuses: dict[str, str] = {}
        self.errors: dict[str, str] = {}
        self.outputs: dict[str, str] = {}
        self.validated: dict[str, dict[str, Any] | None] = {}
        self.failures: dict[str, dict[str, Any]] = {}
        self.stopped: list[str] = []
        self.on_start: Callable[[str, dict[str, Any]], None] = self.succeed
        self.result = RESULT
        self.size = (320, 240)
        self.exceptions = SimpleNamespace(
            ExecutionAlreadyExists=AlreadyExistsError, ExecutionDoesNotExist=DoesNotExistError
        )

    def start_execution(self, *, stateMachineArn: str, name: str, input: str) -> None:  # noqa: N803
        assert stateMachineArn == f"{MACHINE_ARN}:live"
        if name in self.inputs:
            raise AlreadyExistsError({"Error": {"Code": "ExecutionAlreadyExists"}}, "StartExecution")
        self.inputs[name] = json.loads(input)
        self.validated.setdefault(name, {"cache_key": f"key-of-{name}"})
        self.statuses[name] = "RUNNING"
        self.on_start(name, self.inputs[name])

    def describe_execution(self, *, executionArn: str) -> dict[str, Any]:  # noqa: N803
        name = executionArn.rpartition(":")[2]
        assert executionArn == execution_arn(name)
        if name not in self.statuses:
            raise DoesNotExistError({"Error": {"Code": "ExecutionDoesNotExist"}}, "DescribeExecution")
        found = {"status": self.statuses[name], "name": name, "input": json.dumps(self.inputs.get(name, {}))}
        if name in self.outputs:
            found["output"] = self.outputs[name]
        if name in self.errors:
            found["error"] = self.errors[name]
        return found

    def get_execution_history(
        self,
        *,
        executionArn: str,  # noqa: N803
        reverseOrder: bool = False,  # noqa: N803
        includeExecutionData: bool = True,  # noqa: N803
        **_: Any,
    ) -> dict[str, Any]:
        self.describe_execution(executionArn=executionArn)  # raises if it does not exist
        at = datetime(2026, 1, 1, tzinfo=UTC)
        events = [
            {"id": 1, "type": "ExecutionStarted", "timestamp": at},
            {
                "id": 2,
                "type": "TaskStateEntered",
                "timestamp": at,
                "stateEnteredEventDetails": {"name": "Validate", "input": "{}"},
            },
        ]
        if includeExecutionData and (state := self.validated[executionArn.rpartition(":")[2]]):
            output = {"name": "Validate", "output": json.dumps(state)}
            events.append({"id": 3, "type": "TaskStateExited", "timestamp": at, "stateExitedEventDetails": output})
        if failure := self.failures.get(executionArn.rpartition(":")[2]):
            details = {"name": "Failed", "input": json.dumps({"failure": failure})}
            events.append({"id": 3, "type": "FailStateEntered", "timestamp": at, "stateEnteredEventDetails": details})
            events.append({"id": 4, "type": "ExecutionFailed", "timestamp": at})
        return {"events": events[::-1] if reverseOrder else events}

    def stop_execution(self, *, executionArn: str, **_: Any) -> None:  # noqa: N803
        self.stopped.append(executionArn.rpartition(":")[2])

    def get_paginator(self, operation: str) -> Any:
        assert operation == "list_executions"
        return SimpleNamespace(paginate=self._executions)

    def _executions(self, *, stateMachineArn: str, statusFilter: str) -> Iterator[dict[str, Any]]:  # noqa: N803
        assert stateMachineArn == MACHINE_ARN
        for name in [name for name, status in self.statuses.items() if status == statusFilter]:
            yield {"executions": [{"executionArn": execution_arn(name)}]}

    def describe_state_machine(self, *, stateMachineArn: str) -> dict[str, Any]:  # noqa: N803
        return {"stateMachineArn": stateMachineArn}

    def keep_running(self, name: str, request: dict[str, Any]) -> None:
        """Outcome: the execution keeps running."""

    def succeed(self, name: str, request: dict[str, Any]) -> None:
        """Outcome: the result and its sidecar are stored."""
        key, options = request["source"]["key"], request["options"]
        format_ = options.get("format", "png")
        result = result_key(key, Options.parse(options).format.extension)
        version = self._s3.put_object(Bucket="results", Key=result, Body=self.result).get("VersionId")
        sidecar = {
            "execution": {"id": f"arn:{name}", "name": name, "started_at": ""},
            "source": {**request["source"], "format": "png", "bytes": 9, "width": self.size[0], "height": self.size[1]},
            "options": options,
            "result": {"bucket": "results", "key": result, "version_id": version, "sidecar_key": sidecar_key(result)},
            "image": {
                "format": format_,
                "content_type": "application/zip" if format_ == "zip" else f"image/{format_}",
                "width": 320,
                "height": 240,
                "bytes": len(self.result),
                "foreground": {"left": 10, "top": 20, "width": 100, "height": 200},
            },
            "model": {"name": "classical", "weights_sha256": None, "host": "lambda"},
            "degraded": False,
            "quality": {"score": 0.9, "review": False},
            "timings_s": {"validate": 0.1},
            "cache": {"key": "0", "hit": False},
            "warnings": [],
        }
        self._s3.put_object(Bucket="results", Key=sidecar_key(result), Body=json.dumps(sidecar))
        self.statuses[name], self.outputs[name] = "SUCCEEDED", json.dumps(sidecar)

    def fail(self, report: Mapping[str, Any]) -> Callable[[str, dict[str, Any]], None]:
        """Outcome: a failure report is stored."""

        def outcome(name: str, request: dict[str, Any]) -> None:
            document = {**report, "execution": {"name": name}, "source": request["source"]}
            key = failure_key(request["source"]["key"], name)
            self._s3.put_object(Bucket="results", Key=key, Body=json.dumps(document))
            self.statuses[name], self.errors[name] = "FAILED", report["error"]
            self.failures[name] = {"facts": {"stage": "Validate", **report}}

        return outcome


def execution_arn(name: str) -> str:
    """Return the ARN of an execution of the state machine."""
    return f"arn:aws:states:eu-west-1:123456789012:execution:pbr:{name}"


class AlreadyExistsError(ClientError):
    pass


class DoesNotExistError(ClientError):
    pass


class Web:
    """A fake download function: ``files`` are the contents by URL."""

    def __init__(self) -> None:
        self.files: dict[str, bytes | Exception] = {}

    def __call__(self, url: str, *, field: str) -> Fetched:
        found = self.files[url]
        if isinstance(found, Exception):
            raise found
        return Fetched(found, url)


@cache
def client(service: str) -> Any:
    """Return a client of a service. It is cached, because its creation takes longer than a test."""
    return boto3.client(service, config=S3_SDK if service == "s3" else None)


class Serialized:
    """A client whose calls are serialized: moto's conditional writes are not atomic."""

    def __init__(self, one: Any) -> None:
        self._one, self._lock = one, threading.Lock()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._one, name)
        if not callable(found) or name == "exceptions":
            return found

        def call(**request: Any) -> Any:
            with self._lock:
                return found(**request)

        return call


def create_storage(s3: Any, dynamodb: Any, tables: Mapping[str, str]) -> None:
    """Create the buckets of a stack, and tables, given with their keys."""
    for bucket in ("work", "uploads", "results"):
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    for bucket in ("uploads", "results"):
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for table, key in tables.items():
        dynamodb.create_table(
            TableName=table,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
            KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
        )


class Api:
    """The API, with its clients and a key.

    Attributes:
        stepfunctions, web, s3, dynamodb: the clients that the API uses.
        key: a key with all scopes.
    """

    def __init__(self, **settings: Any) -> None:
        self.s3, self.dynamodb = client("s3"), Serialized(client("dynamodb"))
        create_storage(self.s3, self.dynamodb, TABLES)
        queue = client("sqs").create_queue(QueueName="queue")["QueueUrl"]
        config = {
            "uploads_bucket": "uploads",
            "results_bucket": "results",
            "work_bucket": "work",
            "state_machine_alias": f"{MACHINE_ARN}:live",
            "segmentation_queue_url": queue,
            **{f"{table}_table": table for table in TABLES},
            "job_days": 7,
            "rate_per_minute": 1000,
            "monthly_quota": 1000,
            "jobs_in_flight": 20,
            **settings,
        }
        self.stepfunctions, self.web = StepFunctions(self.s3), Web()
        clients = {"stepfunctions": Serialized(self.stepfunctions), "dynamodb": self.dynamodb}
        self.services = Services.connect(
            ApiConfig(**config), client=lambda service: clients.get(service) or client(service), fetch=self.web
        )
        handle = create_handler(self.services)
        context = SimpleNamespace(
            function_name="api", memory_limit_in_mb=1024, invoked_function_arn="arn:api", aws_request_id="request"
        )
        self.gateway = Gateway(lambda event: handle(event, context))
        self._client = Client(self.gateway)
        self.key = self.make_key(*Scope)

    def make_key(self, *scopes: Scope, **limits: Any) -> str:
        """Create a key, and return its text."""
        key, now = ApiKey.generate(), datetime.now(UTC)
        hashes = (SecretHash(sha256=key.sha256, created_at=now),)
        record = KeyRecord(
            key_id=key.key_id, name="test", hashes=hashes, scopes=frozenset(scopes), created_at=now, **limits
        )
        self.dynamodb.put_item(TableName="keys", Item=record.item())
        return key.reveal()

    def call(self, method: str, path: str, *, key: str | None = "", **request: Any) -> TestResponse:
        """Send a request, by default with ``self.key``; without a key if ``key`` is None."""
        headers = dict(request.pop("headers", {}))
        if key is not None:
            headers["X-API-Key"] = key or self.key
        return self._client.open(path, method=method, headers=headers, **request)

    def used(self) -> int:
        """Return the charged images of all callers."""
        items = self.dynamodb.scan(TableName="usage")["Items"]
        return sum(int(item["used"]["N"]) for item in items if "used" in item)

    def keys_in(self, bucket: str) -> list[str]:
        """Return the keys of all object versions in a bucket."""
        return [version["Key"] for version in self.s3.list_object_versions(Bucket=bucket).get("Versions", [])]


@contextmanager
def api_in_memory(**settings: Any) -> Iterator[Api]:
    """Run the API; ``settings`` override its configuration."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    try:
        with mock_aws():
            api = Api(**settings)
            try:
                yield api
            finally:
                api.gateway.close()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
