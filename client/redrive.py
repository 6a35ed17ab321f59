"""Failed executions brought back: redriven where Step Functions can go on from what is there, else started anew."""

import hashlib
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from botocore.exceptions import BotoCoreError, ClientError

from client import history, uploads
from client.errors import UsageError
from client.stack import Stack
from client.uploads import UploadedObject
from core import errors
from functions.contracts.object_keys import failure_key
from functions.contracts.webhook import RETRY

_AT_ONCE: Final = 8
_PER_S: Final = 10  # a small part of StartExecution's quota, which uploads need too
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}

# A redrive works on what earlier states left, and the work bucket keeps masks and alphas for two days.
_INTERMEDIATES_LAST: Final = timedelta(days=2) - 2 * timedelta(seconds=history.LONGEST_S)

_NAME_CHARS: Final = 80
_STEM_CHARS: Final = _NAME_CHARS - len("-retry-999")

# Errors of the upload itself: it fails again as it is. Weights are the stack's.
_OF_THE_UPLOAD: Final = {
    error.__name__
    for error in errors.PermanentError.__subclasses__()
    if error.__module__ == errors.__name__ and error is not errors.WeightsHashMismatchError
}

_OF_BRANCHES: Final = 100  # more events than a Parallel's branches have, all their attempts counted

How = Literal["redriven", "new", "skipped", "refused"]


@dataclass(frozen=True)
class Recovery:
    """A failed execution, and how it is brought back.

    Attributes:
        arn: the failed execution.
        key: the picture it was started for; None where its input names none.
        error: why it failed.
        how: ``redriven`` goes on at the state that did not succeed, ``new`` is another execution with the same input,
            ``skipped`` is nothing at all, ``refused`` what AWS did not let be done.
        because: why that way.
        runs_as: the execution that does the work; None if none does.
        input: what the failed execution was started with.
        redrives: how often ``runs_as`` has been redriven once this recovery is carried out.
        status: how ``runs_as`` ended; None while that is not known.
        failed_again: its error, if it failed.
    """

    arn: str
    key: str | None
    error: str
    how: How
    because: str
    runs_as: str | None = None
    input: str = ""
    redrives: int = 0
    status: str | None = None
    failed_again: str | None = None

    def facts(self) -> dict[str, Any]:
        """Return it as a JSON object, for scripts."""
        names = ("arn", "key", "error", "how", "because", "runs_as", "status", "failed_again")
        return {name: getattr(self, name) for name in names}


class Pace:
    """Lets through ten a second."""

    def __init__(self) -> None:
        self._next = 0.0

    def wait(self) -> None:
        """Return when it is time for the next one."""
        time.sleep(max(0.0, self._next - time.monotonic()))
        self._next = time.monotonic() + 1 / _PER_S


def duration(text: str, option: str) -> timedelta:
    """Read ``30m``, ``1h`` or ``2d``, the value of an option of the command line.

    Raises:
        UsageError: it is something else.
    """
    if match := re.fullmatch(r"(\d{1,4})([mhd])", text):
        return timedelta(**{_UNITS[match[2]]: int(match[1])})
    raise UsageError(
        "This is no duration", field=option, value=text, remedy="Give minutes, hours or days: 30m, 1h, 2d."
    )


def find(stack: Stack, execution: str) -> str:
    """Return the ARN of the execution that is meant.

    Args:
        stack: where to look.
        execution: an ARN, a name, the start of a name, or the key of an upload that has a report.

    Raises:
        ExecutionNotFoundError: none is meant, or several are.
        StorageDeniedError: whether there is such a report is not to be seen with one's rights.
    """
    if not execution.startswith("arn:") and (
        report := stack.document(failure_key(execution, execution), must_know=True)
    ):
        return str(report["execution"]["id"])
    return history.find(stack, execution)


def failed_since(stack: Stack, since: datetime) -> list[str]:
    """Return the ARNs of the executions that have ended without success since then, newest first."""
    found: list[Mapping[str, Any]] = []
    for status in ("FAILED", "TIMED_OUT", "ABORTED"):
        pages = stack.stepfunctions.get_paginator("list_executions").paginate(
            stateMachineArn=stack.outputs["StateMachineArn"],
            statusFilter=status,
            PaginationConfig={"PageSize": 1000},
        )
        # All of the 90 days that Step Functions keeps, a page for each thousand: what was redriven began at any time.
        found += [execution for page in pages for execution in page["executions"] if execution["stopDate"] >= since]
    return [execution["executionArn"] for execution in sorted(found, key=_started, reverse=True)]


def plan(stack: Stack, execution_arns: Sequence[str], *, named: bool) -> list[Recovery]:
    """Decide how each execution is brought back; nothing is done yet.

    Args:
        stack: where they ran.
        execution_arns: which ones.
        named: whether a person named them one by one: then what failed by its upload is tried again too, and what was
            ordered of an upload that has its result, with other options perhaps.

    Raises:
        StorageDeniedError: whether an upload has its result is not to be seen with one's rights.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(lambda arn: stack.stepfunctions.describe_execution(executionArn=arn), execution_arns))
        objects = list(pool.map(lambda one: uploads.look_up(stack, json.loads(one.get("input", "{}"))), found))
        latest = {
            _identity(one, upload): one["executionArn"]
            for one, upload in sorted(zip(found, objects, strict=True), key=lambda pair: _started(pair[0]))
        }

        def decide(one: Mapping[str, Any], upload: UploadedObject | None) -> Recovery:
            superseded = latest[_identity(one, upload)] != one["executionArn"]
            return _decide(stack, one, upload, superseded=superseded, named=named)

        return list(pool.map(decide, found, objects))


def carry_out(stack: Stack, recoveries: Iterable[Recovery]) -> Iterator[Recovery]:
    """Bring back what is to be brought back, and yield each recovery with what became of it."""
    pace = Pace()
    for recovery in recoveries:
        if recovery.runs_as is None:
            yield recovery
        else:
            pace.wait()
            yield _bring_back(stack, recovery, recovery.runs_as)


def follow(stack: Stack, recoveries: Iterable[Recovery]) -> Iterator[Recovery]:
    """Wait until all that was brought back has ended, and yield each recovery with how it did, as it does."""
    waiting = list(recoveries)
    while waiting:
        still = []
        for recovery in waiting:
            ended = _ended(stack, recovery) if recovery.runs_as else recovery
            if ended:
                yield ended
            else:
                still.append(recovery)
        waiting = still
        if waiting:
            time.sleep(stack.poll_s)


def start_once(stack: Stack, machine_arn: str, name: str, execution_input: str) -> bool:
    """Start an execution under this name, unless one runs; return whether one runs: it may have ended already."""
    try:
        stack.stepfunctions.start_execution(stateMachineArn=machine_arn, name=name, input=execution_input)
    except stack.stepfunctions.exceptions.ExecutionAlreadyExists:
        return False
    return True


def retry_name(name: str) -> str:
    """Name the execution that tries again what this one failed at: always the same name, of at most 80 characters."""
    match = RETRY.search(name)
    stem = name[: match.start()] if match else name
    if len(stem) > _STEM_CHARS:
        digest = hashlib.sha256(stem.encode()).hexdigest()[:8]
        stem = f"{stem[: _STEM_CHARS - len(digest) - 1]}-{digest}"
    return f"{stem}-retry-{int(match[1]) + 1 if match else 1}"


def _decide(
    stack: Stack, found: Mapping[str, Any], upload: UploadedObject | None, *, superseded: bool, named: bool
) -> Recovery:
    arn, error = found["executionArn"], found.get("error") or found["status"]
    key = upload.key if upload else None

    def skip(because: str) -> Recovery:
        return Recovery(arn, key, error, "skipped", because)

    if found["status"] == "RUNNING":
        return skip("it runs")
    if found["status"] == "SUCCEEDED":
        return skip("it succeeded")
    if superseded:
        return skip("a later execution of the same upload failed too")
    if not named and (why := _needs_a_person(error, upload)):
        return skip(f"{why}; name it to try again all the same")
    cannot_go_on = _cannot_go_on(stack, found)
    if cannot_go_on is None:
        because = "goes on at the state that did not succeed"
        return Recovery(arn, key, error, "redriven", because, runs_as=arn, redrives=found.get("redriveCount", 0) + 1)
    if "input" not in found:
        return skip("its input cannot be read: upload again")
    again = f"{arn.rpartition(':')[0]}:{retry_name(found['name'])}"
    if (earlier := history.description(stack, again)) is not None:
        status = "runs" if earlier["status"] == "RUNNING" else f"ended as {earlier['status']}"
        return skip(f"{earlier['name']} tries it again and {status}")
    return Recovery(arn, key, error, "new", cannot_go_on, runs_as=again, input=found["input"])


def _needs_a_person(error: str, upload: UploadedObject | None) -> str | None:
    """Return why only a person can want this tried again; None if it is to be tried in any case."""
    if upload and upload.result_by:
        return f"the upload has its result, by {upload.result_by}"
    if error in _OF_THE_UPLOAD:
        return "the upload itself is at fault"
    if upload and not upload.newest:
        return "the upload was replaced or deleted since"
    return None


def _cannot_go_on(stack: Stack, found: Mapping[str, Any]) -> str | None:
    """Return why a redrive would be of no use; None if it is of use."""
    if found.get("redriveStatus") != "REDRIVABLE":
        return found.get("redriveStatusReason") or "Step Functions cannot redrive it"
    if found["startDate"] < datetime.now(UTC) - _INTERMEDIATES_LAST:
        return "what its states left is deleted"
    if found["status"] == "FAILED":
        if history.ended_in_fail_state(stack, found["executionArn"]):
            return "it was ended by a Fail state, which a redrive would run again"
        if found.get("redriveCount"):  # by the definition that it was started with, whatever that is today
            return "a redrive failed too"
    if _ended_among_branches(stack, found["executionArn"]):
        return "an asynchronous endpoint had its request, which a redrive would not repeat"
    return None


def _ended_among_branches(stack: Stack, execution_arn: str) -> bool:
    """Return whether an execution ended while a Parallel's branches ran, those that ask an asynchronous endpoint.

    A redrive runs only the branch that has not succeeded: it would wait with a token that nobody gives to the endpoint.
    """
    latest = stack.stepfunctions.get_execution_history(
        executionArn=execution_arn, reverseOrder=True, maxResults=_OF_BRANCHES, includeExecutionData=False
    )["events"]
    of_parallel = (event["type"] for event in latest if event["type"].startswith("ParallelState"))
    return next(of_parallel, "ParallelStateExited") != "ParallelStateExited"


def _bring_back(stack: Stack, recovery: Recovery, runs_as: str) -> Recovery:
    try:
        if recovery.how == "redriven":
            stack.stepfunctions.redrive_execution(executionArn=runs_as)
        elif not start_once(stack, stack.outputs["StateMachineArn"], runs_as.rpartition(":")[2], recovery.input):
            return replace(recovery, how="skipped", because="it was tried again at this moment", runs_as=None)
    except stack.stepfunctions.exceptions.ExecutionNotRedrivable:
        return replace(recovery, how="skipped", because="it was redriven at this moment", runs_as=None)
    except (ClientError, BotoCoreError) as error:
        return replace(recovery, how="refused", because=str(error), runs_as=None)
    return recovery


def _ended(stack: Stack, recovery: Recovery) -> Recovery | None:
    """Return how a recovery ended; None before that. What describes an execution can be behind its start or redrive."""
    found = history.description(stack, recovery.runs_as or "")
    if found is None or found["status"] == "RUNNING" or found.get("redriveCount", 0) < recovery.redrives:
        return None
    error = None if found["status"] == "SUCCEEDED" else found.get("error") or found["status"]
    return replace(recovery, status=found["status"], failed_again=error)


def _identity(found: Mapping[str, Any], upload: UploadedObject | None) -> tuple[str, str | None]:
    return (upload.key, upload.version_id) if upload else (found["executionArn"], None)


def _started(found: Mapping[str, Any]) -> datetime:
    started: datetime = found["startDate"]
    return started
