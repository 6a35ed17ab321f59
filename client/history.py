"""Executions of the state machine: list them, find one, and read its stages from its history."""

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal

from client.errors import ExecutionNotFoundError
from client.stack import Stack
from functions.contracts.failure_report import json_object, source_of
from functions.contracts.history import error_of, execution_arn

# Choice and Pass states take no time, so they are not stages. A Parallel state is one stage, its branches included.
_STAGE_TYPES: Final = ("Task", "Wait", "Parallel")
_ATTEMPT_FAILED: Final = ("TaskFailed", "TaskTimedOut", "TaskStartFailed", "TaskSubmitFailed")
_ENDED: Final = ("ExecutionSucceeded", "ExecutionFailed", "ExecutionAborted", "ExecutionTimedOut")

LONGEST_S: Final = 28_800.0
"""Longest duration of an execution: TimeoutSeconds of the state machine."""

_SEARCHED_EXECUTIONS: Final = 1000
_THREADS: Final = 8


@dataclass(frozen=True)
class StageEvent:
    """A stage started, was retried, finished or failed.

    Attributes:
        stage: name of the state.
        kind: ``failed`` means a caught error; the execution continues with a fallback or with its failure report.
        seconds: time since the stage started, all attempts included.
        detail: error and cause if ``retried`` or ``failed``.
    """

    stage: str
    kind: Literal["started", "retried", "finished", "failed"]
    seconds: float
    detail: str = ""


class StageReader:
    """Converts the history of a running execution to stage events, each one once.

    Attributes:
        ended: whether the history is complete.
    """

    def __init__(self) -> None:
        self.ended = False
        self._read_id = 0
        self._started: dict[str, datetime] = {}
        self._stage = ""
        self._failure = ""
        self._in_branches = False

    def read(self, events: Iterable[Mapping[str, Any]]) -> Iterator[StageEvent]:
        """Yield the stage events of the history events that were not read before."""
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
    """Return the history events of an execution so far, oldest first.

    Args:
        stack: the stack that runs it.
        execution_arn: ARN of the execution.
        with_data: include the input and output of each state.
    """
    pages = stack.stepfunctions.get_paginator("get_execution_history").paginate(
        executionArn=execution_arn, includeExecutionData=with_data, PaginationConfig={"PageSize": 1000}
    )
    return [event for page in pages for event in page["events"]]


def ended_in_fail_state(stack: Stack, execution_arn: str) -> bool:
    """Return whether a failed execution ended at a Fail state rather than by an uncaught error."""
    last = stack.stepfunctions.get_execution_history(
        executionArn=execution_arn, reverseOrder=True, maxResults=2, includeExecutionData=False
    )["events"]
    return any(event["type"] == "FailStateEntered" for event in last)


@dataclass(frozen=True)
class ExecutionSummary:
    """An execution as ``pbr history`` lists it.

    Attributes:
        arn: ARN of the execution.
        name: name of the execution.
        status: RUNNING, SUCCEEDED, FAILED, TIMED_OUT or ABORTED.
        source_key: object key of its image; None if its input has none.
        started_at: start time.
        seconds: duration; None while it is running.
        cache_hit: whether the result came from the cache; None if the execution has no output.
        error: class name of the error if it failed.
        score: quality score of its result, 0 to 1; None without result.
        review: whether a person should look at its result; None without result.
        degraded: whether segmentation fell back to Lambda, or the second attempt failed; None without result.
    """

    arn: str
    name: str
    status: str
    source_key: str | None
    started_at: datetime
    seconds: float | None
    cache_hit: bool | None
    error: str | None
    score: float | None = None
    review: bool | None = None
    degraded: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return {
            "execution": self.name,
            "arn": self.arn,
            "status": self.status,
            "error": self.error,
            "image": self.source_key,
            "started": self.started_at.isoformat(),
            "seconds": self.seconds,
            "cache": self.cache,
            "quality": self.score,
            "review": self.review,
            "degraded": self.degraded,
        }

    @property
    def cache(self) -> str | None:
        """Whether the result came from the cache, as text: hit or miss."""
        return None if self.cache_hit is None else "hit" if self.cache_hit else "miss"

    @property
    def marks(self) -> tuple[str, ...]:
        """What is special about the result: review, degraded, cached."""
        facts = {"review": self.review, "degraded": self.degraded, "cached": self.cache_hit}
        return tuple(name for name, holds in facts.items() if holds)


def summarize(stack: Stack, execution_arn: str) -> ExecutionSummary:
    """Return the summary of an execution."""
    return of_described(stack.stepfunctions.describe_execution(executionArn=execution_arn))


def of_described(found: Mapping[str, Any]) -> ExecutionSummary:
    """Return the summary of an execution from the answer of DescribeExecution."""
    output = json_object(found.get("output") or "")
    quality = output.get("quality", {})
    failed_attempt = (output.get("escalation") or {}).get("error")
    return replace(
        of_listed(found),
        source_key=source_of(json.loads(found.get("input") or "{}"))["key"],
        cache_hit=output.get("cache", {}).get("hit"),
        error=found.get("error"),
        score=quality.get("score"),
        review=quality.get("review"),
        degraded=output["degraded"] or failed_attempt is not None if "degraded" in output else None,
    )


def of_listed(found: Mapping[str, Any]) -> ExecutionSummary:
    """Return what ListExecutions says about an execution."""
    stopped = found.get("stopDate")
    return ExecutionSummary(
        arn=found["executionArn"],
        name=found["name"],
        status=found["status"],
        source_key=None,
        started_at=found["startDate"],
        seconds=(stopped - found["startDate"]).total_seconds() if stopped else None,
        cache_hit=None,
        error=None,
    )


def named(stack: Stack, executions: Iterable[str]) -> list[ExecutionSummary]:
    """Return the summaries of executions, each one once.

    Args:
        stack: the stack to search.
        executions: as for :func:`find`.

    Raises:
        ExecutionNotFoundError: if one does not exist, or is not one of this stack's state machine.
    """
    arns = list(dict.fromkeys(find(stack, execution) for execution in executions))
    prefix = execution_arn(stack.outputs["StateMachineArn"], "")
    for arn in arns:
        if not arn.startswith(prefix) or describe(stack, arn) is None:
            raise ExecutionNotFoundError(
                "The stack has no execution with this ARN",
                field="EXECUTION",
                value=arn,
                remedy="List the executions with pbr history. Step Functions deletes them 90 days after their end.",
            )
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(lambda arn: summarize(stack, arn), arns))


def describe(stack: Stack, execution_arn: str) -> Mapping[str, Any] | None:
    """Return the answer of DescribeExecution, or None if the execution does not exist."""
    try:
        return stack.stepfunctions.describe_execution(executionArn=execution_arn)
    except stack.stepfunctions.exceptions.ExecutionDoesNotExist:
        return None


def count(stack: Stack, status: Any, limit: int) -> int:
    """Return the number of executions with a status, up to a limit."""
    pages = stack.stepfunctions.get_paginator("list_executions").paginate(
        stateMachineArn=stack.outputs["StateMachineArn"],
        statusFilter=status,
        PaginationConfig={"MaxItems": limit, "PageSize": min(limit, 1000)},
    )
    return sum(len(page["executions"]) for page in pages)


def find(stack: Stack, execution: str) -> str:
    """Return the ARN of an execution.

    Args:
        stack: the stack to search.
        execution: ARN, name, or unique prefix of a name among the latest 1,000 executions.

    Raises:
        ExecutionNotFoundError: if no name has this prefix, or several names have it.
    """
    if not execution:
        remedy = f"Pass an execution. To list them: pbr history{stack.place}"
        raise ExecutionNotFoundError("The execution is empty", field="EXECUTION", value=None, remedy=remedy)
    if execution.startswith("arn:"):
        return execution
    arns = [arn for arn in _newest(stack, _SEARCHED_EXECUTIONS) if _name(arn).startswith(execution)]
    exact = [arn for arn in arns if _name(arn) == execution]
    if len(exact or arns) == 1:
        return (exact or arns)[0]
    if arns:
        message, remedy = f"{len(arns)} executions match this prefix", "Pass a longer prefix."
    else:
        message = "No execution matches this prefix"
        remedy = f"To find it by its image: pbr history --match {shlex.quote(execution)}{stack.place}"
    raise ExecutionNotFoundError(message, field="EXECUTION", value=execution, remedy=remedy)


def _newest(stack: Stack, limit: int) -> list[str]:
    pages = stack.stepfunctions.get_paginator("list_executions").paginate(
        stateMachineArn=stack.outputs["StateMachineArn"],
        PaginationConfig={"MaxItems": limit, "PageSize": min(limit, 1000)},
    )
    return [execution["executionArn"] for page in pages for execution in page["executions"]]


def _name(arn: str) -> str:
    return arn.rsplit(":", 1)[1]
