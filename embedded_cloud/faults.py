"""Injects faults into the embedded cloud: error responses of services, and killed function invocations."""

import io
import json
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeAlias
from urllib.parse import unquote
from xml.sax.saxutils import escape

Wsgi: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class FaultEffect(StrEnum):
    """Lambda's error name for an invocation that ends without a result."""

    CRASH = "Runtime.ExitError"
    TIMEOUT = "Sandbox.Timedout"


@dataclass(frozen=True)
class InvocationFault:
    """Kills a function's process during an invocation.

    Attributes:
        effect: error that the caller gets.
        after_work: whether the process is killed after the function has finished, so that only its result is lost.
            Otherwise it is killed as soon as it has received the event.
    """

    effect: FaultEffect
    after_work: bool = False


@dataclass(frozen=True)
class Request:
    """A request to a service of the cloud.

    Attributes:
        service: service name in the request's signature: ``s3``, ``dynamodb``, ``lambda``.
        method: HTTP method.
        path: decoded URL path.
        operation: operation name (``GetItem``) of services that send it in a header; otherwise empty.
        body: raw body.
    """

    service: str
    method: str
    path: str
    operation: str
    body: bytes


@dataclass(frozen=True)
class ErrorResponse:
    """HTTP status and error code that a service returns instead of executing the request."""

    status: int
    code: str


class FaultPlan(Protocol):
    """Decides which requests and invocations fail. Called from several threads; a call may block."""

    def request(self, request: Request) -> ErrorResponse | None:
        """Return an error for the request, or None to execute it."""

    def invocation(self, function: str, event: str) -> InvocationFault | None:
        """Return a fault for an invocation, or None to run it normally.

        Args:
            function: function name.
            event: event as JSON.
        """


def with_faults(app: Wsgi, faults: FaultPlan) -> Wsgi:
    """Return the application wrapped so that the plan sees each request first."""
    from werkzeug.wsgi import get_input_stream

    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = get_input_stream(environ).read()
        environ["wsgi.input"] = io.BytesIO(body)
        request = Request(
            service=_signed_for(environ.get("HTTP_AUTHORIZATION", "")),
            method=environ["REQUEST_METHOD"],
            path=unquote(environ["PATH_INFO"]),
            operation=environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2],
            body=body,
        )
        response = faults.request(request)
        return app(environ, start_response) if response is None else _error_response(request, response, start_response)

    return serve


def _signed_for(authorization: str) -> str:
    """Return the service in ``Credential=key/day/region/service/aws4_request``, or an empty string."""
    scope = authorization.partition("Credential=")[2].split(",")[0].split("/")
    return scope[3] if len(scope) == 5 else ""


def _error_response(request: Request, response: ErrorResponse, start_response: Callable[..., Any]) -> Iterable[bytes]:
    message = "Injected fault"
    if request.service == "s3":
        kind, text = (
            "application/xml",
            f"<Error><Code>{escape(response.code)}</Code><Message>{message}</Message></Error>",
        )
    else:
        kind, text = "application/json", json.dumps({"__type": response.code, "message": message})
    data = b"" if request.method == "HEAD" else text.encode()
    headers = {
        "Content-Type": kind,
        "Content-Length": str(len(data)),
        "x-amzn-ErrorType": response.code,
        "x-amzn-RequestId": str(uuid.uuid4()),
    }
    start_response(f"{response.status} {response.code}", list(headers.items()))
    return [data]
