"""Process many images in parallel. The failure of one does not stop the others."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from client.history import StageEvent
from client.jobs import JobClient, Result
from client.outputs import Destination, ImageFile, SavedResult
from core.errors import BackgroundRemoverError

_THREADS: Final = 8


@dataclass(frozen=True)
class Outcome:
    """How the processing of an image ended: with a result or an error.

    Attributes:
        label: name for messages.
        input: path of the image as it was given; ``-`` is standard input.
        seconds: time from the upload to the file.
        execution: name of the execution; None if none was started.
        saved: the result; None if the image failed.
        error: why the image failed; None if it has a result.
    """

    label: str
    input: str
    seconds: float
    execution: str | None
    saved: SavedResult | None = None
    error: Exception | None = None


class ProgressListener(Protocol):
    """Receives progress events, from several threads."""

    def stage(self, label: str, event: StageEvent) -> None:
        """Handle a stage event of an image."""

    def ended(self, outcome: Outcome) -> None:
        """Handle the result or the failure of an image."""


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
    return _wait(jobs, execution_arn, image.label, listener, timeout_s)


def process_all(
    jobs: JobClient,
    images: Sequence[ImageFile],
    options: Mapping[str, Any],
    destination: Destination,
    listener: ProgressListener,
    timeout_s: float,
) -> list[Outcome]:
    """Process images in parallel, and write each result and its sidecar as soon as it is available.

    Args:
        jobs: client of the stack.
        images: images to process.
        options: options for all images.
        destination: where the results are written.
        listener: receives the stage events and outcomes.
        timeout_s: time limit of each execution, seconds.
    """

    def one(image: ImageFile, name: str) -> Outcome:
        started_at = time.monotonic()
        execution_arn: str | None = None
        saved: SavedResult | None = None
        failure: Exception | None = None
        try:
            execution_arn = jobs.execution_of(jobs.upload(image.name, image.read(), options))
            saved = destination.save(_wait(jobs, execution_arn, image.label, listener, timeout_s), name)
        except (BackgroundRemoverError, BotoCoreError, ClientError, OSError) as error:
            failure = error
        execution = execution_arn and execution_arn.rpartition(":")[2]
        seconds = time.monotonic() - started_at
        outcome = Outcome(image.label, str(image.path), seconds, execution, saved, failure)
        listener.ended(outcome)
        return outcome

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(one, images, destination.names(images)))


def _wait(jobs: JobClient, execution_arn: str, label: str, listener: ProgressListener, timeout_s: float) -> Result:
    """Report the stages of an execution until it ends, and return its result."""
    for event in jobs.follow(execution_arn, timeout_s=timeout_s):
        listener.stage(label, event)
    return jobs.result(execution_arn)
