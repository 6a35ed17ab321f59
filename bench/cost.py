"""Write docs/reference/cost.md and its chart: ``make cost``.

All figures come from :mod:`client.monthly_cost`. A part of the page stands between ``<!-- cost: NAME -->`` and
``<!-- end of NAME -->``; the text around it is written by hand.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Final

from matplotlib.figure import Figure

from bench.markdown import fill, table
from client.monthly_cost import (
    ASSUMED,
    FIXED,
    VOLUMES,
    Assumptions,
    Bill,
    Bulk,
    Fixed,
    Host,
    Method,
    bill,
    cheapest,
    memory_of,
    number_text,
)
from functions.contracts.durations import durations
from functions.contracts.prices import EXPRESS_GB, REGIONS, Line, price_list

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs/reference/cost.md"
CHART: Final = ROOT / "docs/images/cost.png"
REGION: Final = "us-east-1"
HITS: Final = (0.0, 0.2, 0.5)
PRESENT_USD: Final[Mapping[int, float]] = {1_000: 25, 10_000: 200, 100_000: 1_050, 1_000_000: 7_500}
"""What users pay a month before they use this project."""

GOALS_USD: Final[Mapping[type[Host] | type[Bulk], float]] = {Host: 600, Bulk: 300}
"""Goals at the largest volume, on the cheapest host."""

_PRICES: Final = REGIONS[REGION]
_MOST: Final = VOLUMES[-1]
_NAMES: Final[Mapping[type[Host] | type[Bulk], str]] = {Host: "single uploads", Bulk: "bulk runs"}


def monthly() -> str:
    """Return the totals of all methods and volumes, with three shares of cache hits."""
    shares = ", ".join(f"{share:.0%}" for share in HITS)
    parts = []
    for kind, name in _NAMES.items():
        rows = [[f"`{method}`", *(_totals(method, volume) for volume in VOLUMES)] for method in kind]
        if kind is Host:
            rows.append(["users' present cost", *(f"{usd:,.0f}" for usd in PRESENT_USD.values())])
        title = f"US dollars a month, {name}, with {shares} cache hits"
        parts.append(table(title, ["Images a month", *(f"{volume:,}" for volume in VOLUMES)], rows))
    return "\n\n".join(parts)


def _totals(method: Method, volume: int) -> str:
    return " / ".join(_short(bill(method, volume, hits, _PRICES).usd) for hits in HITS)


def _short(usd: float) -> str:
    return f"{usd:,.0f}" if usd >= 100 else f"{usd:,.2f}"


def mix() -> str:
    """Return the cheapest host and kind of bulk run for each volume, compared with the users' present cost."""
    rows = []
    for volume, present in PRESENT_USD.items():
        single, bulk = (cheapest(kind, volume, 0.0, _PRICES) for kind in (Host, Bulk))
        factors = [f"{present / one.usd:.1f}" for one in (single, bulk)]
        found = [f"`{one.method}`: {_short(one.usd)}" for one in (single, bulk)]
        rows.append([f"{volume:,}", f"{present:,.0f}", found[0], factors[0], found[1], factors[1]])
    heads = ["Images a month", "Users' present cost", "Single uploads", "times cheaper", "Bulk runs", "times cheaper"]
    texts = ("Single uploads", "Bulk runs")
    return table("The cheapest, US dollars a month without cache hits", heads, rows, texts)


def goals() -> str:
    """Return whether the goals are met, and where the money goes."""
    parts = []
    for kind, goal in GOALS_USD.items():
        found = cheapest(kind, _MOST, 0.0, _PRICES)
        aim = f"{_NAMES[kind].capitalize()}, {_MOST:,} images, at most ${goal:,.0f}"
        parts.append(f"* {aim}: {_verdict(found, goal)}. {_where(found)}")
        if found.method is Bulk.TRANSFORM:
            measured = _verdict(bill(Bulk.EXPRESS_100, _MOST, 0.0, _PRICES), goal)
            parts[-1] += f" Its time on the GPU, `gpu_s`, is assumed. With measured durations only: {measured}."
    return "\n".join(parts)


def _verdict(found: Bill, goal: float) -> str:
    less = goal - found.usd
    text = f"met, with ${less:,.2f} to spare" if less >= 0 else f"**missed by ${-less:,.2f}**"
    return f"`{found.method}` costs ${found.usd:,.2f}, {text}"


def _where(found: Bill) -> str:
    sums: dict[str, float] = {}
    for line in (*found.lines, *found.fixed):
        name = (
            f"storage in {line.service}" if line.item.startswith("GB-months") and line.service == "S3" else line.service
        )
        sums[name] = sums.get(name, 0.0) + line.usd
    ordered = sorted(sums.items(), key=lambda one: -one[1])
    named = [f"{name} ${usd:,.2f}" for name, usd in ordered[:5]]
    rest = sum(usd for _, usd in ordered[5:])
    return f"Of that, {', '.join(named)}, everything else ${rest:,.2f}."


def savings() -> str:
    """Return what would make single uploads on Lambda cheaper, at the largest volume."""
    rows = [[text, f"{usd:,.0f}"] for text, usd in sorted(_savings(), key=lambda one: -one[1])]
    title = f"Less per month at {_MOST:,} single uploads on Lambda, US dollars"
    return table(title, ["Change", "Saves"], rows)


def _savings() -> Iterator[tuple[str, float]]:
    found = {line.item: line for line in bill(Host.LAMBDA, _MOST, 0.0, _PRICES).lines}
    state, memory = _MOST * _PRICES.standard_transition, memory_of({})
    compute = {name: found[f"GB-seconds of {name}"].usd for name in ("segment", "refine", "encode")}
    one_process = {line.item: line for line in bill(Bulk.EXPRESS_10, _MOST, 0.0, _PRICES).lines}["GB-seconds"].usd
    objects = _MOST * (2 * _PRICES.s3_write + 4 * _PRICES.s3_read)
    seconds = sum(
        found[f"GB-seconds of {name}"].quantity / memory[name] * 1024 for name in ("validate", *compute, "metrics")
    )
    express = (
        found["state transitions"].usd - _MOST * _PRICES.express_request - seconds * EXPRESS_GB * _PRICES.express_gb_s
    )
    smaller = bill(Host.LAMBDA, _MOST, 0.0, _PRICES, {**memory, "encode": 2048})
    yield "An Express workflow if the host is Lambda: no history, no redrive, at most five minutes", express
    yield (
        "One function for segmentation, refinement and encoding if the host is Lambda: two states, two calls and the "
        "objects between the stages fewer",
        2 * state + 2 * _MOST * _PRICES.lambda_request + objects + sum(compute.values()) - one_process,
    )
    yield "Send webhooks from the status-change event, so `PublishMetrics` is the last state", 2 * state
    yield "Without `NeedsEscalation?` in stacks that do not escalate", state
    yield "Without `ChooseSegmenter` in stacks with one host", state
    yield (
        "`EncodeMemory=2048`: no AVIF or WebP results of large images",
        bill(Host.LAMBDA, _MOST, 0.0, _PRICES).usd - smaller.usd,
    )
    arm = sum(line.quantity for line in found.values() if line.item.startswith("GB-seconds"))
    yield (
        "Functions on arm64, if they take the same time: needs another image",
        arm * (_PRICES.lambda_gb_s - _PRICES.lambda_arm_gb_s),
    )
    yield "`CacheDays=7`", found["GB-months of cached results"].usd * 23 / 30
    yield "Without tracing", found["traces"].usd
    yield "Without S3's events of the results bucket", 2 * _MOST * _PRICES.event


def arithmetic() -> str:
    """Return each line of each bill at the largest volume."""
    parts = []
    for method in (*Host, *Bulk):
        found = bill(method, _MOST, 0.0, _PRICES)
        total = f"{_MOST:,} images, `{method}`: ${found.usd:,.2f}, of which ${found.fixed_usd:,.2f} fixed"
        parts.append(f"<details><summary>{total.replace('`', '')}</summary>\n\n{bill_table(found)}\n\n</details>")
    return "\n\n".join(parts)


def bill_table(found: Bill) -> str:
    """Return a bill as a table."""
    rows = [_row(line) for line in (*found.lines, *found.fixed)]
    total = ["**Total**", "", "", "", f"{found.usd:,.4f}", ""]
    heads = ["Service", "Item", "Quantity", "Price", "US dollars", "Arithmetic"]
    return table("", heads, [*rows, total], ("Item", "Arithmetic")).removeprefix(":\n\n")


def _row(line: Line) -> list[str]:
    return [
        line.service,
        line.item,
        number_text(line.quantity),
        number_text(line.usd_each),
        f"{line.usd:,.4f}",
        line.arithmetic,
    ]


def assumptions() -> str:
    """Return what is neither measured nor a price."""
    measured = durations()
    timed = (
        f"Durations: {measured.date}, `{measured.command}`, {measured.cpu}, load average {measured.load:g}, "
        f"{measured.width_px:,} x {measured.height_px:,} px, `{measured.model}`, `{measured.precision}`."
    )
    rows = [[f"`{name}`", f"{getattr(ASSUMED, name):,}", text] for name, text in _documented(Assumptions)]
    rows += [[f"`{name}`", f"{getattr(FIXED, name):,}", text] for name, text in _documented(Fixed)]
    return f"{timed}\n\n" + table("Assumptions", ["Name", "Value", "Meaning"], rows, ("Meaning",))


def _documented(of: type) -> Iterable[tuple[str, str]]:
    """Yield the attributes of a dataclass, with their descriptions from its docstring."""
    known = {one.name for one in fields(of)}
    text = of.__doc__ or ""
    for found in re.finditer(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", text, re.MULTILINE):
        if found[1] in known:
            yield found[1], " ".join(found[2].split()).replace("``", "`")


def prices() -> str:
    """Return the price list."""
    listed = {region: list(price_list(of)) for region, of in REGIONS.items()}
    rows = []
    for lines in zip(*listed.values(), strict=True):
        usd = [number_text(one.usd) + ("" if one.confirmed else " ?") for one in lines]
        rows.append([f"[{lines[0].service}]({lines[0].page})", lines[0].unit, *usd])
    return table("List prices in US dollars", ["Service", "Unit", *listed], rows, ("Unit",))


PARTS: Final[Mapping[str, Callable[[], str]]] = {
    "monthly": monthly,
    "mix": mix,
    "goals": goals,
    "savings": savings,
    "arithmetic": arithmetic,
    "assumptions": assumptions,
    "prices": prices,
}


def render(text: str) -> str:
    """Return the page with its parts up to date."""
    return fill(text, "cost", {name: part() for name, part in PARTS.items()})


def chart() -> Figure:
    """Plot the cost of a month over the number of images."""
    figure = Figure(figsize=(9.6, 5.4), layout="constrained")
    axis = figure.add_subplot()
    volumes = [round(1_000 * 10 ** (step / 8)) for step in range(25)]
    for method in (*Host, *Bulk):
        style = "-" if isinstance(method, Host) else "--"
        label = method if isinstance(method, Host) else f"bulk: {method}"
        axis.plot(volumes, [bill(method, volume, 0.0, _PRICES).usd for volume in volumes], style, label=label)
    axis.plot(list(PRESENT_USD), list(PRESENT_USD.values()), "k:", marker="o", label="users' present cost")
    for kind, goal in GOALS_USD.items():
        axis.plot([_MOST], [goal], "k", marker="_", markersize=18)
        axis.annotate(f"goal, {_NAMES[kind]}", (_MOST, goal), (12, 0), textcoords="offset points", va="center")
    axis.set(xlim=(800, 5e6), xscale="log", yscale="log", xlabel="images a month", ylabel="US dollars a month")
    axis.grid(visible=True, which="both", alpha=0.25)
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure


def main() -> None:
    """Write the page and the chart."""
    PAGE.write_text(render(PAGE.read_text()))
    chart().savefig(CHART, dpi=100)
    print(f"wrote {PAGE.relative_to(ROOT)} and {CHART.relative_to(ROOT)}\n\n{goals()}")


if __name__ == "__main__":
    main()
