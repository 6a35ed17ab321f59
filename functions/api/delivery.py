"""Jobs that are waited for; and those whose result is itself the answer, as remove.bg and rembg give it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2

from core.errors import shown
from functions.api import openapi
from functions.api.auth import Admission, Caller
from functions.api.jobs import State
from functions.api.problems import come_again, of_report
from functions.api.requests import ProcessRequest
from functions.api.services import Services
from functions.contracts.api_key import Scope

MAX_INLINE_BYTES: Final = 4_400_000
"""Largest result that is answered itself: Lambda answers 6 MiB, which hold that in base64, and what is said of it."""

_MAX_WARNING_CHARS: Final = 1000


@dataclass(frozen=True)
class Delivery:
    """A finished job: the ``sidecar``, and the ``result``, or, where that is too large for an answer, its ``url``."""

    sidecar: Mapping[str, Any]
    result: bytes | None
    url: str | None

    def picture(self, headers: Mapping[str, str]) -> Response[Any]:
        """Return the answer that is the result, or that leads to it."""
        if self.url is not None:
            return Response(HTTPStatus.SEE_OTHER.value, headers={**headers, "Location": self.url})
        return Response(HTTPStatus.OK.value, self.sidecar["image"]["content_type"], self.result, headers=dict(headers))


def admit(services: Services, router: APIGatewayHttpRouter, scope: Scope) -> Admission:
    """Let a caller in, as :meth:`functions.api.auth.Authorizer.admit`, and have the answer say what they have left."""
    admission = services.authorizer.admit(router.current_event, scope)
    router.append_context(rate=admission.rate)  # type: ignore[no-untyped-call]
    return admission


def run(
    services: Services,
    event: APIGatewayProxyEventV2,
    caller: Caller,
    order: ProcessRequest,
    idempotency_key: str | None,
) -> State:
    """Submit an order, and wait for what becomes of it as long as the gateway allows."""
    deadline = event.request_context.time_epoch / 1000 + services.config.answer_within_s
    return services.jobs.run(caller, order, idempotency_key=idempotency_key, deadline=deadline)


def deliver(services: Services, event: APIGatewayProxyEventV2, caller: Caller, order: ProcessRequest) -> Delivery:
    """Submit an order, and wait for what it makes.

    Raises:
        Problem: as the job's report says; or ``not_done_yet``, after which the job goes on, and the same request is
            answered from the cache. Neither is charged.
        BackgroundRemoverError: the order cannot be submitted.
    """
    key = event.headers.get("idempotency-key")
    state = run(services, event, caller, order, key)
    if state.report is not None:
        raise of_report(state.report)
    if state.sidecar is None:
        if key is None:  # with one, the same request has this job's result
            services.repository.refund_once(state.job)
        raise come_again("not_done_yet")
    if state.sidecar["image"]["bytes"] <= MAX_INLINE_BYTES:
        return Delivery(state.sidecar, services.jobs.result(state), None)
    return Delivery(state.sidecar, None, services.jobs.result_url(state))


def answers(*kinds: str, **errors: Any) -> openapi.Operation:
    """Return what the document says of an answer that is the result, or that leads to it."""
    told = openapi.answers(*kinds, description="The result.", **errors)
    told["responses"]["303"] = {"description": "The result is too large for an answer; Location leads to it."}
    return told


def warned(warnings: Iterable[str]) -> dict[str, str]:
    """Return the header that says what was asked for in vain, or what else a caller should know of the result."""
    text = "; ".join(warnings)
    printable = "".join(char if char.isascii() and char.isprintable() else "?" for char in text[:_MAX_WARNING_CHARS])
    return {"X-Warnings": printable} if printable else {}


def sentence(message: str) -> str:
    """Return what pydantic says of a value, which it may repeat, as a sentence."""
    said = str(shown(message.removeprefix("Value error, ")))
    return f"{said[:1].upper()}{said[1:]}."
