"""The failure report, and how it is derived from an error that a state machine's Catch recorded."""

import json
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import DecodingLimitError
from functions.contracts.job import Execution
from functions.contracts.outcome import ObjectVersion

_AWS_ERRORS: Final = {
    "States.Timeout": ("The stage timed out", "Try again. If it times out again, upload a smaller image."),
    "States.HeartbeatTimeout": ("The worker stopped sending heartbeats", "Try again, and check the worker's log."),
    "Sandbox.Timedout": ("The function timed out", "Try again. If it times out again, upload a smaller image."),
    "Runtime.ExitError": ("The function's process exited", "It probably ran out of memory. Increase its memory."),
    "Lambda.Unknown": ("The function's process exited", "It probably ran out of memory. Increase its memory."),
    "States.Runtime": (
        "The state machine could not process the output of a stage",
        "Check the execution's last events, and report the problem.",
    ),
    "States.ItemReaderFailed": (
        "The images of the run cannot be listed",
        "Check that the bucket exists, and that it allows the role of the bulk state machine to list it; a bucket of "
        "another account needs a bucket policy.",
    ),
    "ExecutionTimedOut": ("The execution timed out", "Restart it with pbr redrive."),
    "ExecutionAborted": ("The execution was stopped", "If that was a mistake, restart it with pbr redrive."),
    "Lambda.TooManyRequestsException": ("Lambda throttled the stage", "Try again, or raise the concurrency limit."),
}
_UNEXPECTED: Final = ("The stage failed unexpectedly", "Check the stage's log, and report the problem.")

_MAX_DETAIL_CHARS: Final = 2000
"""A Fail state accepts a cause of 32,768 characters, and the caught cause alone may be that long."""

_MAX_NAME_BYTES: Final = 1024


class _StageFailure(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Literal["FAILED"] = Field(description="Always FAILED.")
    stage: str = Field(description="State of the state machine that failed.")


class ErrorFacts(BaseModel):
    """An error as :meth:`core.errors.BackgroundRemoverError.facts` returns it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    error: str = Field(description="Name of the error.")
    message: str = Field(description="What is wrong.")
    field: str | None = Field(description="Input that caused the error, e.g. options.format; null if there is none.")
    value: bool | int | float | str | None = Field(description="Value of that input, shortened.")
    remedy: str = Field(description="What to do about it.")


class FailureReport(ErrorFacts, _StageFailure):  # fields in the order of the document: status and stage first
    """The report that a failed job leaves in the results bucket, and the message to the failures topic."""

    options: dict[str, Any] = Field(description="Options in effect; empty if Validate failed.")
    execution: Execution = Field(description="Execution that failed.")
    source: ObjectVersion = Field(description="Uploaded image, as far as it is known.")


def fatal_errors(state: dict[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """Return the failed stage and its caught error, ``{"Error", "Cause"}``; an empty list if no stage failed.

    The failure of a second attempt is in ``failed`` and in ``degraded``. It does not fail the job and is left out.
    """
    return [item for item in state.get("failed", {}).items() if item[0] not in state.get("degraded", {})]


def explain(caught: dict[str, str], stage: str | None = None) -> dict[str, Any]:
    """Return error, message, field, value and remedy of a caught error, without stack traces.

    A timeout of Validate is a ``DecodingLimitError``: decoding took the time, and the same image takes it again.

    Args:
        caught: ``{"Error", "Cause"}`` as Step Functions writes it. ``Cause`` is the JSON of one of our errors, the same
            JSON in a function's ``errorMessage``, or any text.
        stage: state that failed.
    """
    name, cause = caught.get("Error", "Unknown"), caught.get("Cause", "")
    payload = json_object(cause)
    facts = json_object(payload.get("errorMessage", "")) or payload
    try:
        return ErrorFacts.model_validate(facts).model_dump()
    except ValidationError:
        pass  # not one of our errors
    if (stage, name) == ("Validate", "Sandbox.Timedout"):
        return DecodingLimitError(
            "Decoding the image takes more time than the function has",
            field="image",
            value=str(payload.get("errorMessage") or cause),
            remedy="Open it in an image editor, save it again as PNG or JPEG, and upload that.",
        ).facts()
    message, remedy = _AWS_ERRORS.get(name, _UNEXPECTED)
    detail = str(payload.get("errorMessage") or cause)[:_MAX_DETAIL_CHARS]
    return {
        "error": name,
        "message": f"{message}: {detail}" if detail else message,
        "field": None,
        "value": None,
        "remedy": remedy,
    }


def source_of(state: Any) -> dict[str, str | None]:
    """Return bucket, key and version of the uploaded image. Missing and invalid names are None.

    Args:
        state: the workflow state, or the unvalidated input of an execution, which can be any JSON value. The ``source``
            of an S3 event is the name of its sender.
    """
    event_object = _object_at(state, "detail", "object")
    source = _object_at(state, "source") or {
        "bucket": _object_at(state, "detail", "bucket").get("name"),
        "key": event_object.get("key"),
        "version_id": event_object.get("version-id"),
    }
    return {name: _name(source.get(name)) for name in ("bucket", "key", "version_id")}


def options_of(state: Any) -> dict[str, Any]:
    """Return the options in the workflow state or in the unvalidated input of an execution."""
    return _object_at(state, "options")


def _name(value: Any) -> str | None:
    """Return a valid S3 name, or None: JSON can contain longer names, and lone surrogates, which are not UTF-8."""
    try:
        return value if isinstance(value, str) and len(value.encode()) <= _MAX_NAME_BYTES else None
    except UnicodeEncodeError:
        return None


def _object_at(value: Any, *path: str) -> dict[str, Any]:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def json_object(text: str) -> dict[str, Any]:
    """Return the JSON object in a text, or an empty one if the text is not a JSON object."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
