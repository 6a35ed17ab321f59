"""Who uses the page: whose uploads and pictures these are."""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import Morsel, SimpleCookie
from typing import Final

from client.errors import NotSignedInError
from web import identity

COOKIE: Final = "pbr_browser"
"""Cookie with a random text: on a laptop, the pictures of a browser are shown to that browser only."""

FOLDER: Final = "web/"
"""Prefix of the keys of all uploads of the page."""

_ID_CHARS: Final = 32
_KEPT_S: Final = 30 * 24 * 3600


@dataclass(frozen=True)
class User:
    """A user of the page.

    Attributes:
        id: 32 hexadecimal digits; derived from the subject or from the cookie, and not usable in its place.
        name: name to show and to record with decisions.
    """

    id: str
    name: str

    @property
    def folder(self) -> str:
        """Prefix of the keys of this user's uploads."""
        return f"{FOLDER}{self.id}/"

    def may_see(self, source_key: str | None) -> bool:
        """Return whether pictures of an upload may be shown: not if another user uploaded it on the page."""
        return not (source_key or "").startswith(FOLDER) or (source_key or "").startswith(self.folder)


def user_of(headers: Mapping[str, str], cookies: Mapping[str, str]) -> User:
    """Return the user who sent a request: behind a load balancer the signed-in one, otherwise that of the cookie.

    Raises:
        NotSignedInError: the request has no signed-in user, or no cookie.
    """
    if identity.load_balancer():
        signed_in = identity.identity_of(headers.get(identity.USER_HEADER))
        return User(_id(signed_in.subject), signed_in.name)
    value = cookies.get(COOKIE)
    if not value:
        raise NotSignedInError(
            "The browser sent no cookie",
            field="cookie",
            value=COOKIE,
            remedy="Allow cookies for this page, and load it again.",
        )
    return User(_id(value), "local")


def new_cookie(*, secure: bool) -> str:
    """Return the value of a ``Set-Cookie`` header for a browser that has no cookie.

    Args:
        secure: whether the browser may send the cookie over HTTPS only.
    """
    morsel: Morsel[str] = SimpleCookie({COOKIE: secrets.token_urlsafe(32)})[COOKIE]
    attributes = {"httponly": True, "samesite": "Strict", "path": "/", "max-age": _KEPT_S, "secure": secure}
    for name, value in attributes.items():
        morsel[name] = value
    return morsel.OutputString()


def _id(origin: str) -> str:
    return hashlib.sha256(origin.encode()).hexdigest()[:_ID_CHARS]
