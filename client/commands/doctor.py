"""``pbr doctor``: check a stack, and say what to do about each problem."""

from collections.abc import Sequence
from typing import Annotated, Final

import typer
from rich.text import Text

from client.commands.connect import connect
from client.commands.console import ERR, OUT
from client.commands.options import AsJson, Region, StackName
from client.doctor.examination import examine, worst
from client.doctor.findings import RESULTS, Finding

_STYLES: Final = {"ok": "green", "warning": "yellow", "problem": "red", "not checked": "dim"}


def check_stack(
    drift: Annotated[
        bool,
        typer.Option("--drift", help="Also find resources that were changed outside of CloudFormation. Takes minutes."),
    ] = False,
    as_json: AsJson = False,
    stack: StackName = None,
    region: Region = None,
) -> None:
    """Check a stack, and say what to do about each problem.

    The checks only read. They cover the deployment, events, functions, worker, endpoint, weights, queues, alarms, and
    the quotas of the account. Exit code 1 means that there is a problem.

    For example: [bold]pbr doctor --stack background-remover --region eu-west-1[/bold]
    """
    deployed = connect(stack, region)
    with ERR.status("Checking the stack ..."):
        findings = examine(deployed, drift=drift)
    if as_json:
        OUT.print_json(data=[finding.to_json() for finding in findings])
    else:
        _print(findings)
    if worst(findings) == "problem":
        raise typer.Exit(1)


def _print(findings: Sequence[Finding]) -> None:
    for finding in findings:
        style = _STYLES[finding.result]
        OUT.print(Text.assemble((f"{finding.result:<12}", style), f"{finding.check:<21} ", finding.found))
        if finding.remedy:
            OUT.print(Text(f"{'':<12}{'':<21} → {finding.remedy}", style=style if finding.result != "ok" else ""))
    counts = {result: sum(finding.result == result for finding in findings) for result in RESULTS}
    OUT.print(", ".join(f"{count} {result}" for result, count in counts.items() if count))
