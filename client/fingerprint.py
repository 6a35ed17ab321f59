"""What an embedded cloud depends on: source files, weights and environment variables; and what has changed."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeAlias

Fingerprint: TypeAlias = dict[str, str]
"""By name of a file, a model's weights or a variable: something that changes with it."""

VARIABLES: Final = ("PBR_CUSTOM_MODELS", "PBR_MODEL_DIR", "PBR_MODEL_MIRROR")
"""Environment variables that a cloud reads when it starts."""

WEIGHTS: Final = "the weights of "
"""Prefix of the names of weights."""

_FOLDERS: Final = ("core", "functions", "embedded_cloud", "infrastructure", "statemachine")
_FILES: Final = ("template.yaml", "requirements/dev.lock")  # the lock stands for the versions of packages
_SUFFIXES: Final = (".py", ".yaml", ".json", ".npz")


def take(project: Path, models: Iterable[Path], environment: Mapping[str, str]) -> Fingerprint:
    """Return the fingerprint of what a cloud that starts now would run. Takes a few milliseconds.

    Args:
        project: project directory.
        models: directories of weights.
        environment: environment variables.
    """
    found = {name: _hash(environment.get(name, "")) for name in VARIABLES}  # a value may hold a secret
    files: dict[str, Path | os.DirEntry[str]] = {name: project / name for name in _FILES}
    for folder in _FOLDERS:
        files |= {entry.path.removeprefix(f"{project}/"): entry for entry in _files(project / folder)}
    for directory in models:
        for entry in _entries(directory):
            if entry.name.endswith(".onnx"):
                files.setdefault(WEIGHTS + entry.name.removesuffix(".onnx"), entry)
    states = {name: _state(path) for name, path in files.items()}
    return found | {name: state for name, state in states.items() if state}


def changes(before: Fingerprint, after: Fingerprint) -> list[str]:
    """Return the names of what was changed, added or removed: variables first, then in order of the alphabet."""
    names = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    if "PBR_MODEL_DIR" in names:  # other directories have other weights
        names = {name for name in names if not name.startswith(WEIGHTS)}
    return sorted(names, key=lambda name: (name not in VARIABLES, name))


def summary(names: list[str]) -> str:
    """Return one phrase for changes: up to two names, and the number of others."""
    if len(names) <= 2:
        return " and ".join(names)
    return f"{names[0]}, {names[1]} and {len(names) - 2} more"


def _files(folder: Path | str) -> Iterator["os.DirEntry[str]"]:
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path) if entry.name != "__pycache__" else ()
        elif entry.name.endswith(_SUFFIXES):
            yield entry


def _entries(folder: Path | str) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:  # it does not exist, or is not readable
        return []


def _state(path: "Path | os.DirEntry[str]") -> str:
    try:
        stat = path.stat()
    except OSError:  # a lock of an editor is a link to nothing
        return ""
    return f"{stat.st_size}:{stat.st_mtime_ns}"


def _hash(value: str) -> str:
    return hashlib.sha256(value.encode(errors="surrogateescape")).hexdigest()[:16] if value else ""
