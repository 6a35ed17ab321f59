"""Where results are written: one file, or a directory. Files are written completely or not at all."""

import errno
import json
import mimetypes
import os
import secrets
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Self

from client.errors import UsageError
from client.jobs import Result
from core.options import OutputFormat
from functions.contracts.object_keys import sidecar_key

STDIN: Final = Path("-")

DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk."""

_FORMATS: Final = {
    **{one.extension: one for one in OutputFormat if one is not OutputFormat.WEBP_LOSSLESS},
    "jpeg": OutputFormat.JPEG,
}

_COMPARISON: Final = "-before-after.png"
_MAX_NAME_BYTES: Final = 255 - len(_COMPARISON)
_HASH_CHARS: Final = 8

_partial: set[Path] = set()


@dataclass(frozen=True)
class ImageFile:
    """An image file, or standard input.

    Attributes:
        path: path of the file; ``-`` is standard input.
        label: name for messages; it differs from those of the other images, see :func:`labels`.
    """

    path: Path
    label: str

    @classmethod
    def of(cls, paths: Sequence[Path]) -> list[Self]:
        """Return the images at the paths. Paths of the same file give one image."""
        unique: dict[Path, Path] = {}
        for path in paths:
            unique.setdefault(_absolute(path), path)
        kept = list(unique.values())
        return [cls(path, label) for path, label in zip(kept, labels(kept), strict=True)]

    @property
    def name(self) -> str:
        """File name, for the object key."""
        return "stdin" if self.path == STDIN else printable(self.path.name)

    def read(self) -> bytes:
        """Return the content of the file."""
        return sys.stdin.buffer.read() if self.path == STDIN else self.path.read_bytes()


@dataclass(frozen=True)
class SavedResult:
    """A result on disk.

    Attributes:
        path: file of the result.
        sidecar_path: file of its sidecar: the same name with ``.json`` at its end.
        sidecar: content of the sidecar.
    """

    path: Path
    sidecar_path: Path
    sidecar: Mapping[str, Any]

    @property
    def comparison_path(self) -> Path:
        """File of the side-by-side comparison of image and result, e.g. ``a.jpg-before-after.png``."""
        return self.path.with_name(self.path.stem + _COMPARISON)


@dataclass(frozen=True)
class Destination:
    """Where results are written: the file ``path``, or the directory ``path``."""

    path: Path
    is_file: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the value of ``--out``: a file if it has the extension of a format and is not a directory.

        Raises:
            UsageError: if it has the extension of an image format that results cannot have.
        """
        path = Path(text)
        if text.endswith("/") or path.is_dir():
            return cls(path, is_file=False)
        if _extension(path) in _FORMATS:
            return cls(path, is_file=True)
        if (mimetypes.guess_type(path.name, strict=False)[0] or "").startswith("image/"):
            raise UsageError(
                f"A result cannot be a {path.suffix} file",
                field="--out",
                value=text,
                remedy=f"Use one of these extensions: {', '.join(f'.{one}' for one in _FORMATS)}. "
                "A directory ends in /.",
            )
        return cls(path, is_file=False)

    def format(self, requested: OutputFormat | None) -> OutputFormat | None:
        """Return the format of the results: the one of the file's extension, else the requested one.

        Raises:
            UsageError: if the two contradict each other.
        """
        if not self.is_file:
            return requested
        implied = _FORMATS[_extension(self.path)]
        if requested is None or requested.extension == implied.extension:
            return requested or implied
        raise UsageError(
            f"The extension of --out contradicts --format {requested}",
            field="--out",
            value=str(self.path),
            remedy=f"Use --out {self.path.with_suffix(f'.{requested.extension}')}, or --format {implied}.",
        )

    def check(self, results: int, inputs: Sequence[Path] = ()) -> None:
        """Check that the results can be written, without creating files or directories.

        Args:
            results: number of results.
            inputs: files that must not be overwritten.

        Raises:
            UsageError: if one file would hold several results or would overwrite an input, a file is in the way, or
                the directory is not writable.
        """
        if self.is_file and results > 1:
            raise self._error("One file cannot hold several results", "Pass a directory, or only one image.")
        if self.is_file and self.path.resolve() in {path.resolve() for path in inputs}:
            raise self._error("The result would overwrite its image", "Use another name.")
        existing = (self.path.parent if self.is_file else self.path).absolute()
        while not existing.exists():
            existing = existing.parent
        if not existing.is_dir():
            raise self._error(f"{existing} is a file, not a directory", "Use another directory.")
        try:
            tempfile.TemporaryFile(dir=existing).close()
        except OSError as error:
            raise self._error(f"{existing} is not writable: {error.strerror}", "Use another directory.") from None

    def names(self, images: Sequence[str], inputs: Sequence[Path] = ()) -> list[str]:
        """Return unique file names for images, without the extension of the result.

        Args:
            images: labels of the images.
            inputs: files that no result may overwrite.
        """
        folder = self.path.resolve()
        taken = {path.stem for path in inputs if path.resolve().parent == folder}
        names = []
        for label in images:
            original = fitting(label.strip("/").replace("/", "-"))
            name, number = original, 2
            while name in taken:
                name, number = f"{Path(original).stem}-{number}{Path(original).suffix}", number + 1
            taken.add(name)
            names.append(name)
        return names

    def save(self, result: Result, name: str) -> SavedResult:
        """Write a result and its sidecar, e.g. ``a.jpg.png`` and ``a.jpg.png.json`` for the name ``a.jpg``.

        Args:
            result: the result.
            name: name of the image; without effect if the destination is a file.

        Raises:
            UsageError: if the extension of the file is not one of the result's format.
        """
        extension = Path(result.sidecar["result"]["key"]).suffix
        if self.is_file and _FORMATS[_extension(self.path)].extension != extension[1:]:
            raise self._error(f"The result is a {extension} file", f"Use --out {self.path.with_suffix(extension)}.")
        path = self.path if self.is_file else self.path / (name + extension)
        sidecar_path = Path(sidecar_key(str(path)))
        write({path: result.data, sidecar_path: (json.dumps(result.sidecar, indent=2) + "\n").encode()})
        return SavedResult(path, sidecar_path, result.sidecar)

    def _error(self, message: str, remedy: str) -> UsageError:
        return UsageError(message, field="--out", value=str(self.path), remedy=remedy)


def labels(paths: Sequence[Path]) -> list[str]:
    """Return the shortest ends of paths that tell them apart, e.g. ``a/cup.jpg`` and ``b/cup.jpg``."""
    parts = [_absolute(path).parts for path in paths]
    counts = Counter(own[-count:] for own in parts for count in range(1, len(own) + 1))
    ends = [next((own[-count:] for count in range(1, len(own)) if counts[own[-count:]] == 1), own) for own in parts]
    return [printable(str(Path(*end))) for end in ends]


def write(files: Mapping[Path, bytes]) -> None:
    """Write files so that each one has its whole content as soon as it has its name.

    Raises:
        OSError: if a file cannot be written; has its name, for a full disk, too.
    """
    written = {}
    try:
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.parent / f".pbr-{secrets.token_hex(8)}"
            _partial.add(temporary)
            written[path] = temporary
            try:
                temporary.write_bytes(data)
            except OSError as error:
                error.filename = str(path)
                raise
        for path, temporary in written.items():
            temporary.replace(path)
    finally:
        for temporary in written.values():
            temporary.unlink(missing_ok=True)
            _partial.discard(temporary)


def remove_partial_files() -> None:
    """Remove the files that other threads are writing, before the process exits."""
    for path in list(_partial):
        path.unlink(missing_ok=True)


def _absolute(path: Path) -> Path:
    return Path("stdin") if path == STDIN else Path(os.path.abspath(path))  # noqa: PTH100 - resolve follows links


def _extension(path: Path) -> str:
    return path.suffix[1:].lower()


def fitting(name: str) -> str:
    """Return a name that leaves room for the extensions of result, sidecar and comparison."""
    encoded = name.encode()
    if len(encoded) <= _MAX_NAME_BYTES:
        return name
    end = f"-{sha256(encoded).hexdigest()[:_HASH_CHARS]}"
    return encoded[: _MAX_NAME_BYTES - len(end)].decode(errors="ignore") + end


def printable(name: str) -> str:
    """Return a file name with the replacement character for bytes that are not UTF-8."""
    return os.fsencode(name).decode(errors="replace")
