"""All that is known about one execution: status, error, steps, pictures, cost."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from client import history
from client.errors import ExecutionNotFoundError, JobFailure
from client.executions.cost import Cost, cost_of
from client.executions.pictures import StagePicture, computed_by, missing, pictures_of
from client.executions.search import arn_of
from client.executions.steps import Degradation, Step, degradations_of, failure_of, newest_state, steps_of
from client.history import ExecutionSummary, events_of, of_described
from client.stack import Stack
from functions.contracts.failure_report import json_object
from functions.contracts.history import Row, rows


@dataclass(frozen=True)
class Details:
    """An execution.

    Attributes:
        summary: its status, image, times and quality.
        redrives: how often it was redriven.
        definition: definition of the state machine when it started.
        steps: what its states did.
        events: its history as a table.
        output: its output, the sidecar; None if it has not succeeded.
        failure: why it failed; None if it has not.
        degradations: stages that failed without failing it.
        pictures: pictures of its stages.
        missing: those of the pictures that do not exist any more.
        computed_by: ARN of the execution whose result was copied from the cache; None if none was.
        cost: what it has cost so far.
        concealed: whether :func:`conceal` removed what only the owner of the image may see.
    """

    summary: ExecutionSummary
    redrives: int
    definition: Mapping[str, Any]
    steps: Sequence[Step]
    events: Sequence[Row]
    output: Mapping[str, Any] | None
    failure: JobFailure | None
    degradations: Sequence[Degradation]
    pictures: Sequence[StagePicture]
    missing: set[StagePicture]
    computed_by: str | None
    cost: Cost
    concealed: bool = False

    @property
    def current(self) -> Step | None:
        """The state that is running; None if the execution has ended."""
        running = [step for step in self.steps if step.ended is None and step.parent is None]
        return running[-1] if running else None


def describe(stack: Stack, execution: str) -> Mapping[str, Any]:
    """Return the answer of DescribeExecution.

    Args:
        stack: the stack that ran it.
        execution: its name or ARN.

    Raises:
        ExecutionNotFoundError: the stack has no such execution, or it was deleted after 90 days.
    """
    prefix = arn_of(stack, "")
    arn = execution if execution.startswith("arn:") else prefix + execution
    found = history.describe(stack, arn) if arn.startswith(prefix) else None
    if found is None:
        raise ExecutionNotFoundError(
            "The stack has no execution with this name",
            field="execution",
            value=execution,
            remedy="Search for it in the list. Step Functions deletes executions 90 days after their end.",
        )
    return found


def load(stack: Stack, described: Mapping[str, Any], before: Details | None = None) -> Details:
    """Return all that is known about an execution.

    Args:
        stack: the stack that ran it.
        described: answer of DescribeExecution.
        before: what was known about the same execution a moment ago. Its definition, and its pictures that existed,
            are not read again.
    """
    arn = described["executionArn"]
    events = events_of(stack, arn, with_data=True)
    there = [one for one in before.pictures if one not in before.missing] if before else []
    steps = steps_of(events)
    state = newest_state(steps)
    output = json_object(described.get("output") or "") or None
    pictures = pictures_of(stack, json.loads(described.get("input") or "{}"), state, output)
    return Details(
        summary=of_described(described),
        redrives=described.get("redriveCount", 0),
        definition=before.definition if before else _definition(stack, arn),
        steps=steps,
        events=rows(events),
        output=output,
        failure=failure_of(described, steps),
        degradations=degradations_of(state),
        pictures=pictures,
        missing=missing(stack, [one for one in pictures if one not in there]),
        computed_by=computed_by(state),
        cost=cost_of(stack, steps),
    )


def _definition(stack: Stack, arn: str) -> Any:
    machine = stack.stepfunctions.describe_state_machine_for_execution(executionArn=arn)
    return json.loads(machine["definition"])


def conceal(found: Details) -> Details:
    """Return an execution without what only the owner of its image may see.

    Status, times, steps with the classes of their errors, events without their details, and cost remain. Object keys,
    options, data, messages of errors and pictures do not.
    """
    message, remedy = "The execution failed", "Only the user who uploaded the image can see the message."
    return replace(
        found,
        summary=replace(found.summary, source_key=None),
        steps=[_without_data(step) for step in found.steps],
        events=[replace(row, detail="", data=None) for row in found.events],
        output=None,
        failure=found.failure
        and replace(found.failure, message=message, field=None, value=None, remedy=remedy, key=None),
        degradations=[replace(one, message=one.error, remedy="") for one in found.degradations],
        pictures=(),
        missing=set(),
        computed_by=None,
        concealed=True,
    )


def _without_data(step: Step) -> Step:
    attempts = [replace(attempt, error=_class(attempt.error)) for attempt in step.attempts]
    return replace(step, attempts=attempts, error=_class(step.error), input=None, parameters=None, output=None)


def _class(error: str) -> str:
    """Return the class name of an error with a cause."""
    return error.partition(":")[0]
