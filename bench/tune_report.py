"""docs/reference/sizes.md and its chart, from the measurements of ``make tune``: ``python -m bench.tune_report``."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from matplotlib.figure import Figure

from bench.lambda_cgroup import cpu_share
from bench.markdown import fill, table
from functions.contracts.durations import Durations, Measurement, Sample, durations
from functions.contracts.prices import Prices

_DOCS: Final = Path(__file__).parent.parent / "docs"
PAGE: Final = _DOCS / "reference/sizes.md"
CHART: Final = _DOCS / "images/sizes.png"
_STAGES: Final = ("validate", "segment", "refine", "encode", "bulk")
_CALLS: Final = 1_000_000
_PRICE_GB_S: Final = Prices().lambda_gb_s
"""The same in all large Regions."""


def write(measured: Durations, page: Path = PAGE, chart_path: Path = CHART) -> None:
    """Update the generated parts of the page, and the chart."""
    page.write_text(fill(page.read_text(), "measured", parts(measured)))
    chart(measured).savefig(chart_path, dpi=100)


def parts(measured: Durations) -> dict[str, str]:
    """Return the generated parts of the page, by name, as Markdown."""
    return {"conditions": conditions(measured), "proposal": proposal(measured), "figures": figures(measured)}


def cost_usd(sample: Sample) -> float:
    """Return the price of a million warm calls in US dollars, without that of requests."""
    return _usd(sample.memory_mb, sample.seconds)


def _usd(memory_mb: int, seconds: float) -> float:
    return _CALLS * memory_mb / 1024 * seconds * _PRICE_GB_S


def conditions(measured: Durations) -> str:
    """Return how the measurements were made."""
    return (
        f"Measured on {measured.date} with `{measured.command}`: {measured.cpu}, {measured.cpus} CPUs, load average"
        f" {measured.load:g} at the start; `{measured.image}`, a JPEG of {measured.width_px} x {measured.height_px} px"
        f" and {measured.bytes / 1e6:.1f} MB; `{measured.model}`, `{measured.precision}`; medians of {measured.calls}"
        " warm calls."
    )


def proposal(measured: Durations) -> str:
    """Return the table of the cheapest, the fastest and the proposed size of each function."""
    heads = ["Function", "Cheapest", "Fastest", "Proposed", "Reason"]
    rows = [_proposal_row(*item) for item in measured.functions.items()]
    return f"{table('Memory in MB', heads, rows, heads)}\n\n{_interpolated(measured)}"


def _proposal_row(name: str, found: Measurement) -> list[str]:
    cheapest, fastest, proposed_s = found.cheapest, found.fastest, found.seconds(found.proposed_mb)
    return [
        name,
        _priced(cheapest.memory_mb, cheapest.seconds),
        _priced(fastest.memory_mb, fastest.seconds),
        _priced(found.proposed_mb, proposed_s) + ("" if _is_measured(found) else " \\*"),
        found.reason,
    ]


def _priced(memory_mb: int, seconds: float) -> str:
    return f"{memory_mb:,} ({seconds:.{2 if seconds >= 0.1 else 3}f} s, ${_usd(memory_mb, seconds):.2f})"


def _is_measured(found: Measurement) -> bool:
    return any(sample.memory_mb == found.proposed_mb for sample in found.samples)


def _interpolated(measured: Durations) -> str:
    """Return the sentence about the asterisk: proposals whose figures are computed from those of other sizes."""
    names = [f"`{name}`" for name, found in measured.functions.items() if not _is_measured(found)]
    if not names:
        return "All proposed sizes were measured."
    return (
        f"\\* Not measured at the proposed size ({', '.join(names)}): time and cost are computed from measured sizes, "
        "between two of them by interpolation, below the smallest by its share of the CPU."
    )


def figures(measured: Durations) -> str:
    """Return a table of all samples of each function."""
    return "\n\n".join(_figures(name, found) for name, found in measured.functions.items())


def _figures(name: str, found: Measurement) -> str:
    heads = [
        "Memory, MB",
        "CPUs",
        "Warm call, s",
        "Init, s",
        "First call, s",
        "Peak memory, MB",
        "USD per million calls",
    ]
    return table(name, heads, list(_rows(found)))


def _rows(found: Measurement) -> Iterator[list[str]]:
    for size in found.out_of_memory_mb:
        yield [f"{size:,}", f"{cpu_share(size):.2f}", "out of memory", "", "", "", ""]
    for sample in found.samples:
        yield [
            f"{sample.memory_mb:,}",
            f"{cpu_share(sample.memory_mb):.2f}",
            f"{sample.seconds:.3f}",
            f"{sample.init_seconds:.2f}",
            f"{sample.first_seconds:.3f}",
            f"{sample.peak_mb:,}",
            f"{cost_usd(sample):.2f}",
        ]


def chart(measured: Durations) -> Figure:
    """Plot cost against time, one panel per stage; each point is a memory size, a ring the proposed one."""
    shown: Mapping[str, Measurement] = {
        name: measured.functions[name] for name in _STAGES if name in measured.functions
    }
    figure = Figure(figsize=(3.2 * len(shown), 3.4), layout="constrained")
    for number, (name, found) in enumerate(shown.items(), 1):
        axis = figure.add_subplot(1, len(shown), number)
        points = [(sample.seconds, cost_usd(sample)) for sample in found.samples]
        axis.plot(*zip(*points, strict=True), marker="o", markersize=4)
        for sample, point in zip(found.samples, points, strict=True):
            axis.annotate(f"{sample.memory_mb}", point, textcoords="offset points", xytext=(3, 5), fontsize=7)
            if sample.memory_mb == found.proposed_mb:
                axis.plot(*point, marker="o", markersize=10, fillstyle="none", color="C3")
        axis.set(title=name, xlabel="seconds per warm call", xlim=(0, None), ylim=(0, 1.25 * max(y for _, y in points)))
        if number == 1:
            axis.set_ylabel("USD per million calls")
    return figure


if __name__ == "__main__":
    write(durations())
