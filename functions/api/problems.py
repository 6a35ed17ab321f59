"""What the API answers when it does not do what was asked: RFC 9457, with codes that stay."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as member
from http import HTTPStatus
from typing import Any, Final

from aws_lambda_powertools.event_handler import Response

from core import errors
from core.errors import MAX_SHOWN_CHARS, BackgroundRemoverError, TransientError, shown
from functions.contracts import errors as _cloud  # noqa: F401  TransientError has subclasses there
from functions.runtime import safe_http

CONTENT_TYPE: Final = "application/problem+json"
_RETRY_AFTER_S: Final = 5

_OF_THE_INPUT: Final[Mapping[type[BackgroundRemoverError], tuple[int, str]]] = {
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
    errors.UnknownForegroundError: (422, "unknown_foreground"),
    safe_http.UrlRefusedError: (400, "url_refused"),
    safe_http.UrlUntrustedError: (422, "download_failed"),
    safe_http.UrlUnreachableError: (422, "download_failed"),
    safe_http.UrlTimeoutError: (422, "download_failed"),
    safe_http.UrlBusyError: (422, "download_failed"),
    safe_http.UrlAnswerError: (422, "download_failed"),
    safe_http.UrlTooLargeError: (413, "file_too_large"),
}
"""The errors that a caller can mend. Whatever else goes wrong is the stack's own business."""

_BY_NAME: Final = {error.__name__: answer for error, answer in _OF_THE_INPUT.items()}
_TRANSIENT_NAMES: Final = {error.__name__ for error in TransientError.__subclasses__()}


@dataclass(eq=False)  # not frozen: Python itself writes to exceptions
class Problem(Exception):  # noqa: N818  the term of RFC 9457
    """An answer other than the one that was hoped for.

    Attributes:
        status: of HTTP.
        code: what a program can rely on.
        detail: what is wrong here, one sentence; None of a status from 500 on, as the three that follow.
        field: the input at fault, as the caller knows it; of both so much as :func:`core.errors.shown` shows.
        value: what it was.
        remedy: what the caller can do, one sentence.
        headers: of the answer.
        facts: more members of the answer, such as ``job_id``.
    """

    status: int
    code: str
    detail: str | None = None
    field: str | None = None
    value: Any = None
    remedy: str | None = None
    headers: Mapping[str, str] = member(default_factory=dict)
    facts: Mapping[str, Any] = member(default_factory=dict)

    def __post_init__(self) -> None:
        self.field, self.value = None if self.field is None else str(shown(self.field)), shown(self.value)

    @property
    def title(self) -> str:
        """The code in words."""
        return self.code.replace("_", " ").capitalize()

    def document(self, request_id: str) -> dict[str, Any]:
        """Return the answer's body."""
        said = {"type": "about:blank", "title": self.title, "status": self.status, "code": self.code}
        if self.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            said |= {"detail": self.detail, "field": self.field, "value": self.value, "remedy": self.remedy}
        return {**said, **self.facts, "request_id": request_id}

    def body(self, request_id: str) -> str:
        """Return the answer's body as JSON."""
        return json.dumps(self.document(request_id))


def come_again(code: str = "unavailable", **facts: Any) -> Problem:
    """Return the answer to what passes: the same request can be answered in some seconds."""
    return Problem(503, code, headers={"Retry-After": str(_RETRY_AFTER_S)}, facts=facts)


def refusal(problem: Problem, request_id: str) -> Response[str]:
    """Return the answer to a request that failed."""
    headers = {**problem.headers, "X-Request-Id": request_id}
    return Response(problem.status, CONTENT_TYPE, problem.body(request_id), headers=headers)


def problem_of(error: BackgroundRemoverError) -> Problem:
    """Return the answer to an error of ours."""
    return of_report(error.facts())


def of_validation(fault: Mapping[str, Any], where: Sequence[Any]) -> Problem:
    """Return the answer to what pydantic finds wrong.

    Args:
        fault: one of its errors.
        where: the member, from the outermost one that is the caller's to name.
    """
    said = fault.get("input")
    value = None if said is None or isinstance(said, (dict, list)) else str(said)[:MAX_SHOWN_CHARS]
    field_name = ".".join(str(part) for part in where) or "body"
    return Problem(400, "invalid_request", f"{fault['msg']}.", field=field_name, value=value)


def of_report(report: Mapping[str, Any], **facts: Any) -> Problem:
    """Return the answer to what a report says, or an error's facts.

    Args:
        report: with ``error``, ``message``, ``field``, ``value`` and ``remedy``.
        facts: more members of the answer.
    """
    name = report["error"]
    if answer := _BY_NAME.get(name):
        status, code = answer
        return Problem(
            status=status,
            code=code,
            detail=f"{report['message']}.",
            field=report["field"],
            value=report["value"],
            remedy=report["remedy"],
            facts=facts,
        )
    if name in _TRANSIENT_NAMES:
        return come_again(**facts)
    return Problem(500, "internal_error", facts=facts)
