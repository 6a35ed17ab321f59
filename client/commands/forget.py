"""``pbr forget``: delete sources, and all that is stored of them."""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from client.commands.connect import connect
from client.commands.console import ERR, OUT, error_text, plural, print_table, print_warning
from client.commands.options import AsJson, DryRun, Region, StackName
from client.errors import UsageError, sdk_errors
from client.stack import Stack
from core.errors import BackgroundRemoverError
from core.limits import MAX_KEY_BYTES
from functions.runtime.erasure import Erasure, Places, Traces

_THREADS: Final = 8

_MOST_ROWS: Final = 20
"""A folder can have a million sources; --json lists all of them."""

_KEPT: Final = (
    "Execution histories, logs, dead letters, backups of tables and files of bulk runs are kept. They contain object "
    "keys, and no images. See docs/how-to/delete-data.md"
)


@dataclass(frozen=True)
class Forgotten:
    """A source, and what happened to it.

    Attributes:
        traces: what was stored of it.
        is_deleted: whether all of it was deleted.
        error: why it was not deleted completely.
    """

    traces: Traces
    is_deleted: bool = False
    error: Exception | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as ``pbr forget --json`` prints it."""
        error = error_text(self.error) if self.error else None
        return {"source": self.traces.key, "deleted": self.is_deleted, **_counts(self.traces), "error": error}


def forget(
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="KEYS", help="Object keys of sources.", show_default=False)
    ] = None,
    prefix: Annotated[
        list[str] | None,
        typer.Option(
            help="Delete all sources of a folder, e.g. tenants/acme/. Repeat for several.", show_default=False
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without confirmation.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    stack: StackName = None,
    region: Region = None,
) -> None:
    """Delete sources permanently, with their results and all that was derived from them.

    Deletes all versions of each source, its results, sidecars and failure reports, its masks, alphas and cached
    results, its reviews and its API jobs. Stops its running executions. The source need not exist any more. If nothing
    is stored, the command succeeds.

    Exit code 1 means that the deletion is not complete. The output says why; run the command again.

    For example:

    [bold]pbr forget photos/cup.jpg --dry-run[/bold]

    [bold]pbr forget --prefix tenants/acme/[/bold]
    """
    keys, folders = keys or [], prefix or []
    _check(keys, folders)
    deployed = connect(stack, region)
    erasure = _erasure(deployed)
    found = erasure.find(keys, folders)
    stored = [one for one in found if not one.is_empty]
    if not as_json:
        _print_found(found, stored)
    if stored and not dry_run and not yes:
        _confirm(stored)
    done = [Forgotten(one) for one in found]
    if not dry_run:
        with ThreadPoolExecutor(_THREADS) as pool:
            done = list(pool.map(lambda one: _erase(erasure, one), found))
    if as_json:
        OUT.print_json(data=[one.to_json() for one in done])
    if not dry_run and not _report(deployed, done):
        raise typer.Exit(1)


def _check(keys: Sequence[str], folders: Sequence[str]) -> None:
    """Raise a usage error unless all keys and folders are valid, and there is at least one."""
    if not keys and not folders:
        remedy = "Example: pbr forget photos/cup.jpg."
        raise UsageError("Pass object keys or --prefix", field="KEYS", value=None, remedy=remedy)
    for key in keys:
        if key.endswith("/"):
            raise UsageError(
                "The key is that of a folder",
                field="KEYS",
                value=key,
                remedy=f"Pass --prefix {key} to delete everything in it.",
            )
        if not key or len(key.encode(errors="replace")) > MAX_KEY_BYTES:
            remedy = f"Object keys have 1 to {MAX_KEY_BYTES:,} bytes."
            raise UsageError("The object key is invalid", field="KEYS", value=key, remedy=remedy)
    for folder in folders:
        if not folder.endswith("/") or folder.startswith("/"):
            remedy = "It ends with /, so that tenants/acme/ does not match tenants/acme2/."
            raise UsageError("The prefix is not that of a folder", field="--prefix", value=folder, remedy=remedy)


def _erasure(stack: Stack) -> Erasure:
    places = Places(
        uploads_bucket=stack.outputs["UploadsBucket"],
        results_bucket=stack.outputs["ResultsBucket"],
        work_bucket=stack.outputs["WorkBucket"],
        cache_table=stack.output("CacheTable"),
        state_machine_arn=stack.outputs["StateMachineArn"],
        jobs_table=stack.output("ApiJobsTable"),
        reviews_table=stack.output("ReviewsTable"),
    )
    return Erasure(places, s3=stack.s3, dynamodb=stack.dynamodb, stepfunctions=stack.stepfunctions)


def _erase(erasure: Erasure, traces: Traces) -> Forgotten:
    try:
        erasure.erase(traces)
    except (BackgroundRemoverError, *sdk_errors()) as error:
        return Forgotten(traces, error=error)
    return Forgotten(traces, is_deleted=True)


def _counts(traces: Traces) -> dict[str, int]:
    """Return the numbers of what is stored of a source, by the name of the column."""
    return {
        "versions": len(traces.sources),
        "results": len(traces.results),
        "derived": len(traces.derived),
        "reviews": len(traces.reviews) + len(traces.names),
        "jobs": len(traces.jobs),
        "running": len(traces.running),
        "bytes": sum(one.bytes for one in traces.objects),
    }


def _print_found(found: Sequence[Traces], stored: Sequence[Traces]) -> None:
    """Print a table with the first sources, one per row, and how many there are."""
    if not stored:
        what = found[0].key if len(found) == 1 else "these sources"
        OUT.print(f"Nothing is stored of {what}.")
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("source", no_wrap=True)
    for name in _counts(stored[0]):
        table.add_column(name.replace("bytes", "size"), justify="right")
    for one in stored[:_MOST_ROWS]:
        *numbers, size = _counts(one).values()
        table.add_row(Text(one.key), *map(str, numbers), decimal(size))
    print_table(table)
    if len(stored) > _MOST_ROWS:
        OUT.print(f"and {plural(len(stored) - _MOST_ROWS, 'more source', 'more sources')}; --json lists all of them.")


def _confirm(stored: Sequence[Traces]) -> None:
    """Ask for confirmation, and end the command without it."""
    if not sys.stdin.isatty():
        raise UsageError(
            "The deletion must be confirmed, and there is no terminal",
            field="--yes",
            value=None,
            remedy="Add --yes, or see what would be deleted with --dry-run.",
        )
    question = f"Delete {_amount(stored)} permanently?"
    typer.confirm(question, abort=True, err=True)


def _amount(traces: Sequence[Traces]) -> str:
    objects = [stored for one in traces for stored in one.objects]
    size = decimal(sum(one.bytes for one in objects))
    return f"{plural(len(objects), 'object', 'objects')} ({size}) of {plural(len(traces), 'source', 'sources')}"


def _report(stack: Stack, done: Sequence[Forgotten]) -> bool:
    """Print what was deleted, and what may be left; return whether the deletion is complete."""
    problems = [f"{one.traces.key} is not deleted completely: {error_text(one.error)}" for one in done if one.error]
    stopped = [one.traces.key for one in done if one.traces.running and not one.error]
    if stopped:
        problems.append(
            f"Executions of {', '.join(stopped[:_MOST_ROWS])} were stopped. Functions that they had called may write "
            "another object: run the command again after 15 minutes."
        )
    if deleted := [one.traces for one in done if one.is_deleted and not one.traces.is_empty]:
        ERR.print(f"Deleted {_amount(deleted)}. {_KEPT}")
    if runs := _bulk_runs(stack):
        problems.append(
            f"{plural(runs, 'bulk run is', 'bulk runs are')} running, and may write results of images that they have "
            "read: run the command again after their end."
        )
    for problem in problems:
        print_warning(problem)
    return not problems


def _bulk_runs(stack: Stack) -> int:
    pages = stack.stepfunctions.get_paginator("list_executions").paginate(
        stateMachineArn=stack.output("BulkMachineArn"), statusFilter="RUNNING"
    )
    return sum(len(page["executions"]) for page in pages)
