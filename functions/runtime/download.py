"""Download a large file: within a time limit, verified, resumable.

A separate module because httpx takes a fifth of a second to import, and few processes download.
"""

import fcntl
import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from io import BufferedRandom
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final, TypeAlias
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from uuid import uuid4

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_before_delay, wait_exponential_jitter

OpenUrl: TypeAlias = Callable[[str, float, int], Generator[bytes, None, None]]
"""Yields the content of a URL from a byte offset on, within a time limit in seconds; raises the errors of
:func:`over_http`."""

Moved: TypeAlias = Callable[[int], None]
"""Receives the number of bytes that have been downloaded, those of an earlier attempt included."""

_CONNECT_S: Final = 3.0
_SILENCE_S: Final = 5.0
_RATE_AFTER_S: Final = 2.0
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class DownloadError(Exception):
    """The file could not be downloaded in time; the message gives the reason."""


class TransientDownloadError(DownloadError):
    """An immediate retry may succeed."""


class UnreachableError(DownloadError):
    """The server does not answer, or the directory is not writable: other files would fail too."""


class TamperedError(DownloadError):
    """The file is not the pinned one. ``found`` is its SHA-256."""

    def __init__(self, found: str) -> None:
        self.found = found
        super().__init__(f"the file has SHA-256 {found}")


def over_http(url: str, timeout_s: float, start: int = 0) -> Generator[bytes, None, None]:
    """Yield the content of a web address from byte ``start`` on, following redirects.

    Raises:
        UnreachableError: the server does not answer.
        TransientDownloadError: the server is overloaded, or closed the connection early.
        DownloadError: the server does not have the file.
    """
    connect_s = min(_CONNECT_S, timeout_s)
    _check_reachable(url, connect_s)
    timeout = httpx.Timeout(min(_SILENCE_S, timeout_s), connect=connect_s)
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
    try:
        with httpx.stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
            response.raise_for_status()
            skip = start if response.status_code != httpx.codes.PARTIAL_CONTENT else 0  # not all servers know ranges
            for chunk in response.iter_bytes():
                if rest := chunk[skip:]:
                    yield rest
                skip = max(skip - len(chunk), 0)
    except httpx.HTTPStatusError as error:
        busy = error.response.status_code == httpx.codes.TOO_MANY_REQUESTS or error.response.is_server_error
        raise (TransientDownloadError if busy else DownloadError)(str(error)) from error
    except (httpx.ReadError, httpx.RemoteProtocolError) as error:
        raise TransientDownloadError(str(error) or type(error).__name__) from error
    except httpx.TransportError as error:
        raise UnreachableError(str(error) or type(error).__name__) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise DownloadError(str(error) or type(error).__name__) from error


def _check_reachable(url: str, timeout_s: float) -> None:
    """Open and close a connection, in a thread that can be abandoned.

    The timeouts of httpx do not cover name resolution, which can take half a minute without a network, and apply to
    each address of a name.

    Raises:
        UnreachableError: the server could not be reached in time. Nothing is checked if a proxy resolves the name.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return  # httpx reports it
    proxies = getproxies()
    if host is None or port is None or ((parts.scheme in proxies or "all" in proxies) and not proxy_bypass(host)):
        return
    outcome: SimpleQueue[Exception | None] = SimpleQueue()

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout_s).close()
        except (OSError, ValueError) as error:
            outcome.put(error)
        else:
            outcome.put(None)

    threading.Thread(target=connect, daemon=True).start()
    try:
        failure = outcome.get(timeout=timeout_s)
    except Empty:
        raise UnreachableError(f"{host} does not answer within {timeout_s:g} s") from None
    if failure:
        raise UnreachableError(f"{host}: {failure}") from failure


def fetch(
    url: str,
    path: Path,
    *,
    sha256: str,
    size_bytes: int,
    timeout_s: float,
    open_url: OpenUrl = over_http,
    moved: Moved = lambda _: None,
) -> None:
    """Write the verified file to ``path`` atomically.

    If the download fails or is interrupted, what was received stays in a hidden file beside ``path``, and the next
    download of the same file continues there. The hash of the whole file shows whether the parts belong together.

    Args:
        url: of the file.
        path: destination; its directory is created.
        sha256: expected hash, lower-case hex.
        size_bytes: expected size.
        timeout_s: limit in seconds, retries included. A server may be silent for five seconds, and a transfer fails as
            soon as its rate shows that it will not finish in time.
        open_url: reads the URL.
        moved: receives the progress.

    Raises:
        UnreachableError, TamperedError, DownloadError: the download failed.
    """
    deadline = time.monotonic() + timeout_s
    retrying = Retrying(
        retry=retry_if_exception_type(TransientDownloadError),
        wait=wait_exponential_jitter(multiplier=0.2, max=2.0),
        stop=stop_before_delay(timeout_s),
        reraise=True,
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _partial_file(path, sha256) as (part, file):
            resumed = file.seek(0, os.SEEK_END) > 0
            retrying(_stream, url, file, size_bytes, deadline, open_url, moved)
            found = _sha256(file)
            if resumed and found != sha256:
                file.truncate(0)
                retrying(_stream, url, file, size_bytes, deadline, open_url, moved)
                found = _sha256(file)
            if found != sha256:
                file.truncate(0)
                raise TamperedError(found)
            part.replace(path)
    except OSError as error:
        raise UnreachableError(str(error) or type(error).__name__) from error


@contextmanager
def _partial_file(path: Path, sha256: str) -> Iterator[tuple[Path, BufferedRandom]]:
    """Open the file of an interrupted download, or a new one; delete it at the end if it is empty.

    If another process is downloading the same file, this one gets a file of its own, which is always deleted.
    """
    part = path.with_name(f".{path.name}.{sha256[:16]}.part")
    with part.open("a+b") as shared:
        if _is_ours(shared, part):
            try:
                yield part, shared
            finally:
                if shared.seek(0, os.SEEK_END) == 0:
                    part.unlink(missing_ok=True)
            return
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    with part.open("x+b") as own:
        try:
            yield part, own
        finally:
            part.unlink(missing_ok=True)


def _is_ours(file: BufferedRandom, part: Path) -> bool:
    """Lock the file; return False if it is locked, or if another process has moved it into place."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return part.stat().st_ino == os.fstat(file.fileno()).st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def _stream(url: str, file: BufferedRandom, size_bytes: int, deadline: float, open_url: OpenUrl, moved: Moved) -> None:
    """Append the rest of the content of ``url`` to ``file``."""
    received = file.seek(0, os.SEEK_END)
    if received >= size_bytes:
        return
    started = time.monotonic()
    first: tuple[float, int] | None = None
    with closing(open_url(url, max(deadline - started, 0.001), received)) as chunks:
        for chunk in chunks:
            file.write(chunk)
            received += len(chunk)
            moved(received)
            now = time.monotonic()
            first = first or (now, received)  # the rate is that of the transfer, without the time to connect
            elapsed_s, count = now - first[0], received - first[1]
            too_slow = elapsed_s > _RATE_AFTER_S and now + (size_bytes - received) * elapsed_s / (count or 1) > deadline
            if now > deadline or too_slow:
                raise DownloadError(f"{received} of {size_bytes} bytes in {now - started:.1f} s")
            if received > size_bytes:
                break


def _sha256(file: BufferedRandom) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()
