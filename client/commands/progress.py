"""Progress and results of images on the console."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import typer
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
from rich.table import Column
from rich.text import Text

from client.batch import Outcome
from client.commands.console import ERR, ERRORS, OUT, error_text, print_warning
from client.errors import UsageError
from client.history import StageEvent
from functions.contracts.result import reasons_text

_MAX_OPENED: Final = 5


class PlainProgress:
    """Passes each outcome on; prints one line per stage if it is verbose.

    Args:
        report: receives the outcomes.
        verbose: print the stages.
        console: where they are printed.
    """

    def __init__(self, report: Callable[[Outcome], None], *, verbose: bool, console: Console = ERR) -> None:
        self._report, self._verbose, self._console = report, verbose, console

    def stage(self, label: str, event: StageEvent) -> None:
        """Print the end or retry of a stage."""
        if self._verbose and event.kind != "started":
            self._console.print(Text.assemble((f"{label}  ", "dim"), stage_text(event)))

    def ended(self, outcome: Outcome) -> None:
        """Report the result or the error of an image."""
        self._report(outcome)


class LiveProgress(PlainProgress):
    """Also shows one live line per image in progress."""

    def __init__(self, progress: Progress, report: Callable[[Outcome], None], *, verbose: bool) -> None:
        super().__init__(report, verbose=verbose, console=progress.console)
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def stage(self, label: str, event: StageEvent) -> None:
        """Show the current stage of an image."""
        if label not in self._tasks:
            self._tasks[label] = self._progress.add_task(label, total=None, stage="")
        retry = "  retrying" if event.kind == "retried" else ""
        self._progress.update(self._tasks[label], stage=event.stage + retry)
        super().stage(label, event)

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


def check_verbosity(*, verbose: bool, quiet: bool) -> None:
    """Check that --verbose and --quiet are not both set."""
    if verbose and quiet:
        raise UsageError("--quiet contradicts --verbose", field="--quiet", value=None, remedy="Use one of them.")


def progress(
    *, verbose: bool = False, quiet: bool = False, as_json: bool = False
) -> tuple[AbstractContextManager[object], PlainProgress]:
    """Return a context manager and a listener that print each image as soon as it ends.

    A terminal also shows the images in progress.

    Args:
        verbose: print all stages, too.
        quiet: print only errors.
        as_json: print the images as JSON Lines on standard output.
    """
    report = print_json if as_json else print_failure if quiet else partial(print_outcome, verbose=verbose)
    if quiet or not ERR.is_terminal or (as_json and OUT.is_terminal):
        return nullcontext(), PlainProgress(report, verbose=verbose)
    columns = (
        SpinnerColumn(),
        TextColumn(
            "{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", max_width=40)
        ),
        TextColumn("{task.fields[stage]}", markup=False, table_column=Column(no_wrap=True)),
        TimeElapsedColumn(),
    )
    # Rich would redirect standard output to the console of the live display: standard error.
    live = Progress(*columns, console=ERR, transient=True, redirect_stdout=False)
    return live, LiveProgress(live, report, verbose=verbose)


def print_outcome(outcome: Outcome, *, verbose: bool) -> None:
    """Print the result of an image with its warnings, or its error."""
    saved = outcome.saved
    if saved is None:
        ERR.print(_failure_text(outcome))
        return
    facts = ", ".join([*result_summary(saved.sidecar, verbose=verbose), f"{outcome.seconds:.1f} s"])
    text = Text.assemble(("done    ", "green"), f"{outcome.label} -> {saved.path}  ", (facts, "dim"))
    if outcome.comparison:
        text.append(f"\n        before and after: {outcome.comparison}")
    for warning in result_warnings(saved.sidecar):
        text.append_text(Text.assemble(("\n        warning: ", "yellow"), warning))
    ERR.print(text)


def print_failure(outcome: Outcome) -> None:
    """Print the error of an image if it failed."""
    if outcome.saved is None:
        ERRORS.print(_failure_text(outcome))


def print_json(outcome: Outcome) -> None:
    """Print an image as one line of JSON on standard output."""
    OUT.print(json.dumps(outcome.to_json(), ensure_ascii=False))


def print_summary(outcomes: Sequence[Outcome], seconds: float) -> None:
    """Print how many of several images have a result, should be reviewed, and failed."""
    saved = [outcome.saved for outcome in outcomes if outcome.saved]
    review = sum(bool(one.sidecar["quality"]["review"]) for one in saved)
    if len(outcomes) > 1:
        ERR.print(
            f"{len(saved)} done, {review} to review, {len(outcomes) - len(saved)} failed, {seconds:.0f} s",
            style="bold",
        )


def conclude(outcomes: Sequence[Outcome], seconds: float, *, open_: bool) -> None:
    """Print the summary, open the comparisons or else the results if ``open_``, and exit with 1 if an image failed."""
    print_summary(outcomes, seconds)
    if open_:
        open_files([outcome.comparison or outcome.saved.path for outcome in outcomes if outcome.saved])
    if any(outcome.error for outcome in outcomes):
        raise typer.Exit(1)


def open_files(paths: Sequence[Path]) -> None:
    """Open files in the viewer of the system; warn if there is none, or if there are too many files."""
    for path in paths[:_MAX_OPENED]:
        if typer.launch(str(path.absolute())) != 0:
            print_warning(f"No image viewer was found. Open {path} yourself.")
            return
    if len(paths) > _MAX_OPENED:
        print_warning(f"Opened the first {_MAX_OPENED} of {len(paths)} results.")


def _failure_text(outcome: Outcome) -> Text:
    return Text.assemble(("failed  ", "red"), f"{outcome.label}  {error_text(outcome.error or RuntimeError())}")


def stage_text(event: StageEvent) -> Text:
    """Return the end or retry of a stage as one line."""
    style = {"started": "", "finished": "", "retried": "yellow", "failed": "red"}[event.kind]
    detail = f"  {event.detail}" if event.detail else ""
    return Text(f"{event.stage:<18} {event.kind:<8} {event.seconds:7.2f} s{detail}", style=style)


def result_summary(sidecar: Mapping[str, Any], *, verbose: bool) -> list[str]:
    """Return size and quality of a result as short texts; if ``verbose``, format and model, too."""
    image, model, quality = sidecar["image"], sidecar["model"], sidecar["quality"]
    size, score = f"{image['width']} x {image['height']}", f"quality {quality['score']:.2f}"
    summary = [size, score]
    if verbose:
        kilobytes = f"{image['bytes'] / 1000:.0f} kB"
        summary = [f"{image['format']} {size}", kilobytes, f"{model['name']} on {model['host']}", score]
        if second := sidecar.get("escalation"):
            kept = "kept" if second["kept"] == "second" else "not kept"
            summary.append(f"second attempt on {second['model']} {kept}")
    return [*summary, "from the cache"] if sidecar["cache"]["hit"] else summary


def result_warnings(sidecar: Mapping[str, Any]) -> list[str]:
    """Return the warnings of a result, starting with a request for manual review if there is one."""
    quality = sidecar["quality"]
    reasons = reasons_text(quality["reasons"])
    review = [f"manual review recommended{f': {reasons}' if reasons else ''}"] if quality["review"] else []
    return [*review, *sidecar["warnings"]]
