"""An execution's events, laid out for people."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One event: ``ms`` since the first, the state it belongs to, and what it says; ``data`` is JSON in or out."""

    id: int
    ms: int
    type: str
    state: str
    detail: str
    data: Any


def rows(events: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Lay out a whole history, oldest event first."""
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
                data=json.loads(text) if text else None,
            )
        )
        # What follows a state's exit is no longer in it.
        if exited:
            states[event["id"]] = ""
    return table


def _details(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what an event says beyond its type: Step Functions has a field of its own for each type."""
    return next((value for key, value in event.items() if key.endswith("EventDetails")), {})


def error_of(event: Mapping[str, Any]) -> str:
    """Return the error that an event tells of, in words; "" if it tells of none."""
    details = _details(event)
    return ": ".join(_plain(details[name]) for name in ("error", "cause") if details.get(name))


def _plain(cause: str) -> str:
    """Return a cause in words: a function's is JSON around the JSON of our own error."""
    try:
        answer = json.loads(cause)
        inner = answer.get("errorMessage", cause)
    except (ValueError, AttributeError):
        return cause
    if inner is not cause:
        return _plain(inner)
    return f"{answer['message']}. {answer['remedy']}" if {"message", "remedy"} <= answer.keys() else cause


def _resource(event: Mapping[str, Any]) -> str:
    details = _details(event)
    return f"{details['resourceType']}:{details['resource']}" if "resourceType" in details else ""


def newest_stage(newest_first: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the state that an execution is in; Choices and Passes take no time, and are none."""
    for event in newest_first:
        if event["type"] in ("TaskStateEntered", "WaitStateEntered", "ParallelStateEntered"):
            name: str = event["stateEnteredEventDetails"]["name"]
            return name
    return None
