"""Error responses in the format of RFC 9457, with stable error codes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as member
from http import HTTPStatus
from typing import Any, Final, get_args

from aws_lambda_powertools.event_handler import Response
from pydantic import BaseModel

from core import errors
from core.errors import MAX_SHOWN_CHARS, BackgroundRemoverError, TransientError, reason, shown
from functions.contracts import errors as _cloud  # noqa: F401  TransientError has subclasses there
from functions.runtime import safe_http

CONTENT_TYPE: Final = "application/problem+json"
_RETRY_AFTER_S: Final = 5

_INPUT_ERRORS: Final[Mapping[type[BackgroundRemoverError], tuple[int, str]]] = {
    errors.InvalidRequestError: (400, "invalid_request"),
    errors.InvalidOptionsError: (400, "invalid_option"),
    errors.SourceNotFoundError: (404, "source_not_found"),
    errors.SourceChangedError: (409, "source_changed"),
    errors.EmptyImageError: (422, "empty_image"),
    errors.UnsupportedFormatError: (415, "unsupported_format"),
    errors.CorruptImageError: (422, "corrupt_image"),
    errors.AnimatedImageError: (422, "animated_image"),
    errors.FileTooLargeError: (413, "file_too_large"),
    errors.TooManyPixelsError: (413, "too_many_pixels"),
    errors.ImageTooSmallError: (422, "image_too_small"),
    errors.DecodingLimitError: (422, "decoding_limit"),
    errors.UnknownForegroundError: (422, "unknown_foreground"),
    safe_http.UrlRefusedError: (400, "url_refused"),
    safe_http.UrlUntrustedError: (422, "download_failed"),
    safe_http.UrlUnreachableError: (422, "download_failed"),
    safe_http.UrlTimeoutError: (422, "download_failed"),
    safe_http.UrlBusyError: (422, "download_failed"),
    safe_http.UrlAnswerError: (422, "download_failed"),
    safe_http.UrlTooLargeError: (413, "file_too_large"),
}
"""Errors that the caller can fix. All others are internal, and their details are not sent."""

_FACTS: Final = ("error", "message", "remedy")
_BY_NAME: Final = {error.__name__: response for error, response in _INPUT_ERRORS.items()}
_TRANSIENT_NAMES: Final = {error.__name__ for error in TransientError.__subclasses__()}


@dataclass(eq=False)  # not frozen: Python itself writes to exceptions
class Problem(Exception):  # noqa: N818  the term of RFC 9457
    """An error response.

    ``detail``, ``field``, ``value`` and ``remedy`` are not sent with a status of 500 or above.

    Attributes:
        status: HTTP status.
        code: stable error code for programs.
        detail: what is wrong, one sentence.
        field: the invalid input, by its name in the request; truncated by :func:`core.errors.shown`.
        value: its value; truncated likewise.
        remedy: what the caller can do, one sentence.
        headers: response headers.
        extensions: more members of the response, such as ``job_id``.
        failure: error, message and remedy of the job that failed, for the log; never sent.
    """

    status: int
    code: str
    detail: str | None = None
    field: str | None = None
    value: Any = None
    remedy: str | None = None
    headers: Mapping[str, str] = member(default_factory=dict)
    extensions: Mapping[str, Any] = member(default_factory=dict)
    failure: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        self.field, self.value = None if self.field is None else str(shown(self.field)), shown(self.value)

    @property
    def title(self) -> str:
        """The code as a phrase, e.g. ``Quota exceeded``."""
        return self.code.replace("_", " ").capitalize()

    def document(self, request_id: str) -> dict[str, Any]:
        """Return the response body as a JSON object."""
        document = {"type": "about:blank", "title": self.title, "status": self.status, "code": self.code}
        if self.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            document |= {"detail": self.detail, "field": self.field, "value": self.value, "remedy": self.remedy}
        return {**document, **self.extensions, "request_id": request_id}

    def body(self, request_id: str) -> str:
        """Return the response body as JSON."""
        return json.dumps(self.document(request_id))


def unavailable(code: str = "unavailable", **extensions: Any) -> Problem:
    """Return the problem for a temporary failure: 503 with ``Retry-After``."""
    return Problem(503, code, headers={"Retry-After": str(_RETRY_AFTER_S)}, extensions=extensions)


def error_response(problem: Problem, request_id: str) -> Response[str]:
    """Return the response to a failed request."""
    headers = {**problem.headers, "X-Request-Id": request_id}
    return Response(problem.status, CONTENT_TYPE, problem.body(request_id), headers=headers)


def is_callers_fault(error: str) -> bool:
    """Return whether an error, given by its class name, has a cause that the caller can fix."""
    return error in _BY_NAME


def problem_from_error(error: BackgroundRemoverError) -> Problem:
    """Return the problem that reports one of the pipeline's errors."""
    return problem_from_report(error.facts())


def accepted(model: type[BaseModel], name: str) -> str:
    """Return a sentence that says which values a model's field accepts; all fields if it has no such field."""
    schema = model.model_json_schema()
    if name not in schema["properties"]:
        return f"The fields are: {', '.join(schema['properties'])}."
    member = schema["properties"][name]
    kind = next((kind for kind in member.get("anyOf", []) if kind != {"type": "null"}), member)
    kind = schema.get("$defs", {}).get(kind.get("$ref", "").rpartition("/")[2], kind)
    match kind:
        case {"enum": values}:
            return f"Send {_listed(values)}."
        case {"const": value}:
            return f"Send {value}."
        case {"type": "boolean"}:
            return "Send true or false."
        case {"type": "integer" | "number", "minimum": lowest, "maximum": highest}:
            return f"Send a number from {lowest} to {highest}."
        case {"type": "integer" | "number", "minimum": lowest}:
            return f"Send a number of at least {lowest}."
    description = member.get("description") or kind.get("description")
    return f"{name}: {description.removesuffix('.')}." if description else "Send text."


def _listed(values: Sequence[Any]) -> str:
    *most, last = map(str, values)
    return f"{', '.join(most)} or {last}" if most else last


def problem_from_validation(
    error: Mapping[str, Any], location: Sequence[Any], model: type[BaseModel] | None = None
) -> Problem:
    """Return the problem that reports a validation error of pydantic.

    Args:
        error: one of pydantic's errors.
        location: the path of the invalid member in the request.
        model: model of the request.
    """
    given = error.get("input")
    value = None if given is None or isinstance(given, (dict, list)) else str(given)[:MAX_SHOWN_CHARS]
    field_name = ".".join(str(part) for part in location) or "body"
    detail = "This value is not allowed." if error["type"] == "string_pattern_mismatch" else f"{reason(error['msg'])}."
    remedy = accepted(_model_at(model, location[:-1]), str(location[-1])) if model and location else None
    return Problem(400, "invalid_request", detail, field=field_name, value=value, remedy=remedy)


def _model_at(model: type[BaseModel], path: Sequence[Any]) -> type[BaseModel]:
    """Return the model of a nested object."""
    for name in path:
        annotation = model.model_fields[name].annotation if name in model.model_fields else None
        kinds = [annotation, *get_args(annotation)]
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
    return model


def problem_from_report(report: Mapping[str, Any], **extensions: Any) -> Problem:
    """Return the problem that reports a job's failure.

    Args:
        report: a failure report, or at least its ``error``, ``message``, ``field``, ``value`` and ``remedy``.
        extensions: more members of the response.
    """
    name = report["error"]
    if response := _BY_NAME.get(name):
        status, code = response
        return Problem(
            status=status,
            code=code,
            detail=f"{report['message']}.",
            field=report["field"],
            value=report["value"],
            remedy=report["remedy"],
            extensions=extensions,
        )
    internal = (
        unavailable(**extensions) if name in _TRANSIENT_NAMES else Problem(500, "internal_error", extensions=extensions)
    )
    return replace(internal, failure={fact: report.get(fact) for fact in _FACTS})
