"""The stack's dead-letter queues: what was not delivered is delivered, jobs that no worker answered are explained."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel, Field, ValidationError

from client import history, uploads
from client.redrive import Pace, start_once
from client.stack import Stack
from functions.contracts.failure_report import explain, json_object, source_of
from functions.contracts.job import Execution, StoredObject
from functions.contracts.webhook import Notice

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

_LEASE_S: Final = 300  # messages that are looked at are hidden meanwhile, and shown again at the end
_POLL_S: Final = 2  # a long poll asks all of SQS's servers: an empty answer is an empty queue
_BATCH: Final = 10

_REASONS: Final = ("ERROR_CODE", "ERROR_MESSAGE", "ErrorMessage")  # EventBridge's attributes, and Lambda's

# The sources of the events that this stack's rules deliver.
_UPLOADS: Final = "aws.s3"
_EXECUTIONS: Final = "aws.states"

Fate = Literal["replay", "explained", "left", "refused", "replayed", "deleted"]


class _Job(BaseModel):
    execution: Execution
    source: StoredObject


class _Request(BaseModel):
    """What the queue of the workers carries, as far as it tells whose job it is."""

    job: _Job


class _Caught(BaseModel):
    error: str = Field(alias="Error")
    cause: str = Field(alias="Cause", default="")


class _Undelivered(BaseModel):
    """What the queue of webhooks carries: see statemachine/deliver_webhook.asl.yaml."""

    notice: Notice
    failed: _Caught


@dataclass(frozen=True)
class Letter:
    """A message of a dead-letter queue, and what becomes of it.

    Attributes:
        queue: ``uploads``, ``reconcile``, ``segmentation`` or ``webhooks``.
        message_id: SQS's name of it.
        key: the picture it is about, or the job that a webhook tells of; None where it names none.
        why: why it lies there.
        fate: ``replay`` and ``explained`` are what can be done, deliver it again or delete it, ``replayed`` and
            ``deleted`` what was done; ``left`` is neither, ``refused`` what AWS did not let be done.
        because: why so.
        event: what is to be delivered again, as JSON.
    """

    queue: str
    message_id: str
    key: str | None
    why: str
    fate: Fate
    because: str
    event: str = ""

    def facts(self) -> dict[str, Any]:
        """Return it as a JSON object, for scripts."""
        names = ("queue", "message_id", "key", "why", "fate", "because")
        return {name: getattr(self, name) for name in names}


def go_through(stack: Stack, queue: str, *, limit: int | None, dry_run: bool, purge: bool) -> Iterator[Letter]:
    """Read a dead-letter queue once, deliver again what can be, and yield each message with what became of it.

    A message is deleted when its delivery is confirmed, or with ``purge`` when there is nothing to deliver any more.

    Args:
        stack: whose queue.
        queue: ``uploads``, ``reconcile``, ``segmentation`` or ``webhooks``.
        limit: at most so many messages; None for all.
        dry_run: only look.
        purge: delete what is explained and needs nothing.

    Raises:
        StackUnavailableError: the stack's template is older than its dead-letter queues' outputs.
    """
    url, pace = stack.output(f"{queue.title()}DeadLetterQueueUrl"), Pace()
    read = {"segmentation": _read_job, "webhooks": _read_webhook}.get(queue, partial(_read_event, queue))
    shown_again: list[str] = []
    messages: Iterable[MessageTypeDef] = _messages(stack, url, limit)
    if queue == "webhooks":
        messages = list(messages)  # what a receiver refuses again meanwhile is a dead letter for the next time
    try:
        for message in messages:
            letter = read(stack, message)
            if not dry_run:
                letter = _act(stack, letter, pace, purge=purge)
            if letter.fate in ("replayed", "deleted"):
                stack.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            else:
                shown_again.append(message["ReceiptHandle"])
            yield letter
    finally:
        _show_again(stack, url, shown_again)


def _read_event(queue: str, stack: Stack, message: "MessageTypeDef") -> Letter:
    """Read what EventBridge or Lambda could not deliver: the event, and in its attributes why."""
    told = {name: value["StringValue"] for name, value in message.get("MessageAttributes", {}).items()}
    why = ": ".join(told[name] for name in _REASONS if name in told) or "not told"
    event = json_object(message["Body"])
    letter = Letter(queue, message["MessageId"], None, why, "left", "it is no event of this stack", message["Body"])
    if event.get("source") == _EXECUTIONS and isinstance(event.get("detail"), dict):
        source = source_of(json_object(str(event["detail"].get("input"))))
        return replace(letter, key=source["key"], fate="replay", because="ReconcileFunction was not told")
    upload = uploads.look_up(stack, event) if event.get("source") == _UPLOADS else None
    if upload is None:
        return letter
    if upload.result_by:
        return replace(letter, key=upload.key, fate="explained", because=f"it has its result, by {upload.result_by}")
    if not upload.newest:
        return replace(letter, key=upload.key, fate="explained", because="it was replaced or deleted since")
    return replace(letter, key=upload.key, fate="replay", because="no execution was started")


def _read_job(stack: Stack, message: "MessageTypeDef") -> Letter:
    """Read a job that was received time and again without an answer: nobody waits for one any more."""
    times = message["Attributes"]["ApproximateReceiveCount"]
    letter = Letter("segmentation", message["MessageId"], None, f"received {times} times", "left", "it is no job")
    try:
        job = _Request.model_validate_json(message["Body"]).job
    except ValidationError:
        return letter
    letter, name = replace(letter, key=job.source.key), job.execution.name
    found = history.description(stack, job.execution.id)
    if found is None:
        return replace(letter, fate="explained", because=f"{name} is not known any more")
    if found["status"] == "RUNNING":
        return replace(letter, because=f"{name} runs: when nobody answers, Lambda stands in")
    if found["status"] != "SUCCEEDED":
        error = found.get("error") or found["status"]
        return replace(letter, fate="explained", because=f"{name} failed with {error}: see pbr redrive")
    host = json.loads(found["output"])["model"]["host"]
    return replace(letter, fate="explained", because=f"{name} succeeded, segmented on {host}")


def _read_webhook(_stack: Stack, message: "MessageTypeDef") -> Letter:
    """Read what its receiver did not take."""
    letter = Letter("webhooks", message["MessageId"], None, "not told", "left", "it is no webhook")
    try:
        said = _Undelivered.model_validate_json(message["Body"])
    except ValidationError:
        return letter
    why = f"{said.failed.error}: {explain(said.failed.model_dump(by_alias=True))['message']}"
    because = f"{said.notice.webhook.url} was not told that it {said.notice.outcome}"
    return replace(
        letter, key=said.notice.job_id, why=why, fate="replay", because=because, event=said.notice.model_dump_json()
    )


def _act(stack: Stack, letter: Letter, pace: Pace, *, purge: bool) -> Letter:
    if letter.fate == "explained" and purge:
        return replace(letter, fate="deleted")
    if letter.fate != "replay":
        return letter
    pace.wait()
    try:
        return _deliver(stack, letter)
    except (ClientError, BotoCoreError) as error:
        return replace(letter, fate="refused", because=str(error))


def _deliver(stack: Stack, letter: Letter) -> Letter:
    """Do with an event what its rule would have done, or deliver a webhook: once, however often it is tried."""
    if letter.queue == "webhooks":
        name = f"replay-{letter.message_id}"
        start_once(stack, stack.output("WebhookMachineArn"), name, letter.event)
        return replace(letter, fate="replayed", because=f"{name} delivers it")
    if json.loads(letter.event)["source"] == _EXECUTIONS:
        answer = stack.functions.invoke(FunctionName=stack.output("ReconcileFunctionArn"), Payload=letter.event)
        if "FunctionError" in answer:
            return replace(letter, fate="refused", because=answer["Payload"].read().decode())
        return replace(letter, fate="replayed", because="ReconcileFunction has settled it")
    name = f"replay-{hashlib.sha256(letter.event.encode()).hexdigest()[:32]}"
    start_once(stack, stack.outputs["StateMachineArn"], name, letter.event)
    return replace(letter, fate="replayed", because=f"{name} processes it")


def _messages(stack: Stack, url: str, limit: int | None) -> "Iterator[MessageTypeDef]":
    """Yield each message once, although those that stay are shown again while a long queue is being read.

    No message comes twice within its lease, so as many known ones in a row as there are known are all that there are.
    """
    seen: set[str] = set()
    known_in_a_row = 0
    while (limit is None or len(seen) < limit) and known_in_a_row <= len(seen):
        received = stack.sqs.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=_BATCH if limit is None else min(_BATCH, limit - len(seen)),
            VisibilityTimeout=_LEASE_S,
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


def _show_again(stack: Stack, url: str, receipt_handles: Sequence[str]) -> None:
    """Let the next reader have these messages at once."""
    for start in range(0, len(receipt_handles), _BATCH):
        handles = receipt_handles[start : start + _BATCH]
        stack.sqs.change_message_visibility_batch(
            QueueUrl=url,
            Entries=[
                {"Id": str(number), "ReceiptHandle": handle, "VisibilityTimeout": 0}
                for number, handle in enumerate(handles)
            ],
        )
