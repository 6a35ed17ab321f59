"""Process many images in parallel. The failure of one does not stop the others."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from client.history import StageEvent
from client.jobs import JobClient, Result
from core.errors import BackgroundRemoverError
from functions.contracts.object_keys import sidecar_key

_THREADS: Final = 8

STDIN: Final = Path("-")


@dataclass(frozen=True)
class ImageFile:
    """An image file, or standard input."""

    path: Path

    @property
    def name(self) -> str:
        """File name for messages and for the object key."""
        return "stdin" if self.path == STDIN else self.path.name

    def read(self) -> bytes:
        """Return the content of the file."""
        return sys.stdin.buffer.read() if self.path == STDIN else self.path.read_bytes()


@dataclass(frozen=True)
class SavedResult:
    """A result on disk.

    Attributes:
        path: file of the result; the sidecar has the same name and ``.json`` at its end.
        sidecar: content of the sidecar.
        seconds: time from the upload to the file.
    """

    path: Path
    sidecar: Mapping[str, Any]
    seconds: float


class ProgressListener(Protocol):
    """Receives progress events, from several threads."""

    def stage(self, name: str, event: StageEvent) -> None:
        """Handle a stage event of an image."""

    def saved(self, name: str, result: SavedResult) -> None:
        """Handle the result of an image."""

    def failed(self, name: str, error: Exception) -> None:
        """Handle the failure of an image."""


def process(
    jobs: JobClient, image: ImageFile, options: Mapping[str, Any], listener: ProgressListener, timeout_s: float
) -> Result:
    """Process one image and return its result.

    Args:
        jobs: client of the stack.
        image: image to process.
        options: fields of :class:`core.options.Options`; the others have their defaults.
        listener: receives the stage events.
        timeout_s: time limit of the execution, seconds.

    Raises:
        BackgroundRemoverError: if the image has no result.
        OSError: if the file cannot be read.
    """
    execution_arn = jobs.execution_of(jobs.upload(image.name, image.read(), options))
    for event in jobs.follow(execution_arn, timeout_s=timeout_s):
        listener.stage(image.name, event)
    return jobs.result(execution_arn)


def process_all(
    jobs: JobClient,
    images: Sequence[ImageFile],
    options: Mapping[str, Any],
    out: Path,
    listener: ProgressListener,
    timeout_s: float,
) -> list[SavedResult]:
    """Process images in parallel, and write each result and its sidecar as soon as it is available.

    Args:
        jobs: client of the stack.
        images: images to process.
        options: options for all images.
        out: directory for the results.
        listener: receives the stage events, results and failures.
        timeout_s: time limit of each execution, seconds.

    Returns:
        The results; images that failed have none.
    """

    def one(image: ImageFile, name: str) -> SavedResult | None:
        started = time.monotonic()
        try:
            result = process(jobs, image, options, listener, timeout_s)
            path, _ = save(result, out, name)
        except (BackgroundRemoverError, BotoCoreError, ClientError, OSError) as error:
            listener.failed(image.name, error)
            return None
        saved = SavedResult(path, result.sidecar, time.monotonic() - started)
        listener.saved(image.name, saved)
        return saved

    with ThreadPoolExecutor(_THREADS) as pool:
        return [saved for saved in pool.map(one, images, _names(images, out)) if saved]


def save(result: Result, out: Path, name: str) -> tuple[Path, Path]:
    """Write a result and its sidecar to a directory, and return their paths, e.g. ``a.jpg.png`` and ``a.jpg.png.json``.

    Args:
        result: the result.
        out: the directory.
        name: file name of the image.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / (name + Path(result.sidecar["result"]["key"]).suffix)
    sidecar_path = Path(sidecar_key(str(path)))
    path.write_bytes(result.data)
    sidecar_path.write_text(json.dumps(result.sidecar, indent=2) + "\n")
    return path, sidecar_path


def _names(images: Sequence[ImageFile], out: Path) -> list[str]:
    """Return unique names of the images. No result that is named after them overwrites an input."""
    taken = {image.path.stem for image in images if image.path.resolve().parent == out.resolve()}
    names = []
    for image in images:
        original = Path(image.name)
        name, number = original.name, 2
        while name in taken:
            name, number = f"{original.stem}-{number}{original.suffix}", number + 1
        taken.add(name)
        names.append(name)
    return names
