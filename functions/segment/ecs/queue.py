"""The queue as the worker sees it: messages are taken, kept alive while in hand, and answered or given back.

A message is deleted only once its answer was accepted, or when nobody waits for one. Whatever else happens to it or to
this process, it becomes visible again, and another worker takes it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
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
_MOST_PER_CALL: Final = 10  # SQS takes and gives no more
_ANSWER_WITHIN_S: Final = 60.0
_BACKOFF: Final = wait_random_exponential(multiplier=0.5, max=15)


class _Body(BaseModel):
    """What SegmentOnEcs sends. Whoever sent a token waits for an answer, even if the job is none."""

    token: Annotated[str, Field(min_length=1)]
    job: Any = None


@dataclass(eq=False)
class Message:
    """A message in hand.

    Attributes:
        job: what is to be done, not yet checked.
        token: where the answer goes.
        receipt: what the queue knows it by.
        received: how often it was received by any worker, this time included.
        begun: whether it is finished, rather than given back, if the worker is stopped.
        kept_at: when the state machine last heard of it.
    """

    job: Any
    token: str
    receipt: str
    received: int
    begun: bool = False
    kept_at: float = 0.0

    @property
    def job_id(self) -> str | None:
        """Name of the execution, if that much of the job can be read."""
        match self.job:
            case {"execution": {"name": str(name)}}:
                return name
        return None


class JobQueue:
    """The messages in hand; may be used by several threads.

    Args:
        sqs: client of the queue; it has to bear a long poll of ten seconds.
        answers: where answers go.
        queue_url: the queue.
        most: how many messages are in hand at most.
        heartbeat_s: how often messages and tokens are prolonged.
        visibility_s: for how long a message is this worker's each time.
        backoff: how long it waits after an error of the queue or of the state machine.
    """

    def __init__(
        self,
        sqs: SQSClient,
        answers: TaskTokens,
        *,
        queue_url: str,
        most: int,
        heartbeat_s: float,
        visibility_s: int,
        backoff: wait_base = _BACKOFF,
    ) -> None:
        self._sqs, self._answers, self._queue_url, self._most = sqs, answers, queue_url, most
        self._heartbeat_s, self._visibility_s = heartbeat_s, visibility_s
        self._held: dict[Message, None] = {}  # in the order they came
        self._changed = threading.Condition()
        self._closed, self._left = threading.Event(), threading.Event()
        self._receiving = False
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
            stop=stop_after_delay(_ANSWER_WITHIN_S) | stop_when_event_set(self._left),
            before_sleep=_log_failure,
            reraise=True,
        )

    def take(self) -> list[Message] | None:
        """Wait for room, and then ten seconds at most for messages; None once the inbox is closed. For one thread.

        What is no job cannot be answered. It is left alone: after some receives, each as far apart as a message is
        invisible, the queue moves it to its dead-letter queue.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed.is_set() or len(self._held) < self._most)
            if self._closed.is_set():
                return None
            self._receiving, room = True, self._most - len(self._held)
        try:
            received = self._until_closed(self._receive, min(room, _MOST_PER_CALL))
            messages = [message for message in map(_read, received) if message]
            with self._changed:
                if not self._closed.is_set():
                    self._held.update(dict.fromkeys(messages))
                    return messages
            self._give_back(messages)
            return None
        finally:
            with self._changed:
                self._receiving = False
                self._changed.notify_all()

    def _receive(self, most: int) -> list[MessageTypeDef]:
        answer = self._sqs.receive_message(
            QueueUrl=self._queue_url,
            MaxNumberOfMessages=most,
            WaitTimeSeconds=_LONG_POLL_S,
            VisibilityTimeout=self._visibility_s,
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
        )
        return answer.get("Messages", [])

    @property
    def idle(self) -> bool:
        """Whether nothing is in hand."""
        with self._changed:
            return not self._held

    def alive(self, message: Message) -> bool:
        """Return whether a message is in hand and anybody waits for its answer; if nobody does, it is dropped."""
        if not self._holds(message):
            return False
        message.kept_at = time.monotonic()
        if self._answers.heartbeat(message.token):
            return True
        self._delete(message)
        self._forget([message])
        return False

    def begin(self, message: Message) -> bool:
        """Return whether a message is still in hand; from now on it is finished, rather than given back."""
        with self._changed:
            message.begun = message in self._held
            return message.begun

    def answer(self, message: Message, outcome: Mapping[str, Any] | Exception) -> None:
        """Answer with what the job made or with the error that ended it; an answer that cannot be sent is given up.

        The job then comes back, and makes the same bytes under the same key.
        """
        if not self.begin(message):
            return
        send = self._answers.failure if isinstance(outcome, Exception) else self._answers.success
        try:
            self._for_a_minute(send, message.token, outcome)
        except (BotoCoreError, ClientError):
            logger.exception("the answer could not be sent: the job will come back")
        else:
            self._delete(message)
        finally:
            self._forget([message])

    def keep_alive(self) -> None:
        """Prolong the messages in hand and their tokens, time and again, until :meth:`drain` ends."""
        while not self._left.wait(self._heartbeat_s):
            with self._changed:
                held = list(self._held)
            self._hide(held, self._visibility_s)
            # A state machine that is slow to answer must not cost them their visibility; the others come next time.
            until = time.monotonic() + self._heartbeat_s
            for message in sorted(held, key=lambda message: message.kept_at):
                logger.thread_safe_append_keys(job_id=message.job_id)
                if time.monotonic() < until:
                    self.alive(message)
            logger.thread_safe_clear_keys()

    def close(self) -> None:
        """Take no more, and give back at once what has not begun."""
        with self._changed:
            self._closed.set()
            waiting = [message for message in self._held if not message.begun]
            self._forget(waiting)
        self._give_back(waiting)

    def drain(self, timeout_s: float) -> bool:
        """Wait until nothing is in hand any more, then give back what still is; return whether nothing was."""
        with self._changed:
            drained = self._changed.wait_for(lambda: not self._held and not self._receiving, timeout_s)
            unfinished = list(self._held)
            self._forget(unfinished)
        self._give_back(unfinished)
        self._left.set()
        return drained

    def _give_back(self, messages: Sequence[Message]) -> None:
        self._hide(messages, 0)
        if messages:
            logger.info("jobs given back", extra={"jobs": [message.job_id for message in messages]})

    def _forget(self, messages: Sequence[Message]) -> None:
        with self._changed:
            for message in messages:
                self._held.pop(message, None)
            self._changed.notify_all()

    def _holds(self, message: Message) -> bool:
        with self._changed:
            return message in self._held

    def _hide(self, messages: Sequence[Message], seconds: int) -> None:
        """Make messages visible to others in so many seconds. What fails is logged: they become visible later."""
        for start in range(0, len(messages), _MOST_PER_CALL):
            part = messages[start : start + _MOST_PER_CALL]
            try:
                answer = self._sqs.change_message_visibility_batch(
                    QueueUrl=self._queue_url,
                    Entries=[
                        {"Id": str(number), "ReceiptHandle": message.receipt, "VisibilityTimeout": seconds}
                        for number, message in enumerate(part)
                    ],
                )
            except (BotoCoreError, ClientError):
                logger.exception("visibility could not be changed")
                continue
            for failed in answer.get("Failed", []):
                job_id = part[int(failed["Id"])].job_id
                logger.warning("visibility could not be changed", extra={"job_id": job_id, "failure": failed})

    def _delete(self, message: Message) -> None:
        try:
            self._for_a_minute(self._sqs.delete_message, QueueUrl=self._queue_url, ReceiptHandle=message.receipt)
        except (BotoCoreError, ClientError):
            logger.exception("the message could not be deleted: it will come back, and nobody waits for it")


def _read(received: MessageTypeDef) -> Message | None:
    try:
        body = _Body.model_validate_json(received["Body"])
    except ValidationError as error:  # as text it would hold some of the body, and with it the token
        why = error.errors(include_url=False, include_input=False, include_context=False)
        logger.error("not a job", extra={"message_id": received["MessageId"], "why": why})
        return None
    count = int(received["Attributes"]["ApproximateReceiveCount"])
    return Message(job=body.job, token=body.token, receipt=received["ReceiptHandle"], received=count)


def _log_failure(attempt: RetryCallState) -> None:
    error = attempt.outcome.exception() if attempt.outcome else None
    logger.warning("the call failed and is made again", exc_info=error)
