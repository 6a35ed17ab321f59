"""``pbr fetch``: download the results of executions."""

import time
from typing import Annotated

import typer

from client import history
from client.batch import fetch_all
from client.commands.connect import connect
from client.commands.console import silenced
from client.commands.options import DEFAULT_OUT, JsonLines, Open, Quiet, Region, StackName, Verbose, out_option
from client.commands.progress import check_verbosity, conclude, progress
from client.errors import UsageError
from client.jobs import JobClient
from client.outputs import Destination


def fetch_results(
    executions: Annotated[
        list[str],
        typer.Argument(
            metavar="EXECUTIONS",
            help="Executions: ARN, name, or unique prefix of a name.",
            show_default=False,
        ),
    ],
    out: Annotated[str | None, out_option()] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for executions that are still running.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Time limit of --wait for each execution, in seconds.")] = 900,
    as_json: JsonLines = False,
    open_: Open = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
    stack: StackName = None,
    region: Region = None,
) -> None:
    """Download the results of executions.

    They can come from pbr process, from uploads to S3, or from the HTTP API. Result and sidecar get the name of the
    image, as with pbr process. If an execution has failed, its failure report is printed.

    For example:

    [bold]pbr fetch 6f3a[/bold]

    [bold]pbr fetch 6f3a -o cutout.png --wait[/bold]
    """
    check_verbosity(verbose=verbose, quiet=quiet)
    if out == "-":
        raise UsageError(
            "Results are not written to standard output",
            field="--out",
            value=out,
            remedy="Pass a file or a directory.",
        )
    destination = Destination.parse(out or DEFAULT_OUT)
    destination.check(len(executions))
    with silenced(quiet=quiet):
        deployed = connect(stack, region)
        found = history.named(deployed, executions)
        context, listener = progress(verbose=verbose, quiet=quiet, as_json=as_json)
        started_at = time.monotonic()
        with context:
            jobs = JobClient(deployed)
            outcomes = fetch_all(jobs, found, destination, listener, wait_s=timeout if wait else None)
        conclude(outcomes, time.monotonic() - started_at, open_=open_)
