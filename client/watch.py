"""A drop folder: process each file that is complete, and move it away."""

import fnmatch
import json
import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Final

from client.bulk.walk import Image, walk
from client.errors import DiskFullError, JobFailedError, UsageError
from client.outputs import DISK_FULL, write

DONE: Final = "done"
"""Folder of the images that have a result."""

FAILED: Final = "failed"
"""Folder of the images that failed, each with the reason as ``NAME.json``."""

_LOCK: Final = ".pbr-watch.lock"
_RETRY_S: Final = 30.0

# Names that browsers, rsync, cloud clients and office programs give files until they are complete.
_TEMPORARY: Final = re.compile(
    "|".join(
        fnmatch.translate(pattern)
        for pattern in (
            *("*.part", "*.partial", "*.crdownload", "*.download", "*.opdownload", "*.tmp", "*.temp", "*.filepart"),
            *("*.!ut", "*.swp", "~*", "*~", "*.unconfirmed*"),
        )
    ),
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Seen:
    """Size and change of a file, and since when they are the same."""

    size: int
    mtime_ns: int
    since: float


class Watcher:
    """Finds complete files in a folder and its subfolders.

    A file is complete if its size and time of change have not changed for a while, and its name is not one of a
    temporary file. Nothing is remembered: after a restart, all that is still in the folder is processed.

    Args:
        folder: the drop folder.
        skip: folders in it to skip, e.g. the one of the results.
        settle_s: time without a change after which a file is complete, seconds.
        clock: returns seconds.
    """

    def __init__(
        self,
        folder: Path,
        skip: Sequence[Path] = (),
        *,
        settle_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self._settle_s, self._clock = folder, settle_s, clock
        self._skip = [str(path) for path in (folder / DONE, folder / FAILED, *skip)]
        self._seen: dict[str, _Seen] = {}
        self._later: dict[str, float] = {}
        self._reserved: dict[str, str] = {}
        self._lock = Lock()

    def complete(self) -> list[Image]:
        """Return the files that are complete now."""
        now, found, seen = self._clock(), list[Image](), dict[str, _Seen]()
        for image in walk(str(self.folder), skip=self._skip):
            if not isinstance(image, Image) or _TEMPORARY.match(image.path.rpartition("/")[2]):
                continue
            before = self._seen.get(image.path)
            same = before is not None and (before.size, before.mtime_ns) == (image.size, image.mtime_ns)
            since = before.since if before is not None and same else now
            seen[image.path] = _Seen(image.size, image.mtime_ns, since)
            if now - since >= self._settle_s and now >= self._later.get(image.path, now):
                found.append(image)
        self._seen = seen
        self._later = {path: when for path, when in self._later.items() if path in seen}
        return found

    def is_unchanged(self, image: Image) -> bool:
        """Return whether a file is the one that was found."""
        try:
            status = (self.folder / image.path).stat()
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (image.size, image.mtime_ns)

    def postpone(self, image: Image) -> None:
        """Leave a file in the folder, and return it again after 30 s."""
        self._later[image.path] = self._clock() + _RETRY_S

    def reserve(self, image: Image) -> str:
        """Return the path that a file will have in ``done/``: its own, with a number if an earlier file has that.

        The result is named after it, so that files of the same name have results of their own.
        """
        with self._lock:
            taken = {path for path in self._reserved.values() if self._reserved.get(image.path) != path}
            free = _free(self.folder / DONE / image.path, {self.folder / DONE / path for path in taken})
            self._reserved[image.path] = free.relative_to(self.folder / DONE).as_posix()
            return self._reserved[image.path]

    def finish(self, image: Image, error: Exception | None = None) -> Path | None:
        """Move a file to ``done/`` or ``failed/``, never over another one.

        Returns:
            Its new path; None if it stays, because it has changed or the error is transient.
        """
        with self._lock:
            reserved = self._reserved.pop(image.path, image.path)
            if not self.is_unchanged(image):
                return None
            if error is not None and error_is_transient(error):
                self.postpone(image)
                return None
            target = _free(self.folder / FAILED / image.path) if error else _free(self.folder / DONE / reserved)
            target.parent.mkdir(parents=True, exist_ok=True)
            if error is not None:
                reason = (json.dumps(_facts(error), indent=2) + "\n").encode()
                write({target.with_name(f"{target.name}.json"): reason})
            (self.folder / image.path).rename(target)
            return target


def error_is_transient(error: Exception) -> bool:
    """Return whether the same file can succeed later.

    Raises:
        DiskFullError: the results cannot be written.
    """
    if isinstance(error, JobFailedError):
        return False  # the stack has retried what can be
    if isinstance(error, OSError):
        if error.errno in DISK_FULL:
            raise DiskFullError(
                "The disk is full", field="--out", value=error.filename, remedy="Free space, and start pbr watch again."
            ) from None
        return True
    return bool(getattr(error, "retryable", True))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a drop folder, so that no two processes move its files.

    Raises:
        UsageError: if another process watches it.
    """
    import fcntl

    with (folder / _LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                "Another process watches this folder",
                field="DIR",
                value=str(folder),
                remedy="End it, or watch another folder.",
            ) from None
        yield


def _free(path: Path, taken: Collection[Path] = ()) -> Path:
    """Return the path, or one with a number that does not exist and is not taken."""
    number, found = 2, path
    while found in taken or os.path.lexists(found):
        found, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
    return found


def _facts(error: Exception) -> dict[str, Any]:
    if isinstance(error, JobFailedError):
        report = error.report
        return {name: getattr(report, name) for name in ("stage", "error", "message", "field", "value", "remedy")}
    facts = getattr(error, "facts", None)
    return dict(facts()) if facts else {"error": type(error).__name__, "message": str(error)}
