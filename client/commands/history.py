"""``pbr history``: list executions, or the events of one."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from client import history
from client.commands.connect import connect
from client.commands.console import OUT, STATUS_STYLES, local_time, print_table, table_width
from client.commands.options import Region, StackName, parse_duration
from client.errors import UsageError
from client.executions.search import FAILED, STATUSES, Descriptions, Filter, Search
from client.history import ExecutionSummary
from functions.contracts.history import Row, rows

_MIN_KEY: Final = 10  # a shorter part of an object key would not identify the image


class Status(StrEnum):
    """Values of ``--status``; ``failed`` includes executions that timed out or were aborted."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Quality(StrEnum):
    """Values of ``--quality``."""

    REVIEW = "review"
    DEGRADED = "degraded"
    CACHED = "cached"


def show_history(
    execution: Annotated[
        str | None,
        typer.Argument(help="Execution to show: ARN, name, or unique prefix of a name.", show_default=False),
    ] = None,
    inputs: Annotated[bool, typer.Option("--inputs", help="Print the input and output of each state.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Number of executions to list.")] = 20,
    status: Annotated[
        Status | None, typer.Option(help="List executions with this status only. failed: also timed out and aborted.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="List executions only that started in this period, e.g. 30m, 1h or 2d.")
    ] = None,
    match: Annotated[
        str,
        typer.Option(help="List executions only whose image's key, or name, contains this text.", show_default=False),
    ] = "",
    error: Annotated[
        str, typer.Option(help="List executions only whose error contains this text, e.g. Corrupt.", show_default=False)
    ] = "",
    quality: Annotated[
        Quality | None,
        typer.Option(
            help="List executions only whose result needs review, was not made as requested, or came from the cache."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list of executions as JSON.")] = False,
    stack: StackName = None,
    region: Region = None,
) -> None:
    """List the latest executions, or the events of one execution.

    For example:

    [bold]pbr history 6f3a --inputs[/bold]

    [bold]pbr history --status failed --since 2h --error Timeout[/bold]
    """
    given = {"--json": as_json, "--status": status, "--since": since, "--match": match, "--error": error}
    of_list = [name for name, value in {**given, "--quality": quality}.items() if value]
    if of_list and execution is not None:
        raise UsageError(
            f"{of_list[0]} lists executions, not the events of one",
            field="EXECUTION",
            value=execution,
            remedy=f"Remove {of_list[0]}, or EXECUTION.",
        )
    wanted = Filter(
        statuses=STATUSES if status is None else FAILED if status is Status.FAILED else (status.upper(),),
        since=datetime.now(UTC) - parse_duration(since, "--since") if since else None,
        text=match,
        error=error,
        quality=None if quality is None else quality.value,
    )
    deployed = connect(stack, region)
    if execution is None:
        executions = _found(Search(deployed, wanted, Descriptions(deployed)), limit)
        if as_json:
            OUT.print_json(data=[one.to_json() for one in executions])
        else:
            print_table(executions_table(executions, OUT.width if OUT.is_terminal else None))
        return
    events = rows(history.events_of(deployed, history.find(deployed, execution), with_data=inputs))
    print_table(events_table(events))
    if inputs:
        _print_data(OUT, events)


def _found(search: Search, limit: int) -> list[ExecutionSummary]:
    """Return the newest executions that a search finds."""
    while search.found < limit and not search.complete:
        search.find(limit)
    return search.page(1, limit)


def executions_table(executions: Sequence[ExecutionSummary], width: int | None = None) -> Table:
    """Return a table with one execution per row.

    To fit a terminal, object keys are cut on the left. If that is not enough, there is no cache column, times are
    shorter, and the error is below the name. If that is not enough either, the table is returned whole.

    Args:
        executions: the executions.
        width: columns of the terminal; None for no limit.
    """
    whole = _table(executions)
    if width is None or table_width(whole) <= width:
        return whole
    for compact in (False, True):
        room = width - table_width(_table(executions, 0, compact=compact))
        if room >= _MIN_KEY:
            return _table(executions, room, compact=compact)
    return whole


def _table(executions: Sequence[ExecutionSummary], key_chars: int | None = None, *, compact: bool = False) -> Table:
    """Return a table of executions, with at most ``key_chars`` of each object key."""
    table = Table(box=None, pad_edge=False)
    table.add_column("execution", no_wrap=True)
    table.add_column("status")
    table.add_column("image" if key_chars is None else "image"[:key_chars])
    table.add_column("started", no_wrap=True)
    table.add_column("s" if compact else "seconds", justify="right", no_wrap=True)
    if not compact:
        table.add_column("cache", no_wrap=True)
    today = all(one.started_at.astimezone().date() == datetime.now().astimezone().date() for one in executions)
    time_format = ("%H:%M:%S" if today else "%m-%d %H:%M") if compact else "%Y-%m-%d %H:%M:%S"
    for one in executions:
        style, error = STATUS_STYLES.get(one.status, ""), one.error or ""
        cells = (
            Text.assemble(one.name, (f"\n  {error}" if compact and error else "", style)),
            Text(one.status if compact else f"{one.status} {error}".rstrip(), style=style),
            Text(_end(one.source_key or "-", key_chars)),
            local_time(one.started_at, time_format),
            "-" if one.seconds is None else f"{one.seconds:.2f}",
            one.cache or "-",
        )
        table.add_row(*cells[: len(table.columns)])
    return table


def _end(text: str, limit: int | None) -> str:
    """Return the end of a text, with an ellipsis before it if it is cut to ``limit`` columns."""
    if limit is None or cell_len(text) <= limit:
        return text
    while text and cell_len(text) >= limit:
        text = text[1:]
    return f"…{text}"[:limit]


def events_table(events: Sequence[Row]) -> Table:
    """Return a table with one history event per row."""
    table = Table(box=None, pad_edge=False)
    table.add_column("id", justify="right", no_wrap=True)
    table.add_column("+ms", justify="right", no_wrap=True)
    table.add_column("event", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("detail")
    for event in events:
        style = "red" if event.type.endswith(("Failed", "TimedOut", "Aborted")) else ""
        table.add_row(str(event.id), str(event.ms), event.type, event.state, Text(event.detail), style=style)
    return table


def _print_data(console: Console, events: Sequence[Row]) -> None:
    """Print the inputs and outputs of states as JSON."""
    for event in events:
        if event.data is not None:
            console.print(f"\n{event.id} {event.type} {event.state}", style="bold")
            text = json.dumps(event.data, indent=2, ensure_ascii=False)
            console.print(Syntax(text, "json", background_color="default", word_wrap=True), soft_wrap=False)
