"""``pbr doctor``: check a stack, and say what to do about each problem."""

import re
from collections.abc import Sequence
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from client.commands.connect import connect
from client.commands.console import ERR, OUT, plural
from client.commands.options import AsJson, Region, StackName
from client.doctor.examination import examine, worst
from client.doctor.findings import RESULTS, Finding, Result

_INDENT: Final = 34  # columns of result and check
_COMMAND: Final = re.compile(r"\b(?:aws|pbr) [a-z]")
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
        print_findings(findings)
    if worst(findings) == "problem":
        raise typer.Exit(1)


def print_findings(findings: Sequence[Finding], out: Console = OUT) -> None:
    """Print each finding with its remedy, then how many there are of each result."""
    for finding in findings:
        style = _STYLES[finding.result]
        head = Text.assemble((f"{finding.result:<12}", style), f"{finding.check:<21} ")
        _print_indented(out, head, Text(finding.found))
        if finding.remedy:
            _print_indented(
                out, Text(" " * _INDENT), Text(f"→ {finding.remedy}", style if finding.result != "ok" else "")
            )
    counts = {result: sum(finding.result == result for finding in findings) for result in RESULTS}
    out.print(", ".join(_counted(count, result) for result, count in counts.items() if count))


def _print_indented(out: Console, head: Text, text: Text) -> None:
    """Print a text after its head; in a terminal, its further lines are indented like the first one.

    A text with a command is one line, so that the command can be copied.
    """
    width = out.width - _INDENT
    if not out.is_terminal or width < _INDENT or _COMMAND.search(text.plain):
        out.print(head.append_text(text))
        return
    for number, line in enumerate(text.wrap(out, width)):
        out.print(head.append_text(line) if number == 0 else Text(" " * _INDENT).append_text(line))


def _counted(count: int, result: Result) -> str:
    return plural(count, result, f"{result}s") if result in ("problem", "warning") else f"{count} {result}"
