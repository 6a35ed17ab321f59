"""ZIP files of results: read from S3 and written to the browser in pieces, so that memory stays small."""

import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from client.errors import client_error
from client.stack import Stack
from core.errors import BackgroundRemoverError
from web import pictures
from web.pictures import Picture
from web.users import User

PATH: Final = "/archives"

_PIECE_BYTES: Final = 1 << 20
_MAX_BODY_BYTES: Final = 4 << 20  # 500 results with the longest names take 2 MB
_DATE: Final = (1980, 1, 1, 0, 0, 0)
_HEADERS: Final = {
    "Content-Disposition": 'attachment; filename="cutouts.zip"',
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}


def token(entries: Sequence[tuple[Picture, str]], user: User) -> str:
    """Return the value of the field ``token``, with which a form gets a ZIP file from ``PATH``.

    Args:
        entries: the objects in S3, and their names in the ZIP file.
        user: the only user who can get it. The caller has checked that this user may see the objects.
    """
    return pictures.signed({"entries": [[asdict(picture), name] for picture, name in entries]}, user, PATH)


def route(stack: Callable[[], Stack]) -> Route:
    """Return the route that answers the form.

    Args:
        stack: returns the stack with the results.
    """

    async def answer(request: Request) -> Response:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > _MAX_BODY_BYTES:
                return PlainTextResponse("The list of files is too long.", 413)
        text = parse_qs(body.decode("ascii", "replace")).get("token", [""])[0]
        claims = pictures.verified(text, request, PATH)
        if isinstance(claims, Response):
            return claims
        entries = [(Picture(**picture), name) for picture, name in claims["entries"]]
        try:
            connected = await run_in_threadpool(stack)
        except BackgroundRemoverError as error:
            return PlainTextResponse(str(error), 422)
        return StreamingResponse(stream(connected.s3, entries), media_type="application/zip", headers=_HEADERS)

    return Route(PATH, answer, methods=["POST"])


def stream(s3: Any, entries: Iterable[tuple[Picture, str]]) -> Iterator[bytes]:
    """Yield a ZIP file of objects in pieces. It lists those that no longer exist in ``missing.txt``.

    Args:
        s3: client of S3.
        entries: the objects, and their names in the ZIP file.
    """
    sink, missing = _Sink(), list[str]()
    with zipfile.ZipFile(sink, "w") as archive:  # type: ignore[call-overload]  # it only writes
        for picture, name in entries:
            version = {"VersionId": picture.version_id} if picture.version_id else {}
            try:
                body = s3.get_object(Bucket=picture.bucket, Key=picture.key, **version)["Body"]
            except client_error():
                missing.append(name)
                continue
            with archive.open(zipfile.ZipInfo(name, _DATE), "w") as entry:
                while piece := body.read(_PIECE_BYTES):
                    entry.write(piece)
                    yield sink.taken()
        if missing:
            archive.writestr(zipfile.ZipInfo("missing.txt", _DATE), "\n".join(missing))
    yield sink.taken()


class _Sink:
    """A file that can only be written, and is emptied after each write."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing: each write is complete."""

    def taken(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data
