"""Sign-in on AWS: the load balancer signs users in and adds a token to each request; this module verifies it.

The token expires minutes after its request, but the script of a session runs again and again with the headers of its
first request. So :class:`SignIn` verifies each request once, when it arrives, and replaces the token with the user that
it names.
"""

import logging
import os
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, unquote

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from client.errors import NotSignedInError, SignInKeyError, UsageError
from core.errors import BackgroundRemoverError

LOAD_BALANCER: Final = "PBR_LOAD_BALANCER_ARN"
"""Environment variable with the ARN of the load balancer. If it is not set, the page runs on a laptop."""

TOKEN_HEADER: Final = "x-amzn-oidc-data"  # noqa: S105  its name
USER_HEADER: Final = "x-pbr-user"
"""Header with the verified user, for :func:`identity_of`. One from a client is replaced."""

HEALTH_PATH: Final = "/_stcore/health"
"""The load balancer requests it without a user."""

# https://docs.aws.amazon.com/elasticloadbalancing/latest/application/listener-authenticate-users.html
_KEYS: Final = {
    "aws": "https://public-keys.auth.elb.{region}.amazonaws.com/{kid}",
    "aws-us-gov": "https://s3-{region}.amazonaws.com/aws-elb-public-keys-prod-{region}/{kid}",
}
_ARN: Final = re.compile(
    r"arn:(?P<partition>[a-z-]+):elasticloadbalancing:(?P<region>[a-z0-9-]+):\d{12}:loadbalancer/app/.+"
)
_KEY_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ACCESS_TOKEN_HEADER: Final = "x-amzn-oidc-accesstoken"  # noqa: S105  its name
_CLOCK_SKEW_S: Final = 10
_FETCH_S: Final = 5.0
_MAX_KEYS: Final = 8
_NAME_CHARS: Final = 200

_logger = logging.getLogger(__name__)

Fetch = Callable[[str], Awaitable[str]]


@dataclass(frozen=True)
class Identity:
    """A signed-in user.

    Attributes:
        subject: identifier at the identity provider; it never changes.
        name: verified email address; the subject if there is none.
    """

    subject: str
    name: str


def load_balancer() -> str | None:
    """Return the ARN of the load balancer in front of the page; None on a laptop."""
    return os.environ.get(LOAD_BALANCER) or None


def identity_of(user: str | None) -> Identity:
    """Return the user that :class:`SignIn` has verified.

    Args:
        user: value of the header ``USER_HEADER``; None if the request has none.

    Raises:
        NotSignedInError: the request has passed no :class:`SignIn`.
    """
    if not user:
        raise _refused("The request has no verified user", None)
    subject, name = user.split(" ")
    return Identity(unquote(subject), unquote(name))


class Verifier:
    """Verifies tokens of one load balancer.

    Args:
        load_balancer_arn: the only accepted signer.
        fetch: returns the text of a URL; None for HTTPS.

    Raises:
        UsageError: the ARN is invalid, or its partition has no known endpoint for keys.
    """

    def __init__(self, load_balancer_arn: str, fetch: Fetch | None = None) -> None:
        arn = _ARN.fullmatch(load_balancer_arn)
        if arn is None or arn["partition"] not in _KEYS:
            raise UsageError(
                "The ARN of the load balancer is invalid",
                field=LOAD_BALANCER,
                value=load_balancer_arn,
                remedy=f"Use the ARN of an application load balancer in the partition {' or '.join(_KEYS)}.",
            )
        self._arn, self._region, self._endpoint = load_balancer_arn, arn["region"], _KEYS[arn["partition"]]
        self._fetch = fetch or _fetch
        self._keys: dict[str, ec.EllipticCurvePublicKey] = {}

    async def verify(self, token: str | None) -> Identity:
        """Return the user of a request.

        Args:
            token: value of the header ``x-amzn-oidc-data``; None if the request has none.

        Raises:
            NotSignedInError: there is no token, or it is invalid, expired, or signed by another load balancer.
            SignInKeyError: the public key cannot be read.
        """
        if not token:
            raise _refused("The request did not pass a sign-in", None)
        try:
            header = jwt.get_unverified_header(token)
            self._check(header)
            kid = header["kid"]
            key = self._keys.get(kid) or await self._read(self._endpoint.format(region=self._region, kid=kid))
            # ``aud`` is a claim of the identity provider; the load balancer has checked it.
            options: Any = {"require": ["sub"], "verify_aud": False}
            claims = jwt.decode(token, key, algorithms=["ES256"], options=options, leeway=_CLOCK_SKEW_S)
        except jwt.PyJWTError as error:
            raise _refused("The sign-in is invalid", str(error)) from error
        self._keep(kid, key)
        return Identity(claims["sub"], _name(claims))

    def _check(self, header: dict[str, Any]) -> None:
        """Check the header, which the signature covers, too."""
        if header.get("signer") != self._arn:
            raise _refused("The sign-in is of another load balancer", header.get("signer"))
        expires = header.get("exp")
        if not isinstance(expires, int | float) or expires < time.time() - _CLOCK_SKEW_S:
            raise _refused("The sign-in has expired", expires)
        if not _KEY_ID.fullmatch(str(header.get("kid"))):
            raise _refused("The sign-in has no valid key ID", header.get("kid"))

    async def _read(self, url: str) -> ec.EllipticCurvePublicKey:
        text = await self._fetch(url)
        try:
            key = load_pem_public_key(text.encode())
        except ValueError:
            key = None
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise _no_key(url, text)
        return key

    def _keep(self, kid: str, key: ec.EllipticCurvePublicKey) -> None:
        """Keep a key that has verified a token. Load balancers change keys now and then."""
        self._keys[kid] = key
        while len(self._keys) > _MAX_KEYS:
            del self._keys[next(iter(self._keys))]


class SignIn:
    """Rejects requests without a valid token, and adds the user to the others for :func:`identity_of`.

    Args:
        app: the application to wrap.
        verifier: verifies the tokens.
    """

    def __init__(self, app: ASGIApp, verifier: Verifier) -> None:
        self._app, self._verifier = app, verifier

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] not in ("http", "websocket") or scope["path"] == HEALTH_PATH:
            await self._app(scope, receive, send)
            return
        headers = MutableHeaders(scope=scope)
        try:
            identity = await self._verifier.verify(headers.get(TOKEN_HEADER))
        except BackgroundRemoverError as error:
            _logger.warning("request rejected: %s", error)
            await _reject(error, scope, receive, send)
            return
        for credential in (TOKEN_HEADER, _ACCESS_TOKEN_HEADER):
            del headers[credential]
        headers[USER_HEADER] = f"{quote(identity.subject)} {quote(identity.name)}"  # replaces one from the client

        async def send_and_close(message: Message) -> None:
            # uvicorn closes idle connections after 5 s. A load balancer that reuses one just then answers 502.
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app({**scope, "headers": headers.raw}, receive, send_and_close)


async def _reject(error: BackgroundRemoverError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    status = 503 if isinstance(error, SignInKeyError) else 403
    await PlainTextResponse(f"{error.message}. {error.remedy}", status)(scope, receive, send)


async def _fetch(url: str) -> str:
    try:
        async with httpx.AsyncClient(timeout=_FETCH_S, transport=httpx.AsyncHTTPTransport(retries=2)) as client:
            return (await client.get(url)).raise_for_status().text
    except httpx.HTTPError as error:
        raise _no_key(url, error) from error


def _no_key(url: str, answer: object) -> SignInKeyError:
    return SignInKeyError(
        "The public key of the load balancer cannot be read",
        field=url,
        value=str(answer),
        remedy="Load the page again. If it fails again, check that the page's subnet has access to this address.",
    )


def _name(claims: dict[str, Any]) -> str:
    email = claims.get("email")
    if not isinstance(email, str) or claims.get("email_verified", True) in (False, "false"):
        email = None
    return str(email or claims["sub"])[:_NAME_CHARS]


def _refused(message: str, value: object) -> NotSignedInError:
    return NotSignedInError(
        message, field=TOKEN_HEADER, value=value, remedy="Load the page again under its own address, and sign in."
    )
