"""API Gateway: an HTTP API as a WSGI application that calls a function, with AWS's event format and limits.

Follows the AWS documentation of Lambda proxy integrations (payload format 2.0) and of HTTP API quotas. Decoded paths
and the media types that count as text follow observed behavior.
"""

import base64
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ACCOUNT_ID: Final = "123456789012"
API_ID: Final = "local"
REQUEST_BYTES: Final = 10 * 1024**2
LAMBDA_BYTES: Final = 6 * 1024**2  # limit of an event, and of a response
TIMEOUT_S: Final = 30.0
CONCURRENCY: Final = 100

_TEXT: Final = re.compile(r"text/.*|application/(json|xml|javascript)")
_CREDENTIAL: Final = re.compile(r"AWS4-HMAC-SHA256 .*\bCredential=([^/,\s]+)/")
_REPLACED: Final = {"cookie", "content-length", "transfer-encoding", "connection", "expect", "keep-alive"}


class FunctionError(Exception):
    """The function raised an error, its process ended, or it could not be called."""


@dataclass(frozen=True)
class Route:
    """A route of the API.

    Attributes:
        key: method or ANY, and path with ``{name}`` or a final ``{name+}``, e.g. ``GET /jobs/{id}``.
        iam: whether callers must sign requests (AuthorizationType AWS_IAM).
    """

    key: str
    iam: bool = False

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Pattern of matching paths. Its groups are the path parameters."""
        _, path = self.key.split()
        parts = re.split(r"\{(\w+\+?)\}", path)
        names = [f"(?P<{name.removesuffix('+')}>{'.+' if name.endswith('+') else '[^/]+'})" for name in parts[1::2]]
        literals = [re.escape(part) for part in parts[0::2]]
        return re.compile("".join(a + b for a, b in zip(literals, [*names, ""], strict=True)), re.DOTALL)

    def match(self, method: str, path: str) -> dict[str, str] | None:
        """Return the path parameters, or None if the request does not match."""
        match = self.pattern.fullmatch(path) if self.key.split()[0] in ("ANY", method) else None
        return match.groupdict() if match else None


ROUTES: Final = (Route("ANY /{proxy+}"), Route("ANY /iam/{proxy+}", iam=True))


class Gateway:
    """A WSGI application that serves an HTTP API backed by functions.

    Signatures are not verified: the access key in the header identifies the caller.

    Args:
        invoke: calls the function with an event and returns its result. Raises FunctionError.
        routes: routes of the API.
        timeout_s: time limit of the function.
        measure: gets status and duration in seconds of each request.
    """

    def __init__(
        self,
        invoke: Callable[[dict[str, Any]], Any],
        routes: Sequence[Route] = ROUTES,
        timeout_s: float = TIMEOUT_S,
        measure: Callable[[int, float], None] = lambda _status, _duration_s: None,
    ) -> None:
        self._invoke, self._timeout_s, self._measure = invoke, timeout_s, measure
        self._routes = sorted(routes, key=lambda route: -len(route.key.split("{")[0]))  # the most specific route wins
        self._calls = ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="gateway")

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Handle a request."""
        request = Request(environ)
        request.max_content_length = REQUEST_BYTES + 1  # a chunked body is silently truncated here
        request_id = base64.b64encode(uuid.uuid4().bytes[:11]).decode()
        started = time.monotonic()
        response = self._answer(request, request_id)
        self._measure(response.status_code, time.monotonic() - started)
        response.headers["Apigw-Requestid"] = request_id
        return response(environ, start_response)

    def close(self) -> None:
        """Refuse further requests without waiting for running ones."""
        self._calls.shutdown(wait=False, cancel_futures=True)

    def _answer(self, request: Request, request_id: str) -> Response:
        try:
            body = request.get_data()
        except RequestEntityTooLarge:
            return _message(413, "Request Entity Too Large")
        except (ClientDisconnected, OSError):
            return _message(400, "Bad Request")
        if len(body) > REQUEST_BYTES:
            return _message(413, "Request Entity Too Large")
        for route in self._routes:
            if (parameters := route.match(request.method, request.path)) is not None:
                break
        else:
            return _message(404, "Not Found")
        event = event_of(request, body, route, parameters, request_id)
        if route.iam:
            credential = _CREDENTIAL.match(request.headers.get("Authorization", ""))
            if not credential:
                return _message(403, "Forbidden")
            event["requestContext"]["authorizer"] = {"iam": _identity(credential[1])}
        if _size(event) > LAMBDA_BYTES:
            return _message(413, "Request Too Long")
        try:
            answer = self._calls.submit(self._invoke, event).result(self._timeout_s)
            return response_of(answer)
        except TimeoutError:
            return _message(503, "Service Unavailable")
        except (FunctionError, TypeError, ValueError):
            return _message(500, "Internal Server Error")


class Server:
    """Serves a WSGI application in threads until it is closed."""

    def __init__(self, application: "WSGIApplication", address: str, port: int) -> None:
        """Listen on a port; 0 for any free port."""
        self._server = make_server(address, port, application, threaded=True)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def close(self) -> None:
        """Stop the server and free the port."""
        self._server.shutdown()
        self._server.server_close()


def event_of(
    request: Request, body: bytes, route: Route, parameters: Mapping[str, str], request_id: str
) -> dict[str, Any]:
    """Return the Lambda event of a request, in payload format 2.0.

    Args:
        request: HTTP request.
        body: request body.
        route: matching route.
        parameters: path parameters.
        request_id: request id of the gateway.
    """
    now = datetime.now(UTC)
    host = request.host.partition(":")[0]
    headers = {name.lower(): value for name, value in request.headers.items() if name.lower() not in _REPLACED}
    headers |= {
        "content-length": str(len(body)),
        "x-amzn-trace-id": f"Root=1-{int(now.timestamp()):08x}-{uuid.uuid4().hex[:24]}",
        "x-forwarded-for": ", ".join([*request.headers.getlist("X-Forwarded-For"), request.remote_addr or ""]),
        "x-forwarded-port": request.environ["SERVER_PORT"],
        "x-forwarded-proto": request.scheme,
    }
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": route.key,
        "rawPath": request.path,
        "rawQueryString": request.query_string.decode("latin-1"),
        "headers": headers,
        "requestContext": {
            "accountId": ACCOUNT_ID,
            "apiId": API_ID,
            "domainName": host,
            "domainPrefix": host.partition(".")[0],
            "http": {
                "method": request.method,
                "path": request.path,
                "protocol": request.environ["SERVER_PROTOCOL"],
                "sourceIp": request.remote_addr or "",
                "userAgent": request.headers.get("User-Agent", ""),
            },
            "requestId": request_id,
            "routeKey": route.key,
            "stage": "$default",
            "time": f"{now:%d/%b/%Y:%H:%M:%S} +0000",
            "timeEpoch": int(1000 * now.timestamp()),
        },
        "isBase64Encoded": False,
    }
    if cookies := request.headers.get("Cookie"):
        event["cookies"] = [cookie.strip() for cookie in cookies.split(";")]
    if query := parse_qsl(event["rawQueryString"], keep_blank_values=True):
        event["queryStringParameters"] = _joined(query)
    if parameters:
        event["pathParameters"] = dict(parameters)
    if body and _TEXT.fullmatch(request.mimetype):
        event["body"] = body.decode(errors="replace")
    elif body:
        event |= {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}
    return event


def response_of(answer: Any) -> Response:
    """Return the HTTP response for a function's result.

    Args:
        answer: result in payload format 2.0, or without a ``statusCode`` any value to send as JSON.

    Raises:
        ValueError: the result is malformed or exceeds Lambda's size limit.
        TypeError: the result is not serializable as JSON.
    """
    if _size(answer) > LAMBDA_BYTES:
        raise ValueError("The answer is larger than 6 MB")
    if not isinstance(answer, dict) or "statusCode" not in answer:
        return Response(answer if isinstance(answer, str) else json.dumps(answer), mimetype="application/json")
    status, body = answer["statusCode"], answer.get("body") or ""
    if not isinstance(status, int) or not 100 <= status <= 599 or not isinstance(body, str):
        raise ValueError("The answer is not in payload format 2.0")
    content = base64.b64decode(body, validate=True) if answer.get("isBase64Encoded") else body.encode()
    response = Response(content, status, content_type="text/plain;charset=utf-8")
    for name, value in (answer.get("headers") or {}).items():
        if name.lower() != "content-length":
            response.headers[name] = str(value)
    for cookie in answer.get("cookies") or []:
        response.headers.add("Set-Cookie", cookie)
    return response


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in pairs:
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def _identity(access_key: str) -> dict[str, str | None]:
    return {
        "accessKey": access_key,
        "accountId": ACCOUNT_ID,
        "callerId": access_key,
        "cognitoIdentity": None,
        "principalOrgId": None,
        "userArn": f"arn:aws:iam::{ACCOUNT_ID}:user/{access_key}",
        "userId": access_key,
    }


def _size(payload: Any) -> int:
    return len(json.dumps(payload, ensure_ascii=False).encode(errors="surrogatepass"))


def _message(status: int, message: str) -> Response:
    return Response(f'{{"message":"{message}"}}', status, mimetype="application/json")
