"""From what a Catch caught to what a person can act on."""

import json
from typing import Any, Final

_CLOUD_ERRORS: Final = {
    "States.Timeout": (
        "The stage did not finish in time",
        "Try again; if it repeats, send a smaller picture.",
    ),
    "States.HeartbeatTimeout": ("The worker stopped answering", "Try again; look at the worker's log."),
    "Sandbox.Timedout": ("The function ran out of time", "Try again; if it repeats, send a smaller picture."),
    "Runtime.ExitError": ("The function's process died", "Most likely it ran out of memory: give it more."),
    "Lambda.Unknown": ("The function's process died", "Most likely it ran out of memory: give it more."),
    "States.Runtime": (
        "The state machine could not read what a stage had answered",
        "Look at the execution's last events, and report it.",
    ),
    "ExecutionTimedOut": ("The execution took longer than it may", "Bring it back with pbr redrive."),
    "ExecutionAborted": ("The execution was stopped", "If that was a mistake, bring it back with pbr redrive."),
    "Lambda.TooManyRequestsException": (
        "Lambda throttled the stage",
        "Try again; raise the concurrency limit.",
    ),
}
_MAX_DETAIL_CHARS: Final = 2000
"""The machine's Failed state takes a cause of 32,768 characters, and a caught cause alone may have as many."""

_MAX_NAME_BYTES: Final = 1024

_UNEXPECTED: Final = (
    "The stage failed in a way that it does not know",
    "Look at the stage's log, and report it.",
)


def gave_up(state: dict[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """Return the stage that failed the job, if one did, and what a Catch caught there.

    A second attempt's failure stands in ``failed`` too; it did not fail the job, and ``degraded`` says so.
    """
    return [item for item in state.get("failed", {}).items() if item[0] not in state.get("degraded", {})]


def explain(caught: dict[str, str]) -> dict[str, Any]:
    """Turn ``{"Error", "Cause"}`` into error, message, field, value and remedy; stack traces stay in the log.

    Args:
        caught: as Step Functions writes it. ``Cause`` is the JSON of our own errors, bare or as a function's
            ``errorMessage``, or any text.
    """
    name, cause = caught.get("Error", "Unknown"), caught.get("Cause", "")
    answer = json_object(cause)
    facts = json_object(answer.get("errorMessage", "")) or answer
    if {"error", "message", "field", "value", "remedy"} <= facts.keys():
        return facts
    message, remedy = _CLOUD_ERRORS.get(name, _UNEXPECTED)
    detail = str(answer.get("errorMessage") or cause)[:_MAX_DETAIL_CHARS]
    return {
        "error": name,
        "message": f"{message}: {detail}" if detail else message,
        "field": None,
        "value": None,
        "remedy": remedy,
    }


def source_of(state: Any) -> dict[str, str | None]:
    """Return bucket, key and version of the picture, each None where nothing tells it that could be one of S3's.

    Args:
        state: of a validated job, or an execution's own input, which may be anything: S3's event, whose ``source`` is
            the sender's name, or a request that Validate may have refused for this very part.
    """
    event_object = _object_at(state, "detail", "object")
    source = _object_at(state, "source") or {
        "bucket": _object_at(state, "detail", "bucket").get("name"),
        "key": event_object.get("key"),
        "version_id": event_object.get("version-id"),
    }
    return {name: _name(source.get(name)) for name in ("bucket", "key", "version_id")}


def options_of(state: Any) -> dict[str, Any]:
    """Return the options of a validated job, or those that an execution's own input asks for."""
    return _object_at(state, "options")


def _name(value: Any) -> str | None:
    """Return a name as S3 has them; JSON can hold longer ones, and halves of surrogate pairs, which are no text."""
    try:
        return value if isinstance(value, str) and len(value.encode()) <= _MAX_NAME_BYTES else None
    except UnicodeEncodeError:
        return None


def _object_at(value: Any, *path: str) -> dict[str, Any]:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def json_object(text: str) -> dict[str, Any]:
    """Return the object that a text is; an empty one where it is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
