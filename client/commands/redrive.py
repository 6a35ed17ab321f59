"""``pbr redrive``: retry failed executions."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from client import redrive
from client.commands.connect import connect
from client.commands.console import OUT, STATUS_STYLES, print_table
from client.commands.options import AsJson, DryRun, Region, StackName, parse_duration
from client.errors import UsageError
from client.redrive import Retry

_STYLES: Final = {"redriven": "green", "restarted": "green", "skipped": "dim", "rejected": "red"}


def redrive_executions(
    executions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="EXECUTIONS",
            help="Executions to retry: ARN, name, unique prefix of a name, or key of an upload with a failure report.",
            show_default=False,
        ),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Retry all executions that failed since --since.")] = False,
    since: Annotated[
        str | None, typer.Option(help="Look-back window of --failed, e.g. 30m, 1h or 2d.", show_default="1h")
    ] = None,
    dry_run: DryRun = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the retries have ended.")] = False,
    as_json: AsJson = False,
    stack: StackName = None,
    region: Region = None,
) -> None:
    """Retry failed executions.

    An execution is redriven from the state that failed if Step Functions allows it. Otherwise a new execution starts
    with the same input and the name NAME-retry-N. No execution is retried twice at the same time.

    --failed skips executions whose image is invalid, has been replaced or deleted, or has a result. To retry one of
    these, pass its name.

    For example:

    [bold]pbr redrive --failed --since 2h --dry-run[/bold]

    [bold]pbr redrive photos/cup.jpg --wait[/bold]
    """
    if bool(executions) == failed:
        raise UsageError(
            "Pass either executions or --failed",
            field="EXECUTIONS",
            value=None,
            remedy="Example: pbr redrive --failed.",
        )
    if since and not failed:
        raise UsageError("--since requires --failed", field="--since", value=since, remedy="Add --failed.")
    window = parse_duration(since or "1h", "--since")
    deployed = connect(stack, region)
    named = [redrive.find(deployed, execution) for execution in executions or []]
    arns = named or redrive.failed_since(deployed, datetime.now(UTC) - window)
    retries = redrive.plan(deployed, arns, named=not failed)
    if not dry_run:
        retries = list(redrive.execute(deployed, retries))
    if wait and not dry_run:
        retries = list(redrive.wait(deployed, retries))
    if as_json:
        OUT.print_json(data=[retry.to_json() for retry in retries])
    elif retries:
        print_table(retries_table(retries, with_status=wait and not dry_run))
    else:
        OUT.print("No execution has failed in this period.")
    if any(retry.action == "rejected" or retry.retry_error for retry in retries):
        raise typer.Exit(1)


def retries_table(retries: Sequence[Retry], *, with_status: bool) -> Table:
    """Return a table with one failed execution per row."""
    table = Table(box=None, pad_edge=False)
    for name in ("execution", "image", "error", "action", "reason"):
        table.add_column(name, no_wrap=name in ("execution", "error", "action"))  # action may name the new execution
    if with_status:
        table.add_column("status")
    for retry in retries:
        target = f" as {_name(retry.retry_arn)}" if retry.action == "restarted" and retry.retry_arn else ""
        cells = [
            Text(_name(retry.arn)),
            Text(retry.key or "-"),
            Text(retry.error),
            Text(f"{retry.action}{target}", style=_STYLES[retry.action]),
            Text(retry.reason),
        ]
        if with_status:
            status = f"{retry.status or '-'} {retry.retry_error or ''}".rstrip()
            cells.append(Text(status, style=STATUS_STYLES.get(retry.status or "", "")))
        table.add_row(*cells)
    return table


def _name(execution_arn: str) -> str:
    return execution_arn.rpartition(":")[2]
