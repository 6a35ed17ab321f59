"""Process a request and wait for its result. Shared by all routes that respond with a result."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2
from pydantic import BaseModel

from core.errors import reason, shown
from functions.api import openapi
from functions.api.auth import Authorization, Caller
from functions.api.jobs import JobState
from functions.api.problems import accepted, problem_from_report, unavailable
from functions.api.requests import ProcessRequest
from functions.api.services import Services
from functions.contracts.api_key import Scope

MAX_INLINE_BYTES: Final = 4_400_000
"""Largest result that is sent in a response body: Lambda's limit is 6 MiB in base64, metadata included."""

_MAX_WARNING_CHARS: Final = 1000


@dataclass(frozen=True)
class JobResult:
    """The result of a successful job.

    Attributes:
        sidecar: the result's sidecar.
        data: the result; None if it is too large for a response body.
        url: a presigned URL of a result that is too large; else None.
        credits: price of the job.
    """

    sidecar: Mapping[str, Any]
    data: bytes | None
    url: str | None
    credits: int

    def response(self, headers: Mapping[str, str]) -> Response[Any]:
        """Return a response with the result, or a redirect to it."""
        if self.url is not None:
            return Response(HTTPStatus.SEE_OTHER.value, headers={**headers, "Location": self.url})
        return Response(HTTPStatus.OK.value, self.sidecar["image"]["content_type"], self.data, headers=dict(headers))


def authorize(services: Services, router: APIGatewayHttpRouter, scope: Scope) -> Authorization:
    """Authorize the current request. All its responses, errors included, then have the ``X-RateLimit-*`` headers.

    Raises:
        Problem: see :meth:`functions.api.auth.Authorizer.authorize`.
    """
    auth = services.authorizer.authorize(router.current_event, scope)
    router.append_context(rate_limit=auth.rate_limit)  # type: ignore[no-untyped-call]
    return auth


def run(
    services: Services,
    event: APIGatewayProxyEventV2,
    caller: Caller,
    request: ProcessRequest,
    idempotency_key: str | None,
) -> JobState:
    """Start a job, and wait for its end as long as API Gateway's timeout permits."""
    return services.jobs.run(caller, request, idempotency_key=idempotency_key, deadline=_deadline(services, event))


def run_to_result(
    services: Services, event: APIGatewayProxyEventV2, caller: Caller, request: ProcessRequest
) -> JobResult:
    """Start a job, and wait for its result.

    Raises:
        Problem: the job failed; or ``not_done_yet``: the job continues, and the same request, with the same idempotency
            key if it has one, gets the outcome of that job without another charge.
        BackgroundRemoverError: the request is invalid.
    """
    repository, idempotency_key = services.repository, event.headers.get("idempotency-key")
    noted = repository.unfinished(caller, request) if idempotency_key is None else None
    job = noted or services.jobs.submit(caller, request, idempotency_key=idempotency_key)
    is_unfinished = True
    try:
        state = services.jobs.wait(job, _deadline(services, event))
        if state.report is not None:
            is_unfinished = False
            raise problem_from_report(state.report)
        result = _result_of(services, state)
        is_unfinished = False
        return result
    finally:
        if idempotency_key is None and is_unfinished == (noted is None):
            repository.note_unfinished(caller, request, job, is_unfinished=is_unfinished)


def _result_of(services: Services, state: JobState) -> JobResult:
    if state.sidecar is None:
        raise unavailable("not_done_yet")
    price = state.credits or 0
    if state.sidecar["image"]["bytes"] <= MAX_INLINE_BYTES:
        return JobResult(state.sidecar, services.jobs.result(state), None, price)
    return JobResult(state.sidecar, None, services.jobs.result_url(state), price)


def _deadline(services: Services, event: APIGatewayProxyEventV2) -> float:
    return event.request_context.time_epoch / 1000 + services.config.answer_within_s


def result_responses(*content_types: str, **errors: Any) -> openapi.Operation:
    """Return the OpenAPI responses of a route that responds with a result."""
    operation = openapi.file_responses(*content_types, description="The result.", **errors)
    operation["responses"]["303"] = {"description": "The result is too large for a response. `Location` is its URL."}
    return operation


def warnings_header(warnings: Iterable[str]) -> dict[str, str]:
    """Return the ``X-Warnings`` header; empty if there are no warnings."""
    text = "; ".join(warnings)
    printable = "".join(char if char.isascii() and char.isprintable() else "?" for char in text[:_MAX_WARNING_CHARS])
    return {"X-Warnings": printable} if printable else {}


def refusal(model: type[BaseModel], name: str, error: Mapping[str, Any]) -> str:
    """Return one of pydantic's errors as a sentence, and one that says which values the parameter accepts."""
    text = str(shown(reason(error["msg"])))  # truncated: it may repeat the value
    what = f"{text[:1].upper()}{text[1:]}."
    return what if error["type"] in ("value_error", "literal_error") else f"{what} {accepted(model, name)}"
