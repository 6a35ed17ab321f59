"""``pbr history``: list executions, or the events of one."""

import json
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from client import history
from client.commands.connect import connect
from client.commands.console import OUT, STATUS_STYLES, local_time, print_table
from client.commands.options import Region, StackName
from client.history import ExecutionSummary
from functions.contracts.history import Row, rows


def show_history(
    execution: Annotated[
        str | None,
        typer.Argument(help="Execution to show: ARN, name, or unique prefix of a name.", show_default=False),
    ] = None,
    inputs: Annotated[bool, typer.Option("--inputs", help="Print the input and output of each state.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Number of executions to list.")] = 20,
    stack: StackName = None,
    region: Region = None,
) -> None:
    """List the latest executions, or the events of one execution.

    For example: [bold]pbr history 6f3a --inputs[/bold]
    """
    deployed = connect(stack, region)
    if execution is None:
        print_table(executions_table(history.recent(deployed, limit)))
        return
    events = rows(history.events_of(deployed, history.find(deployed, execution), with_data=inputs))
    print_table(events_table(events))
    if inputs:
        _print_data(OUT, events)


def executions_table(executions: Sequence[ExecutionSummary]) -> Table:
    """Return a table with one execution per row."""
    table = Table(box=None, pad_edge=False)
    table.add_column("execution", no_wrap=True)
    table.add_column("status")
    table.add_column("image")
    table.add_column("started", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("cache", no_wrap=True)
    for execution in executions:
        table.add_row(
            execution.name,
            Text(f"{execution.status} {execution.error or ''}".rstrip(), style=STATUS_STYLES.get(execution.status, "")),
            Text(execution.source_key or "-"),
            local_time(execution.started_at, "%Y-%m-%d %H:%M:%S"),
            "-" if execution.seconds is None else f"{execution.seconds:.2f}",
            {None: "-", True: "hit", False: "miss"}[execution.cache_hit],
        )
    return table


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
