"""The worker's queue: receive messages, extend their visibility while in progress, and complete or return them.

A message is deleted only after the state machine accepted the job's output or error, if the task token has expired, or
after a stopping worker has sent it again. In all other cases, including a crash, it becomes visible again and another
worker receives it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel, Field, ValidationError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_delay,
    stop_when_event_set,
    wait_random_exponential,
)
from tenacity.wait import wait_base

from functions.runtime.handler import logger
from functions.segment.task_tokens import TaskTokens

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

_LONG_POLL_S: Final = 10
_MAX_PER_CALL: Final = 10  # limit of SQS
_REPORT_WITHIN_S: Final = 60.0
_BACKOFF: Final = wait_random_exponential(multiplier=0.5, max=15)


class _Body(BaseModel):
    """A message of SegmentOnEcs. A token must be completed even if the job is invalid."""

    token: Annotated[str, Field(min_length=1)]
    job: Any = None


@dataclass(eq=False)
class Message:
    """A message in progress.

    Attributes:
        job: the job, not validated.
        token: task token.
        body: the message as it was received.
        receipt: receipt handle.
        received: how often any worker received it, including this time.
        begun: whether a stopping worker finishes the message instead of returning it.
        kept_at: time of the last heartbeat, ``time.monotonic``.
    """

    job: Any
    token: str
    body: str
    receipt: str
    received: int
    begun: bool = False
    kept_at: float = 0.0

    @property
    def job_id(self) -> str | None:
        """Name of the execution; None if the job is invalid."""
        match self.job:
            case {"execution": {"name": str(name)}}:
                return name
        return None


class JobQueue:
    """The messages in progress; thread-safe.

    Args:
        sqs: SQS client; its read timeout must exceed a long poll of ten seconds.
        task_tokens: reports to the state machine.
        queue_url: URL of the queue.
        most: maximum number of messages in progress.
        heartbeat_s: interval of heartbeats and visibility extensions, in seconds.
        visibility_s: visibility timeout that each extension sets, in seconds.
        backoff: wait between retries after an error of SQS or Step Functions.
    """

    def __init__(
        self,
        sqs: SQSClient,
        task_tokens: TaskTokens,
        *,
        queue_url: str,
        most: int,
        heartbeat_s: float,
        visibility_s: int,
        backoff: wait_base = _BACKOFF,
    ) -> None:
        self._sqs, self._task_tokens, self._queue_url, self._most = sqs, task_tokens, queue_url, most
        self._heartbeat_s, self._visibility_s = heartbeat_s, visibility_s
        self._held: dict[Message, None] = {}  # in the order of arrival
        self._changed = threading.Condition()
        self._closed, self._left = threading.Event(), threading.Event()
        self._receiving = self._crashed = False
        failing = retry_if_exception_type((BotoCoreError, ClientError))
        self._until_closed = Retrying(
            retry=failing,
            wait=backoff,
            sleep=sleep_using_event(self._closed),
            stop=stop_when_event_set(self._closed),
            before_sleep=_log_failure,
            retry_error_callback=lambda _: [],
        )
        self._for_a_minute = Retrying(
            retry=failing,
            wait=backoff,
            sleep=sleep_using_event(self._left),
            stop=stop_after_delay(_REPORT_WITHIN_S) | stop_when_event_set(self._left),
            before_sleep=_log_failure,
            reraise=True,
        )

    def take(self) -> list[Message] | None:
        """Wait for capacity, then at most ten seconds for messages; return None after :meth:`close`. For one thread.

        Messages without a task token are ignored. SQS moves them to the dead-letter queue after several receives.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed.is_set() or len(self._held) < self._most)
            if self._closed.is_set():
                return None
            self._receiving, room = True, self._most - len(self._held)
        try:
            received = self._until_closed(self._receive, min(room, _MAX_PER_CALL))
            messages = [message for message in map(_read, received) if message]
            with self._changed:
                if not self._closed.is_set():
                    self._held.update(dict.fromkeys(messages))
                    return messages
            self._return(messages)
            return None
        finally:
            with self._changed:
                self._receiving = False
                self._changed.notify_all()

    def _receive(self, most: int) -> list[MessageTypeDef]:
        response = self._sqs.receive_message(
            QueueUrl=self._queue_url,
            MaxNumberOfMessages=most,
            WaitTimeSeconds=_LONG_POLL_S,
            VisibilityTimeout=self._visibility_s,
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
        )
        return response.get("Messages", [])

    @property
    def idle(self) -> bool:
        """Whether no message is in progress."""
        with self._changed:
            return not self._held

    def alive(self, message: Message) -> bool:
        """Send a heartbeat and return whether the message is still in progress. Delete it if its token has expired."""
        if not self._holds(message):
            return False
        message.kept_at = time.monotonic()
        if self._task_tokens.heartbeat(message.token):
            return True
        self._delete(message)
        self._forget([message])
        return False

    def begin(self, message: Message) -> bool:
        """Mark a message to be finished instead of returned, and return whether it is still in progress."""
        with self._changed:
            message.begun = message in self._held
            return message.begun

    def complete(self, message: Message, outcome: Mapping[str, Any] | Exception) -> None:
        """Report a job's output or error to the state machine, and delete the message.

        If the report fails, the message becomes visible again, and the job writes the same bytes to the same key.
        """
        if not self.begin(message):
            return
        send = self._task_tokens.failure if isinstance(outcome, Exception) else self._task_tokens.success
        try:
            self._for_a_minute(send, message.token, outcome)
        except (BotoCoreError, ClientError):
            logger.exception("the outcome could not be reported: the job will be received again")
        else:
            self._delete(message)
        finally:
            self._forget([message])

    def keep_alive(self) -> None:
        """Extend visibility and send heartbeats for the messages in progress, until :meth:`drain` ends."""
        while not self._left.wait(self._heartbeat_s):
            with self._changed:
                held = list(self._held)
            self._hide(held, self._visibility_s)
            # Slow heartbeats must not delay the next visibility extension. The remaining messages come first then.
            until = time.monotonic() + self._heartbeat_s
            for message in sorted(held, key=lambda message: message.kept_at):
                logger.thread_safe_append_keys(job_id=message.job_id)
                if time.monotonic() < until:
                    self.alive(message)
            logger.thread_safe_clear_keys()

    def close(self, *, crashed: bool = False) -> None:
        """Receive no more messages, and return those that have not begun.

        Args:
            crashed: whether a message may be the cause, so that this receive counts in ``received``. Otherwise the
                messages are sent again, which starts the count anew.
        """
        with self._changed:
            self._crashed = crashed
            self._closed.set()
            waiting = [message for message in self._held if not message.begun]
            self._forget(waiting)
        self._return(waiting)

    def drain(self, timeout_s: float) -> bool:
        """Wait until no message is in progress, then return the rest to the queue. Return whether none was left."""
        with self._changed:
            drained = self._changed.wait_for(lambda: not self._held and not self._receiving, timeout_s)
            unfinished = list(self._held)
            self._forget(unfinished)
        self._return(unfinished)
        self._left.set()
        return drained

    def _return(self, messages: Sequence[Message]) -> None:
        if not messages:
            return
        again = [] if self._crashed else self._send_again(messages)
        self._hide([message for message in messages if message not in again], 0)
        logger.info("jobs returned to the queue", extra={"jobs": [message.job_id for message in messages]})

    def _send_again(self, messages: Sequence[Message]) -> list[Message]:
        """Replace messages by copies, and return those for which this succeeded.

        A copy whose original cannot be deleted is a second delivery: the first answer to the task token counts.
        """
        sqs = self._sqs
        sent = self._call(
            "message could not be sent", sqs.send_message_batch, messages, lambda one: {"MessageBody": one.body}
        )
        self._call(
            "message could not be deleted", sqs.delete_message_batch, sent, lambda one: {"ReceiptHandle": one.receipt}
        )
        return sent

    def _forget(self, messages: Sequence[Message]) -> None:
        with self._changed:
            for message in messages:
                self._held.pop(message, None)
            self._changed.notify_all()

    def _holds(self, message: Message) -> bool:
        with self._changed:
            return message in self._held

    def _hide(self, messages: Sequence[Message], seconds: int) -> None:
        """Set the visibility timeout of messages. Errors are logged: the messages become visible later."""
        self._call(
            "visibility timeout could not be changed",
            self._sqs.change_message_visibility_batch,
            messages,
            lambda message: {"ReceiptHandle": message.receipt, "VisibilityTimeout": seconds},
        )

    def _call(
        self,
        problem: str,
        call: Callable[..., Any],
        messages: Sequence[Message],
        entry: Callable[[Message], dict[str, Any]],
    ) -> list[Message]:
        """Make batch calls for messages, and return those for which they succeeded. Errors are logged as a problem."""
        done: list[Message] = []
        for start in range(0, len(messages), _MAX_PER_CALL):
            part = messages[start : start + _MAX_PER_CALL]
            entries = [{"Id": str(number), **entry(message)} for number, message in enumerate(part)]
            try:
                failures = {
                    int(one["Id"]): one for one in call(QueueUrl=self._queue_url, Entries=entries).get("Failed", [])
                }
            except (BotoCoreError, ClientError):
                logger.exception(problem)
                continue
            for number, message in enumerate(part):
                if number in failures:
                    logger.warning(problem, extra={"job_id": message.job_id, "failure": failures[number]})
                else:
                    done.append(message)
        return done

    def _delete(self, message: Message) -> None:
        try:
            self._for_a_minute(self._sqs.delete_message, QueueUrl=self._queue_url, ReceiptHandle=message.receipt)
        except (BotoCoreError, ClientError):
            logger.exception("the message could not be deleted: it will be received again")


def _read(received: MessageTypeDef) -> Message | None:
    try:
        body = _Body.model_validate_json(received["Body"])
    except ValidationError as error:  # its text would contain a part of the body, and with it the token
        errors = error.errors(include_url=False, include_input=False, include_context=False)
        logger.error("invalid message", extra={"message_id": received["MessageId"], "errors": errors})
        return None
    count = int(received["Attributes"]["ApproximateReceiveCount"])
    return Message(
        job=body.job, token=body.token, body=received["Body"], receipt=received["ReceiptHandle"], received=count
    )


def _log_failure(attempt: RetryCallState) -> None:
    error = attempt.outcome.exception() if attempt.outcome else None
    logger.warning("call failed, will be retried", exc_info=error)
