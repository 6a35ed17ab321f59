"""The images of a user: each is uploaded, followed to the end of its execution, and known by its sidecar.

Nothing here uses Streamlit, and nothing keeps pixels: images that wait are in temporary files, results are in S3.
"""

import logging
import secrets
import shutil
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import PurePosixPath, PureWindowsPath
from threading import BoundedSemaphore, Lock
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from client.errors import DiskFullError, JobFailure, failure_of
from client.history import StageEvent
from client.jobs import JobClient, StoppedWaitingError, Upload
from client.stack import Stack
from core.errors import EmptyImageError
from core.image.sniff import sniff
from core.limits import MAX_BYTES, check_bytes
from core.options import OutputFormat
from functions.runtime import safe_http

MOST: Final = 500
"""Most images of a user."""

_MOST_USERS: Final = 64
_KEPT_S: Final = 12 * 3600.0

_LOCAL_AT_ONCE: Final = 4
_UPLOADS_AT_ONCE: Final = 4
_FREE_DISK_BYTES: Final = 1 << 28
_FETCH_TIMEOUT_S: Final = 20.0
_MAX_NAME_CHARS: Final = 120
_FORBIDDEN: Final = ':*?"<>|'

_log: Final = logging.getLogger(__name__)

# They limit the memory of all sessions together: 100 MB for each image. Slow hosts delay no uploads of files.
_files: Final = BoundedSemaphore(_UPLOADS_AT_ONCE)
_urls: Final = BoundedSemaphore(_UPLOADS_AT_ONCE)


class State(StrEnum):
    """What happens to an image."""

    WAITING = "waiting"
    UPLOADING = "uploading"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens."""
        return self in (State.DONE, State.FAILED)


@dataclass
class Removal:
    """An image of a user. A thread of :class:`Removals` writes it, the page reads it.

    Attributes:
        name: file name.
        options: options that it is processed with, by name.
        id: identifies it.
        state: what happens to it.
        upload: the object in the uploads bucket; None before the upload.
        execution: ARN of its execution; None before its start.
        stages: latest event of each stage of the execution, in order.
        sidecar: sidecar of the result; None before the end.
        failure: why there is no result; None unless it failed.
        started_at: start of the upload, by ``time.monotonic``.
        seconds: time from the start of the upload to the end; None before the end.
    """

    name: str
    options: Mapping[str, Any]
    id: str = field(default_factory=lambda: secrets.token_hex(6))
    state: State = State.WAITING
    upload: Upload | None = None
    execution: str | None = None
    stages: tuple[StageEvent, ...] = ()
    sidecar: Mapping[str, Any] | None = None
    failure: JobFailure | None = None
    started_at: float | None = None
    seconds: float | None = None
    abandoned: bool = False

    @property
    def result_name(self) -> str:
        """File name for the result, e.g. ``cup.png`` for ``cup.jpg``."""
        extension = OutputFormat(self.sidecar["options"]["format"]).extension if self.sidecar else "png"
        return f"{PurePosixPath(self.name).stem}.{extension}"

    def elapsed_s(self) -> float:
        """Return the time since the start of the upload, seconds."""
        if self.seconds is not None:
            return self.seconds
        return time.monotonic() - self.started_at if self.started_at else 0.0


class Removals:
    """The images of a user in all sessions, newest last.

    Args:
        jobs: returns the client of the stack; it is called by the callers of the methods, not in threads.
        folder: prefix of the keys of the uploads.
        policy: returns the image URLs that are allowed; called as ``jobs``.
        threads: most images in flight.
    """

    def __init__(
        self,
        jobs: Callable[[], JobClient],
        *,
        folder: str,
        policy: Callable[[], safe_http.Policy],
        threads: int,
    ) -> None:
        self._jobs, self._folder, self._policy = jobs, folder, policy
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="removal")
        self.images: list[Removal] = []

    @property
    def running(self) -> bool:
        """Whether an image has not ended."""
        return any(not image.state.ended for image in self.images)

    @property
    def room(self) -> int:
        """Number of images that can be added."""
        return max(0, MOST - len(self.images))

    def find(self, identity: str | None) -> Removal | None:
        """Return the image with this ``id``, or None."""
        return next((image for image in self.images if image.id == identity), None)

    def add_file(self, name: str, data: bytes, options: Mapping[str, Any]) -> Removal:
        """Add an image file. A file that the stack would reject fails at once, with the error that the API returns.

        Raises:
            StackUnavailableError: the stack does not respond; nothing is added.
        """
        image = Removal(file_name(name), dict(options))
        try:
            _check(data)
            read = _kept(data)
        except Exception as error:
            _fail(image, error)
            self.images.append(image)
            return image
        self._start(image, read, _files)
        return image

    def add_url(self, url: str, options: Mapping[str, Any]) -> Removal:
        """Add the image at a URL."""
        image = Removal(file_name(unquote(_path_of(url)) or "image"), dict(options))
        self._start(image, partial(_fetched, url, self._policy()), _urls)
        return image

    def again(self, image: Removal, options: Mapping[str, Any]) -> Removal:
        """Process an image that was uploaded with other options, in its place."""
        upload = image.upload
        if upload is None:
            raise ValueError("the image was not uploaded")
        new, jobs = Removal(image.name, dict(options)), self._jobs()
        self._pool.submit(self._process, jobs, new, lambda: jobs.upload_again(upload, new.options))
        image.abandoned = True
        self.images[self.images.index(image)] = new
        return new

    def clear(self) -> None:
        """Remove all images. Executions that have started continue; nothing waits for them."""
        for image in self.images:
            image.abandoned = True
        self.images = []

    def close(self) -> None:
        """Remove all images, and end the threads. No image can be added."""
        self.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _start(self, image: Removal, read: Callable[[], bytes], gate: BoundedSemaphore) -> None:
        jobs = self._jobs()

        def upload() -> Upload:
            with gate:
                return jobs.upload(image.name, read(), image.options, folder=self._folder)

        self._pool.submit(self._process, jobs, image, upload)
        self.images.append(image)

    def _process(self, jobs: JobClient, image: Removal, upload: Callable[[], Upload]) -> None:
        """Process an image. Runs in a thread."""
        if image.abandoned:
            return
        image.started_at = time.monotonic()
        image.state = State.UPLOADING
        try:
            _follow(jobs, image, upload)
        except StoppedWaitingError:
            return  # nothing shows the image any more
        except Exception as error:  # a thread has no caller that could handle it
            _fail(image, error)


class Registry:
    """Keeps the images of each user in this process, so that a reload of the page finds them again.

    Args:
        most: most users. Those who opened the page least recently lose their images first.
        kept_s: how long the images of a user are kept after the page last showed them, seconds.
        clock: returns the time, seconds.
    """

    def __init__(
        self, most: int = _MOST_USERS, kept_s: float = _KEPT_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._kept_s, self._clock = most, kept_s, clock
        self._known: dict[str, tuple[Removals, float]] = {}  # the last access is last
        self._lock = Lock()

    def of(self, user_id: str, new: Callable[[], Removals]) -> Removals:
        """Return the images of a user; ``new`` returns those of a user without any."""
        if found := self._used(user_id):
            return found
        made = new()  # it may take seconds, in which other users do not wait
        return self._used(user_id, made) or made

    def _used(self, user_id: str, made: Removals | None = None) -> Removals | None:
        with self._lock:
            now = self._clock()
            for user, (removals, at) in list(self._known.items()):
                if now - at > self._kept_s:
                    self._evict(user, removals)
            found, _ = self._known.pop(user_id, (made, now))
            if found is not None:
                self._known[user_id] = found, now
            for user, (removals, _) in list(self._known.items())[: -self._most]:
                self._evict(user, removals)
            return found

    def _evict(self, user: str, removals: Removals) -> None:
        removals.close()
        del self._known[user]


def of(jobs: Callable[[], JobClient], stack: Callable[[], Stack], folder: str) -> Removals:
    """Return the images of a new user, with the limits of a stack."""
    return Removals(jobs, folder=folder, policy=lambda: policy(stack()), threads=at_once(stack()))


def at_once(stack: Stack) -> int:
    """Return how many images of a user may be in flight: what the API allows, fewer on a laptop."""
    allowed = int(stack.parameters.get("ApiJobsInFlight") or 20)
    return min(allowed, _LOCAL_AT_ONCE) if stack.endpoint_url else allowed


def policy(stack: Stack) -> safe_http.Policy:
    """Return the image URLs that a stack allows."""
    schemes = stack.parameters.get("UrlSchemes") or "https"
    networks = stack.parameters.get("UrlNetworks") or ""
    return safe_http.Policy(tuple(schemes.split(",")), tuple(part for part in networks.split(",") if part))


def file_name(text: str) -> str:
    """Return a file name for an object key: the last part of a path, without characters that S3 or ZIP files forbid."""
    last = PurePosixPath(PureWindowsPath(text).as_posix()).name
    kept = "".join(char for char in unicodedata.normalize("NFC", last) if char.isprintable() and char not in _FORBIDDEN)
    path = PurePosixPath(kept.strip(" .") or "image")
    return path.stem[: _MAX_NAME_CHARS - len(path.suffix[:20])] + path.suffix[:20]


def distinct(names: Iterable[str]) -> list[str]:
    """Return file names with a number in those that occur more than once, e.g. ``cup.png`` and ``cup-2.png``.

    Names that differ in case only count as equal, as some file systems do.
    """
    used: set[str] = set()
    chosen = []
    for name in names:
        path, number, candidate = PurePosixPath(name), 1, name
        while candidate.casefold() in used:
            number += 1
            candidate = f"{path.stem}-{number}{path.suffix}"
        used.add(candidate.casefold())
        chosen.append(candidate)
    return chosen


def _fetched(url: str, allowed: safe_http.Policy) -> bytes:
    data = safe_http.get(url, allowed, limit_bytes=MAX_BYTES, timeout_s=_FETCH_TIMEOUT_S, field="image URL").data
    _check(data)
    return data


def _path_of(url: str) -> str:
    """Return the path of a URL; empty if it has none or is invalid."""
    try:
        return urlsplit(url).path
    except ValueError:
        return ""


def _follow(jobs: JobClient, image: Removal, upload: Callable[[], Upload]) -> None:
    """Upload an image, and record its stages until it has a result."""
    image.upload = upload()
    image.state = State.RUNNING
    image.execution = jobs.execution_of(image.upload, stopped=lambda: image.abandoned)
    for event in jobs.follow(image.execution, stopped=lambda: image.abandoned):
        kept = tuple(known for known in image.stages if known.stage != event.stage)
        image.stages = (*kept, event)
    image.sidecar = jobs.sidecar(image.execution)
    image.seconds = image.elapsed_s()
    image.state = State.DONE


def _kept(data: bytes) -> Callable[[], bytes]:
    """Keep a file on disk, and return what reads it once."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < _FREE_DISK_BYTES + len(data):
        raise DiskFullError(
            "The disk of the page is full of images that wait",
            field="free bytes",
            value=free,
            remedy="Add the file again when others are done.",
        )
    waiting = tempfile.TemporaryFile()  # noqa: SIM115  closed by the thread that reads it
    waiting.write(data)

    def read() -> bytes:
        with waiting:
            waiting.seek(0)
            return waiting.read()

    return read


def _check(data: bytes) -> None:
    """Raise the error of a file that no stack accepts: empty, too large, or not an image."""
    if not data:
        raise EmptyImageError("The file is empty", field="source.bytes", value=0, remedy="Choose another file.")
    check_bytes(len(data))
    sniff(data)


def _fail(image: Removal, error: Exception) -> None:
    """Record a failure without its exception, whose traceback would keep the image in memory."""
    known = failure_of(error)
    if known is None:
        _log.exception("processing an image failed", exc_info=error)
        known = JobFailure("", type(error).__name__, "The page failed", None, None, "Check the log of the page.", None)
    image.failure = known
    image.seconds = image.elapsed_s()
    image.state = State.FAILED
