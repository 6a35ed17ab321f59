"""Dead-letter queues: deliver events and webhooks again, and report on jobs that no worker completed."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, Field, ValidationError

from client import history, uploads
from client.errors import sdk_errors
from client.redrive import RateLimiter, start_once
from client.stack import Stack
from functions.contracts.failure_report import explain, json_object, source_of
from functions.contracts.job import Execution, StoredObject
from functions.contracts.webhook import Notice

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

_VISIBILITY_TIMEOUT_S: Final = 300
_POLL_S: Final = 2  # a long poll queries all SQS servers, so an empty answer means an empty queue
_BATCH: Final = 10

_ERROR_ATTRIBUTES: Final = ("ERROR_CODE", "ERROR_MESSAGE", "ErrorMessage")  # set by EventBridge and by Lambda

# Sources of the events that the rules of the stack deliver.
_UPLOADS: Final = "aws.s3"
_EXECUTIONS: Final = "aws.states"

Status = Literal["replayable", "obsolete", "kept", "rejected", "replayed", "deleted"]


class Queue(StrEnum):
    """A dead-letter queue of the stack."""

    UPLOADS = "uploads"
    RECONCILE = "reconcile"
    SEGMENTATION = "segmentation"
    WEBHOOKS = "webhooks"

    @property
    def output(self) -> str:
        """Name of the stack output that has the queue's URL."""
        return f"{self.title()}DeadLetterQueueUrl"


class _WorkerJob(BaseModel):
    execution: Execution
    source: StoredObject


class _WorkerMessage(BaseModel):
    """A message of the worker queue."""

    job: _WorkerJob


class _CaughtError(BaseModel):
    error: str = Field(alias="Error")
    cause: str = Field(alias="Cause", default="")


class _WebhookMessage(BaseModel):
    """A message of the webhook dead-letter queue."""

    notice: Notice
    failed: _CaughtError


@dataclass(frozen=True)
class DeadLetter:
    """A message of a dead-letter queue.

    Attributes:
        queue: the queue.
        message_id: SQS message ID.
        key: object key of the image, or job ID of a webhook; None if the message has neither.
        error: why the message was not delivered.
        status: ``replayable``: it can be delivered again; ``replayed``: it was; ``obsolete``: nothing is left to do;
            ``deleted``: it was obsolete and has been deleted; ``kept``: it stays in the queue; ``rejected``: AWS
            rejected the delivery, and it stays in the queue.
        reason: reason of the status.
        event: what to deliver, as JSON.
    """

    queue: str
    message_id: str
    key: str | None
    error: str
    status: Status
    reason: str
    event: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the message as ``pbr replay-dlq --json`` prints it."""
        names = ("queue", "message_id", "key", "error", "status", "reason")
        return {name: getattr(self, name) for name in names}


def replay(stack: Stack, queue: Queue, *, limit: int | None, dry_run: bool, purge: bool) -> Iterator[DeadLetter]:
    """Read a dead-letter queue once, deliver its messages again, and yield each message with its new status.

    A message is deleted once its delivery is confirmed, or with ``purge`` if it is obsolete.

    Args:
        stack: the stack of the queue.
        queue: the queue.
        limit: maximum number of messages; None for all.
        dry_run: only read the messages.
        purge: delete obsolete messages.

    Raises:
        StackUnavailableError: if the stack has no such queue.
    """
    url, limiter = stack.output(queue.output), RateLimiter()
    readers = {Queue.SEGMENTATION: _read_job, Queue.WEBHOOKS: _read_webhook}
    read = readers.get(queue, partial(_read_event, queue))
    remaining: list[str] = []
    messages: Iterable[MessageTypeDef] = _messages(stack, url, limit)
    if queue is Queue.WEBHOOKS:
        messages = list(messages)  # a delivery that fails again puts a new message into this queue meanwhile
    try:
        for message in messages:
            letter = read(stack, message)
            if not dry_run:
                letter = _act(stack, letter, limiter, purge=purge)
            if letter.status in ("replayed", "deleted"):
                stack.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            else:
                remaining.append(message["ReceiptHandle"])
            yield letter
    finally:
        _make_visible(stack, url, remaining)


def replay_command(stack: Stack, queue: Queue) -> str:
    """Return the shell command that processes the messages of a queue.

    Jobs of the worker cannot be delivered again: the command deletes those that need no action.
    """
    return f"pbr replay-dlq {queue}{' --purge' if queue is Queue.SEGMENTATION else ''}{stack.place}"


def _read_event(queue: Queue, stack: Stack, message: "MessageTypeDef") -> DeadLetter:
    """Read an event that EventBridge or Lambda could not deliver."""
    attributes = {name: value["StringValue"] for name, value in message.get("MessageAttributes", {}).items()}
    error = ": ".join(attributes[name] for name in _ERROR_ATTRIBUTES if name in attributes) or "unknown"
    event = json_object(message["Body"])
    letter = DeadLetter(queue, message["MessageId"], None, error, "kept", "not an event of this stack", message["Body"])
    if event.get("source") == _EXECUTIONS and isinstance(event.get("detail"), dict):
        source = source_of(json_object(str(event["detail"].get("input"))))
        return replace(letter, key=source["key"], status="replayable", reason="ReconcileFunction did not run")
    upload = uploads.look_up(stack, event) if event.get("source") == _UPLOADS else None
    if upload is None:
        return letter
    if upload.result_by:
        return replace(letter, key=upload.key, status="obsolete", reason=f"the result exists, from {upload.result_by}")
    if not upload.newest:
        return replace(letter, key=upload.key, status="obsolete", reason="the upload was replaced or deleted")
    return replace(letter, key=upload.key, status="replayable", reason="no execution was started")


def _read_job(stack: Stack, message: "MessageTypeDef") -> DeadLetter:
    """Read a job that workers received several times and never completed. Its task token has expired."""
    count = int(message["Attributes"]["ApproximateReceiveCount"])
    error = f"received {count} time{'' if count == 1 else 's'}"
    letter = DeadLetter(Queue.SEGMENTATION, message["MessageId"], None, error, "kept", "not a job of this stack")
    try:
        job = _WorkerMessage.model_validate_json(message["Body"]).job
    except ValidationError:
        return letter
    letter, name = replace(letter, key=job.source.key), job.execution.name
    found = history.describe(stack, job.execution.id)
    if found is None:
        return replace(letter, status="obsolete", reason=f"{name} does not exist any more")
    if found["status"] == "RUNNING":
        return replace(letter, reason=f"{name} is running; without an answer it falls back to Lambda")
    if found["status"] != "SUCCEEDED":
        error = found.get("error") or found["status"]
        return replace(letter, status="obsolete", reason=f"{name} failed with {error}: use pbr redrive")
    host = json.loads(found["output"])["model"]["host"]
    return replace(letter, status="obsolete", reason=f"{name} succeeded, segmented on {host}")


def _read_webhook(_stack: Stack, message: "MessageTypeDef") -> DeadLetter:
    """Read a webhook that its receiver did not accept."""
    letter = DeadLetter(Queue.WEBHOOKS, message["MessageId"], None, "unknown", "kept", "not a webhook of this stack")
    try:
        webhook = _WebhookMessage.model_validate_json(message["Body"])
    except ValidationError:
        return letter
    notice, failed = webhook.notice, webhook.failed
    return replace(
        letter,
        key=notice.job_id,
        error=f"{failed.error}: {explain(failed.model_dump(by_alias=True))['message']}",
        status="replayable",
        reason=f"{notice.webhook.url} was not notified that the job {notice.outcome}",
        event=notice.model_dump_json(),
    )


def _act(stack: Stack, letter: DeadLetter, limiter: RateLimiter, *, purge: bool) -> DeadLetter:
    if letter.status == "obsolete" and purge:
        return replace(letter, status="deleted")
    if letter.status != "replayable":
        return letter
    limiter.wait()
    try:
        return _deliver(stack, letter)
    except sdk_errors() as error:
        return replace(letter, status="rejected", reason=str(error))


def _deliver(stack: Stack, letter: DeadLetter) -> DeadLetter:
    """Deliver an event to the target of its rule, or start the delivery of a webhook. Idempotent."""
    if letter.queue is Queue.WEBHOOKS:
        name = f"replay-{letter.message_id}"
        start_once(stack, stack.output("WebhookMachineAlias"), name, letter.event)
        return replace(letter, status="replayed", reason=f"{name} delivers it")
    if json.loads(letter.event)["source"] == _EXECUTIONS:
        answer = stack.functions.invoke(FunctionName=stack.output("ReconcileFunctionArn"), Payload=letter.event)
        if "FunctionError" in answer:
            return replace(letter, status="rejected", reason=answer["Payload"].read().decode())
        return replace(letter, status="replayed", reason="ReconcileFunction has processed it")
    name = f"replay-{hashlib.sha256(letter.event.encode()).hexdigest()[:32]}"
    start_once(stack, stack.output("StateMachineAlias"), name, letter.event)
    return replace(letter, status="replayed", reason=f"{name} processes it")


def _messages(stack: Stack, url: str, limit: int | None) -> "Iterator[MessageTypeDef]":
    """Yield each message once, even if messages become visible again while a long queue is being read.

    No message is received twice within the visibility timeout. So the queue is read completely once as many known
    messages have arrived in a row as there are.
    """
    seen: set[str] = set()
    known_in_a_row = 0
    while (limit is None or len(seen) < limit) and known_in_a_row <= len(seen):
        received = stack.sqs.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=_BATCH if limit is None else min(_BATCH, limit - len(seen)),
            VisibilityTimeout=_VISIBILITY_TIMEOUT_S,
            WaitTimeSeconds=_POLL_S,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
        ).get("Messages", [])
        if not received:
            return
        fresh = [message for message in received if message["MessageId"] not in seen]
        yield from fresh
        seen |= {message["MessageId"] for message in fresh}
        known_in_a_row = 0 if fresh else known_in_a_row + len(received)


def _make_visible(stack: Stack, url: str, receipt_handles: Sequence[str]) -> None:
    """Make messages visible to the next reader at once."""
    for start in range(0, len(receipt_handles), _BATCH):
        handles = receipt_handles[start : start + _BATCH]
        stack.sqs.change_message_visibility_batch(
            QueueUrl=url,
            Entries=[
                {"Id": str(number), "ReceiptHandle": handle, "VisibilityTimeout": 0}
                for number, handle in enumerate(handles)
            ],
        )
