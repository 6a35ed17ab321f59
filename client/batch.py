"""Process many images in parallel. The failure of one does not stop the others."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Final, Protocol

from client.errors import ExecutionRunningError, JobFailedError, sdk_errors
from client.history import ExecutionSummary, StageEvent
from client.jobs import JobClient, Result
from client.outputs import Destination, ImageFile, SavedResult, labels, printable, write
from core.errors import BackgroundRemoverError

_THREADS: Final = 8


@dataclass
class Outcome:
    """How the processing of an image ended: with a result or an error.

    Attributes:
        label: name for messages.
        input: path of the image as it was given, ``-`` for standard input; or the key of the upload.
        execution: name of the execution; None if none was started.
        seconds: time from the upload to the file.
        saved: the result; None if the image failed.
        error: why the image failed; None if it has a result.
        comparison: side-by-side comparison of image and result; None if none was requested.
    """

    label: str
    input: str
    execution: str | None = None
    seconds: float = 0.0
    saved: SavedResult | None = None
    error: Exception | None = None
    comparison: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as ``--json`` prints it; docs/reference/result.md describes the fields."""
        sidecar = self.saved.sidecar if self.saved else None
        return {
            "input": self.input,
            "status": "done" if self.saved else "failed",
            "result": str(self.saved.path) if self.saved else None,
            "sidecar": str(self.saved.sidecar_path) if self.saved else None,
            "comparison": str(self.comparison) if self.comparison else None,
            "seconds": round(self.seconds, 3),
            "execution": self.execution,
            "cached": sidecar["cache"]["hit"] if sidecar else None,
            "quality": sidecar["quality"]["score"] if sidecar else None,
            "review": sidecar["quality"]["review"] if sidecar else None,
            "reasons": sidecar["quality"]["reasons"] if sidecar else [],
            "warnings": sidecar["warnings"] if sidecar else [],
            "error": _facts(self.error) if self.error else None,
        }


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
    *,
    compare: bool = False,
) -> list[Outcome]:
    """Process images in parallel, and write each result and its sidecar as soon as it is available.

    Args:
        jobs: client of the stack.
        images: images to process.
        options: options for all images.
        destination: where the results are written.
        listener: receives the stage events and outcomes.
        timeout_s: time limit of each execution, seconds.
        compare: also write a side-by-side comparison of each image and its result.
    """
    comparing = Lock()  # a comparison needs several times the memory of its image

    def one(image: ImageFile, name: str) -> Outcome:
        outcome = Outcome(image.label, printable(str(image.path)))
        with _recorded(outcome, listener):
            data = image.read()
            execution_arn = jobs.execution_of(jobs.upload(image.name, data, options))
            outcome.execution = execution_arn.rpartition(":")[2]
            result = _wait(jobs, execution_arn, image.label, listener, timeout_s)
            outcome.saved = destination.save(result, name)
            if compare:
                with comparing:
                    outcome.comparison = _compare(data, result, outcome.saved)
        return outcome

    names = destination.names([image.label for image in images], [image.path for image in images])
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(one, images, names))


def fetch_all(
    jobs: JobClient,
    executions: Sequence[ExecutionSummary],
    destination: Destination,
    listener: ProgressListener,
    *,
    wait_s: float | None = None,
) -> list[Outcome]:
    """Fetch the results of executions, and write each result and its sidecar as soon as it is available.

    Args:
        jobs: client of the stack.
        executions: the executions, however they were started.
        destination: where the results are written.
        listener: receives the stage events of running executions, and the outcomes.
        wait_s: time limit for each running execution, seconds; None to report it as an error.
    """

    def one(execution: ExecutionSummary, label: str, name: str) -> Outcome:
        outcome = Outcome(label, execution.source_key or "", execution=execution.name)
        with _recorded(outcome, listener):
            if execution.status != "RUNNING":
                result = jobs.result(execution.arn)
            elif wait_s is not None:
                result = _wait(jobs, execution.arn, label, listener, wait_s)
            else:
                raise ExecutionRunningError(
                    "The execution is still running",
                    field="EXECUTION",
                    value=execution.name,
                    remedy="Wait for it with --wait.",
                )
            outcome.saved = destination.save(result, name)
        return outcome

    shown = labels([Path(execution.source_key or execution.name) for execution in executions])
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(one, executions, shown, destination.names(shown)))


@contextmanager
def _recorded(outcome: Outcome, listener: ProgressListener) -> Iterator[None]:
    """Record the duration and the expected errors of the block, and report the outcome."""
    started_at = time.monotonic()
    try:
        yield
    except (BackgroundRemoverError, *sdk_errors(), OSError) as error:
        outcome.error = error
    outcome.seconds = time.monotonic() - started_at
    listener.ended(outcome)


def _compare(data: bytes, result: Result, saved: SavedResult) -> Path:
    """Write the side-by-side comparison of an image and its result, and return its path."""
    from client.compare import before_and_after  # numpy and Pillow

    write({saved.comparison_path: before_and_after(data, result.data)})
    return saved.comparison_path


def _facts(error: Exception) -> dict[str, Any]:
    """Return stage, error, message, field, value and remedy of an error; what it does not have is null."""
    if isinstance(error, JobFailedError):
        report = asdict(error.report)
        del report["key"]
        return report | {"stage": error.report.stage or None}
    facts = {"stage": None, "error": type(error).__name__, "message": str(error)}
    facts |= {"field": None, "value": None, "remedy": None}
    if isinstance(error, BackgroundRemoverError):
        return facts | error.facts()
    if isinstance(error, OSError) and error.filename is not None:
        return facts | {"message": error.strerror, "value": printable(str(error.filename))}
    return facts


def _wait(jobs: JobClient, execution_arn: str, label: str, listener: ProgressListener, timeout_s: float) -> Result:
    """Report the stages of an execution until it ends, and return its result."""
    for event in jobs.follow(execution_arn, timeout_s=timeout_s):
        listener.stage(label, event)
    return jobs.result(execution_arn)
