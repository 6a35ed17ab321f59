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
        path: file of the result; the sidecar has the same name with the extension ``.json``.
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

    def one(image: ImageFile, stem: str) -> SavedResult | None:
        started = time.monotonic()
        try:
            result = process(jobs, image, options, listener, timeout_s)
            path = save(result, out, stem)
        except (BackgroundRemoverError, BotoCoreError, ClientError, OSError) as error:
            listener.failed(image.name, error)
            return None
        saved = SavedResult(path, result.sidecar, time.monotonic() - started)
        listener.saved(image.name, saved)
        return saved

    with ThreadPoolExecutor(_THREADS) as pool:
        return [saved for saved in pool.map(one, images, _result_stems(images, out)) if saved]


def save(result: Result, out: Path, stem: str) -> Path:
    """Write a result and its sidecar to the directory ``out``, and return the path of the result."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / (stem + Path(result.sidecar["result"]["key"]).suffix)
    path.write_bytes(result.data)
    path.with_suffix(".json").write_text(json.dumps(result.sidecar, indent=2) + "\n")
    return path


def _result_stems(images: Sequence[ImageFile], out: Path) -> list[str]:
    """Return unique file name stems for the results, none of which overwrites an input."""
    taken = {image.path.stem for image in images if image.path.resolve().parent == out.resolve()}
    stems = []
    for image in images:
        first = stem = Path(image.name).stem
        number = 2
        while stem in taken:
            stem, number = f"{first}-{number}", number + 1
        taken.add(stem)
        stems.append(stem)
    return stems
