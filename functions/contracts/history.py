"""An execution's history as a table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from functions.contracts.failure_report import json_object

REDACTED: Final = "(redacted)"
"""In place of a task token: with one, anybody who may report to Step Functions can end a task."""

_SECRETS: Final = ("token", "tasktoken")


def execution_arn(machine_arn: str, name: str) -> str:
    """Return the ARN of an execution of a state machine."""
    return f"{machine_arn.replace(':stateMachine:', ':execution:')}:{name}"


def redact(value: Any) -> Any:
    """Return JSON data of an execution without task tokens.

    Args:
        value: parameters, input or output of a state.
    """
    if isinstance(value, dict):
        return {name: REDACTED if _is_secret(name) else redact(item) for name, item in value.items()}
    return [redact(item) for item in value] if isinstance(value, list) else value


def _is_secret(name: str) -> bool:
    return name.casefold().replace("_", "") in _SECRETS


@dataclass(frozen=True)
class Row:
    """One event: milliseconds since the first event, state, error or resource, and the state's input or output."""

    id: int
    ms: int
    type: str
    state: str
    detail: str
    data: Any


def rows(events: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return the rows of a complete history, oldest event first."""
    states: dict[int, str] = {}
    table = []
    for event in events:
        entered, exited = event.get("stateEnteredEventDetails"), event.get("stateExitedEventDetails")
        previous = event.get("previousEventId", 0)
        inherits = states.get(previous, "") if not event["type"].startswith("Execution") else ""
        states[event["id"]] = (entered or exited or {}).get("name", inherits)
        text = (entered or {}).get("input") or (exited or {}).get("output")
        table.append(
            Row(
                id=event["id"],
                ms=round((event["timestamp"] - events[0]["timestamp"]).total_seconds() * 1000),
                type=event["type"],
                state=states[event["id"]],
                detail=error_of(event) or _resource(event),
                data=redact(json.loads(text)) if text else None,
            )
        )
        # Events after a state's exit do not belong to it.
        if exited:
            states[event["id"]] = ""
    return table


def _details(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an event's details. Their field's name depends on the type of the event."""
    return next((value for key, value in event.items() if key.endswith("EventDetails")), {})


def error_of(event: Mapping[str, Any]) -> str:
    """Return an event's error as text, or "" if it has none."""
    details = _details(event)
    return ": ".join(_plain(details[name]) for name in ("error", "cause") if details.get(name))


def _plain(cause: str) -> str:
    """Return a cause as text. The cause of a function is JSON that contains the JSON of our error."""
    try:
        payload = json.loads(cause)
        inner = payload.get("errorMessage", cause)
    except (ValueError, AttributeError):
        return cause
    if inner is not cause:
        return _plain(inner)
    return f"{payload['message']}. {payload['remedy']}" if {"message", "remedy"} <= payload.keys() else cause


def _resource(event: Mapping[str, Any]) -> str:
    details = _details(event)
    return f"{details['resourceType']}:{details['resource']}" if "resourceType" in details else ""


def failure_of(newest_first: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the :class:`functions.contracts.failure_report.ErrorFacts` that an execution recorded; None for none."""
    for event in newest_first:
        if entered := event.get("stateEnteredEventDetails"):
            facts: Mapping[str, Any] | None = json_object(entered["input"]).get("failure", {}).get("facts")
            return facts
    return None


def newest_stage(newest_first: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the current Task, Wait or Parallel state of an execution, or None before the first one."""
    for event in newest_first:
        if event["type"] in ("TaskStateEntered", "WaitStateEntered", "ParallelStateEntered"):
            name: str = event["stateEnteredEventDetails"]["name"]
            return name
    return None
