"""How long the cloud has been idle: without a request of a user."""

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from embedded_cloud.callers import is_own

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class Activity:
    """Sees all requests to the cloud.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._last, self._open = clock, clock(), 0
        self._lock = threading.Lock()

    def watch(self, app: "WSGIApplication") -> "WSGIApplication":
        """Return the application wrapped so that a user's requests count as activity until their responses are sent.

        A user's request has another access key in its header, or none, as presigned URLs and forms have none.
        """
        from werkzeug.wsgi import ClosingIterator

        def serve(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
            if is_own(environ.get("HTTP_AUTHORIZATION", "")):
                return app(environ, start_response)
            self._count(1)
            try:
                return ClosingIterator(app(environ, start_response), lambda: self._count(-1))
            except BaseException:
                self._count(-1)
                raise

        return serve

    def touch(self) -> None:
        """Count now as activity."""
        self._count(0)

    def idle_s(self) -> float:
        """Return the seconds since the last activity; 0 during a request."""
        with self._lock:
            return 0.0 if self._open else self._clock() - self._last

    def _count(self, more: int) -> None:
        with self._lock:
            self._open += more
            self._last = self._clock()
