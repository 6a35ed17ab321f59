"""What people see: progress while pictures are processed, tables of executions, and one line per error."""

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
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
    TransferSpeedColumn,
)
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from client.batch import Delivery
from client.dead_letters import Letter
from client.errors import FailureReport, JobFailedError
from client.history import Execution, StageEvent
from client.keys import Entry as KeyEntry
from client.keys import Issued
from client.models import Entry
from client.redrive import Recovery
from core.errors import BackgroundRemoverError
from core.segmentation.registry import CLASSICAL
from functions.contracts.history import Row

_NO_TERMINAL_COLUMNS = 200
_STATUS_STYLE = {"SUCCEEDED": "green", "FAILED": "red", "TIMED_OUT": "red", "ABORTED": "yellow"}
_HOW_STYLE = {"redriven": "green", "new": "green", "skipped": "dim", "refused": "red"}
_KEY_STYLE = {"active": "green", "expired": "dim", "revoked": "dim"}
_FATE_STYLE = {"replayed": "green", "deleted": "green", "refused": "red", "left": "yellow"}


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints text as it is; where it is no terminal, tables have room."""
    made = Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)
    if not made.is_terminal:
        made.width = _NO_TERMINAL_COLUMNS
    return made


class Lines:
    """Progress as lines of text: one for each stage that ended, one for each picture."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def stage(self, name: str, event: StageEvent) -> None:
        """Print how a stage ended."""
        if event.kind != "started":
            self._console.print(Text.assemble((f"{name}  ", "dim"), _stage_text(event)))

    def delivered(self, name: str, delivery: Delivery) -> None:
        """Print where a result is, what it is, and what was said of it."""
        facts = ", ".join(facts_of(delivery.sidecar))
        self._console.print(
            Text.assemble(
                ("done    ", "green"), f"{name} -> {delivery.path}  ", (f"{facts}, {delivery.seconds:.1f} s", "dim")
            )
        )
        for warning in warnings_of(delivery.sidecar):
            self._console.print(Text.assemble(("        warning  ", "yellow"), warning))

    def failed(self, name: str, error: Exception) -> None:
        """Print why there is no result, and what to do."""
        self._console.print(Text.assemble(("failed  ", "red"), f"{name}  {error_text(error)}"))


class Live(Lines):
    """Progress as one moving line for each picture in work."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(progress.console)
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def stage(self, name: str, event: StageEvent) -> None:
        """Show the stage that a picture is in; print what went wrong."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=None, stage="")
        self._progress.update(self._tasks[name], stage=event.stage)
        if event.kind in ("retried", "failed"):
            super().stage(name, event)

    def delivered(self, name: str, delivery: Delivery) -> None:
        """Replace a picture's moving line."""
        self._remove(name)
        super().delivered(name, delivery)

    def failed(self, name: str, error: Exception) -> None:
        """Replace a picture's moving line."""
        self._remove(name)
        super().failed(name, error)

    def _remove(self, name: str) -> None:
        if name in self._tasks:
            self._progress.remove_task(self._tasks.pop(name))


def progress(console: Console) -> tuple[AbstractContextManager[object], Lines]:
    """Return what shows progress on a console, and the context it does so in: moving on a terminal, else lines."""
    if not console.is_terminal:
        return nullcontext(), Lines(console)
    columns = SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.fields[stage]}"), TimeElapsedColumn()
    moving = Progress(*columns, console=console, transient=True)
    return moving, Live(moving)


class Transfers:
    """Files on their way: a bar for each on a terminal, and a line for each one that is through."""

    def __init__(self, console: Console) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
        self._progress = Progress(*columns, console=console, transient=True)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        """Begin to show."""
        if self._progress.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Take the bars away."""
        if self._progress.console.is_terminal:
            self._progress.stop()

    def moved(self, name: str, count_bytes: int, of_bytes: int) -> None:
        """Move a file's bar."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name)
        self._progress.update(self._tasks[name], completed=count_bytes, total=of_bytes)

    def done(self, name: str, what: str) -> None:
        """Print where a file is."""
        self._end(name, Text.assemble(("done    ", "green"), f"{name}  {what}"))

    def failed(self, name: str, error: Exception) -> None:
        """Print why it is not there, and what to do."""
        self._end(name, Text.assemble(("failed  ", "red"), f"{name}  {error_text(error)}"))

    def _end(self, name: str, line: Text) -> None:
        if name in self._tasks:
            self._progress.remove_task(self._tasks.pop(name))
        self._progress.console.print(line)


def _stage_text(event: StageEvent) -> Text:
    style = {"finished": "", "retried": "yellow", "failed": "red"}[event.kind]
    detail = f"  {event.detail}" if event.detail else ""
    return Text(f"{event.stage:<18} {event.kind:<8} {event.seconds:7.2f} s{detail}", style=style)


def facts_of(sidecar: Mapping[str, Any]) -> list[str]:
    """Return what matters most of a result, in a few words each."""
    image, model, quality = sidecar["image"], sidecar["model"], sidecar["quality"]
    facts = [
        f"{image['format']} {image['width']} x {image['height']}",
        f"{image['bytes'] / 1000:.0f} kB",
        f"{model['name']} on {model['host']}",
        f"quality {quality['score']:.2f}",
    ]
    if second := sidecar.get("escalation"):
        facts.append(f"second attempt on {second['model']} {'kept' if second['kept'] == 'second' else 'not kept'}")
    return [*facts, "from the cache"] if sidecar["cache"]["hit"] else facts


def warnings_of(sidecar: Mapping[str, Any]) -> list[str]:
    """Return all that the pipeline said of a result, a person's look at it first where it asks for that."""
    asked = ["a person should look at this one before it is used"] if sidecar["quality"]["review"] else []
    return [*asked, *sidecar["warnings"]]


def error_text(error: Exception) -> str:
    """Return an error as a line: where it happened, what, which input, and what to do."""
    if isinstance(error, JobFailedError):
        stage = f"{error.report.stage}: " if error.report.stage else ""
        return f"{stage}{_sentence(error.report)}"
    if isinstance(error, BackgroundRemoverError):
        return _sentence(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    return str(error)


def _sentence(error: BackgroundRemoverError | FailureReport) -> str:
    at_fault = f" ({error.field}: {error.value})" if error.field and error.value is not None else ""
    return f"{error.message}{at_fault}. {error.remedy}"


def executions_table(executions: Sequence[Execution]) -> Table:
    """Lay out executions, one a line."""
    table = Table(box=None, pad_edge=False)
    table.add_column("execution", no_wrap=True)
    table.add_column("status")
    table.add_column("picture", overflow="fold")
    table.add_column("started", no_wrap=True)
    table.add_column("seconds", justify="right")
    table.add_column("cache")
    for execution in executions:
        table.add_row(
            execution.name,
            Text(f"{execution.status} {execution.error or ''}".rstrip(), style=_STATUS_STYLE.get(execution.status, "")),
            Text(execution.source_key or "-"),
            f"{execution.started_at.astimezone():%Y-%m-%d %H:%M:%S}",
            "-" if execution.seconds is None else f"{execution.seconds:.2f}",
            {None: "-", True: "hit", False: "miss"}[execution.cache_hit],
        )
    return table


def events_table(rows: Sequence[Row]) -> Table:
    """Lay out a history, one event a line."""
    table = Table(box=None, pad_edge=False)
    table.add_column("id", justify="right")
    table.add_column("+ms", justify="right")
    table.add_column("event", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("detail", overflow="fold")
    for row in rows:
        style = "red" if row.type.endswith(("Failed", "TimedOut", "Aborted")) else ""
        table.add_row(str(row.id), str(row.ms), row.type, row.state, Text(row.detail), style=style)
    return table


def print_data(console: Console, rows: Sequence[Row]) -> None:
    """Print what went into states and came out of them, as JSON."""
    for row in rows:
        if row.data is not None:
            console.print(f"\n{row.id} {row.type} {row.state}", style="bold")
            text = json.dumps(row.data, indent=2, ensure_ascii=False)
            console.print(Syntax(text, "json", background_color="default", word_wrap=True), soft_wrap=False)


def recoveries_table(recoveries: Sequence[Recovery], *, followed: bool) -> Table:
    """Lay out failed executions and how they are brought back, one a line; ``followed`` with how that ended."""
    table = Table(box=None, pad_edge=False)
    for name in ("execution", "picture", "failed with", "brought back", "because"):
        table.add_column(name, overflow="fold")
    if followed:
        table.add_column("ended", overflow="fold")
    for recovery in recoveries:
        as_what = f"as {_name(recovery.runs_as)}" if recovery.how == "new" and recovery.runs_as else recovery.how
        cells = [
            Text(_name(recovery.arn)),
            Text(recovery.key or "-"),
            Text(recovery.error),
            Text(as_what, style=_HOW_STYLE[recovery.how]),
            Text(recovery.because),
        ]
        if followed:
            ended = f"{recovery.status or '-'} {recovery.failed_again or ''}".rstrip()
            cells.append(Text(ended, style=_STATUS_STYLE.get(recovery.status or "", "")))
        table.add_row(*cells)
    return table


def letters_table(letters: Sequence[Letter]) -> Table:
    """Lay out messages of dead-letter queues, one a line."""
    table = Table(box=None, pad_edge=False)
    table.add_column("queue", no_wrap=True)
    table.add_column("picture", overflow="fold")
    table.add_column("why it is there", overflow="fold")
    table.add_column("message")
    table.add_column("because", overflow="fold")
    for letter in letters:
        fate = Text(letter.fate, style=_FATE_STYLE.get(letter.fate, ""))
        table.add_row(letter.queue, Text(letter.key or letter.message_id), Text(letter.why), fate, Text(letter.because))
    return table


def keys_table(entries: Sequence[KeyEntry]) -> Table:
    """Lay out API keys, one a line."""
    table = Table(box=None, pad_edge=False)
    table.add_column("id", no_wrap=True)
    table.add_column("name", overflow="fold")
    table.add_column("status")
    table.add_column("scopes")
    table.add_column("a minute", justify="right")
    table.add_column("this month", justify="right")
    for name in ("created", "rotated", "expires"):
        table.add_column(name, no_wrap=True)
    for entry in entries:
        table.add_row(
            entry.record.key_id,
            Text(entry.record.name),
            Text(entry.status, style=_KEY_STYLE[entry.status]),
            ", ".join(sorted(entry.record.scopes)),
            f"{entry.rate_per_minute:,}",
            f"{entry.used:,} of {entry.monthly_quota:,}",
            _day(entry.record.created_at),
            _day(entry.rotated_at),
            _day(entry.record.expires_at),
        )
    return table


def about_key(issued: Issued) -> list[str]:
    """Return what is to be known of a key that was made or rotated, beside its text."""
    entry, others = issued.entry, issued.entry.record.hashes[1:]
    end = entry.record.expires_at
    lines = [
        f"Key {entry.record.key_id}, {entry.record.name}: {', '.join(sorted(entry.record.scopes))}; "
        f"{entry.rate_per_minute:,} requests a minute, {entry.monthly_quota:,} pictures a month; "
        f"{f'until {_moment(end)}' if end else 'no end'}.",
        "It is shown this once, the stack keeps only a hash: put it where secrets are kept. Send it as X-API-Key.",
        f"Its webhooks are signed with what pbr keys webhook-secret {entry.record.key_id} shows.",
    ]
    ends = [secret.expires_at for secret in others if secret.expires_at]
    return [*lines, f"What opened it before does so until {_moment(max(ends))}."] if ends else lines


def _day(moment: datetime | None) -> str:
    return f"{moment.astimezone():%Y-%m-%d}" if moment else "-"


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"


def _name(execution_arn: str) -> str:
    return execution_arn.rpartition(":")[2]


def models_table(entries: Sequence[Entry]) -> Table:
    """Lay out models, one a line."""
    table = Table(box=None, pad_edge=False)
    table.add_column("model", no_wrap=True)
    table.add_column("input", justify="right", no_wrap=True)
    table.add_column("MB", justify="right")
    table.add_column("memory", justify="right", no_wrap=True)
    table.add_column("suits", no_wrap=True)
    table.add_column("commercial use")
    table.add_column("licence", overflow="fold")
    table.add_column("weights", overflow="fold")
    for entry in entries:
        model = entry.model
        table.add_row(
            Text(f"{model.name}{' *' if entry.default else ''}", style="bold" if entry.default else ""),
            f"{model.input_px} px",
            f"{model.bytes / 1e6:,.1f}",
            f"{model.memory_bytes / 1e9:g} GB" if model.memory_bytes else "-",
            entry.suits,
            Text("yes", style="green") if model.commercial_use else Text("no", style="red"),
            Text(model.licence),
            _weights_text(entry),
        )
    return table


def _weights_text(entry: Entry) -> Text:
    if entry.path is None:
        return Text(entry.model.uri or entry.model.file, style="dim")
    what, style = {
        None: ("not checked", ""),
        True: ("verified", "green"),
        False: ("not the pinned file", "red"),
    }[entry.verified]
    return Text(f"{entry.path} ({what})", style=style)


def about_models(entries: Sequence[Entry], mirror: str) -> list[str]:
    """Return what a table of models does not say by itself; what is not here comes from ``mirror``."""
    default = next((entry for entry in entries if entry.default), None)
    if default is None:
        chosen = f"Default here: {CLASSICAL}"
    elif default.path:
        chosen = "* default here: of the free ones whose weights are here, the best that this machine's memory carries"
    else:
        chosen = f"* default here: fetched when an embedded cloud starts; {CLASSICAL} if it cannot be had"
    return [
        "",
        f"{chosen}.",
        f"What is not here comes from {mirror}; pbr models fetch has it here.",
        f"{CLASSICAL}, built in, needs no weights; it expects one centred subject.",
        "A stack's default is its parameter DefaultModel: birefnet-general-lite unless it is given, which suits Lambda "
        "and Fargate; birefnet-general where it segments on GPUs.",
    ]
