"""Task tokens: report success, failure and heartbeats of a job to the state machine."""

from __future__ import annotations

import contextvars
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from core.errors import BackgroundRemoverError
from functions.contracts.errors import to_wire
from functions.runtime.handler import logger

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient

_EXPIRED: Final = {"TaskTimedOut", "TaskDoesNotExist", "InvalidToken"}
_MAX_CAUSE_CHARS: Final = 32_768  # Step Functions rejects a call with a longer cause


class TaskTokens:
    """Reports to the state machine by task token; thread-safe.

    Args:
        sfn: Step Functions client. None creates one that retries for about a minute, because a lost report costs the
            job its heartbeat timeout and a second computation.
    """

    def __init__(self, sfn: SFNClient | None = None) -> None:
        retries = Config(retries={"mode": "standard", "total_max_attempts": 8})
        self._sfn = sfn or boto3.client("stepfunctions", config=retries)

    def success(self, token: str, part: Mapping[str, Any]) -> None:
        """Report a job's output. An expired token is logged and ignored, also by :meth:`failure`.

        Raises:
            ClientError, BotoCoreError: Step Functions rejects the call, or cannot be reached.
        """
        try:
            self._sfn.send_task_success(taskToken=token, output=json.dumps(part))
        except ClientError as error:
            _ignore_expired(error)

    def failure(self, token: str, error: Exception) -> None:
        """Report a job's failure: the error's class name, and as cause the facts of our errors or the error's text.

        Raises:
            ClientError, BotoCoreError: Step Functions rejects the call, or cannot be reached.
        """
        cause = to_wire(error) if isinstance(error, BackgroundRemoverError) else str(error)
        try:
            self._sfn.send_task_failure(taskToken=token, error=type(error).__name__, cause=cause[:_MAX_CAUSE_CHARS])
        except ClientError as rejection:
            _ignore_expired(rejection)

    def heartbeat(self, token: str) -> bool:
        """Send a heartbeat and return False if the token has expired. True if the call fails for any other reason."""
        try:
            self._sfn.send_task_heartbeat(taskToken=token)
        except ClientError as error:
            if error.response["Error"]["Code"] in _EXPIRED:
                logger.warning("task token expired")
                return False
            logger.exception("heartbeat failed")
        except BotoCoreError:
            logger.exception("heartbeat failed")
        return True

    @contextmanager
    def kept_alive(self, token: str, *, every_s: float) -> Iterator[None]:
        """Send heartbeats until the block ends or the token expires.

        Args:
            token: task token.
            every_s: interval in seconds.
        """
        done = threading.Event()

        def beat() -> None:
            while not done.wait(every_s) and self.heartbeat(token):
                pass

        context = contextvars.copy_context()  # has the job ID of log lines
        thread = threading.Thread(target=context.run, args=(beat,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _ignore_expired(error: ClientError) -> None:
    if error.response["Error"]["Code"] not in _EXPIRED:
        raise error
    logger.warning("task token expired before the report")
