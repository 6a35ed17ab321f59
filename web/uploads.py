"""A limit for the files that Streamlit keeps in memory until all files of a drop have arrived."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from streamlit.runtime import get_instance
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager

MOST_BYTES: Final = 500 << 20
"""Most bytes of the files of a session that are in memory."""

_MOST_BYTES_IN_ALL: Final = 1 << 30
_PATH: Final = "/_stcore/upload_file/"

_MOST_COUNTED: Final = 1000

_rejected: Final = Counter[str]()


class UploadLimit:
    """Answers 413 to files that do not fit into memory besides those that sessions already have there.

    Args:
        app: the application to wrap.
        held: returns the bytes in memory of each session.
        most_bytes: of a session.
        most_bytes_in_all: of all sessions.
    """

    def __init__(
        self,
        app: ASGIApp,
        held: Callable[[], Mapping[str, int]] | None = None,
        most_bytes: int = MOST_BYTES,
        most_bytes_in_all: int = _MOST_BYTES_IN_ALL,
    ) -> None:
        self._app, self._held = app, held or _held
        self._most_bytes, self._most_bytes_in_all = most_bytes, most_bytes_in_all
        self._arriving = Counter[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http" or scope["method"] != "PUT" or not scope["path"].startswith(_PATH):
            await self._app(scope, receive, send)
            return
        session = scope["path"].removeprefix(_PATH).partition("/")[0]
        length = dict(scope["headers"]).get(b"content-length", b"")
        if not length.isdigit():
            await PlainTextResponse("The length of the file is missing.", 411)(scope, receive, send)
        elif self._fits(session, int(length)):
            self._arriving[session] += int(length)
            try:
                await self._app(scope, receive, send)
            finally:
                self._arriving[session] -= int(length)
                self._arriving += Counter()  # drops zeros
        else:
            if len(_rejected) >= _MOST_COUNTED:  # of sessions that ended before they asked
                _rejected.clear()
            _rejected[session] += 1
            await PlainTextResponse("Too many files at a time. Add fewer.", 413)(scope, receive, send)

    def _fits(self, session: str, length: int) -> bool:
        known = Counter(self._held()) + self._arriving
        return known[session] + length <= self._most_bytes and known.total() + length <= self._most_bytes_in_all


def rejected(session: str) -> int:
    """Return how many files of a session were rejected since the last call."""
    return _rejected.pop(session, 0)


def _held() -> dict[str, int]:
    """Return the bytes that Streamlit keeps for each session."""
    manager = get_instance().uploaded_file_mgr
    if not isinstance(manager, MemoryUploadedFileManager):
        raise TypeError("Streamlit does not keep files in memory")
    # Other threads change it: copy before each loop.
    return {
        session: sum(len(file.data) for file in list(files.values()))
        for session, files in list(manager.file_storage.items())
    }
