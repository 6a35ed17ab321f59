"""Executions: which there are, and what happens to their stages while they run."""

import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from client.errors import ExecutionNotFoundError
from client.stack import Stack
from functions.contracts.failure_report import source_of
from functions.contracts.history import error_of

# Choices and Passes take no time: they show in the table of events, not as stages. A Parallel is one stage; what its
# branches do side by side shows there too.
_STAGE_TYPES: Final = ("Task", "Wait", "Parallel")
_ATTEMPT_FAILED: Final = ("TaskFailed", "TaskTimedOut", "TaskStartFailed", "TaskSubmitFailed")
_ENDED: Final = ("ExecutionSucceeded", "ExecutionFailed", "ExecutionAborted", "ExecutionTimedOut")

LONGEST_S: Final = 28_800.0
"""What an execution may take: the state machine's TimeoutSeconds."""

_LOOKED_THROUGH: Final = 1000
_AT_ONCE: Final = 8


@dataclass(frozen=True)
class StageEvent:
    """Something that happened to a stage.

    Attributes:
        stage: the state's name.
        kind: ``failed`` is an error that was caught: the execution goes on, to its failure report or to a fallback.
        seconds: since the stage started; of ``retried``, too.
        detail: error and cause, of ``retried`` and ``failed``.
    """

    stage: str
    kind: Literal["started", "retried", "finished", "failed"]
    seconds: float
    detail: str = ""


class StageReader:
    """Makes stage events of a history that grows. Events that were read before may be given again.

    Attributes:
        ended: whether the execution's last event was read.
    """

    def __init__(self) -> None:
        self.ended = False
        self._read_id = 0
        self._started: dict[str, datetime] = {}
        self._stage = ""
        self._failure = ""
        self._in_branches = False

    def read(self, events: Iterable[Mapping[str, Any]]) -> Iterator[StageEvent]:
        """Yield what the new ones among ``events`` say."""
        for event in events:
            if event["id"] > self._read_id:
                self._read_id = event["id"]
                yield from self._read_one(event)

    def _read_one(self, event: Mapping[str, Any]) -> Iterator[StageEvent]:
        kind, at = event["type"], event["timestamp"]
        if kind.startswith("ParallelState"):
            self._in_branches = kind == "ParallelStateStarted"
        if self._in_branches and kind.endswith(("StateEntered", "StateExited")):
            return
        if kind.startswith(_STAGE_TYPES) and kind.endswith("StateEntered"):
            self._stage, self._failure = event["stateEnteredEventDetails"]["name"], ""
            self._started[self._stage] = at
            yield self._event("started", at)
        elif kind.startswith(_STAGE_TYPES) and kind.endswith("StateExited"):
            yield self._event("failed" if self._failure else "finished", at)
            self._failure = ""
        elif kind in _ATTEMPT_FAILED:
            self._failure = error_of(event) or kind
        elif kind == "TaskScheduled" and self._failure:
            yield self._event("retried", at)
            self._failure = ""
        elif kind in _ENDED:
            self.ended = True
            if self._failure:
                yield self._event("failed", at)

    def _event(self, kind: Literal["started", "retried", "finished", "failed"], at: datetime) -> StageEvent:
        seconds = (at - self._started[self._stage]).total_seconds()
        return StageEvent(self._stage, kind, seconds, self._failure)


def events_of(stack: Stack, execution_arn: str, *, with_data: bool) -> list[Mapping[str, Any]]:
    """Return an execution's events so far, oldest first.

    Args:
        stack: where it runs.
        execution_arn: which one.
        with_data: with the states' inputs and outputs.
    """
    pages = stack.stepfunctions.get_paginator("get_execution_history").paginate(
        executionArn=execution_arn, includeExecutionData=with_data, PaginationConfig={"PageSize": 1000}
    )
    return [event for page in pages for event in page["events"]]


def ended_in_fail_state(stack: Stack, execution_arn: str) -> bool:
    """Return whether a failed execution was ended by a Fail state, and not by an error that nothing caught."""
    last = stack.stepfunctions.get_execution_history(
        executionArn=execution_arn, reverseOrder=True, maxResults=2, includeExecutionData=False
    )["events"]
    return any(event["type"] == "FailStateEntered" for event in last)


@dataclass(frozen=True)
class Execution:
    """An execution at a glance.

    Attributes:
        arn: its full name.
        name: its name.
        status: RUNNING, SUCCEEDED, FAILED, TIMED_OUT or ABORTED.
        source_key: the picture it was started for; None where its input names none.
        started_at: when.
        seconds: how long it took; None while it runs.
        cache_hit: whether its result came from the cache; None while that is not known.
        error: its error's name, if it failed.
    """

    arn: str
    name: str
    status: str
    source_key: str | None
    started_at: datetime
    seconds: float | None
    cache_hit: bool | None
    error: str | None


def describe(stack: Stack, execution_arn: str) -> Execution:
    """Look at one execution."""
    found = stack.stepfunctions.describe_execution(executionArn=execution_arn)
    stopped = found.get("stopDate")
    output = json.loads(found.get("output") or "{}")
    return Execution(
        arn=execution_arn,
        name=found["name"],
        status=found["status"],
        source_key=source_of(json.loads(found["input"]))["key"],
        started_at=found["startDate"],
        seconds=(stopped - found["startDate"]).total_seconds() if stopped else None,
        cache_hit=output.get("cache", {}).get("hit"),
        error=found.get("error"),
    )


def description(stack: Stack, execution_arn: str) -> Mapping[str, Any] | None:
    """Return what Step Functions says of an execution; None if it knows none of that name."""
    try:
        return stack.stepfunctions.describe_execution(executionArn=execution_arn)
    except stack.stepfunctions.exceptions.ExecutionDoesNotExist:
        return None


def recent(stack: Stack, limit: int) -> list[Execution]:
    """Return the stack's latest executions, newest first."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda arn: describe(stack, arn), _newest(stack, limit)))


def find(stack: Stack, execution: str) -> str:
    """Return the ARN of the one execution that is meant.

    Args:
        stack: where to look.
        execution: an ARN, a name, or the start of a name among the latest thousand executions.

    Raises:
        ExecutionNotFoundError: none is meant, or several are.
    """
    if execution.startswith("arn:"):
        return execution
    arns = [arn for arn in _newest(stack, _LOOKED_THROUGH) if _name(arn).startswith(execution)]
    exact = [arn for arn in arns if _name(arn) == execution]
    if len(exact or arns) == 1:
        return (exact or arns)[0]
    raise ExecutionNotFoundError(
        f"{len(arns)} executions have a name that starts so" if arns else "No execution has a name that starts so",
        field="EXECUTION",
        value=execution,
        remedy="Give more of the name; pbr history lists them.",
    )


def _newest(stack: Stack, limit: int) -> list[str]:
    pages = stack.stepfunctions.get_paginator("list_executions").paginate(
        stateMachineArn=stack.outputs["StateMachineArn"],
        PaginationConfig={"MaxItems": limit, "PageSize": min(limit, 1000)},
    )
    return [execution["executionArn"] for page in pages for execution in page["executions"]]


def _name(arn: str) -> str:
    return arn.rsplit(":", 1)[1]
