"""``pbr cost``: what a stack costs a month, or what an execution cost."""

import json
from collections.abc import Iterable, Mapping, Sequence
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
from client.monthly_cost import VOLUMES, Bill, Bulk, Host, Method, bill, memory_of
from client.stack import Stack
from functions.contracts.durations import durations
from functions.contracts.prices import AS_OF, DEFAULT_REGION, Line, prices_of

_ASSUMPTIONS: Final = "docs/reference/cost.md has the assumptions."


def show_cost(
    execution: Annotated[
        str | None,
        typer.Argument(help="Execution to price: ARN, name, or unique prefix of a name.", show_default=False),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000_000, help="Images a month, e.g. 50000.", show_default="four volumes"),
    ] = None,
    hits: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Share of cache hits, e.g. 0.2.", show_default="0")
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
        bool, typer.Option("--explain", help="Show each line of the bill: of --host, or of the cheapest.")
    ] = False,
    as_json: AsJson = False,
    stack: StackName = None,
    region: Region = None,
) -> None:
    """Estimate what a stack costs a month, or what one execution cost, at list prices.

    The month has photographs of 2 megapixels with u2netp at precision level high. With --stack, prices and memory sizes
    are those of the stack; otherwise those of eu-west-1 or --region, and the template's defaults.

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
        _of_execution(connect(stack, region), execution, explain=explain, as_json=as_json)
        return
    deployed = connect(stack, region) if stack else None
    wanted = deployed.region if deployed else region or DEFAULT_REGION
    memory = memory_of(deployed.parameters if deployed else {})
    known, prices = prices_of(wanted)
    if known != wanted:
        print_warning(f"There are no prices of {wanted}; these are those of {known}.")
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
    """Print a table with a row for each host and a column for each volume; the cheapest is bold."""
    table = Table(box=None, pad_edge=False)
    table.add_column("US dollars a month", no_wrap=True)
    for volume in bills:
        table.add_column(f"{volume:,}", justify="right", no_wrap=True)
    table.add_column("fixed", justify="right", no_wrap=True)
    table.add_column("1,000 images", justify="right", no_wrap=True)
    least = {volume: min(one.usd for one in found) for volume, found in bills.items()}
    for row in zip(*bills.values(), strict=True):
        cells = [Text(_usd(one.usd), style="bold" if one.usd == least[one.images] else "") for one in row]
        table.add_row(row[0].method, *cells, _usd(row[-1].fixed_usd), f"{row[-1].image_usd * 1000:.3f}")
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
        price = f"{line.usd_each:.10f}".rstrip("0").rstrip(".")
        table.add_row(line.service, line.item, f"{line.quantity:,.2f}", price, f"{line.usd:,.6f}", line.arithmetic)
    return table


def _of_execution(stack: Stack, name: str, *, explain: bool, as_json: bool) -> None:
    arn = history.find(stack, name)
    summary = history.summarize(stack, arn)
    steps = steps_of(history.events_of(stack, arn, with_data=False))
    cost = cost_of(stack, steps, logs.reports(stack, summary))
    _, prices = prices_of(stack.region)
    lines = [line for line in cost.usage.lines(prices) if line.quantity]
    if as_json:
        facts = {
            "execution": summary.name,
            "usd": cost.total,
            "is_billed": cost.is_billed,
            "region": cost.region,
            "prices_as_of": cost.as_of,
            "left_out": cost.left_out,
            "lines": _json(lines),
        }
        OUT.print_json(json.dumps(facts))
        return
    if explain:
        print_table(_lines(lines))
    parts = {"Step Functions": cost.orchestration, "Lambda": cost.compute, "S3 and DynamoDB": cost.requests}
    for label, usd in parts.items():
        OUT.print(f"{label:<16} {usd:.6f}")
    OUT.print(f"{'US dollars':<16} {cost.total:.6f}", style="bold")
    OUT.print(f"\n{_basis(cost)} List prices of {cost.as_of} in {cost.region}. Without {', '.join(cost.left_out)}.")


def _basis(cost: Cost) -> str:
    if cost.is_billed:
        return "Durations and memory are those that Lambda bills."
    return (
        "Not all calls are in the logs yet: durations are those of the history, which are longer than the billed ones."
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
