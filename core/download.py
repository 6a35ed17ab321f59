"""A large file from a web server: within a time, verified, whole or not at all.

A module of its own because httpx costs a fifth of a second to import, and hardly a process downloads.
"""

import hashlib
import time
from pathlib import Path
from typing import Final
from uuid import uuid4

import httpx
from tenacity import Retrying, retry_if_exception, stop_before_delay, wait_exponential_jitter

_CONNECT_S: Final = 3.0
_SILENCE_S: Final = 5.0
_RATE_AFTER_S: Final = 1.0


class DownloadError(Exception):
    """The file could not be had, or not in time; the text says why."""


class UnreachableError(DownloadError):
    """Nothing answers, or nothing can be written here: no other file will fare better."""


class TamperedError(DownloadError):
    """The file is another one. ``found`` is its SHA-256."""

    def __init__(self, found: str) -> None:
        self.found = found
        super().__init__(f"the file has SHA-256 {found}")


def fetch(url: str, path: Path, *, sha256: str, size_bytes: int, timeout_s: float) -> None:
    """Put the verified file at ``path`` in one step, or leave nothing behind.

    Args:
        url: what to download; redirects are followed.
        path: where to put it; its directory is made.
        sha256: what its hash has to be, lower-case hex.
        size_bytes: how long it is.
        timeout_s: for everything, retries included. A server that falls silent is given up after five seconds, and a
            transfer as soon as its rate shows that it will not end in time.

    Raises:
        UnreachableError, TamperedError, DownloadError: see there.
    """
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            found = _stream_with_retries(url, part, size_bytes, timeout_s)
            if found != sha256:
                raise TamperedError(found)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except (httpx.TransportError, OSError) as error:
        raise UnreachableError(str(error) or type(error).__name__) from error
    except httpx.HTTPError as error:
        raise DownloadError(str(error) or type(error).__name__) from error


def _stream_with_retries(url: str, part: Path, size_bytes: int, timeout_s: float) -> str:
    deadline = time.monotonic() + timeout_s
    again = Retrying(
        retry=retry_if_exception(_worth_another_try),
        wait=wait_exponential_jitter(multiplier=0.2, max=2.0),
        stop=stop_before_delay(timeout_s),
        reraise=True,
    )
    return again(_stream, url, part, size_bytes, deadline)


def _stream(url: str, part: Path, size_bytes: int, deadline: float) -> str:
    """Write what ``url`` serves to ``part`` and return its SHA-256."""
    started = time.monotonic()
    left_s = max(deadline - started, 0.001)
    timeout = httpx.Timeout(min(_SILENCE_S, left_s), connect=min(_CONNECT_S, left_s))
    digest, received = hashlib.sha256(), 0
    with httpx.stream("GET", url, timeout=timeout, follow_redirects=True) as response, part.open("wb") as file:
        response.raise_for_status()
        for chunk in response.iter_bytes(1 << 16):
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


def _worth_another_try(error: BaseException) -> bool:
    """Whether a download that failed so may succeed at once: not where nothing answers at all."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code == httpx.codes.TOO_MANY_REQUESTS or error.response.is_server_error
    return isinstance(error, httpx.ReadError | httpx.RemoteProtocolError)
