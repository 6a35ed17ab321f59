"""The contents of S3 objects, on disk: an embedded cloud stores more than fits into memory."""

import os
import tempfile
import threading
from pathlib import Path
from typing import IO, Final

_DISK: Final = Path("/var/tmp")  # noqa: S108  the file has no name; /tmp is in memory on some systems


class Contents:
    """A file that all objects of this process share. It has no name, so that it ends with the process.

    The space of deleted objects is not used again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None
        self._end = 0

    def add(self, data: bytes) -> int:
        """Append data, and return its offset.

        Raises:
            OSError: the disk is full.
        """
        with self._lock:
            if self._file is None:
                folder = _DISK if "TMPDIR" not in os.environ and _DISK.is_dir() else None
                self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  open until the process ends
            offset = self._end
            written = 0
            while written < len(data):
                written += os.pwrite(self._file.fileno(), memoryview(data)[written:], offset + written)
            self._end += len(data)
            return offset

    def read(self, offset: int, length: int) -> bytes:
        """Return the data at an offset."""
        return os.pread(self._file.fileno(), length, offset) if self._file else b""


CONTENTS: Final = Contents()


class Content:
    """The content of one object, with those methods of a file that moto calls."""

    def __init__(self) -> None:
        self._offset = self._length = self._position = 0

    def seek(self, position: int) -> None:
        """Go to a position."""
        self._position = position

    def truncate(self) -> None:
        """Forget what is behind the position."""
        self._length = min(self._length, self._position)

    def read(self, size: int = -1) -> bytes:
        """Return the next ``size`` bytes, or all that are left."""
        left = max(0, self._length - self._position)
        data = CONTENTS.read(self._offset + self._position, left if size < 0 else min(size, left))
        self._position += len(data)
        return data

    def write(self, data: bytes) -> None:
        """Append data at the position, which must be the end."""
        self.seek(0)
        whole = self.read() + data
        self._offset, self._length = CONTENTS.add(whole), len(whole)
        self._position = self._length

    def close(self) -> None:
        """Do nothing."""
