"""``pbr forget``: delete sources, and all that is stored of them."""

import sys
from collections.abc import Callable, Sequence
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
from functions.contracts.object_keys import background_key
from functions.contracts.review import API_FOLDER, WEB_FOLDER
from functions.runtime.erasure import Erasure, Places, Traces

_THREADS: Final = 8

_MOST_ROWS: Final = 20
"""A folder can have a million sources; --json lists all of them."""

_KEPT: Final = (
    "Execution histories, logs, dead letters, backups of tables and files of bulk runs are kept. They contain object "
    "keys, and no images. See docs/how-to/delete-data.md"
)

_LEFT: Final = "An upload or an execution stored data during the deletion. Run the command again."

_IN_USE: Final = (
    "An execution of another source with the same content computes the cut-out. Run the command again after its end."
)

_SHARED_FOLDERS: Final = {
    API_FOLDER: "It has the uploads of all API callers. Pass the folder of one, api/<caller>/.",
    WEB_FOLDER: "It has the uploads of all users of the web page. Pass the folder of one, web/<user>/.",
    background_key(""): "It has the backgrounds of all tenants. Pass a folder in it, e.g. backgrounds/acme/.",
    background_key(API_FOLDER): "It has the backgrounds of all API callers. Pass the folder of one, api/<caller>/.",
    "s3/": "It has the results of all other buckets. Pass the folder of one, e.g. s3/photos-2024/.",
}
"""Folders that several tenants share, and what to pass instead."""


@dataclass(frozen=True)
class Forgotten:
    """A source, and what happened to it.

    Attributes:
        traces: what was stored of it.
        is_deleted: whether all of it was deleted.
        error: why it is not deleted completely.
    """

    traces: Traces
    is_deleted: bool
    error: str | None

    def to_json(self) -> dict[str, Any]:
        """Return it as ``pbr forget --json`` prints it."""
        return {"source": self.traces.key, "deleted": self.is_deleted, **_counts(self.traces), "error": self.error}


def forget(
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="KEYS", help="Object keys of sources.", show_default=False)
    ] = None,
    prefix: Annotated[
        list[str] | None,
        typer.Option(
            help="Delete all sources of a folder, e.g. tenants/acme/. The prefix must end with /. Repeat for several.",
            show_default=False,
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
    results, its reviews and its API jobs; with ResultsReplicaBucketArn, also the replicas of its results. Stops its
    running executions. The source need not exist any more. If nothing is stored, the command succeeds.

    Exit code 1 means that the deletion is not complete. The output says why; run the command again.

    For example:

    [bold]pbr forget photos/cup.jpg --dry-run[/bold]

    [bold]pbr forget --prefix tenants/acme/[/bold]
    """
    keys, folders = keys or [], prefix or []
    _check(keys, folders)
    deployed = connect(stack, region)
    erasure, place = erasure_of(deployed), _place(deployed)
    found = erasure.find(keys, folders)
    stored = [one for one in found if not one.is_empty]
    _warn_of_nothing([*keys, *folders], stored, place)
    if stored and not as_json:
        _print_found(stored, place)
    if stored and not dry_run and not yes:
        _confirm(stored, place)
    if dry_run:
        done = [Forgotten(one, is_deleted=False, error=_text(one.error)) for one in found]
    else:
        done = _erase(erasure, found, lambda: erasure.find(keys, folders))
    problems = [
        f"{one.traces.key} {'cannot be' if dry_run else 'is not'} deleted completely: {one.error}"
        for one in done
        if one.error
    ]
    if as_json:
        OUT.print_json(data=[one.to_json() for one in done])
    if not dry_run:
        _print_deleted(done, place)
        problems += _may_write_later(deployed, done)
    for problem in problems:
        print_warning(problem)
    if problems:
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
        wrong = _SHARED_FOLDERS.get(folder)
        if not folder.endswith("/"):
            wrong = "It must end with /, so that tenants/acme/ does not match tenants/acme2/."
        elif folder.startswith("/"):
            wrong = "It must not start with /. Example: tenants/acme/."
        if wrong:
            raise UsageError("The prefix is invalid", field="--prefix", value=folder, remedy=wrong)


def erasure_of(stack: Stack) -> Erasure:
    """Return what deletes data of a stack."""
    places = Places(
        uploads_bucket=stack.outputs["UploadsBucket"],
        results_bucket=stack.outputs["ResultsBucket"],
        work_bucket=stack.outputs["WorkBucket"],
        cache_table=stack.output("CacheTable"),
        state_machine_arn=stack.outputs["StateMachineArn"],
        jobs_table=stack.output("ApiJobsTable"),
        reviews_table=stack.output("ReviewsTable"),
        replica_bucket=stack.outputs.get("ResultsReplicaBucket", ""),
    )
    return Erasure(places, s3=stack.s3, dynamodb=stack.dynamodb, stepfunctions=stack.stepfunctions)


def _place(stack: Stack) -> str:
    """Return the stack whose data is deleted."""
    if stack.endpoint_url:
        return f"the embedded cloud at {stack.endpoint_url}"
    account = stack.outputs["StateMachineArn"].split(":")[4]
    return f"the stack {stack.name} (account {account}, {stack.region})"


def _erase(erasure: Erasure, found: Sequence[Traces], find: Callable[[], Sequence[Traces]]) -> list[Forgotten]:
    """Delete sources, search again, and return what happened to each.

    Args:
        erasure: deletes.
        found: the sources.
        find: searches again. What it finds was stored during the deletion.
    """

    def error_of(traces: Traces) -> str | None:
        try:
            return _IN_USE if erasure.erase(traces) else None
        except (BackgroundRemoverError, *sdk_errors()) as error:
            return _text(error)

    with ThreadPoolExecutor(_THREADS) as pool:
        errors = dict(zip((one.key for one in found), pool.map(error_of, found), strict=True))
    left = {one.key: one for one in find() if not one.is_empty}
    all_traces = left | {one.key: one for one in found}
    errors |= {key: errors.get(key) or _LEFT for key in left}
    return [Forgotten(all_traces[key], is_deleted=not errors[key], error=errors[key]) for key in sorted(all_traces)]


def _text(error: Exception | None) -> str | None:
    return error_text(error) if error else None


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


def _warn_of_nothing(keys: Sequence[str], stored: Sequence[Traces], place: str) -> None:
    """Print a warning that names the keys and folders without stored data."""
    found = {one.key for one in stored}
    missing = [
        key
        for key in keys
        if key not in found and not (key.endswith("/") and any(one.startswith(key) for one in found))
    ]
    if missing:
        more = f" and {len(missing) - _MOST_ROWS:,} more" if len(missing) > _MOST_ROWS else ""
        names = ", ".join(missing[:_MOST_ROWS])
        print_warning(f"Nothing is stored of {names}{more} in {place}. Check the spelling and the stack.")


def _print_found(stored: Sequence[Traces], place: str) -> None:
    """Print a table with the first sources, one per row, and how many there are."""
    OUT.print(f"In {place}:")
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


def _confirm(stored: Sequence[Traces], place: str) -> None:
    """Ask for confirmation, and end the command without it."""
    if not sys.stdin.isatty():
        raise UsageError(
            "The deletion must be confirmed, and there is no terminal",
            field="--yes",
            value=None,
            remedy="Add --yes, or see what would be deleted with --dry-run.",
        )
    typer.confirm(f"Delete {_amount(stored)} in {place} permanently?", abort=True, err=True)


def _amount(traces: Sequence[Traces]) -> str:
    objects = [stored for one in traces for stored in one.objects]
    size = decimal(sum(one.bytes for one in objects))
    return f"{plural(len(objects), 'object', 'objects')} ({size}) of {plural(len(traces), 'source', 'sources')}"


def _print_deleted(done: Sequence[Forgotten], place: str) -> None:
    if deleted := [one.traces for one in done if one.is_deleted and not one.traces.is_empty]:
        ERR.print(f"Deleted {_amount(deleted)} in {place}. {_KEPT}")


def _may_write_later(stack: Stack, done: Sequence[Forgotten]) -> list[str]:
    """Return what may store data of the sources after the deletion."""
    problems = []
    if stopped := [one.traces.key for one in done if one.traces.running and one.error in (None, _LEFT)]:
        problems.append(
            f"Executions of {', '.join(stopped[:_MOST_ROWS])} were stopped. Functions that they had called may write "
            "another object: run the command again after 15 minutes."
        )
    if runs := _bulk_runs(stack):
        problems.append(
            f"{plural(runs, 'bulk run is', 'bulk runs are')} running, and may write results of images that they have "
            "read: run the command again after their end."
        )
    return problems


def _bulk_runs(stack: Stack) -> int:
    pages = stack.stepfunctions.get_paginator("list_executions").paginate(
        stateMachineArn=stack.output("BulkMachineArn"), statusFilter="RUNNING"
    )
    return sum(len(page["executions"]) for page in pages)
