"""What can be made to go wrong in the embedded cloud. What does, and when, a plan says; without one nothing does."""

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


class Ending(StrEnum):
    """How an invocation ends without its function's answer: the error's name in Lambda."""

    CRASH = "Runtime.ExitError"
    TIMEOUT = "Sandbox.Timedout"


@dataclass(frozen=True)
class Blow:
    """What kills a function's process in mid-invocation.

    Attributes:
        ending: what the caller is told.
        answered: whether it comes when the work is done, and costs the answer; else it comes as soon as there is work.
    """

    ending: Ending
    answered: bool = False


@dataclass(frozen=True)
class Request:
    """What somebody asks of the cloud.

    Attributes:
        service: as in the request's signature: ``s3``, ``dynamodb``, ``lambda``.
        method: of HTTP.
        path: of the URL, decoded.
        operation: of services that name it in a header (``GetItem``); elsewhere empty.
        body: as it was sent.
    """

    service: str
    method: str
    path: str
    operation: str
    body: bytes


@dataclass(frozen=True)
class Refusal:
    """What a service answers instead of doing what it was asked: an HTTP status and an error's code."""

    status: int
    code: str


class Faults(Protocol):
    """A plan of what goes wrong. It is asked from many threads, and may take its time."""

    def request(self, request: Request) -> Refusal | None:
        """Refuse a request, or let it pass."""

    def invocation(self, function: str, event: str) -> Blow | None:
        """Kill an invocation of a function, or let it be.

        Args:
            function: its name.
            event: JSON.
        """


def front(app: Wsgi, faults: Faults) -> Wsgi:
    """Return the cloud's HTTP application with a plan before it."""
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
        refusal = faults.request(request)
        return app(environ, start_response) if refusal is None else _refuse(request, refusal, start_response)

    return serve


def _signed_for(authorization: str) -> str:
    """Return the service of ``Credential=key/day/region/service/aws4_request``; nothing where none is named."""
    scope = authorization.partition("Credential=")[2].split(",")[0].split("/")
    return scope[3] if len(scope) == 5 else ""


def _refuse(request: Request, refusal: Refusal, start_response: Callable[..., Any]) -> Iterable[bytes]:
    said = "The embedded cloud was told to refuse this"
    if request.service == "s3":
        kind, text = "application/xml", f"<Error><Code>{escape(refusal.code)}</Code><Message>{said}</Message></Error>"
    else:
        kind, text = "application/json", json.dumps({"__type": refusal.code, "message": said})
    data = b"" if request.method == "HEAD" else text.encode()
    headers = {
        "Content-Type": kind,
        "Content-Length": str(len(data)),
        "x-amzn-ErrorType": refusal.code,
        "x-amzn-RequestId": str(uuid.uuid4()),
    }
    start_response(f"{refusal.status} {refusal.code}", list(headers.items()))
    return [data]
