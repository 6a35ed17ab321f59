"""What each state of an execution did: its attempts, input, parameters and output, from the history."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from client.errors import JobFailure
from functions.contracts.failure_report import explain
from functions.contracts.history import error_of, redact

Outcome = Literal["running", "succeeded", "caught", "failed", "stopped"]
"""``caught``: it failed, and a Catch handled the error; ``stopped``: it did not end before the execution did."""

_NESTED: Final = ("Parallel", "Map")
_BRANCHES_BEGIN: Final = ("ParallelStateStarted", "MapIterationStarted")
_ATTEMPT_ENDED: Final = ("TaskSucceeded", "TaskFailed", "TaskTimedOut", "TaskStartFailed", "TaskSubmitFailed")
_BRANCHES_FAILED: Final = ("ParallelStateFailed", "MapStateFailed", "MapRunFailed")
_ENDED: Final = ("ExecutionSucceeded", "ExecutionFailed", "ExecutionAborted", "ExecutionTimedOut")


@dataclass
class Attempt:
    """One call of a task.

    Attributes:
        started: when it started; if it waited, when it was scheduled.
        ended: when it ended; None while it is running.
        error: error and cause as text; empty if it did not fail.
    """

    started: datetime
    ended: datetime | None = None
    error: str = ""

    @property
    def seconds(self) -> float:
        """Duration; 0 while it is running."""
        return (self.ended - self.started).total_seconds() if self.ended else 0.0


@dataclass
class Step:
    """One visit of a state.

    Attributes:
        id: ID of the event that entered the state.
        name: name of the state.
        kind: type of the state, e.g. Task.
        started: when it was entered.
        parent: ID of the step whose branch it is in; None outside branches.
        ended: when it was left; None while it is running.
        outcome: how it ended.
        attempts: calls of the task; empty for other types.
        error: error and cause of a Parallel or Map state.
        resource: what the task calls, e.g. ``lambda:invoke``.
        input: data that the state was given.
        parameters: data that was sent to the resource, without task tokens.
        output: data that it returned.
    """

    id: int
    name: str
    kind: str
    started: datetime
    parent: int | None
    ended: datetime | None = None
    outcome: Outcome = "running"
    attempts: list[Attempt] = field(default_factory=list)
    error: str = ""
    resource: str = ""
    input: Any = None
    parameters: Any = None
    output: Any = None

    @property
    def seconds(self) -> float | None:
        """Duration with all attempts and the waits between them; None while it is running."""
        return (self.ended - self.started).total_seconds() if self.ended else None

    @property
    def errors(self) -> list[str]:
        """Errors of its attempts, the last one last."""
        return [text for text in (*(attempt.error for attempt in self.attempts), self.error) if text]


def steps_of(events: Sequence[Mapping[str, Any]]) -> list[Step]:
    """Return the steps of an execution so far, in the order of their starts.

    Args:
        events: its history, with or without data, oldest event first.
    """
    reader = _Reader()
    for event in events:
        reader.read(event)
    return list(reader.steps.values())


class _Reader:
    """Assigns each event to the step it is about. Branches run at the same time, so their events are mixed."""

    def __init__(self) -> None:
        self.steps: dict[int, Step] = {}
        self._step_of: dict[int, Step] = {}
        self._branch_starts: set[int] = set()

    def read(self, event: Mapping[str, Any]) -> None:
        kind, step = event["type"], self._step_of.get(event.get("previousEventId", 0))
        if kind.endswith("StateEntered"):
            step = self._enter(event, step)
        elif kind.endswith("StateExited"):
            step = self._exit(event, step)
        elif kind in _ENDED:
            self._end(event)
        elif step and kind.startswith(_NESTED):
            step = self._of_branches(event, step)
        elif step:
            _note(event, step)
        if step:
            self._step_of[event["id"]] = step
        if kind in _BRANCHES_BEGIN:
            self._branch_starts.add(event["id"])

    def _enter(self, event: Mapping[str, Any], previous: Step | None) -> Step:
        entered = event["stateEnteredEventDetails"]
        begins_branch = event.get("previousEventId") in self._branch_starts
        parent = previous.id if previous and begins_branch else previous.parent if previous else None
        kind = event["type"].removesuffix("StateEntered")
        step = Step(event["id"], entered["name"], kind, event["timestamp"], parent, input=_data(entered, "input"))
        self.steps[step.id] = step
        return step

    def _exit(self, event: Mapping[str, Any], step: Step | None) -> Step | None:
        exited = event["stateExitedEventDetails"]
        if step is None or step.name != exited["name"]:  # the exit of a nested state follows the last event of a branch
            step = next((one for one in self._running() if one.name == exited["name"]), None)
        if step:
            step.ended, step.output = event["timestamp"], _data(exited, "output")
            failed = step.error or (step.attempts and step.attempts[-1].error)
            step.outcome = "caught" if failed else "succeeded"
            for inner in self.steps.values():
                if inner.parent == step.id and inner.ended is None:  # another branch failed
                    inner.ended, inner.outcome = event["timestamp"], "stopped"
        return step

    def _of_branches(self, event: Mapping[str, Any], step: Step) -> Step:
        """Return the nested state that an event is about, which follows an event of one of its branches."""
        while (step.kind not in _NESTED or step.ended) and step.parent is not None:
            step = self.steps[step.parent]
        if event["type"] in _BRANCHES_FAILED:
            step.error = error_of(event) or event["type"]
        return step

    def _end(self, event: Mapping[str, Any]) -> None:
        """Note the end of the execution. The step that failed is the last one that ended by itself."""
        for step in self._running():
            failed = step.kind == "Fail" or step.error or (step.attempts and step.attempts[-1].error)
            step.outcome = "succeeded" if step.kind == "Succeed" else "failed" if failed else "stopped"
            step.ended = event["timestamp"]

    def _running(self) -> Iterator[Step]:
        return (step for step in reversed(self.steps.values()) if step.ended is None)


def _note(event: Mapping[str, Any], step: Step) -> None:
    """Note an event of a task."""
    kind, at = event["type"], event["timestamp"]
    if kind == "TaskScheduled":
        details = event["taskScheduledEventDetails"]
        step.attempts.append(Attempt(at))
        step.resource = f"{details['resourceType']}:{details['resource']}"
        step.parameters = _data(details, "parameters")
        step.ended, step.outcome = None, "running"  # a redrive calls the task again
    elif kind == "TaskStarted" and step.attempts:
        step.attempts[-1].started = at
    elif kind in _ATTEMPT_ENDED and step.attempts:
        step.attempts[-1].ended = at
        step.attempts[-1].error = "" if kind == "TaskSucceeded" else error_of(event) or kind


def _data(details: Mapping[str, Any], name: str) -> Any:
    """Return JSON data in the details of an event without task tokens; None if the history was read without data."""
    text = details.get(name)
    return redact(json.loads(text)) if text else None


def newest_state(steps: Sequence[Step]) -> Mapping[str, Any]:
    """Return the newest workflow state, which has the parts of all stages that have ended; empty before the first."""
    for step in reversed(steps):
        for data in (step.output, step.input):
            if step.parent is None and isinstance(data, dict) and "execution" in data and "keys" in data:
                return data
    return {}


def failure_of(described: Mapping[str, Any], steps: Sequence[Step]) -> JobFailure | None:
    """Return why an execution failed, from its own history; None if it has not failed.

    Args:
        described: answer of DescribeExecution.
        steps: its steps, with data.
    """
    if described["status"] in ("RUNNING", "SUCCEEDED"):
        return None
    recorded: dict[str, Any] = next((step.input["failure"] for step in reversed(steps) if _has_failure(step.input)), {})
    facts = recorded.get("facts")
    if facts is None:
        name = {"TIMED_OUT": "ExecutionTimedOut", "ABORTED": "ExecutionAborted"}.get(described["status"], "Unknown")
        stage = next((step.name for step in reversed(steps) if step.outcome in ("failed", "stopped")), "")
        caught = {"Error": described.get("error") or name, "Cause": described.get("cause") or ""}
        facts = {**explain(caught, stage), "stage": stage}
    names = ("stage", "error", "message", "field", "value", "remedy")
    return JobFailure(**{name: facts[name] for name in names}, key=recorded.get("report_key"))


def _has_failure(data: Any) -> bool:
    return isinstance(data, dict) and isinstance(data.get("failure"), dict)


@dataclass(frozen=True)
class Degradation:
    """A stage that failed without failing the execution.

    Attributes:
        stage: state that failed.
        consequence: what happened instead.
        error: class name of the error.
        message: what is wrong.
        remedy: what the reader can do.
    """

    stage: str
    consequence: str
    error: str
    message: str
    remedy: str


def degradations_of(state: Mapping[str, Any]) -> list[Degradation]:
    """Return the stages that failed without failing the execution, from the workflow state."""
    consequences = {
        "fallback": "Segmentation ran on Lambda instead.",
        "degraded": "The job continued without it.",
    }
    return [
        Degradation(stage, _CONTINUED.get(stage, text), facts["error"], facts["message"], facts["remedy"])
        for part, text in consequences.items()
        for stage, caught in (state.get(part) or {}).items()
        for facts in [explain(caught, stage)]
    ]


_CONTINUED: Final = {
    "SaveCache": "The next upload of this image is computed again.",
    "PublishMetrics": "The metrics lack this execution.",
    "ReleaseClaim": "Another execution takes over the claim.",
    "StartWebhook": "The webhook is in the dead-letter queue; send it with pbr replay-dlq webhooks.",
    "DeadLetterNotice": "The webhook was not sent.",
}
