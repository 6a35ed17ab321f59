"""The page trusts only tokens of its own load balancer."""

import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from client.errors import NotSignedInError, SignInKeyError, UsageError
from tests.conftest import ROOT
from web import users
from web.identity import HEALTH_PATH, LOAD_BALANCER, TOKEN_HEADER, USER_HEADER, SignIn, Verifier, _fetch

ARN = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/pbr-web/50dc6c495c0c9188"
GOV_ARN = "arn:aws-us-gov:elasticloadbalancing:us-gov-west-1:123456789012:loadbalancer/app/pbr-web/50dc6c495c0c9188"
KID = "307a30c3-8280-4ff5-a78d-6bc5263ffbe8"
KEY, OTHER_KEY = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
USER = {"sub": "5f2c-é", "email": "ada@example.com", "exp": 4102444800, "iss": "https://idp.example.com"}


def public(key: ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def encoded(part: bytes) -> str:
    """Encode as load balancers do: with the padding that RFC 7515 forbids."""
    return base64.urlsafe_b64encode(part).decode()


def token(claims: Any = None, key: Any = KEY, algorithm: str = "ES256", **header: Any) -> str:
    facts = {"typ": "JWT", "alg": algorithm, "kid": KID, "signer": ARN, "client": "page", "exp": time.time() + 120}
    parts = ".".join(encoded(json.dumps(part).encode()) for part in ({**facts, **header}, claims or USER))
    signature = jwt.get_algorithm_by_name(algorithm).sign(parts.encode(), key)
    return f"{parts}.{encoded(signature)}"


class Keys:
    """Endpoint for public keys in memory."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers) or [public(KEY)]
        self.urls: list[str] = []

    async def __call__(self, url: str) -> str:
        self.urls.append(url)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def verify(given: str | None, keys: Keys | None = None) -> Any:
    return asyncio.run(Verifier(ARN, keys or Keys()).verify(given))


def test_a_token_names_its_user() -> None:
    given = token()
    assert "=" in given, "the padding of load balancers"
    identity = verify(given)
    assert (identity.subject, identity.name) == ("5f2c-é", "ada@example.com")


@pytest.mark.parametrize("claims", [{"sub": "1"}, {"sub": "1", "email": "a@b.c", "email_verified": "false"}])
def test_a_user_without_a_verified_address_is_shown_as_its_subject(claims: Any) -> None:
    assert verify(token(claims)).name == "1"


def test_claims_for_the_client_of_the_identity_provider_are_accepted() -> None:
    assert verify(token({**USER, "aud": "page"})).subject == USER["sub"]


def none_signed() -> str:
    header = {"alg": "none", "kid": KID, "signer": ARN, "exp": time.time() + 120}
    return ".".join(encoded(json.dumps(part).encode()) for part in (header, USER)) + "."


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: None, "did not pass a sign-in"),
        (lambda: "", "did not pass a sign-in"),
        (lambda: "a.b.c", "is invalid"),
        (lambda: token(key=OTHER_KEY), "is invalid"),
        (lambda: token(signer=ARN.replace("pbr-web", "other")), "another load balancer"),
        (lambda: token(signer=None), "another load balancer"),
        (lambda: token(exp=time.time() - 60), "has expired"),
        (lambda: token(exp=None), "has expired"),
        (lambda: token({**USER, "exp": 1}), "is invalid"),
        (lambda: token({"email": "ada@example.com"}), "is invalid"),
        (lambda: token(kid="../another-bucket/key"), "no valid key ID"),
        (lambda: token(kid=None), "is invalid"),
        (none_signed, "is invalid"),
        (lambda: token(key=b"k" * 32, algorithm="HS256"), "is invalid"),
        (lambda: token() + "A", "is invalid"),
    ],
)
def test_other_tokens_are_rejected(made: Callable[[], str | None], message: str) -> None:
    with pytest.raises(NotSignedInError, match=message):
        verify(made())


def test_no_key_is_read_for_another_load_balancer_or_an_invalid_key_id() -> None:
    keys = Keys()
    for given in (token(signer="arn:other"), token(kid="../x"), token(exp=1)):
        with pytest.raises(NotSignedInError):
            verify(given, keys)
    assert keys.urls == []


@pytest.mark.parametrize(
    ("arn", "url"),
    [
        (ARN, f"https://public-keys.auth.elb.eu-west-1.amazonaws.com/{KID}"),
        (GOV_ARN, f"https://s3-us-gov-west-1.amazonaws.com/aws-elb-public-keys-prod-us-gov-west-1/{KID}"),
    ],
)
def test_a_key_is_read_once_from_the_endpoint_of_the_partition(arn: str, url: str) -> None:
    keys = Keys()
    verifier = Verifier(arn, keys)

    async def twice() -> None:
        for _ in range(2):
            await verifier.verify(token(signer=arn))

    asyncio.run(twice())
    assert keys.urls == [url]


def test_an_answer_that_is_no_key_is_a_fault_of_the_server_and_not_kept() -> None:
    verifier = Verifier(ARN, Keys("<html>busy</html>", public(OTHER_KEY), public(KEY)))
    with pytest.raises(SignInKeyError, match="busy"):
        asyncio.run(verifier.verify(token()))
    with pytest.raises(NotSignedInError, match="is invalid"):
        asyncio.run(verifier.verify(token()))
    assert asyncio.run(verifier.verify(token())).subject == USER["sub"]


def test_an_endpoint_that_does_not_respond_is_a_fault_of_the_server() -> None:
    with pytest.raises(SignInKeyError, match="cannot be read"):
        asyncio.run(_fetch("https://localhost:9/key"))


@pytest.mark.parametrize("arn", ["pbr-web", ARN.replace("aws:", "aws-cn:", 1), ARN.replace("app/", "net/")])
def test_the_address_of_the_load_balancer_is_checked_at_the_start(arn: str) -> None:
    with pytest.raises(UsageError, match=LOAD_BALANCER):
        Verifier(arn)


# ---- Requests


@pytest.fixture
def on_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOAD_BALANCER, ARN)


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def page(on_aws: None, keys: Keys) -> SignIn:
    """A page that answers with its user and with the names of all headers."""

    async def answer(request: Request) -> Response:
        found = users.user_of(request.headers, request.cookies)
        names = [name for name, _ in request.headers.items()]
        return JSONResponse({"id": found.id, "name": found.name, "headers": names})

    async def health(_request: Request) -> Response:
        return PlainTextResponse("ok")

    async def stream(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(users.user_of(socket.headers, socket.cookies).name)

    routes = [Route("/", answer), Route(HEALTH_PATH, health), WebSocketRoute("/_stcore/stream", stream)]
    return SignIn(Starlette(routes=routes), Verifier(ARN, keys))


def get(page: SignIn, path: str = "/", **headers: str) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(page), base_url="http://page") as client:
            return await client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    return asyncio.run(send())


def connect(page: SignIn, headers: dict[str, str]) -> list[Any]:
    """Return the messages that the page sends to a new WebSocket."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "websocket", "path": "/_stcore/stream", "headers": raw, "query_string": b"", "subprotocols": []}
    asyncio.run(page(scope, receive, send))
    return sent


def signed_in(claims: Any = None) -> dict[str, str]:
    return {TOKEN_HEADER: token(claims)}


def test_a_signed_in_user_has_an_id_of_the_subject(page: SignIn) -> None:
    found = get(page, **signed_in()).json()
    assert (len(found["id"]), found["name"]) == (32, "ada@example.com")
    again = get(page, **signed_in({**USER, "email": "ada@new.example.com"})).json()
    other = get(page, **signed_in({**USER, "sub": "other"})).json()
    assert again["id"] == found["id"] != other["id"]


def test_a_websocket_has_the_same_user(page: SignIn) -> None:
    accepted, answer = connect(page, signed_in())
    assert (accepted["type"], answer["text"]) == ("websocket.accept", "ada@example.com")


def test_requests_without_sign_in_reach_only_the_health_check(page: SignIn) -> None:
    forged = {USER_HEADER: "5f2c ada%40example.com", "cookie": f"{users.COOKIE}=mine"}
    refused = get(page, **forged)
    assert (refused.status_code, refused.headers["content-type"]) == (403, "text/plain; charset=utf-8")
    assert "sign in" in refused.text
    assert get(page, "/pictures/token", **forged).status_code == 403
    assert [message["type"] for message in connect(page, forged)] == ["websocket.close"]
    assert get(page, HEALTH_PATH).text == "ok"


def test_a_client_cannot_name_its_user_and_the_page_sees_no_token(page: SignIn) -> None:
    found = get(page, **signed_in(), x_amzn_oidc_accesstoken="secret", **{USER_HEADER: "root root"}).json()
    assert found["name"] == "ada@example.com"
    assert found["headers"].count(USER_HEADER) == 1
    assert not [name for name in found["headers"] if name.startswith("x-amzn-oidc")]


def test_connections_are_not_left_idle(page: SignIn) -> None:
    assert get(page, **signed_in()).headers["connection"] == "close"


def test_a_key_that_cannot_be_read_gives_503(page: SignIn, keys: Keys) -> None:
    keys.answers = ["<html>busy</html>"]
    assert get(page, **signed_in()).status_code == 503


@pytest.mark.usefixtures("on_aws")
def test_a_cookie_is_no_user_behind_a_load_balancer() -> None:
    with pytest.raises(NotSignedInError, match=TOKEN_HEADER):
        users.user_of({}, {users.COOKIE: "mine"})


def test_the_header_of_a_user_means_nothing_on_a_laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LOAD_BALANCER, raising=False)
    assert users.user_of({USER_HEADER: "root root"}, {users.COOKIE: "mine"}).name == "local"


@pytest.mark.slow
def test_the_server_behind_a_load_balancer_serves_only_its_health_without_sign_in() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "web", "--port", str(port)]
    upgrade = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    requests = {"/": {"sec-fetch-dest": "document"}, "/static/x.js": {}, "/_stcore/stream": upgrade}
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, LOAD_BALANCER: ARN}) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
                until_healthy(client)
                answers = [client.get(path, headers=headers) for path, headers in requests.items()]
        finally:
            process.terminate()
    assert [answer.status_code for answer in answers] == [403, 403, 403]
    assert not any("set-cookie" in answer.headers for answer in answers)


def until_healthy(client: httpx.Client) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(httpx.ConnectError):
            assert client.get(HEALTH_PATH).status_code == 200
            return
        time.sleep(0.1)
    raise AssertionError("the page did not start")
