"""The server of the web page: Streamlit's, with users and a route for pictures."""

from pathlib import Path
from typing import Final

import streamlit as st
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from client.errors import UsageError
from core.limits import MAX_BYTES
from web import archives, errors, identity, pictures, session, users
from web.uploads import UploadLimit

_SCRIPT: Final = Path(__file__).parent / "app.py"
_LOOPBACK: Final = "127.0.0.1"


def app() -> st.App:
    """Return the ASGI application."""
    return st.App(
        _SCRIPT,
        routes=[pictures.route(session.stack), archives.route(session.stack)],
        middleware=[_users(), Middleware(UploadLimit)],
        on_script_error=errors.show,
    )


def _users() -> Middleware:
    """Return what identifies users: sign-in behind a load balancer, otherwise a cookie for each browser."""
    arn = identity.load_balancer()
    return Middleware(identity.SignIn, identity.Verifier(arn)) if arn else Middleware(BrowserCookie)


def serve(address: str, port: int) -> None:
    """Serve the page until the process is stopped.

    Args:
        address: to listen on.
        port: to listen on.

    Raises:
        UsageError: other machines could open the page without signing in.
    """
    if address != _LOOPBACK and not identity.load_balancer():
        raise UsageError(
            "Without a load balancer that signs users in, the page is for this machine only",
            field="--address",
            value=address,
            remedy=f"Use {_LOOPBACK}, or set {identity.LOAD_BALANCER} to the ARN of the load balancer.",
        )
    local = {"server.allowedHosts": ["localhost", _LOOPBACK]} if address == _LOOPBACK else {}
    app().run(
        config={
            "server.address": address,
            "server.port": port,
            "server.maxUploadSize": MAX_BYTES // 2**20,
            "server.fileWatcherType": "none",  # in config.toml, it would be read too late
            **local,  # a page of another site cannot reach the server under a name of its own
        }
    )


class BrowserCookie:
    """Gives each browser without one the cookie that :func:`web.users.user_of` reads.

    Args:
        app: the application to wrap.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http" or users.COOKIE in HTTPConnection(scope).cookies:
            await self._app(scope, receive, send)
            return

        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start" and _is_page(scope):
                MutableHeaders(scope=message).append("Set-Cookie", users.new_cookie(secure=scope["scheme"] == "https"))
            await send(message)

        await self._app(scope, receive, send_with_cookie)


def _is_page(scope: Scope) -> bool:
    """Return whether a browser opens a page: its other requests at that time would each get a cookie of their own."""
    return any(name == b"sec-fetch-dest" and value == b"document" for name, value in scope["headers"])
