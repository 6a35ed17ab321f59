"""Many pictures at a time through one stack, each delivered or its failure told; none stops the others."""

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
from client.jobs import Jobs, Result
from core.errors import BackgroundRemoverError

_AT_ONCE: Final = 8

STDIN: Final = Path("-")


@dataclass(frozen=True)
class Picture:
    """A file to process, or standard input."""

    path: Path

    @property
    def name(self) -> str:
        """What it is called on screen and in S3."""
        return "stdin" if self.path == STDIN else self.path.name

    def read(self) -> bytes:
        """Return the file's bytes."""
        return sys.stdin.buffer.read() if self.path == STDIN else self.path.read_bytes()


@dataclass(frozen=True)
class Delivery:
    """A picture's result as it lies on disk: ``path``, and the sidecar beside it. ``seconds`` is what it took."""

    path: Path
    sidecar: Mapping[str, Any]
    seconds: float


class Screen(Protocol):
    """Who is told how it goes; called from several threads."""

    def stage(self, name: str, event: StageEvent) -> None:
        """Tell that something happened to a picture's stage."""

    def delivered(self, name: str, delivery: Delivery) -> None:
        """Tell that a picture's result is there."""

    def failed(self, name: str, error: Exception) -> None:
        """Tell that a picture has no result."""


def process(jobs: Jobs, picture: Picture, options: Mapping[str, Any], screen: Screen, timeout_s: float) -> Result:
    """Take one picture through the pipeline and return its result.

    Args:
        jobs: of the stack.
        picture: what to process.
        options: those that are not to have their defaults.
        screen: is told of the stages.
        timeout_s: from the start of the execution.

    Raises:
        BackgroundRemoverError: it has no result.
        OSError: the file cannot be read.
    """
    execution_arn = jobs.execution_of(jobs.upload(picture.name, picture.read(), options))
    for event in jobs.follow(execution_arn, timeout_s=timeout_s):
        screen.stage(picture.name, event)
    return jobs.result(execution_arn)


def process_all(
    jobs: Jobs,
    pictures: Sequence[Picture],
    options: Mapping[str, Any],
    out: Path,
    screen: Screen,
    timeout_s: float,
) -> list[Delivery]:
    """Process pictures, several at a time, and write each result and its sidecar as soon as it is there.

    Args:
        jobs: of the stack.
        pictures: what to process.
        options: for all of them.
        out: directory of the results.
        screen: is told of every delivery and every failure.
        timeout_s: for each one.

    Returns:
        What was delivered.
    """
    stems = _stems(pictures, out)

    def one(picture: Picture, stem: str) -> Delivery | None:
        started = time.monotonic()
        try:
            result = process(jobs, picture, options, screen, timeout_s)
            path = write(result, out, stem)
        except (BackgroundRemoverError, BotoCoreError, ClientError, OSError) as error:
            screen.failed(picture.name, error)
            return None
        delivery = Delivery(path, result.sidecar, time.monotonic() - started)
        screen.delivered(picture.name, delivery)
        return delivery

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return [delivery for delivery in pool.map(one, pictures, stems) if delivery]


def write(result: Result, out: Path, stem: str) -> Path:
    """Write a result and its sidecar into ``out``, and return the result's path."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / (stem + Path(result.sidecar["result"]["key"]).suffix)
    path.write_bytes(result.data)
    path.with_suffix(".json").write_text(json.dumps(result.sidecar, indent=2) + "\n")
    return path


def _stems(pictures: Sequence[Picture], out: Path) -> list[str]:
    """Name the results after their pictures: no two alike, and none that would overwrite a picture."""
    taken = {picture.path.stem for picture in pictures if picture.path.resolve().parent == out.resolve()}
    stems = []
    for picture in pictures:
        first = stem = Path(picture.name).stem
        number = 2
        while stem in taken:
            stem, number = f"{first}-{number}", number + 1
        taken.add(stem)
        stems.append(stem)
    return stems
