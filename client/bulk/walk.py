"""Find the images in a folder."""

import fnmatch
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

EXTENSIONS: Final = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "png", "webp", "tif", "tiff", "bmp", "gif", "heic", "heif", "avif"}
)
"""Extensions of images."""


@dataclass(frozen=True)
class Image:
    """An image file.

    Attributes:
        path: path relative to the folder, with slashes.
        size: size in bytes.
        mtime_ns: time of the last change in nanoseconds.
    """

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Problem:
    """A file or folder that cannot be read; ``path`` is relative to the folder."""

    path: str
    error: OSError


class Globs:
    """Patterns of paths, e.g. ``*.jpg``, ``drafts`` or ``2024/*``; case does not matter.

    A pattern without a slash is compared with the name, others with the path relative to the folder.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._names = _compiled([one for one in patterns if "/" not in one.strip("/")])
        self._paths = _compiled([one for one in patterns if "/" in one.strip("/")])

    def __bool__(self) -> bool:
        return bool(self._names or self._paths)

    def match(self, path: str) -> bool:
        """Return whether a relative path matches one of the patterns."""
        name = path.rpartition("/")[2]
        return bool((self._names and self._names.match(name)) or (self._paths and self._paths.match(path)))


def _compiled(patterns: Sequence[str]) -> re.Pattern[str] | None:
    if not patterns:
        return None
    return re.compile("|".join(fnmatch.translate(one.strip("/")) for one in patterns), re.IGNORECASE)


def walk(
    root: str, include: Sequence[str] = (), exclude: Sequence[str] = (), skip: Sequence[str] = ()
) -> Iterator[Image | Problem]:
    """Yield the images in a folder and its subfolders, and what cannot be read, in the same order each time.

    Links are followed, but no folder is read twice: a link to a folder above does not end in a loop. Hidden files and
    folders are skipped. At most the names of one folder are in memory.

    Args:
        root: the folder.
        include: patterns of the files to process; without any, all. Files need an extension of ``EXTENSIONS``, unless
            a pattern that does not end in ``*`` matches, e.g. ``*.raw``.
        exclude: patterns of files and folders to skip.
        skip: folders to skip, e.g. the one of the results.
    """
    included, excluded = Globs(include), Globs(exclude)
    named = Globs([pattern for pattern in include if not pattern.endswith("*")])
    seen = {identity for path in skip if (identity := _identity(path))}
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        path = os.path.join(root, folder) if folder else root  # noqa: PTH118 - Path would take twice the time
        try:
            status = os.stat(path)  # noqa: PTH116
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                found = sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
        except OSError as error:
            yield Problem(folder, error)
            continue
        folders = []
        for entry in found:
            relative = f"{folder}/{entry.name}" if folder else entry.name
            if excluded.match(relative):
                continue
            try:
                if entry.is_dir():
                    folders.append(relative)
                elif named.match(relative) or (
                    _has_extension(entry.name) and (not included or included.match(relative))
                ):
                    status = entry.stat()
                    if stat.S_ISREG(status.st_mode):
                        yield Image(relative, status.st_size, status.st_mtime_ns)
            except OSError as error:
                yield Problem(relative, error)
        waiting += reversed(folders)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _has_extension(name: str) -> bool:
    stem, _, extension = name.rpartition(".")
    return bool(stem) and extension.lower() in EXTENSIONS
