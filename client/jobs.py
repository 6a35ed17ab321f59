"""Process one image: upload it, find the execution that the upload started, follow it, and fetch the result."""

import base64
import json
import mimetypes
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from hashlib import sha256
from textwrap import shorten
from typing import Any, Final

from client.errors import JobFailedError, JobFailure, JobTimeoutError, ResultNotFoundError, client_error
from client.history import LONGEST_S, StageEvent, StageReader, events_of
from client.stack import Stack
from core.errors import SourceNotFoundError
from core.limits import check_bytes
from core.options import Options
from functions.contracts.failure_report import source_of
from functions.contracts.object_keys import failure_key

_START_S: Final = 60.0
_LAG_S: Final = 10.0
_CAUSE_CHARS: Final = 300  # a cause may contain stack traces
_ABSENT: Final = ("NoSuchKey", "NoSuchVersion", "MethodNotAllowed")  # the last one for a delete marker
# S3 returns the upload time in whole seconds, and the clocks of S3 and Step Functions may differ.
_CLOCK_SKEW: Final = timedelta(seconds=5)


@dataclass(frozen=True)
class Upload:
    """An object version in the uploads bucket; ``at`` is the time of the upload by S3's clock."""

    key: str
    version_id: str | None
    at: datetime


@dataclass(frozen=True)
class Result:
    """The result of an execution: the file, and its sidecar."""

    data: bytes
    sidecar: dict[str, Any]


class StoppedWaitingError(Exception):
    """The caller's ``stopped`` returned True. The execution continues."""


def _never() -> bool:
    return False


class JobClient:
    """Uploads images to a stack, follows their executions and fetches their results.

    Thread-safe. Threads share one scan for the executions of their uploads.

    Args:
        stack: the stack to use.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._lock = threading.Lock()
        self._described: set[str] = set()
        self._started: dict[tuple[str | None, str | None], str] = {}
        self._awaited: dict[tuple[str | None, str | None], datetime] = {}
        self._scanned = -stack.poll_s

    def upload(
        self, name: str, data: bytes, options: Mapping[str, Any] | None = None, *, folder: str = "cli/"
    ) -> Upload:
        """Upload an image under a unique key.

        Args:
            name: file name; it becomes the last part of the key and of the result's key.
            data: content of the file.
            options: fields of :class:`core.options.Options`; the others have their defaults.
            folder: prefix of the key.

        Raises:
            InvalidOptionsError: if an option is invalid; nothing is uploaded.
            FileTooLargeError: if the file exceeds the limit; nothing is uploaded.
        """
        given = dict(options or {})
        Options.parse_explicit(given)
        check_bytes(len(data))
        return self._put(_unique_key(folder, name), name, data, given)

    def upload_again(self, upload: Upload, options: Mapping[str, Any] | None = None) -> Upload:
        """Copy an upload to a new key beside it, with other options. S3 copies the content.

        Args:
            upload: the earlier upload.
            options: fields of :class:`core.options.Options`; the others have their defaults.

        Raises:
            InvalidOptionsError: if an option is invalid; nothing is copied.
            SourceNotFoundError: if the upload no longer exists.
        """
        given = dict(options or {})
        Options.parse_explicit(given)
        parent, _, name = upload.key.rpartition("/")
        bucket, key = self._stack.outputs["UploadsBucket"], _unique_key(f"{parent.rpartition('/')[0]}/", name)
        version = {"VersionId": upload.version_id} if upload.version_id else {}
        try:
            response = self._stack.s3.copy_object(
                Bucket=bucket,
                Key=key,
                CopySource={"Bucket": bucket, "Key": upload.key, **version},  # type: ignore[arg-type]
                MetadataDirective="REPLACE",
                **_attributes(name, given),
            )
        except client_error() as error:
            if error.response["Error"]["Code"] not in _ABSENT:  # type: ignore[attr-defined]
                raise
            raise SourceNotFoundError(
                "The upload no longer exists: it was deleted or has expired",
                field="source.key",
                value=upload.key,
                remedy="Upload the image again.",
            ) from None
        return _uploaded(key, response)

    def upload_background(self, name: str, data: bytes) -> str:
        """Upload a background image and return its key, for the option ``background_key``.

        The key derives from the content, so that options with the same image are equal.

        Raises:
            FileTooLargeError: if the file exceeds the limit; nothing is uploaded.
        """
        check_bytes(len(data))
        return self._put(f"backgrounds/cli-{sha256(data).hexdigest()[:32]}", name, data, {}).key

    def execution_of(self, upload: Upload, *, timeout_s: float = _START_S, stopped: Callable[[], bool] = _never) -> str:
        """Wait for the execution that an upload starts, and return its ARN.

        Args:
            upload: the upload.
            timeout_s: longest wait, seconds.
            stopped: whether to stop waiting; called before each poll.

        Raises:
            JobTimeoutError: if no execution starts in time.
            StoppedWaitingError: if ``stopped`` returned True.
        """
        started = time.monotonic()
        identity = upload.key, upload.version_id
        with self._lock:
            self._awaited[identity] = upload.at
        try:
            while (arn := self._find_execution(upload)) is None:
                if (waited_s := time.monotonic() - started) > timeout_s:
                    raise JobTimeoutError(
                        f"The upload did not start an execution within {timeout_s:.0f} s",
                        field="source.key",
                        value=upload.key,
                        remedy="Check the EventBridge rule of the stack, and run pbr replay-dlq uploads --dry-run.",
                    )
                self._pause(waited_s, stopped)
            return arn
        finally:
            with self._lock:
                del self._awaited[identity]

    def follow(
        self, execution_arn: str, *, timeout_s: float = LONGEST_S, stopped: Callable[[], bool] = _never
    ) -> Iterator[StageEvent]:
        """Yield the stage events of an execution, from its start to its end.

        Args:
            execution_arn: the execution.
            timeout_s: longest wait, seconds.
            stopped: whether to stop waiting; called before each poll.

        Raises:
            JobTimeoutError: if the execution does not end in time; it continues to run.
            StoppedWaitingError: if ``stopped`` returned True.
        """
        started = time.monotonic()
        reader = StageReader()
        while True:
            yield from reader.read(events_of(self._stack, execution_arn, with_data=False))
            if reader.ended:
                return
            if (waited_s := time.monotonic() - started) > timeout_s:
                raise JobTimeoutError(
                    f"The execution did not end within {timeout_s:.0f} s and is still running",
                    field="execution",
                    value=execution_arn,
                    remedy=f"Get its result with pbr fetch {execution_arn.rpartition(':')[2]} --wait, or use a longer "
                    "--timeout.",
                )
            self._pause(waited_s, stopped)

    def _pause(self, waited_s: float, stopped: Callable[[], bool]) -> None:
        """Wait until the next poll."""
        time.sleep(self._stack.pause_s(waited_s))
        if stopped():
            raise StoppedWaitingError

    def sidecar(self, execution_arn: str) -> dict[str, Any]:
        """Return the sidecar of the result of an execution that has ended.

        Raises:
            JobFailedError: if it has no result; ``report`` has the reason.
        """
        found = self._describe_ended(execution_arn)
        if found["status"] != "SUCCEEDED":
            raise JobFailedError(self._report(found))
        sidecar: dict[str, Any] = json.loads(found["output"])
        return sidecar

    def result(self, execution_arn: str) -> Result:
        """Return the result of an execution that has ended.

        Raises:
            JobFailedError: if it has no result; ``report`` has the reason.
            ResultNotFoundError: if the result no longer exists.
        """
        sidecar = self.sidecar(execution_arn)
        return Result(self.content(sidecar), sidecar)

    def content(self, sidecar: Mapping[str, Any]) -> bytes:
        """Return the file of a result.

        Args:
            sidecar: sidecar of the result.

        Raises:
            ResultNotFoundError: if the result no longer exists.
        """
        target = sidecar["result"]
        version = {"VersionId": target["version_id"]} if target["version_id"] else {}
        try:
            body = self._stack.s3.get_object(Bucket=target["bucket"], Key=target["key"], **version)["Body"]
        except client_error() as error:
            if error.response["Error"]["Code"] not in _ABSENT:  # type: ignore[attr-defined]
                raise
            raise ResultNotFoundError(
                "The result no longer exists: it was deleted or has expired",
                field="result.key",
                value=target["key"],
                remedy="Process the image again.",
            ) from None
        data: bytes = body.read()
        return data

    def _describe_ended(self, execution_arn: str) -> dict[str, Any]:
        """Describe an execution that has ended. DescribeExecution may lag behind the history."""
        deadline = time.monotonic() + _LAG_S
        while True:
            found = dict(self._stack.stepfunctions.describe_execution(executionArn=execution_arn))
            if found["status"] != "RUNNING" or time.monotonic() > deadline:
                return found
            time.sleep(self._stack.poll_s)

    def _put(self, key: str, name: str, data: bytes, options: Mapping[str, Any]) -> Upload:
        response = self._stack.s3.put_object(
            Bucket=self._stack.outputs["UploadsBucket"],
            Key=key,
            Body=data,
            **_attributes(name, options),
        )
        return _uploaded(key, response)

    def _find_execution(self, upload: Upload) -> str | None:
        """Return the upload's execution if it has started. Scans at most once per ``poll_s`` for all threads."""
        identity = upload.key, upload.version_id
        with self._lock:
            if identity not in self._started and time.monotonic() - self._scanned >= self._stack.poll_s:
                self._scan(min(upload.at, *self._awaited.values()) - _CLOCK_SKEW)
                self._scanned = time.monotonic()
            return self._started.get(identity)

    def _scan(self, since: datetime) -> None:
        """Describe the executions that started after ``since`` and were not described before."""
        stepfunctions = self._stack.stepfunctions
        pages = stepfunctions.get_paginator("list_executions").paginate(
            stateMachineArn=self._stack.outputs["StateMachineArn"], PaginationConfig={"PageSize": 100}
        )
        for execution in (execution for page in pages for execution in page["executions"]):
            if execution["startDate"] < since:
                return
            arn = execution["executionArn"]
            if arn not in self._described:
                self._described.add(arn)
                source = source_of(json.loads(stepfunctions.describe_execution(executionArn=arn)["input"]))
                if source["bucket"] == self._stack.outputs["UploadsBucket"]:
                    self._started[source["key"], source["version_id"]] = arn

    def _report(self, found: Mapping[str, Any]) -> JobFailure:
        """Return the failure report of an execution, or one made from its status if it has written none."""
        key = failure_key(source_of(json.loads(found["input"]))["key"], found["name"])
        report = self._stack.document(key) or {}
        if report.get("execution", {}).get("id") == found["executionArn"]:
            names = ("stage", "error", "message", "field", "value", "remedy")
            return JobFailure(**{name: report[name] for name in names}, key=key)
        return JobFailure(
            stage="",
            error=found.get("error") or found["status"],
            message=shorten(found.get("cause") or f"The execution ended with status {found['status']}", _CAUSE_CHARS),
            field=None,
            value=None,
            remedy=f"Run pbr history {found['name']}.",
            key=None,
        )


def _unique_key(folder: str, name: str) -> str:
    return f"{folder}{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}/{name}"


def _attributes(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content type and the metadata of an object, as arguments of S3's API."""
    return {
        "ContentType": mimetypes.guess_type(name, strict=False)[0] or "application/octet-stream",
        "Metadata": {f"pbr-{option.replace('_', '-')}": _text(value) for option, value in options.items()},
    }


def _uploaded(key: str, response: Mapping[str, Any]) -> Upload:
    at = parsedate_to_datetime(response["ResponseMetadata"]["HTTPHeaders"]["date"])
    return Upload(key, response.get("VersionId"), at)


def _text(value: Any) -> str:
    """Return the value of an option as S3 metadata text: ASCII, with other characters in an RFC 2047 encoded word."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if text.isascii() and "=?" not in text:
        return text
    return f"=?UTF-8?B?{base64.b64encode(text.encode()).decode()}?="
