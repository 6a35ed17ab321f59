"""Progress and results of images on the console."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from client.batch import Outcome
from client.commands.console import error_text
from client.history import StageEvent


class PlainProgress:
    """Prints one line per stage and one per image."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def stage(self, name: str, event: StageEvent) -> None:
        """Print the end or retry of a stage."""
        if event.kind != "started":
            self._console.print(Text.assemble((f"{name}  ", "dim"), _stage_text(event)))

    def ended(self, outcome: Outcome) -> None:
        """Print the result of an image with its warnings, or its error."""
        self._console.print(_outcome_text(outcome))


class LiveProgress(PlainProgress):
    """Shows one live line per image in progress."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(progress.console)
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def stage(self, name: str, event: StageEvent) -> None:
        """Show the current stage of an image; print retries and failures."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=None, stage="")
        self._progress.update(self._tasks[name], stage=event.stage)
        if event.kind in ("retried", "failed"):
            super().stage(name, event)

    def ended(self, outcome: Outcome) -> None:
        """Replace the live line of an image by its result or its error."""
        self._remove(outcome.label)
        super().ended(outcome)

    def _remove(self, name: str) -> None:
        if name in self._tasks:
            self._progress.remove_task(self._tasks.pop(name))


class TransferProgress:
    """Shows one bar per transfer on a terminal, and prints one line per finished transfer."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        if self._progress.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._progress.console.is_terminal:
            self._progress.stop()

    def moved(self, name: str, count_bytes: int, of_bytes: int) -> None:
        """Update the bar of a file. What is there at first counts for neither the rate nor the time left."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, completed=count_bytes)
        self._progress.update(self._tasks[name], completed=count_bytes, total=of_bytes)

    def done(self, name: str, result: str) -> None:
        """Print the place of a file."""
        self._end(name, Text.assemble(("done    ", "green"), f"{name}  {result}"))

    def failed(self, name: str, error: Exception) -> None:
        """Print the error of a transfer."""
        self._end(name, Text.assemble(("failed  ", "red"), f"{name}  {error_text(error)}"))

    def _end(self, name: str, line: Text) -> None:
        if name in self._tasks:
            self._progress.remove_task(self._tasks.pop(name))
        self._progress.console.print(line)


class DownloadProgress(TransferProgress):
    """Also prints a line when the download of a model's weights begins, because it can be skipped."""

    def moved(self, name: str, count_bytes: int, of_bytes: int) -> None:
        """Update the bar of a file."""
        if name not in self._tasks:
            self._progress.console.print(f"Downloading {name}, {of_bytes / 1e6:.0f} MB. Press Ctrl-C to skip it.")
        super().moved(name, count_bytes, of_bytes)


def progress(console: Console) -> tuple[AbstractContextManager[object], PlainProgress]:
    """Return a context manager and a listener that show progress: live on a terminal, else one line per event."""
    if not console.is_terminal:
        return nullcontext(), PlainProgress(console)
    columns = SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.fields[stage]}"), TimeElapsedColumn()
    live = Progress(*columns, console=console, transient=True)
    return live, LiveProgress(live)


def _outcome_text(outcome: Outcome) -> Text:
    if outcome.error or not outcome.saved:
        return Text.assemble(("failed  ", "red"), f"{outcome.label}  {error_text(outcome.error or RuntimeError())}")
    saved = outcome.saved
    summary = ", ".join(result_summary(saved.sidecar))
    text = Text.assemble(
        ("done    ", "green"), f"{outcome.label} -> {saved.path}  ", (f"{summary}, {outcome.seconds:.1f} s", "dim")
    )
    for warning in result_warnings(saved.sidecar):
        text.append_text(Text.assemble(("\n        warning  ", "yellow"), warning))
    return text


def _stage_text(event: StageEvent) -> Text:
    style = {"finished": "", "retried": "yellow", "failed": "red"}[event.kind]
    detail = f"  {event.detail}" if event.detail else ""
    return Text(f"{event.stage:<18} {event.kind:<8} {event.seconds:7.2f} s{detail}", style=style)


def result_summary(sidecar: Mapping[str, Any]) -> list[str]:
    """Return format, size, model and quality of a result, as short texts."""
    image, model, quality = sidecar["image"], sidecar["model"], sidecar["quality"]
    summary = [
        f"{image['format']} {image['width']} x {image['height']}",
        f"{image['bytes'] / 1000:.0f} kB",
        f"{model['name']} on {model['host']}",
        f"quality {quality['score']:.2f}",
    ]
    if second := sidecar.get("escalation"):
        summary.append(f"second attempt on {second['model']} {'kept' if second['kept'] == 'second' else 'not kept'}")
    return [*summary, "from the cache"] if sidecar["cache"]["hit"] else summary


def result_warnings(sidecar: Mapping[str, Any]) -> list[str]:
    """Return the warnings of a result, starting with a request for manual review if there is one."""
    review = ["manual review recommended"] if sidecar["quality"]["review"] else []
    return [*review, *sidecar["warnings"]]
