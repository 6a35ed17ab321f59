"""The state of a bulk run on this machine: an SQLite file, which stays valid if the process is killed at any moment."""

import fcntl
import json
import os
import re
import sqlite3
import threading
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Final, Self

import platformdirs

from client.bulk.walk import Image, Problem
from client.errors import BulkRunError, DiskFullError, UsageError
from client.outputs import fitting, printable
from client.thumbnails import Thumbnails

_APP: Final = "precision-background-remover"
_KEPT_S: Final = 30 * 24 * 3600.0
_PAGE: Final = 1000
_MAX_PATH_BYTES: Final = 700  # the keys of result, sidecar and report have a prefix and a suffix, too
_HASH_CHARS: Final = 8
_FEW: Final = 100
_WITH_RESULT: Final = "'done', 'cached', 'kept'"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS item (
    id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, bucket TEXT, key TEXT, version_id TEXT, sha256 TEXT,
    target TEXT NOT NULL, fold TEXT NOT NULL, size INTEGER, mtime_ns INTEGER, status TEXT NOT NULL, result_key TEXT,
    result TEXT, execution TEXT, score REAL, review INTEGER, reasons TEXT, seconds REAL, error TEXT, message TEXT,
    remedy TEXT
);
CREATE UNIQUE INDEX IF NOT EXISTS item_key ON item (bucket, key, version_id);
CREATE INDEX IF NOT EXISTS item_fold ON item (fold);
CREATE INDEX IF NOT EXISTS item_status ON item (status);
CREATE INDEX IF NOT EXISTS item_result ON item (result_key);
CREATE TABLE IF NOT EXISTS thumbnails (item INTEGER PRIMARY KEY, original BLOB, result BLOB);
"""
_COLUMNS: Final = (
    *("id", "path", "bucket", "key", "version_id", "sha256", "target", "size", "mtime_ns", "status", "result_key"),
    *("result", "execution", "score", "review", "reasons", "seconds", "error", "message", "remedy"),
)
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM item"  # noqa: S608


@dataclass(frozen=True)
class Item:
    """An image of a run.

    Attributes:
        id: number of the item.
        path: path relative to the folder, or the key of an object in S3.
        bucket: bucket of the object; None if it is to be uploaded.
        key: object key.
        version_id: object version.
        sha256: of the content, 64 hexadecimal digits; None before the upload.
        target: path of the result relative to ``--out``, without the extension of its format.
        size: size in bytes.
        mtime_ns: time of the last change of the file.
        status: ``found``, ``uploaded``, ``ready`` (the result has yet to be fetched), ``kept`` (the result existed),
            ``done``, ``cached``, ``failed`` or ``not_done``.
        result_key: object key of the result.
        result: path of the result on this machine.
        execution: name of the execution that processes the image, or whose result was fetched.
        score: quality score.
        review: whether a person should look at the result.
        reasons: reasons for that.
        seconds: processing time.
        error: name of the error, with ``message`` and ``remedy``.
    """

    id: int
    path: str
    bucket: str | None
    key: str
    version_id: str | None
    sha256: str | None
    target: str
    size: int | None
    mtime_ns: int | None
    status: str
    result_key: str | None
    result: str | None
    execution: str | None
    score: float | None
    review: bool | None
    reasons: str | None
    seconds: float | None
    error: str | None
    message: str | None
    remedy: str | None

    @property
    def label(self) -> str:
        """Path for messages."""
        return printable(self.path)


def directory() -> Path:
    """Return the directory of the state files of all runs."""
    return platformdirs.user_state_path(_APP) / "bulk"


class RunState:
    """Settings and images of a run. Thread-safe. Each change is durable when its call returns.

    Use :meth:`create` or :meth:`open`.
    """

    def __init__(self, path: Path, lock_file: IO[str]) -> None:
        self._path, self._lock_file, self._lock = path, lock_file, threading.RLock()
        with _disk_errors(path):
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.executescript(_SCHEMA)

    @classmethod
    def create(cls, run: str, settings: dict[str, Any], folder: Path | None = None) -> Self:
        """Return the state of a new run.

        Args:
            run: name of the run.
            settings: what a resumption needs.
            folder: directory of the file; None for :func:`directory`.

        Raises:
            UsageError: if the run exists.
        """
        folder = folder or directory()
        folder.mkdir(parents=True, exist_ok=True)
        _remove_old(folder)
        path = folder / f"{run}.sqlite"
        if path.exists():
            remedy = f"Continue it with pbr bulk --resume {run}."
            raise UsageError("The run exists", field="run", value=run, remedy=remedy)
        try:
            state = cls(path, _locked(path))
            state.save("settings", settings)
        except DiskFullError as error:
            _remove(path)
            remedy = "Free space, and start the run again."
            raise DiskFullError(error.message, field=error.field, value=error.value, remedy=remedy) from None
        return state

    @classmethod
    def open(cls, run: str, folder: Path | None = None) -> Self:
        """Return the state of an earlier run.

        Raises:
            UsageError: if there is no such run.
            BulkRunError: if another process continues it.
        """
        folder = folder or directory()
        path = folder / f"{run}.sqlite"
        if not re.fullmatch(r"[\w.-]+", run) or not path.exists():
            known = ", ".join(sorted((one.stem for one in folder.glob("*.sqlite")), reverse=True)[:5])
            raise UsageError(
                "The run does not exist on this machine",
                field="--resume",
                value=run,
                remedy=f"Use one of {known}." if known else "Start one with pbr bulk SOURCE.",
            )
        state = cls(path, _locked(path))
        if state.load("settings") is None:  # killed before the first change
            state.close()
            path.unlink()
            raise UsageError("The run has not started", field="--resume", value=run, remedy="Start it again.")
        return state

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()
            self._lock_file.close()

    def save(self, name: str, value: Any) -> None:
        """Save a JSON value."""
        self._do("INSERT OR REPLACE INTO setting VALUES (?, ?)", name, json.dumps(value))

    def load(self, name: str) -> Any:
        """Return a value, or None if it was not saved."""
        found = self._do("SELECT value FROM setting WHERE name = ?", name)
        return json.loads(found[0][0]) if found else None

    def add(self, run: str, found: Iterable[Image | Problem], suffix: str | None) -> None:
        """Add the files of a folder. Files that were added before stay as they are.

        Args:
            run: name of the run, for the object keys.
            found: files, and what cannot be read.
            suffix: end of the names of results; None to append the format's extension to the name of the image.
        """
        insert = (
            "INSERT OR IGNORE INTO item (path, key, target, fold, size, mtime_ns, status, error, message, remedy)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
        with self._transaction():
            for one in found:
                target = target_of(one.path, suffix)
                names = os.fsencode(one.path), object_key(run, one.path), target, fold(target)
                if isinstance(one, Image):
                    self._database.execute(insert, (*names, one.size, one.mtime_ns, "found", None, None, None))
                else:
                    facts = "failed", *_facts(one.error)
                    self._database.execute(insert, (*names, None, None, *facts))
            self._separate()

    def add_objects(self, rows: Iterable[dict[str, Any]], execution: str = "") -> list[Item]:
        """Add the objects of a run whose images are in S3, from the rows of its ``items.csv``.

        An object whose result was fetched before, and that is cached now or was done by this execution, stays as it is.

        Args:
            rows: values of the columns of ``item``, with ``target``.
            execution: name of the execution.

        Returns:
            The items whose result was written under another name than ``target``, which now has a hash.
        """
        names = (
            *("path", "bucket", "key", "version_id", "target", "fold", "status", "result_key", "score", "review"),
            *("seconds", "error", "message", "remedy"),
        )
        insert = (
            f"INSERT INTO item ({', '.join(names)}) VALUES ({', '.join('?' * len(names))}) ON CONFLICT (path) DO "  # noqa: S608
            f"UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in names[1:])} WHERE NOT ("
            f"item.status IN ({_WITH_RESULT}) AND item.version_id IS excluded.version_id"
            " AND (excluded.status = 'ready_cached' OR item.execution = ?))"
        )
        folds: list[str] = []
        with self._transaction():
            for row in rows:
                values = {**row, "path": os.fsencode(row["path"]), "fold": fold(row["target"])}
                self._database.execute(insert, [*(values.get(name) for name in names), execution])
                folds = [*folds, values["fold"]][: _FEW + 1]
            misnamed = self._separate(folds if len(folds) <= _FEW else None)
        return [_item(self._do(f"{_SELECT} WHERE id = ?", number)[0]) for number in misnamed]

    def _separate(self, folds: list[str] | None = None) -> list[int]:
        """Give results whose names are equal on some file system a hash of the image's path.

        Args:
            folds: the names to look at; None for all.

        Returns:
            Numbers of the items whose result was written under another name.
        """
        some = "" if folds is None else f"WHERE fold IN ({', '.join('?' * len(folds))})"
        same = f"SELECT fold FROM item {some} GROUP BY fold HAVING count(*) > 1"  # noqa: S608
        query = f"SELECT id, path, target, fold, result FROM item WHERE fold IN ({same})"  # noqa: S608
        misnamed = []
        for number, path, target, folded, result in self._database.execute(query, folds or []).fetchall():
            if fold(target) == folded:  # else it has its hash
                folder, slash, name = target.rpartition("/")
                stem, dot, extension = name.rpartition(".")
                digest = sha256(path).hexdigest()[:_HASH_CHARS]
                name = f"{stem}-{digest}{dot}{extension}" if stem else f"{name}-{digest}"
                target = f"{folder}{slash}{name}"
                self._database.execute("UPDATE item SET target = ? WHERE id = ?", (target, number))
            if result and not result.rpartition(".")[0].endswith(f"/{target}"):
                misnamed.append(number)
        return misnamed

    def items(self, *statuses: str) -> Iterator[Item]:
        """Yield the items of these statuses, a page at a time, so that they may change meanwhile."""
        last = 0
        where = f"id > ? AND status IN ({', '.join('?' * len(statuses))})" if statuses else "id > ?"
        while page := self._do(f"{_SELECT} WHERE {where} ORDER BY id LIMIT {_PAGE}", last, *statuses):
            yield from map(_item, page)
            last = page[-1][0]

    def by_quality(self) -> Iterator[Item]:
        """Yield the items with a result: those to review first, then by score, the lowest first."""
        order = "ORDER BY coalesce(review, 0) DESC, coalesce(score, 1), path"
        for (number,) in self._do(f"SELECT id FROM item WHERE status IN ({_WITH_RESULT}) {order}"):  # noqa: S608
            yield _item(self._do(f"{_SELECT} WHERE id = ?", number)[0])

    def find(self, key: str, bucket: str | None = None) -> Item | None:
        """Return the item with an object key; ``bucket`` is None for those that are uploaded."""
        # The index starts with the bucket.
        found = self._do(f"{_SELECT} WHERE bucket IS ? AND key = ? LIMIT 1", bucket, key)
        return _item(found[0]) if found else None

    def is_fetched(self, result_key: str, execution: str) -> bool:
        """Return whether the result with this key was fetched that an execution wrote."""
        query = f"SELECT 1 FROM item WHERE result_key = ? AND execution = ? AND status IN ({_WITH_RESULT})"  # noqa: S608
        return bool(self._do(query, result_key, execution))

    def update(self, item: Item, **facts: Any) -> None:
        """Change facts of an item."""
        names = ", ".join(f"{name} = ?" for name in facts)
        self._do(f"UPDATE item SET {names} WHERE id = ?", *facts.values(), item.id)  # noqa: S608

    def fail(self, item: Item, error: Exception) -> None:
        """Record that an item failed."""
        name, message, remedy = _facts(error)
        self.update(item, status="failed", error=name, message=message, remedy=remedy)

    def assign(self, execution: str) -> None:
        """Assign all uploaded items to an execution, unless it has some: a process that was killed assigned those."""
        if not self.count_assigned(execution):
            self._do("UPDATE item SET execution = ? WHERE status = 'uploaded'", execution)

    def count_assigned(self, execution: str) -> int:
        """Return the number of items that an execution has to process."""
        query = "SELECT count(*) FROM item WHERE status = 'uploaded' AND execution = ?"
        return int(self._do(query, execution)[0][0])

    def reset(self, *statuses: str) -> None:
        """Mark all items of these statuses as found, so that they are uploaded again."""
        marks = ", ".join("?" * len(statuses))
        self._do(
            f"UPDATE item SET status = 'found', error = NULL, message = NULL, remedy = NULL WHERE status IN ({marks})",  # noqa: S608
            *statuses,
        )

    def forget_failures(self) -> None:
        """Mark all failed items as found, except those of files and folders that could not be read at all."""
        self._do("DELETE FROM item WHERE status = 'failed' AND size IS NULL AND bucket IS NULL")
        self.reset("failed", "not_done")

    def counts(self) -> Counter[str]:
        """Return the number of items by status; ``review`` is the number of results to review."""
        counts = Counter(dict(self._do("SELECT status, count(*) FROM item GROUP BY status")))
        counts["review"] = self._do(f"SELECT count(*) FROM item WHERE review = 1 AND status IN ({_WITH_RESULT})")[0][0]  # noqa: S608
        return counts

    def seconds(self) -> float:
        """Return the total processing time of the results that this run computed."""
        return float(self._do("SELECT coalesce(sum(seconds), 0) FROM item WHERE status = 'done'")[0][0])

    def save_thumbnails(self, item: Item, found: Thumbnails) -> None:
        """Save the thumbnails of an item."""
        self._do("INSERT OR REPLACE INTO thumbnails VALUES (?, ?, ?)", item.id, found.original, found.result)

    def thumbnails(self, item: Item) -> Thumbnails:
        """Return the thumbnails of an item."""
        found = self._do("SELECT original, result FROM thumbnails WHERE item = ?", item.id)
        return Thumbnails(*found[0]) if found else Thumbnails(None, None)

    def count_thumbnails(self) -> int:
        """Return the number of items with thumbnails."""
        return int(self._do("SELECT count(*) FROM thumbnails")[0][0])

    def _do(self, statement: str, *values: Any) -> list[Any]:
        with self._lock, _disk_errors(self._path):
            return self._database.execute(statement, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, _disk_errors(self._path):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")


def object_key(run: str, path: str) -> str:
    """Return the object key of an upload: the path if S3 can store it, else a hash of it."""
    raw, name = os.fsencode(path), printable(path)
    is_plain = os.fsencode(name) == raw and len(raw) <= _MAX_PATH_BYTES and name.isprintable()
    if not is_plain:
        extension = re.fullmatch(r".*(\.[A-Za-z0-9]{1,5})", path, flags=re.DOTALL)
        name = f"~/{sha256(raw).hexdigest()}{extension[1] if extension else ''}"
    return f"bulk/{run}/{name}"


def target_of(path: str, suffix: str | None) -> str:
    """Return the path of a result without the extension of its format.

    ``x/a.jpg`` gives ``x/a.jpg``; with the suffix ``-cutout`` it gives ``x/a-cutout``.
    """
    folder, slash, name = printable(path).rpartition("/")
    if suffix is not None:
        name = (name.rpartition(".")[0] or name) + suffix
    return f"{folder}{slash}{fitting(name)}"


def fold(name: str) -> str:
    """Return a text that is equal for names that some file system takes for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _item(row: tuple[Any, ...]) -> Item:
    facts = dict(zip(_COLUMNS, row, strict=True))
    review = None if facts["review"] is None else bool(facts["review"])
    return Item(**{**facts, "path": os.fsdecode(facts["path"]), "review": review})


def _facts(error: Exception) -> tuple[str, str, str]:
    """Return name, message and remedy of an error."""
    message = getattr(error, "message", None) or getattr(error, "strerror", None) or str(error)
    return type(error).__name__, message, getattr(error, "remedy", "")


def _locked(path: Path) -> IO[str]:
    file = path.with_suffix(".lock").open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise BulkRunError(
            "Another process continues this run",
            field="run",
            value=path.stem,
            remedy="Wait for it, or end it and try again.",
        ) from None
    return file


def _remove_old(folder: Path) -> None:
    """Remove the states of runs that have not changed for 30 days."""
    oldest = time.time() - _KEPT_S
    for path in folder.glob("*.sqlite"):
        if max(one.stat().st_mtime for one in folder.glob(f"{path.stem}.sqlite*")) < oldest:
            _remove(path)


def _remove(path: Path) -> None:
    for one in (*path.parent.glob(f"{path.stem}.sqlite*"), path.with_suffix(".lock")):
        one.unlink(missing_ok=True)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            raise
        raise DiskFullError(
            f"The state of the run cannot be written: {error}",
            field="state",
            value=str(path),
            remedy=f"Free space, and continue with pbr bulk --resume {path.stem}.",
        ) from None
