"""Download a large file: within a time limit, verified, complete or not at all.

A separate module because httpx takes a fifth of a second to import, and few processes download.
"""

import hashlib
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Final, TypeAlias
from uuid import uuid4

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_before_delay, wait_exponential_jitter

OpenUrl: TypeAlias = Callable[[str, float], Generator[bytes, None, None]]
"""Yields the content of a URL within a time limit in seconds; raises the errors of :func:`over_http`."""

_CONNECT_S: Final = 3.0
_SILENCE_S: Final = 5.0
_RATE_AFTER_S: Final = 1.0


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


def over_http(url: str, timeout_s: float) -> Generator[bytes, None, None]:
    """Yield the content of a web address, following redirects.

    Raises:
        UnreachableError: the server does not answer.
        TransientDownloadError: the server is overloaded, or closed the connection early.
        DownloadError: the server does not have the file.
    """
    timeout = httpx.Timeout(min(_SILENCE_S, timeout_s), connect=min(_CONNECT_S, timeout_s))
    try:
        with httpx.stream("GET", url, timeout=timeout, follow_redirects=True) as response:
            response.raise_for_status()
            yield from response.iter_bytes(1 << 16)
    except httpx.HTTPStatusError as error:
        busy = error.response.status_code == httpx.codes.TOO_MANY_REQUESTS or error.response.is_server_error
        raise (TransientDownloadError if busy else DownloadError)(str(error)) from error
    except (httpx.ReadError, httpx.RemoteProtocolError) as error:
        raise TransientDownloadError(str(error) or type(error).__name__) from error
    except httpx.TransportError as error:
        raise UnreachableError(str(error) or type(error).__name__) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise DownloadError(str(error) or type(error).__name__) from error


def fetch(
    url: str,
    path: Path,
    *,
    sha256: str,
    size_bytes: int,
    timeout_s: float,
    open_url: OpenUrl = over_http,
) -> None:
    """Write the verified file to ``path`` atomically, or leave nothing behind.

    Args:
        url: of the file.
        path: destination; its directory is created.
        sha256: expected hash, lower-case hex.
        size_bytes: expected size.
        timeout_s: limit in seconds, retries included. A server may be silent for five seconds, and a transfer fails as
            soon as its rate shows that it will not finish in time.
        open_url: reads the URL.

    Raises:
        UnreachableError, TamperedError, DownloadError: the download failed.
    """
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            found = _stream_with_retries(url, part, size_bytes, timeout_s, open_url)
            if found != sha256:
                raise TamperedError(found)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UnreachableError(str(error) or type(error).__name__) from error


def _stream_with_retries(url: str, part: Path, size_bytes: int, timeout_s: float, open_url: OpenUrl) -> str:
    deadline = time.monotonic() + timeout_s
    retrying = Retrying(
        retry=retry_if_exception_type(TransientDownloadError),
        wait=wait_exponential_jitter(multiplier=0.2, max=2.0),
        stop=stop_before_delay(timeout_s),
        reraise=True,
    )
    return retrying(_stream, url, part, size_bytes, deadline, open_url)


def _stream(url: str, part: Path, size_bytes: int, deadline: float, open_url: OpenUrl) -> str:
    """Write the content of ``url`` to ``part`` and return its SHA-256."""
    started = time.monotonic()
    digest, received = hashlib.sha256(), 0
    with closing(open_url(url, max(deadline - started, 0.001))) as chunks, part.open("wb") as file:
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
            received += len(chunk)
            elapsed_s = time.monotonic() - started
            expected_s = elapsed_s * (size_bytes / received - 1)
            too_slow = elapsed_s > _RATE_AFTER_S and started + elapsed_s + expected_s > deadline
            if started + elapsed_s > deadline or too_slow:
                raise DownloadError(f"{received} of {size_bytes} bytes in {elapsed_s:.1f} s")
            if received > size_bytes:
                break
    return digest.hexdigest()
