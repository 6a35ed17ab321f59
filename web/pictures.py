"""Pictures for the browser: addresses that only their user can open, and the route that answers them from S3.

The browser reads each picture straight from this route, so sessions and caches hold no pixels.
"""

import asyncio
import html
import secrets
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from itertools import chain
from typing import Any, Final, Literal
from urllib.parse import quote

import jwt
import streamlit as st
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from client import thumbnails
from client.errors import NotSignedInError, client_error, sdk_errors
from client.executions import difference
from client.stack import Stack
from core.errors import BackgroundRemoverError, UnsupportedFormatError
from core.image.sniff import sniff
from functions.runtime.inspection import Inspector, Limits
from web.users import User, user_of

_PATH: Final = "/pictures"

Kind = Literal["view", "thumbnail", "file", "difference"]
"""``view``: in a format that browsers show; ``thumbnail``: 256 px; ``file``: the object itself, to save;
``difference``: what refinement changed between a mask and its alpha."""

SHOWN: Final = {"jpeg", "png", "webp", "avif", "gif", "bmp"}
"""Formats that browsers show."""

_ABSENT: Final = ("NoSuchKey", "NoSuchVersion", "MethodNotAllowed")  # the last one for a delete marker
_KEPT_S: Final = 3600
_VIEW_SIDE_PX: Final = 2048
_VIEW_QUALITY: Final = 85

_HEAD_BYTES: Final = 4096
_PART_BYTES: Final = 1 << 18

# No browser executes an answer, and only the user's browser caches it.
_HEADERS: Final = {
    "Cache-Control": f"private, max-age={_KEPT_S}, immutable",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}

# They limit the memory, which reading and decoding the largest images take. Other pictures do not wait for them.
_converters: Final = ThreadPoolExecutor(2, thread_name_prefix="converter")
_INSPECTOR_BYTES: Final = 1 << 30

_key: Final = secrets.token_bytes(32)


@dataclass(frozen=True)
class Picture:
    """An object in S3 that is a picture.

    Attributes:
        bucket: its bucket.
        key: its key.
        version_id: its version; None for the newest one.
    """

    bucket: str
    key: str
    version_id: str | None = None


def address(picture: Picture, user: User, kind: Kind = "view", name: str = "", mask_key: str = "") -> str:
    """Return the path of a picture on this server. It is the same for an hour, so that browsers cache the picture.

    Args:
        picture: the picture.
        user: the only user who can open it. The caller has checked that this user may see it.
        kind: what the answer contains.
        name: file name for ``file``.
        mask_key: for ``difference`` of an alpha: its mask, in the same bucket.
    """
    return f"{_PATH}/{signed({**asdict(picture), 'kind': kind, 'name': name, 'mask': mask_key}, user, _PATH)}"


def signed(claims: Mapping[str, Any], user: User, path: str) -> str:
    """Return a token that :func:`verified` accepts from this user and for this path only, the same one for an hour."""
    expires = (int(time.time()) // _KEPT_S + 2) * _KEPT_S
    return jwt.encode({**claims, "user": user.id, "aud": path, "exp": expires}, _key, algorithm="HS256")


def verified(token: str, request: Request, path: str) -> dict[str, Any] | Response:
    """Return the claims of a token, or the response to a request with an invalid one."""
    try:
        claims: dict[str, Any] = jwt.decode(token, _key, algorithms=["HS256"], audience=path)
        user = user_of(request.headers, request.cookies)
    except (jwt.InvalidTokenError, NotSignedInError):
        return PlainTextResponse("This address has expired. Load the page again.", 403)
    if claims["user"] != user.id:
        return PlainTextResponse("This picture belongs to another user.", 403)
    return claims


def show(picture: Picture, user: User, alt: str, kind: Kind = "view") -> None:
    """Show a picture in the width of its column.

    Args:
        picture: the picture.
        user: the user of the session.
        alt: text for those who do not see it.
        kind: what is shown.
    """
    source = address(picture, user, kind)
    st.html(f'<img src="{source}" alt="{html.escape(alt, quote=True)}" style="max-width:100%;height:auto" />')


def route(stack: Callable[[], Stack]) -> Route:
    """Return the route that answers the addresses of pictures.

    Args:
        stack: returns the stack with the pictures.
    """

    async def answer(request: Request) -> Response:
        claims = verified(request.path_params["token"], request, _PATH)
        if isinstance(claims, Response):
            return claims
        try:
            # Calling stack() can take seconds, too.
            found = await run_in_threadpool(lambda: _as_it_is(stack(), claims))
            if found is None:
                loop = asyncio.get_running_loop()
                found = await loop.run_in_executor(_converters, lambda: _converted(stack(), claims))
            return found
        except BackgroundRemoverError as error:
            return PlainTextResponse(str(error), 422)
        except client_error() as error:
            absent = error.response["Error"]["Code"] in _ABSENT  # type: ignore[attr-defined]
            return PlainTextResponse("The picture no longer exists." if absent else "S3 denied access.", 404)
        except sdk_errors():
            return PlainTextResponse("S3 does not respond. Try again later.", 503)

    return Route(f"{_PATH}/{{token}}", answer)


def read(stack: Stack, picture: Picture) -> bytes:
    """Return the content of a picture's object."""
    content: bytes = _open(stack, picture)["Body"].read()
    return content


def _open(stack: Stack, picture: Picture) -> Any:
    version = {"VersionId": picture.version_id} if picture.version_id else {}
    return stack.s3.get_object(Bucket=picture.bucket, Key=picture.key, **version)  # type: ignore[arg-type]


def _as_it_is(stack: Stack, claims: dict[str, Any]) -> Response | None:
    """Return the response with the object itself; None if it must be converted."""
    kind = claims["kind"]
    if kind not in ("file", "view"):
        return None
    found = _open(stack, _picture(claims))
    start = found["Body"].read(_HEAD_BYTES)
    if kind == "file":
        disposition = f"attachment; filename*=UTF-8''{quote(claims['name'], safe='')}"
        return _streamed(start, found, "application/octet-stream", {"Content-Disposition": disposition})
    if (format_name := _format_of(start)) in SHOWN:
        return _streamed(start, found, f"image/{format_name}")
    found["Body"].close()
    return None


def _converted(stack: Stack, claims: dict[str, Any]) -> Response:
    """Return the response with a copy as WebP."""
    picture, kind = _picture(claims), claims["kind"]
    data = read(stack, picture)
    if kind == "difference":
        drawn = difference.picture(read(stack, Picture(picture.bucket, claims["mask"])), data, _VIEW_SIDE_PX)
        return Response(drawn, media_type="image/webp", headers=_HEADERS)
    is_upload = picture.bucket not in (stack.outputs[name] for name in ("ResultsBucket", "WorkBucket"))
    side, quality = (_VIEW_SIDE_PX, _VIEW_QUALITY) if kind == "view" else (thumbnails.FULL_SIDE_PX, None)
    webp = _webp(data, _format_of(data[:_HEAD_BYTES]), side, quality, is_upload=is_upload)
    return Response(webp, media_type="image/webp", headers=_HEADERS)


def _picture(claims: dict[str, Any]) -> Picture:
    return Picture(claims["bucket"], claims["key"], claims["version_id"])


def _format_of(start: bytes) -> str:
    return "zip" if start.startswith(b"PK") else sniff(start)


def _streamed(start: bytes, found: Any, content_type: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an object as it is, with little of it in memory at a time."""
    length = {"Content-Length": str(found["ContentLength"])}
    parts = chain([start], found["Body"].iter_chunks(_PART_BYTES))
    return StreamingResponse(parts, media_type=content_type, headers={**_HEADERS, **length, **(headers or {})})


def _webp(data: bytes, found: str, side_px: int, quality: int | None, *, is_upload: bool) -> bytes:
    """Return a picture as WebP. Uploads are decoded in a process with limits first."""
    chosen = {"quality": quality} if quality else {}
    if is_upload:
        _inspector().inspect(data)
        converted = thumbnails.of_original(data, side_px, **chosen)
    else:
        converted = thumbnails.of_result(data, side_px, **chosen)
    if converted is None:
        raise UnsupportedFormatError(
            "The picture cannot be shown", field="image.format", value=found, remedy="Download it instead."
        )
    return converted


@cache
def _inspector() -> Inspector:
    return Inspector(Limits(memory_bytes=_INSPECTOR_BYTES))
