"""Task tokens: the state machine is told how a job ended, and meanwhile that it is still worked on."""

from __future__ import annotations

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

_GONE: Final = {"TaskTimedOut", "TaskDoesNotExist", "InvalidToken"}
_LONGEST_CAUSE: Final = 32_768  # Step Functions refuses the whole call for one character more


class TaskTokens:
    """TaskTokens task tokens; may be used by several threads.

    Args:
        sfn: client of Step Functions. None makes one that tries for a minute: an answer that is lost costs the job
            its heartbeat timeout and a second computation.
    """

    def __init__(self, sfn: SFNClient | None = None) -> None:
        retries = Config(retries={"mode": "standard", "total_max_attempts": 8})
        self._sfn = sfn or boto3.client("stepfunctions", config=retries)

    def success(self, token: str, part: Mapping[str, Any]) -> None:
        """Hand on what the job made.

        An answer that nobody waits for any more is logged and no error; so it is with :meth:`failure`.

        Raises:
            ClientError, BotoCoreError: Step Functions refuses, or cannot be reached.
        """
        try:
            self._sfn.send_task_success(taskToken=token, output=json.dumps(part))
        except ClientError as error:
            _check_gone(error)

    def failure(self, token: str, error: Exception) -> None:
        """Fail the job by the error's class name, with its facts if it is one of ours.

        Raises:
            ClientError, BotoCoreError: Step Functions refuses, or cannot be reached.
        """
        cause = to_wire(error) if isinstance(error, BackgroundRemoverError) else str(error)
        try:
            self._sfn.send_task_failure(taskToken=token, error=type(error).__name__, cause=cause[:_LONGEST_CAUSE])
        except ClientError as refusal:
            _check_gone(refusal)

    def heartbeat(self, token: str) -> bool:
        """Say that the job is worked on; return whether anybody still waits for it. A call that fails says yes."""
        try:
            self._sfn.send_task_heartbeat(taskToken=token)
        except ClientError as error:
            if error.response["Error"]["Code"] in _GONE:
                logger.warning("nobody waits for this job any more")
                return False
            logger.exception("heartbeat failed")
        except BotoCoreError:
            logger.exception("heartbeat failed")
        return True

    @contextmanager
    def kept_alive(self, token: str, *, every_s: float) -> Iterator[None]:
        """Send heartbeats until the block ends, or until nobody waits any more."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(every_s) and self.heartbeat(token):
                pass

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _check_gone(error: ClientError) -> None:
    if error.response["Error"]["Code"] not in _GONE:
        raise error
    logger.warning("the answer came too late")
