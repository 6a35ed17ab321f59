"""Segmentation on ECS: a process that loads its model once, takes jobs from the queue and answers by task token.

It stops on SIGTERM without losing work: it takes nothing more, finishes what it has in hand, and gives back what it
was handed too late. What it cannot finish in time becomes visible to another worker when the heartbeats end.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import Field

from core.errors import BackgroundRemoverError
from functions.segment.work import segment_job
from functions.shared.config import SegmentationConfig
from functions.shared.errors import to_wire
from functions.shared.job import Job
from functions.shared.observe import logger, parse
from functions.shared.store import Store

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef
    from mypy_boto3_stepfunctions import SFNClient

_LONG_POLL_S: Final = 10
_GONE: Final = {"TaskTimedOut", "TaskDoesNotExist", "InvalidToken"}


class WorkerConfig(SegmentationConfig):
    """``heartbeat_s`` is how often a job in hand is prolonged, ``visibility_s`` for how long each time."""

    queue_url: str
    heartbeat_s: Annotated[float, Field(gt=0)] = 30.0
    visibility_s: Annotated[int, Field(gt=0)] = 120


class Worker:
    """Takes one job at a time: on a CPU a second one would only slow the first down.

    Args:
        config: see :class:`WorkerConfig`.
        store: where pictures and masks lie.
        sqs: client of the queue.
        sfn: client of the state machine.
    """

    def __init__(self, config: WorkerConfig, store: Store, sqs: SQSClient, sfn: SFNClient) -> None:
        self._config, self._store, self._sqs, self._sfn = config, store, sqs, sfn
        self._networks = config.networks()
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Take no more jobs; :meth:`run` returns once the one in hand is done."""
        self._stopping.set()

    def run(self) -> None:
        """Work until stopped."""
        while not self._stopping.is_set():
            for message in self._receive():
                if self._stopping.is_set():
                    self._hide(message, seconds=0)
                else:
                    self._handle(message)

    def _receive(self) -> list[MessageTypeDef]:
        try:
            answer = self._sqs.receive_message(
                QueueUrl=self._config.queue_url,
                MaxNumberOfMessages=1,
                WaitTimeSeconds=_LONG_POLL_S,
                VisibilityTimeout=self._config.visibility_s,
            )
        except (BotoCoreError, ClientError):
            logger.exception("the queue does not answer")
            self._stopping.wait(_LONG_POLL_S)
            return []
        return answer.get("Messages", [])

    def _handle(self, message: MessageTypeDef) -> None:
        """Do one job and answer for it. A message that is not a job stays, and ends in the dead-letter queue."""
        try:
            body = json.loads(message["Body"])
            token, event = str(body["token"]), body["job"]
        except (ValueError, KeyError, TypeError):
            logger.exception("not a job", extra={"message_id": message["MessageId"]})
            return
        logger.append_keys(job_id=event["execution"]["name"])
        if self._prolong(token, message):
            with self._heartbeats(token, message):
                answer = self._work(event)
            self._answer(token, answer)
        self._sqs.delete_message(QueueUrl=self._config.queue_url, ReceiptHandle=message["ReceiptHandle"])

    def _work(self, event: dict[str, Any]) -> dict[str, Any] | Exception:
        try:
            return segment_job(parse(Job, event), self._store, self._config.work_bucket, self._networks, host="ecs")
        except Exception as error:  # whatever it is, the state machine is waiting to be told
            logger.exception("segmentation failed")
            return error

    def _answer(self, token: str, answer: dict[str, Any] | Exception) -> None:
        try:
            if isinstance(answer, dict):
                self._sfn.send_task_success(taskToken=token, output=json.dumps(answer))
                logger.info("stage done", extra={"seconds": answer["seconds"]})
            else:
                cause = to_wire(answer) if isinstance(answer, BackgroundRemoverError) else str(answer)
                self._sfn.send_task_failure(taskToken=token, error=type(answer).__name__, cause=cause)
        except ClientError as error:
            if error.response["Error"]["Code"] not in _GONE:
                raise
            logger.warning("the answer came too late")

    @contextmanager
    def _heartbeats(self, token: str, message: MessageTypeDef) -> Iterator[None]:
        """Prolong token and message until the block ends."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(self._config.heartbeat_s) and self._prolong(token, message):
                pass

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _prolong(self, token: str, message: MessageTypeDef) -> bool:
        """Return whether anybody still waits for this token."""
        try:
            self._sfn.send_task_heartbeat(taskToken=token)
            self._hide(message, seconds=self._config.visibility_s)
        except ClientError as error:
            if error.response["Error"]["Code"] in _GONE:
                logger.warning("nobody waits for this job any more")
                return False
            logger.exception("heartbeat failed")
        except BotoCoreError:
            logger.exception("heartbeat failed")
        return True

    def _hide(self, message: MessageTypeDef, *, seconds: int) -> None:
        self._sqs.change_message_visibility(
            QueueUrl=self._config.queue_url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=seconds
        )


def main() -> None:
    """Run a worker until SIGTERM or SIGINT."""
    worker = Worker(WorkerConfig(), Store(), boto3.client("sqs"), boto3.client("stepfunctions"))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    logger.info("worker started")
    worker.run()
    logger.info("worker stopped")


if __name__ == "__main__":
    main()
