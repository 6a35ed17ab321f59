"""One picture's way: upload it, find the execution that the upload started, follow it, take the result."""

import json
import mimetypes
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from textwrap import shorten
from typing import Any, Final

from client.errors import FailureReport, JobFailedError, JobTimeoutError
from client.history import LONGEST_S, StageEvent, StageReader, events_of
from client.stack import Stack
from core.limits import check_bytes
from core.options import Options
from functions.contracts.failure_report import source_of
from functions.contracts.object_keys import failure_key

_START_S: Final = 60.0
_LAG_S: Final = 10.0
_CAUSE_CHARS: Final = 300  # it may quote whole stack traces
# S3 tells the time of an upload in whole seconds, and Step Functions' clock is another one.
_CLOCKS: Final = timedelta(seconds=5)


@dataclass(frozen=True)
class Upload:
    """One version of one object in the uploads bucket; ``at`` is when, by S3's clock."""

    key: str
    version_id: str | None
    at: datetime


@dataclass(frozen=True)
class Result:
    """A finished picture: the file's bytes, and ``sidecar``, all that is known of it."""

    data: bytes
    sidecar: dict[str, Any]


class Jobs:
    """Uploads to a stack, and what becomes of them. Threads can share one: they share its scan for executions.

    Args:
        stack: where to.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._lock = threading.Lock()
        self._described: set[str] = set()
        self._started: dict[tuple[str | None, str | None], str] = {}
        self._oldest: datetime | None = None
        self._scanned = -stack.poll_s

    def upload(self, name: str, data: bytes, options: Mapping[str, Any] | None = None) -> Upload:
        """Put a picture into the uploads bucket, under a key of its own.

        Args:
            name: file name; the result's name is made of it.
            data: the file.
            options: those of :class:`core.options.Options` that are not to have their defaults.

        Raises:
            InvalidOptionsError: an option is wrong; nothing was uploaded.
            FileTooLargeError: nothing was uploaded.
        """
        given = dict(options or {})
        Options.parse(given)
        check_bytes(len(data))
        moment = datetime.now(UTC)
        return self._put(f"cli/{moment:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}/{name}", name, data, given)

    def upload_background(self, name: str, data: bytes) -> str:
        """Put a picture where ``background_key`` can name it, and return its key.

        Raises:
            FileTooLargeError: nothing was uploaded.
        """
        check_bytes(len(data))
        # Without the name: the key becomes metadata, and those are ASCII.
        return self._put(f"backgrounds/cli-{secrets.token_hex(8)}", name, data, {}).key

    def execution_of(self, upload: Upload, *, timeout_s: float = _START_S) -> str:
        """Wait until an upload has started its execution, and return that execution's ARN.

        Raises:
            JobTimeoutError: it started none in time.
        """
        deadline = time.monotonic() + timeout_s
        while (arn := self._look_for(upload)) is None:
            if time.monotonic() > deadline:
                raise JobTimeoutError(
                    f"The upload started no execution within {timeout_s:.0f} s",
                    field="source.key",
                    value=upload.key,
                    remedy="Look at the EventBridge rule of the stack, and at its dead-letter queue.",
                )
            time.sleep(self._stack.poll_s)
        return arn

    def follow(self, execution_arn: str, *, timeout_s: float = LONGEST_S) -> Iterator[StageEvent]:
        """Yield what happens to an execution's stages, from its first one, until it ends.

        Raises:
            JobTimeoutError: it did not end in time; it runs on.
        """
        deadline = time.monotonic() + timeout_s
        reader = StageReader()
        while True:
            yield from reader.read(events_of(self._stack, execution_arn, with_data=False))
            if reader.ended:
                return
            if time.monotonic() > deadline:
                raise JobTimeoutError(
                    f"The execution did not end within {timeout_s:.0f} s; it runs on",
                    field="execution",
                    value=execution_arn,
                    remedy="See how far it came with pbr history, and wait longer.",
                )
            time.sleep(self._stack.poll_s)

    def result(self, execution_arn: str) -> Result:
        """Return what an execution that has ended made.

        Raises:
            JobFailedError: it made nothing; its ``report`` says why.
        """
        found = self._ended(execution_arn)
        if found["status"] != "SUCCEEDED":
            raise JobFailedError(self._report(found))
        sidecar = json.loads(found["output"])
        place = sidecar["result"]
        version = {"VersionId": place["version_id"]} if place["version_id"] else {}
        body = self._stack.s3.get_object(Bucket=place["bucket"], Key=place["key"], **version)["Body"]
        return Result(body.read(), sidecar)

    def _ended(self, execution_arn: str) -> dict[str, Any]:
        """Describe an execution that has ended: what describes it may know of that later than its history."""
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
            ContentType=mimetypes.guess_type(name, strict=False)[0] or "application/octet-stream",
            Metadata={f"pbr-{option.replace('_', '-')}": _text(value) for option, value in options.items()},
        )
        at = parsedate_to_datetime(response["ResponseMetadata"]["HTTPHeaders"]["date"])
        return Upload(key, response.get("VersionId"), at)

    def _look_for(self, upload: Upload) -> str | None:
        """Look at what started since the oldest upload that was asked for, at most once per ``poll_s`` for all."""
        identity = upload.key, upload.version_id
        with self._lock:
            if identity not in self._started and time.monotonic() - self._scanned >= self._stack.poll_s:
                self._oldest = min(upload.at, self._oldest or upload.at)
                self._scan(self._oldest - _CLOCKS)
                self._scanned = time.monotonic()
            return self._started.get(identity)

    def _scan(self, since: datetime) -> None:
        """Describe those executions that are new, newest first, back to ``since``."""
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

    def _report(self, found: Mapping[str, Any]) -> FailureReport:
        """Read the execution's own report; where it could not leave one, make do with what Step Functions says."""
        key = failure_key(source_of(json.loads(found["input"]))["key"], found["name"])
        report = self._stack.document(key) or {}
        if report.get("execution", {}).get("id") == found["executionArn"]:
            names = ("stage", "error", "message", "field", "value", "remedy")
            return FailureReport(**{name: report[name] for name in names}, key=key)
        return FailureReport(
            stage="",
            error=found.get("error") or found["status"],
            message=shorten(found.get("cause") or f"The execution ended as {found['status']}", _CAUSE_CHARS),
            field=None,
            value=None,
            remedy=f"See pbr history {found['name']}.",
            key=None,
        )


def _text(value: Any) -> str:
    """Return an option's value as S3 metadata hold it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
