"""Tables and a chart of a load test."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from matplotlib.figure import Figure

from bench import platform_info
from bench.autoscaling import Decision
from bench.embedded import CpuTime
from bench.markdown import table
from bench.measure import Cost

PACE: Final = 60.0
"""Speed of autoscaling on the embedded cloud relative to AWS."""


@dataclass(frozen=True)
class Run:
    """The outcome of an upload. Times are in seconds since the start of the load.

    Attributes:
        due_s: planned time of the upload.
        sent_s: actual time of the upload.
        started_s: start of the execution; None if it did not start.
        stopped_s: end of the execution; None if it did not end.
        status: status of the execution.
        error: error name of a failed execution, else empty.
        timings_s: seconds by stage, from the sidecar.
    """

    due_s: float
    sent_s: float
    started_s: float | None
    stopped_s: float | None
    status: str
    error: str
    timings_s: Mapping[str, float]

    @property
    def seconds(self) -> float | None:
        """Seconds from the start of the upload to the end of its execution."""
        return None if self.stopped_s is None else self.stopped_s - self.sent_s


@dataclass(frozen=True)
class Sample:
    """The segmentation queue and its workers at one point in time."""

    at_s: float
    waiting: int
    held: int
    workers: int


@dataclass(frozen=True)
class Baseline:
    """Medians for one picture at a time.

    Attributes:
        execution_s: duration of an execution.
        timings_s: seconds by stage.
        states: number of states that an execution enters.
    """

    execution_s: float
    timings_s: Mapping[str, float]
    states: int


@dataclass(frozen=True)
class Load:
    """The parameters and measurements of a load test; ``cpu`` is None on AWS."""

    rate: float
    seconds: float
    host: str
    megapixels: float
    seed: int
    baseline: Baseline
    one_process: Cost
    runs: Sequence[Run]
    samples: Sequence[Sample]
    decisions: Sequence[Decision]
    cpu: CpuTime | None
    reports: int


def title(load: Load) -> str:
    """Return a title with rate, duration, size, and host."""
    what = f"{load.megapixels:g} MP, segmentation on {load.host}"
    return f"{load.rate:g} uploads per second for {load.seconds:g} s, {what}"


def report(load: Load) -> str:
    """Return the tables of the report."""
    shares = _percentiles(load)
    parts = [
        f"Platform: {platform_info.describe()}.",
        table(title(load), ["", ""], _outcome(load)),
        table("Seconds", ["", *(f"p{share}" for share in shares)], _latencies(load, shares)),
    ]
    if load.cpu:
        parts.append(table("Cost", ["", ""], _cost(load, load.cpu)))
    if load.decisions:
        pace = PACE if load.cpu else 1.0
        rows = [(f"{d.at_s / pace:.1f} s", f"to {d.after}", d.reason) for d in load.decisions]
        parts.append(table("Autoscaling", ["time", "workers", "reason"], rows))
    return "\n\n".join(parts)


def _outcome(load: Load) -> list[tuple[str, str]]:
    finished = [run for run in load.runs if run.stopped_s is not None]
    failed = Counter(run.error or run.status for run in load.runs if run.status != "SUCCEEDED")
    last_s = max((run.stopped_s or 0.0 for run in finished), default=0.0)
    first_s = min((run.due_s for run in load.runs), default=0.0)
    late_s = max((run.sent_s - run.due_s for run in load.runs), default=0.0)
    return [
        ("uploads", f"{len(load.runs)}"),
        ("results", f"{sum(run.status == 'SUCCEEDED' for run in load.runs)}"),
        ("failure reports", f"{load.reports}"),
        ("failures by error", ", ".join(f"{error} {count}" for error, count in failed.items()) or "none"),
        ("results per second, first upload to last result", f"{len(finished) / max(last_s - first_s, 1e-9):.2f}"),
        ("maximum of concurrent executions", f"{max(concurrency(load.runs), default=0)}"),
        ("maximum delay of an upload", f"{late_s:.2f} s"),
    ]


def _percentiles(load: Load) -> tuple[int, ...]:
    """Return the percentiles to report. Below 100 results, the 99th percentile would be the maximum."""
    return (50, 95, 99) if sum(run.status == "SUCCEEDED" for run in load.runs) >= 100 else (50, 95)


def _latencies(load: Load, shares: Sequence[int]) -> list[tuple[str, ...]]:
    done = [run for run in load.runs if run.status == "SUCCEEDED"]
    kinds: dict[str, list[float]] = {
        "upload to result": [run.stopped_s - run.sent_s for run in done if run.stopped_s is not None],
        "upload to start of the execution": [run.started_s - run.sent_s for run in done if run.started_s is not None],
        "execution": [run.stopped_s - run.started_s for run in done if run.stopped_s and run.started_s is not None],
        "stages": [sum(run.timings_s.values()) for run in done],
    }
    rows = [
        (name, *(f"{np.percentile(values, share):.2f}" for share in shares)) for name, values in kinds.items() if values
    ]
    baseline = load.baseline
    medians = {"execution": baseline.execution_s, "stages": sum(baseline.timings_s.values())}
    blank = [""] * (len(shares) - 1)
    rows += [(f"one at a time: {name}", f"{seconds:.2f}", *blank) for name, seconds in medians.items()]
    return rows


def _cost(load: Load, cpu: CpuTime) -> list[tuple[str, str]]:
    uploads = max(len(load.runs), 1)
    cloud, stages = cpu.cloud / uploads, cpu.stages / uploads
    return [
        ("CPU seconds per picture: stages", f"{stages:.2f}"),
        ("CPU seconds per picture: embedded cloud", f"{cloud:.2f}"),
        ("CPU seconds per picture: core.pipeline in one process", f"{load.one_process.cpu_s:.2f}"),
        ("states per execution", f"{load.baseline.states}"),
        ("states per second and core of the embedded cloud", f"{load.baseline.states / cloud:.0f}"),
        ("pictures per second and core: stages", f"{1 / stages:.2f}"),
        ("pictures per second and core: stages and embedded cloud", f"{1 / (stages + cloud):.2f}"),
        ("pictures per second and core: core.pipeline", f"{1 / load.one_process.cpu_s:.2f}"),
    ]


def concurrency(runs: Sequence[Run]) -> list[int]:
    """Return the number of running executions after each start and stop, in order of time."""
    changes = [(run.started_s, 1) for run in runs if run.started_s is not None]
    changes += [(run.stopped_s, -1) for run in runs if run.stopped_s is not None]
    return [int(count) for count in np.cumsum([change for _, change in sorted(changes)])]


def chart(load: Load) -> Figure:
    """Plot the load over time with one panel per quantity; dotted lines mark scaling decisions."""
    panels = _panels(load)
    figure = Figure(figsize=(9.6, 1.7 * len(panels)), layout="constrained")
    for number, (name_of_panel, lines) in enumerate(panels.items(), 1):
        axis = figure.add_subplot(len(panels), 1, number)
        for name, points in lines.items():
            axis.plot(*zip(*points, strict=True), label=name)
        for decision in load.decisions:
            axis.axvline(decision.at_s / (PACE if load.cpu else 1.0), color="0.6", linestyle=":")
        axis.set(title=name_of_panel, ylim=(0, None))
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    axis.set_xlabel("seconds")
    figure.suptitle(title(load))
    return figure


_Line: TypeAlias = list[tuple[float, float]]


def _panels(load: Load) -> dict[str, dict[str, _Line]]:
    """Return the lines of each panel as pairs of seconds and value; missing values are NaN."""
    end_s = max([load.seconds, *(sample.at_s for sample in load.samples), *(r.stopped_s or 0.0 for r in load.runs)])
    width_s = max(1.0, round(end_s / 60))
    edges = np.arange(0.0, end_s + 2 * width_s, width_s)
    moments = edges[1:].tolist()
    ended = [run for run in load.runs if run.stopped_s is not None and run.seconds is not None]
    bins = np.digitize([run.stopped_s or 0.0 for run in ended], edges)

    def per_second(times: Sequence[float]) -> _Line:
        return list(zip(moments, (np.histogram(times, edges)[0] / width_s).tolist(), strict=True))

    def running(begins: Sequence[float | None]) -> _Line:
        spans = [
            (begin, run.stopped_s or np.inf) for begin, run in zip(begins, load.runs, strict=True) if begin is not None
        ]
        return [(moment, float(sum(begin <= moment < end for begin, end in spans))) for moment in moments]

    def percentile(share: float) -> _Line:
        seconds = np.array([run.seconds for run in ended], float)
        chosen = [seconds[bins == number] for number in range(1, len(edges))]
        return [
            (at, float(np.percentile(some, share)) if some.size else np.nan)
            for at, some in zip(moments, chosen, strict=True)
        ]

    def sampled(name: str) -> _Line:
        return [(sample.at_s, float(getattr(sample, name))) for sample in load.samples]

    uploads, results = (
        [run.due_s for run in load.runs],
        [run.stopped_s for run in load.runs if run.stopped_s is not None],
    )
    panels = {
        "per second": {"uploads": per_second(uploads), "results": per_second(results)},
        "at once": {
            "uploads without result": running([run.sent_s for run in load.runs]),
            "executions": running([run.started_s for run in load.runs]),
        },
    }
    if load.host == "ecs":
        panels["segmentation queue"] = {"waiting": sampled("waiting"), "in flight": sampled("held")}
        panels["workers"] = {"running": sampled("workers")}
    return panels | {"seconds, upload to result": {"p50": percentile(50), "longest": percentile(100)}}
