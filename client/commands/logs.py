"""``pbr logs``: show the log lines of an execution."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from client import history, logs
from client.commands.connect import connect
from client.commands.console import ERR, OUT, STATUS_STYLES, local_time, plural
from client.commands.options import Region, StackName, parse_duration
from client.executions.search import FAILED
from client.history import ExecutionSummary
from client.logs import Line
from client.stack import Stack

_LEVEL_STYLES: Final = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}
_SETTLED: Final = timedelta(minutes=1)
_TIME: Final = "%Y-%m-%d %H:%M:%S %z"
_FACTS: Final = {"error", "message", "remedy"}


class Level(StrEnum):
    """Values of ``--level``: those of :data:`client.logs.LEVELS`."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


def show_logs(
    execution: Annotated[
        str, typer.Argument(help="Execution: ARN, name (the job ID), or unique prefix of a name.", show_default=False)
    ],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new lines until the execution has ended.")
    ] = False,
    level: Annotated[
        Level, typer.Option(case_sensitive=False, help="Print lines of this level and more severe ones only.")
    ] = Level.INFO,
    since: Annotated[
        str | None,
        typer.Option(
            help="Print lines of this period only, e.g. 30m, 1h or 2d.", show_default="since the execution started"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON per log line.")] = False,
    stack: StackName = None,
    region: Region = None,
) -> None:
    """Show the log lines of an execution in the order of time.

    The lines are those of functions, workers and the SageMaker endpoint, of the request to the HTTP API, and of the
    delivery of webhooks. Lambda's reports have the duration and the memory of each invocation.

    For example:

    [bold]pbr logs 6f3a --level warning[/bold]

    [bold]pbr logs 6f3a --follow[/bold]
    """
    deployed = connect(stack, region)
    after = datetime.now(UTC) - parse_duration(since, "--since") if since else None
    [found] = history.named(deployed, [execution])
    print_logs(deployed, found, follow=follow, level=level, since=after, as_json=as_json)


def print_logs(
    deployed: Stack,
    execution: ExecutionSummary,
    *,
    follow: bool = False,
    level: Level = Level.INFO,
    since: datetime | None = None,
    as_json: bool = False,
) -> None:
    """Print the lines of an execution; on standard error why there are none, and how the execution failed."""
    read: Iterable[Line] = (logs.follow if follow else logs.lines)(deployed, execution, since=since)
    printed, less_severe = 0, 0
    for line in read:
        if not logs.is_at_least(line, level.upper()):
            less_severe += 1
            continue
        printed += 1
        if as_json:
            OUT.print(json.dumps(line.to_json()))
        else:
            OUT.print(_text(line))
    if not printed:
        ERR.print(_nothing(deployed, execution, level, less_severe, since))
    ended = history.describe(deployed, execution.arn) or {}
    if ended.get("status") in FAILED:
        ERR.print(_outcome(ended, deployed.place), style=STATUS_STYLES[ended["status"]])


def _nothing(
    deployed: Stack, execution: ExecutionSummary, level: Level, less_severe: int, since: datetime | None
) -> str:
    """Return why no line was printed."""
    if less_severe:
        lines = plural(less_severe, "line is", "lines are")
        return f"No line has level {level} or above. {lines} less severe: use --level info or debug."
    if since:
        return f"There are no log lines since {local_time(since, _TIME)}. Use a longer --since."
    days = int(deployed.parameters.get("LogRetentionDays", "30"))
    if datetime.now(UTC) - execution.started_at > timedelta(days=days):
        return f"There are no log lines any more. CloudWatch deletes them after {days} days (LogRetentionDays)."
    if datetime.now(UTC) - execution.started_at > _SETTLED:
        return "The log groups have no line of this execution."
    return "There are no log lines yet. CloudWatch returns a line some seconds after it was written."


def _outcome(ended: Mapping[str, Any], place: str) -> str:
    """Return how an execution failed, from the answer of DescribeExecution, and which command has its states."""
    error, cause = ended.get("error"), ended.get("cause")
    reason = ": ".join(filter(None, (error, cause)))
    return f"{ended['status']}{' ' if reason else ''}{reason}\nTo see its states: pbr history {ended['name']}{place}"


def _text(line: Line) -> Text:
    """Return a line for a terminal; the traceback and a failure's facts follow in lines of their own."""
    at = f"{local_time(line.at, '%H:%M:%S')}.{line.at.microsecond // 1000:03d}"
    style = _LEVEL_STYLES.get(line.level, "dim" if line.report else "")
    text = Text.assemble((at, "dim"), f"  {line.source:<12} ", (f"{line.level:<8}", style), " ", (line.message, style))
    details = []
    for name, value in line.fields.items():
        if isinstance(value, Mapping) and value.keys() >= _FACTS:
            details.append(_failure(value))
        else:
            text.append(f"  {name}={value if isinstance(value, str) else json.dumps(value)}", "dim")
    for detail in (*details, *line.exception.splitlines()):
        text.append(f"\n    {detail}", style)
    return text


def _failure(facts: Mapping[str, Any]) -> str:
    value = f" ({facts['field']}: {facts.get('value')})" if facts.get("field") else ""
    return f"{facts['error']}: {facts['message']}{value}. {facts['remedy'] or ''}".rstrip()
