"""A deployed stack as a user sees it: upload, wait for an execution, read results and failure reports."""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from embedded_cloud.cloud import EmbeddedCloud
from embedded_cloud.faults import ErrorResponse, FaultEffect, InvocationFault, Request
from functions.contracts.failure_report import source_of
from functions.contracts.object_keys import failure_key
from tests.conftest import client

Found = TypeVar("Found")

ENDED = {"SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"}


@dataclass(frozen=True)
class Ended:
    """An execution that has ended: its description, its output, and the names of the states it entered."""

    status: str
    error: str | None
    cause: str | None
    output: dict[str, Any]
    states: list[str]
    events: list[dict[str, Any]]


@dataclass
class Crashes:
    """Crashes functions on events that contain a text: (part of the function's name, text). Records requests to S3.

    ``before`` is called once before an object is read, by the path of the request.
    """

    of: set[tuple[str, str]] = field(default_factory=set)
    requests: list[Request] = field(default_factory=list)
    before: dict[str, Callable[[], object]] = field(default_factory=dict)

    def request(self, request: Request) -> ErrorResponse | None:
        if request.service == "s3":
            self.requests.append(replace(request, body=b""))
            if request.method == "GET" and (call := self.before.pop(request.path, None)):
                call()
        return None

    def invocation(self, function: str, event: str) -> InvocationFault | None:
        return (
            InvocationFault(FaultEffect.CRASH)
            if any(name in function and text in event for name, text in self.of)
            else None
        )


class Deployed:
    """A deployed stack, as a user has it."""

    def __init__(self, cloud: EmbeddedCloud, crashes: Crashes | None = None) -> None:
        self.cloud, self.outputs, self.crashes = cloud, cloud.outputs, crashes or Crashes()
        self.s3, self.sfn, self.dynamodb, self.sqs, self.sns = (
            client(service, cloud.endpoint_url, cloud.region)
            for service in ("s3", "stepfunctions", "dynamodb", "sqs", "sns")
        )
        self._sources: dict[str, tuple[str | None, str | None]] = {}

    def upload(self, key: str, data: bytes, metadata: Mapping[str, str] | None = None) -> str:
        """Put an object and return its version."""
        return self.s3.put_object(
            Bucket=self.outputs["UploadsBucket"], Key=key, Body=data, Metadata=dict(metadata or {})
        )["VersionId"]

    def start(self, source: dict[str, Any], **options: Any) -> str:
        """Start an execution by hand and return its ARN."""
        return self.sfn.start_execution(
            stateMachineArn=self.outputs["StateMachineAlias"], input=json.dumps({"source": source, "options": options})
        )["executionArn"]

    def execution_of(self, key: str, version: str, *, timeout_s: float = 20) -> str:
        """Return the ARN of the execution that the upload's event started."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for execution in self.sfn.list_executions(stateMachineArn=self.outputs["StateMachineArn"])["executions"]:
                if self._source_of(execution["executionArn"]) == (key, version):
                    return execution["executionArn"]
            time.sleep(0.1)
        raise TimeoutError(f"no execution for {key}")

    def _source_of(self, execution_arn: str) -> tuple[str | None, str | None]:
        """Return key and version of an execution's input, which never changes: it is read once."""
        if execution_arn not in self._sources:
            described = self.sfn.describe_execution(executionArn=execution_arn)
            source = source_of(json.loads(described["input"]))
            self._sources[execution_arn] = source["key"], source["version_id"]
        return self._sources[execution_arn]

    def wait(self, execution_arn: str, *, timeout_s: float = 120) -> Ended:
        """Wait until an execution ends."""
        deadline = time.monotonic() + timeout_s
        while (described := self.sfn.describe_execution(executionArn=execution_arn))["status"] not in ENDED:
            assert time.monotonic() < deadline, f"{execution_arn} runs on"
            time.sleep(0.05)
        events = [
            event
            for page in self.sfn.get_paginator("get_execution_history").paginate(executionArn=execution_arn)
            for event in page["events"]
        ]
        return Ended(
            status=described["status"],
            error=described.get("error"),
            cause=described.get("cause"),
            output=json.loads(described.get("output", "{}")),
            states=[e["stateEnteredEventDetails"]["name"] for e in events if "stateEnteredEventDetails" in e],
            events=events,
        )

    def process(self, key: str, data: bytes, metadata: Mapping[str, str] | None = None) -> Ended:
        """Upload, and wait for what the event started."""
        return self.wait(self.execution_of(key, self.upload(key, data, metadata)))

    def result(self, key: str) -> bytes:
        """Read an object of the results bucket."""
        return self.s3.get_object(Bucket=self.outputs["ResultsBucket"], Key=key)["Body"].read()

    def report(self, source_key: str) -> dict[str, Any]:
        """Read the report of a failure."""
        return json.loads(self.result(failure_key(source_key, "")))

    def is_reported(self, source_key: str) -> bool:
        """Whether the failure of an upload is reported."""
        listed = self.s3.list_objects_v2(Bucket=self.outputs["ResultsBucket"], Prefix=f"failed/{source_key}.json")
        return bool(listed["KeyCount"])

    def states_of(self, execution_arn: str) -> list[str]:
        """Return the names of the states that an execution has entered by now."""
        events = self.sfn.get_execution_history(executionArn=execution_arn, maxResults=1000)["events"]
        return [e["stateEnteredEventDetails"]["name"] for e in events if "stateEnteredEventDetails" in e]

    def receive_token(self) -> str:
        """Take a job off the queue, as a worker does, and return its task token."""
        [message] = self.sqs.receive_message(QueueUrl=self.outputs["QueueUrl"], WaitTimeSeconds=20)["Messages"]
        self.sqs.delete_message(QueueUrl=self.outputs["QueueUrl"], ReceiptHandle=message["ReceiptHandle"])
        return json.loads(message["Body"])["token"]

    @contextmanager
    def no_workers(self) -> Iterator[None]:
        """Stop the workers for a while."""
        ecs = client("ecs", self.cloud.endpoint_url, self.cloud.region)
        [cluster] = ecs.list_clusters()["clusterArns"]
        [service] = ecs.list_services(cluster=cluster)["serviceArns"]
        [described] = ecs.describe_services(cluster=cluster, services=[service])["services"]
        ecs.update_service(cluster=cluster, service=service, desiredCount=0)
        try:
            yield
        finally:
            ecs.update_service(cluster=cluster, service=service, desiredCount=described["desiredCount"])

    @contextmanager
    def listener(self, topic: str = "FailuresTopicArn") -> Iterator[Callable[[], list[dict[str, Any]]]]:
        """Subscribe to the topic in this output; yields a function that returns the messages since its last call."""
        queue = self.sqs.create_queue(QueueName=f"listener-{uuid.uuid4().hex}")["QueueUrl"]
        arn = self.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        subscription = self.sns.subscribe(TopicArn=self.outputs[topic], Protocol="sqs", Endpoint=arn)["SubscriptionArn"]

        def heard() -> list[dict[str, Any]]:
            found = self.sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1, MaxNumberOfMessages=10)
            return [json.loads(message["Body"]) for message in found.get("Messages", [])]

        try:
            yield heard
        finally:
            self.sns.unsubscribe(SubscriptionArn=subscription)
            self.sqs.delete_queue(QueueUrl=queue)

    def cached(self) -> list[dict[str, Any]]:
        """Read the whole cache table."""
        return self.dynamodb.scan(TableName=self.outputs["CacheTable"], ConsistentRead=True)["Items"]


def next_second() -> None:
    """Wait until the current second is over: the sweep and the digest leave its objects for the next run."""
    time.sleep(1 - time.time() % 1)


def until(condition: Callable[[], Found], *, timeout_s: float = 60) -> Found:
    """Wait until a condition holds, and return what it found."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.05)
    return found
