"""Retry failed executions: redrive them if Step Functions can, otherwise start new ones with the same input."""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from client import history, uploads
from client.errors import sdk_errors
from client.stack import Stack
from client.uploads import UploadedObject
from core import errors
from functions.contracts.object_keys import failure_key
from functions.contracts.webhook import RETRY

_THREADS: Final = 8
_PER_S: Final = 10  # a small part of the StartExecution quota, which uploads need, too

# A redrive needs the masks and alphas of earlier states, which the work bucket keeps for two days.
_INTERMEDIATES_KEPT: Final = timedelta(days=2) - 2 * timedelta(seconds=history.LONGEST_S)

_NAME_CHARS: Final = 80
_STEM_CHARS: Final = _NAME_CHARS - len("-retry-999")

# Errors caused by the uploaded image: a retry fails again. Weights belong to the stack, not to the upload.
_UPLOAD_ERRORS: Final = {
    error.__name__
    for error in errors.PermanentError.__subclasses__()
    if error.__module__ == errors.__name__ and error is not errors.WeightsHashMismatchError
}

_MAX_BRANCH_EVENTS: Final = 100  # exceeds the events of a Parallel state's branches, all attempts included

Action = Literal["redriven", "restarted", "skipped", "rejected"]


@dataclass(frozen=True)
class Retry:
    """A failed execution and its retry.

    Attributes:
        arn: ARN of the failed execution.
        key: object key of its image; None if its input has none.
        error: class name of the error.
        action: ``redriven``: it continues at the state that failed; ``restarted``: a new execution has the same input;
            ``skipped``: it is not retried; ``rejected``: AWS rejected the retry.
        reason: reason of the action.
        retry_arn: ARN of the execution that does the work; None if it is not retried.
        input: input of the failed execution.
        redrives: redrive count of ``retry_arn`` after this retry.
        status: final status of ``retry_arn``; None until it is known.
        retry_error: class name of its error if it failed.
    """

    arn: str
    key: str | None
    error: str
    action: Action
    reason: str
    retry_arn: str | None = None
    input: str = ""
    redrives: int = 0
    status: str | None = None
    retry_error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the retry as ``pbr redrive --json`` prints it."""
        names = ("arn", "key", "error", "action", "reason", "retry_arn", "status", "retry_error")
        return {name: getattr(self, name) for name in names}


class RateLimiter:
    """Limits calls to ten per second."""

    def __init__(self) -> None:
        self._next = 0.0

    def wait(self) -> None:
        """Sleep until the next call is allowed."""
        time.sleep(max(0.0, self._next - time.monotonic()))
        self._next = time.monotonic() + 1 / _PER_S


def find(stack: Stack, execution: str) -> str:
    """Return the ARN of an execution.

    Args:
        stack: the stack to search.
        execution: ARN, name, unique prefix of a name, or key of an upload that has a failure report.

    Raises:
        ExecutionNotFoundError: if nothing or several executions match.
        StorageDeniedError: if the credentials do not allow reading failure reports.
    """
    if not execution.startswith("arn:") and (
        report := stack.document(failure_key(execution, execution), required_access=True)
    ):
        return str(report["execution"]["id"])
    return history.find(stack, execution)


def failed_since(stack: Stack, since: datetime) -> list[str]:
    """Return the ARNs of the executions that failed, timed out or were aborted since a time, newest first."""
    found: list[Mapping[str, Any]] = []
    for status in ("FAILED", "TIMED_OUT", "ABORTED"):
        pages = stack.stepfunctions.get_paginator("list_executions").paginate(
            stateMachineArn=stack.outputs["StateMachineArn"],
            statusFilter=status,
            PaginationConfig={"PageSize": 1000},
        )
        # Read all 90 days that Step Functions keeps, because a redriven execution may have started at any time.
        found += [execution for page in pages for execution in page["executions"] if execution["stopDate"] >= since]
    return [execution["executionArn"] for execution in sorted(found, key=_start_date, reverse=True)]


def plan(stack: Stack, execution_arns: Sequence[str], *, named: bool) -> list[Retry]:
    """Return how each execution would be retried, without doing it.

    Args:
        stack: the stack that ran them.
        execution_arns: ARNs of the executions.
        named: whether the user named each execution. A named execution is retried even if its image is invalid, has
            been replaced or deleted, or has a result.

    Raises:
        StorageDeniedError: if the credentials do not allow reading the results bucket.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(lambda arn: stack.stepfunctions.describe_execution(executionArn=arn), execution_arns))
        objects = list(pool.map(lambda one: uploads.look_up(stack, json.loads(one.get("input", "{}"))), found))
        latest = {
            _identity(one, upload): one["executionArn"]
            for one, upload in sorted(zip(found, objects, strict=True), key=lambda pair: _start_date(pair[0]))
        }

        def decide(one: Mapping[str, Any], upload: UploadedObject | None) -> Retry:
            superseded = latest[_identity(one, upload)] != one["executionArn"]
            return _decide(stack, one, upload, superseded=superseded, named=named)

        return list(pool.map(decide, found, objects))


def execute(stack: Stack, retries: Iterable[Retry]) -> Iterator[Retry]:
    """Carry out planned retries, and yield each one with its outcome."""
    limiter = RateLimiter()
    for retry in retries:
        if retry.retry_arn is None:
            yield retry
        else:
            limiter.wait()
            yield _execute(stack, retry, retry.retry_arn)


def wait(stack: Stack, retries: Iterable[Retry]) -> Iterator[Retry]:
    """Wait for the end of each retry, and yield it with its final status."""
    running = list(retries)
    while running:
        remaining = []
        for retry in running:
            ended = _ended(stack, retry) if retry.retry_arn else retry
            if ended:
                yield ended
            else:
                remaining.append(retry)
        running = remaining
        if running:
            time.sleep(stack.poll_s)


def start_once(stack: Stack, alias_arn: str, name: str, execution_input: str) -> bool:
    """Start an execution unless one with this name exists.

    Returns:
        False if an execution with this name has already ended.
    """
    try:
        stack.stepfunctions.start_execution(stateMachineArn=alias_arn, name=name, input=execution_input)
    except stack.stepfunctions.exceptions.ExecutionAlreadyExists:
        return False
    return True


def retry_name(name: str) -> str:
    """Return the name of the next retry of an execution. The name is deterministic and has at most 80 characters."""
    match = RETRY.search(name)
    stem = name[: match.start()] if match else name
    if len(stem) > _STEM_CHARS:
        digest = hashlib.sha256(stem.encode()).hexdigest()[:8]
        stem = f"{stem[: _STEM_CHARS - len(digest) - 1]}-{digest}"
    return f"{stem}-retry-{int(match[1]) + 1 if match else 1}"


def _decide(
    stack: Stack, found: Mapping[str, Any], upload: UploadedObject | None, *, superseded: bool, named: bool
) -> Retry:
    arn, error = found["executionArn"], found.get("error") or found["status"]
    key = upload.key if upload else None

    def skip(reason: str) -> Retry:
        return Retry(arn, key, error, "skipped", reason)

    if found["status"] == "RUNNING":
        return skip("it is running")
    if found["status"] == "SUCCEEDED":
        return skip("it succeeded")
    if superseded:
        return skip("a later execution of the same upload failed, too")
    if not named and (reason := _retry_is_pointless(error, upload)):
        return skip(f"{reason}; to retry anyway, pass its name")
    not_redrivable = _not_redrivable(stack, found)
    if not_redrivable is None:
        reason, redrives = "it continues at the state that failed", found.get("redriveCount", 0) + 1
        return Retry(arn, key, error, "redriven", reason, retry_arn=arn, redrives=redrives)
    if "input" not in found:
        return skip("its input is not available; upload the image again")
    again = f"{arn.rpartition(':')[0]}:{retry_name(found['name'])}"
    if (earlier := history.describe(stack, again)) is not None:
        status = "is running" if earlier["status"] == "RUNNING" else f"ended with status {earlier['status']}"
        return skip(f"its retry {earlier['name']} {status}")
    return Retry(arn, key, error, "restarted", not_redrivable, retry_arn=again, input=found["input"])


def _retry_is_pointless(error: str, upload: UploadedObject | None) -> str | None:
    """Return why an execution should not be retried unless the user names it; None if it should be."""
    if upload and upload.result_by:
        return f"the upload has a result, from {upload.result_by}"
    if error in _UPLOAD_ERRORS:
        return "the uploaded image is invalid"
    if upload and not upload.newest:
        return "the upload was replaced or deleted"
    return None


def _not_redrivable(stack: Stack, found: Mapping[str, Any]) -> str | None:
    """Return why a redrive is impossible or would fail again; None if the execution can be redriven."""
    if found.get("redriveStatus") != "REDRIVABLE":
        return found.get("redriveStatusReason") or "Step Functions cannot redrive it"
    if found["startDate"] < datetime.now(UTC) - _INTERMEDIATES_KEPT:
        return "its intermediate objects have expired"
    if found["status"] == "FAILED":
        if history.ended_in_fail_state(stack, found["executionArn"]):
            return "it ended at a Fail state, which a redrive would only repeat"
        if found.get("redriveCount"):  # a redrive keeps the state machine definition of the first start
            return "an earlier redrive failed"
    if _ended_in_parallel(stack, found["executionArn"]):
        return "it waited for an asynchronous endpoint, and a redrive would not send the request again"
    return None


def _ended_in_parallel(stack: Stack, execution_arn: str) -> bool:
    """Return whether an execution ended inside the Parallel state that calls the asynchronous endpoint.

    A redrive would run only the branch that waits, with a new task token that the endpoint never receives.
    """
    latest = stack.stepfunctions.get_execution_history(
        executionArn=execution_arn, reverseOrder=True, maxResults=_MAX_BRANCH_EVENTS, includeExecutionData=False
    )["events"]
    of_parallel = (event["type"] for event in latest if event["type"].startswith("ParallelState"))
    return next(of_parallel, "ParallelStateExited") != "ParallelStateExited"


def _execute(stack: Stack, retry: Retry, retry_arn: str) -> Retry:
    try:
        if retry.action == "redriven":
            stack.stepfunctions.redrive_execution(executionArn=retry_arn)
        elif not start_once(stack, stack.output("StateMachineAlias"), retry_arn.rpartition(":")[2], retry.input):
            return replace(retry, action="skipped", reason="another process has just retried it", retry_arn=None)
    except stack.stepfunctions.exceptions.ExecutionNotRedrivable:
        return replace(retry, action="skipped", reason="another process has just redriven it", retry_arn=None)
    except sdk_errors() as error:
        return replace(retry, action="rejected", reason=str(error), retry_arn=None)
    return retry


def _ended(stack: Stack, retry: Retry) -> Retry | None:
    """Return a retry with its final status, or None if it has not ended.

    DescribeExecution may lag behind the start or redrive.
    """
    found = history.describe(stack, retry.retry_arn or "")
    if found is None or found["status"] == "RUNNING" or found.get("redriveCount", 0) < retry.redrives:
        return None
    error = None if found["status"] == "SUCCEEDED" else found.get("error") or found["status"]
    return replace(retry, status=found["status"], retry_error=error)


def _identity(found: Mapping[str, Any], upload: UploadedObject | None) -> tuple[str, str | None]:
    return (upload.key, upload.version_id) if upload else (found["executionArn"], None)


def _start_date(execution: Mapping[str, Any]) -> datetime:
    date: datetime = execution["startDate"]
    return date
