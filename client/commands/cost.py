"""``pbr cost``: what a stack costs a month, or what an execution cost."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from client import history, logs
from client.commands.connect import connect
from client.commands.console import OUT, print_table, print_warning
from client.commands.options import AsJson, Region, StackName
from client.errors import UsageError
from client.executions.cost import Cost, cost_of
from client.executions.steps import steps_of
from client.history import ExecutionSummary
from client.monthly_cost import VOLUMES, Bill, Bulk, Host, Method, bill, memory_of, number_text
from client.stack import NOMINAL_MEMORY_MB, Stack
from functions.contracts.durations import durations
from functions.contracts.prices import AS_OF, DEFAULT_REGION, REGIONS, Line, prices_of

_ASSUMPTIONS: Final = "docs/reference/cost.md has the assumptions."

_MOST_IMAGES: Final = 1_000_000_000


def _images(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text) or not 1 <= int(text) <= _MOST_IMAGES:
        raise typer.BadParameter(f"{text!r} is not a number from 1 to {_MOST_IMAGES:,}. Use digits only, e.g. 50000.")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise typer.BadParameter(f"{text!r} is not a share. Use a number from 0 to 1, e.g. 0.2 for 20 %.")
    return share


def show_cost(
    execution: Annotated[
        str | None,
        typer.Argument(help="Execution to price: ARN, name, or unique prefix of a name.", show_default=False),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(parser=_images, metavar="NUMBER", help="Images a month, e.g. 50000.", show_default="four volumes"),
    ] = None,
    hits: Annotated[
        float | None,
        typer.Option(parser=_share, metavar="SHARE", help="Share of cache hits, e.g. 0.2 for 20 %.", show_default="0"),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="HOST",
            help=f"One host: {', '.join(Host)}; with --bulk one kind of run: {', '.join(Bulk)}.",
            show_default="all",
        ),
    ] = None,
    bulk: Annotated[bool, typer.Option("--bulk", help="Price bulk runs instead of single uploads.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the arithmetic for --host, or for the cheapest host.")
    ] = False,
    as_json: AsJson = False,
    stack: StackName = None,
    region: Region = None,
) -> None:
    """Estimate what a stack costs a month, or what one execution cost, at list prices.

    A month's estimate assumes 2-megapixel photographs, u2netp and precision level high. With --stack, it uses the
    Region and memory sizes of the stack; otherwise --region or eu-west-1, and the template's defaults.

    For example:

    [bold]pbr cost --images 50000 --hits 0.2[/bold]

    [bold]pbr cost --host fargate-spot --explain[/bold]

    [bold]pbr cost 6f3a[/bold]
    """
    given = {"--images": images, "--hits": hits, "--host": host, "--bulk": bulk}
    for_month = [name for name, value in given.items() if value not in (None, False)]
    if execution is not None and for_month:
        raise UsageError(
            f"{for_month[0]} is for the costs of a month, not of one execution",
            field="EXECUTION",
            value=execution,
            remedy=f"Remove {for_month[0]}, or EXECUTION.",
        )
    if execution is not None:
        _of_execution(_connected(stack, region), execution, explain=explain, as_json=as_json)
        return
    deployed = connect(stack, region) if stack else None
    wanted = deployed.region if deployed else region or DEFAULT_REGION
    memory = memory_of(deployed.parameters if deployed else {})
    known, prices = prices_of(wanted)
    _warn_unless_priced(wanted)
    volumes = (images,) if images else VOLUMES
    bills = {
        volume: [bill(method, volume, hits or 0.0, prices, memory) for method in _methods(host, bulk=bulk)]
        for volume in volumes
    }
    if as_json:
        OUT.print_json(json.dumps([_to_json(one) for found in bills.values() for one in found]))
    elif explain:
        for found in bills.values():
            _explain(min(found, key=lambda one: one.usd))
    else:
        _compare(bills, known, hits or 0.0)


def _connected(name: str | None, region: str | None) -> Stack:
    """Return the stack of an execution; on an embedded cloud, which has no prices, with the Region to price it in."""
    found = connect(name, region)
    return replace(found, region=region) if region and found.endpoint_url else found


def _warn_unless_priced(region: str) -> None:
    known, _ = prices_of(region)
    if known != region:
        print_warning(f"There are prices of {' and '.join(REGIONS)} only; shown: {known}.")


def _methods(name: str | None, *, bulk: bool) -> list[Method]:
    known: Sequence[Method] = list(Bulk if bulk else Host)
    found = [method for method in known if name in (None, method)]
    if not found:
        raise UsageError(
            "The kind of bulk run is unknown" if bulk else "The host is unknown",
            field="--host",
            value=name,
            remedy=f"Use {', '.join(known)}." + ("" if bulk else " Kinds of bulk runs need --bulk."),
        )
    return found


def _compare(bills: Mapping[int, Sequence[Bill]], region: str, hits: float) -> None:
    """Print a table with a row for each host and a column for each volume; the cheapest is bold.

    A single volume has a column with the cost of 1,000 images. It depends on the volume, so several volumes have none.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column("US dollars a month", no_wrap=True)
    for volume in bills:
        table.add_column(f"{volume:,}", justify="right", no_wrap=True)
    table.add_column("fixed", justify="right", no_wrap=True)
    if len(bills) == 1:
        table.add_column("1,000 images, without fixed", justify="right", no_wrap=True)
    least = {volume: min(one.usd for one in found) for volume, found in bills.items()}
    for row in zip(*bills.values(), strict=True):
        cells = [Text(_usd(one.usd), style="bold" if one.usd == least[one.images] else "") for one in row]
        each = [f"{row[0].image_usd * 1000:.3f}"] if len(row) == 1 else []
        table.add_row(row[0].method, *cells, _usd(row[0].fixed_usd), *each)
    print_table(table)
    OUT.print(f"\n{region}, list prices of {AS_OF}, {hits:.0%} cache hits, durations measured on {durations().date}.")
    OUT.print(f"{_ASSUMPTIONS} --explain shows the arithmetic.")


def _explain(found: Bill) -> None:
    OUT.print(f"\n{found.images:,} images a month, {found.method}", style="bold")
    print_table(_lines((*found.lines, *found.fixed)))
    OUT.print(f"Total {_usd(found.usd)} US dollars, of which {_usd(found.fixed_usd)} are fixed.")


def _lines(lines: Iterable[Line]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("service", no_wrap=True)
    table.add_column("item", no_wrap=True)
    for head in ("quantity", "price", "US dollars"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("arithmetic")
    for line in lines:
        quantity, price = number_text(line.quantity), number_text(line.usd_each)
        table.add_row(line.service, line.item, quantity, price, f"{line.usd:,.6f}", line.arithmetic)
    return table


def _of_execution(stack: Stack, name: str, *, explain: bool, as_json: bool) -> None:
    if not name:
        raise UsageError(
            "The name of the execution is empty", field="EXECUTION", value=None, remedy="Pass an execution."
        )
    [summary] = history.named(stack, [name])
    steps = steps_of(history.events_of(stack, summary.arn, with_data=False))
    cost = cost_of(stack, steps, logs.reports(stack, summary))
    _warn_unless_priced(stack.region)
    lines = cost.lines()
    if as_json:
        facts = {
            "execution": summary.name,
            "usd": cost.total,
            "starts_usd": cost.starts,
            "is_billed": cost.is_billed,
            "default_memory_mb": dict(cost.default_mb),
            "region": cost.region,
            "prices_as_of": cost.as_of,
            "left_out": cost.left_out,
            "lines": _json(lines),
        }
        OUT.print_json(json.dumps(facts))
        return
    if explain:
        print_table(_lines(lines))
    parts = {
        "Step Functions": cost.orchestration,
        "Lambda": cost.compute - cost.starts,
        "Lambda starts": cost.starts,
        "S3 and DynamoDB": cost.requests,
    }
    for label, usd in parts.items():
        OUT.print(f"{label:<16} {usd:.6f}")
    OUT.print(f"{'US dollars':<16} {cost.total:.6f}", style="bold")
    OUT.print(f"\n{_durations(stack, summary, cost)} {_memory(cost)}")
    OUT.print(f"List prices of {cost.as_of} in {cost.region}. Not included: {', '.join(cost.left_out)}.")


def _durations(stack: Stack, summary: ExecutionSummary, cost: Cost) -> str:
    """Return a sentence that says where the durations come from, and if it is not Lambda's bill, why."""
    if not cost.usage.lambda_requests:
        return "No function has run."
    if cost.is_billed:
        return "Durations are those that Lambda bills. The metric EstimatedCost leaves out starts."
    calls = f"{cost.usage.lambda_requests:.0f} call{'' if cost.usage.lambda_requests == 1 else 's'}"
    days = stack.parameters.get("LogRetentionDays", "30")
    why = (
        "The execution is running"
        if summary.status == "RUNNING"
        else f"A report is in the logs some seconds after the call, for {days} days (LogRetentionDays)"
    )
    return (
        f"The logs have Lambda's report of {cost.reported} of {calls}. So durations are those of the history, which "
        f"are longer than the billed ones. {why}."
    )


def _memory(cost: Cost) -> str:
    if not cost.default_mb:
        return "Memory is that of the stack's functions."
    sizes = ", ".join(f"{name} {size:,}" for name, size in cost.default_mb.items())
    return (
        f"Memory is the template's default in MB: {sizes}. On the embedded cloud it is {NOMINAL_MEMORY_MB:,} in name "
        "only, and durations are those of this machine."
    )


def _json(lines: Iterable[Line]) -> list[dict[str, Any]]:
    return [
        {"service": one.service, "item": one.item, "quantity": one.quantity, "usd_each": one.usd_each, "usd": one.usd}
        for one in lines
    ]


def _to_json(found: Bill) -> dict[str, Any]:
    totals = {"usd": found.usd, "fixed_usd": found.fixed_usd, "image_usd": found.image_usd}
    return {"method": found.method, "images": found.images, **totals, "lines": _json((*found.lines, *found.fixed))}


def _usd(amount: float) -> str:
    return f"{amount:,.2f}"
