"""A load as tables and as the lines of a chart."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from bench import load_chart, machine
from bench.autoscaling import Decision
from bench.embedded import CpuTime
from bench.markdown import table
from bench.measure import Cost

PACE: Final = 60.0
"""How much faster than AWS the embedded cloud's autoscaling lives: its minute is a second."""


@dataclass(frozen=True)
class Run:
    """What became of an upload.

    Attributes:
        due_s: when it was to be sent; this and the others in seconds since the load began.
        sent_s: when it was sent.
        started_s: when its execution started; None if none did.
        stopped_s: when that ended; None if it did not.
        status: the execution's.
        error: its error's name, if it failed.
        timings_s: of its stages, as the sidecar has them.
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
        """From the beginning of the upload to the end of its execution."""
        return None if self.stopped_s is None else self.stopped_s - self.sent_s


@dataclass(frozen=True)
class Sample:
    """The segmentation queue and its workers at one moment."""

    at_s: float
    waiting: int
    held: int
    workers: int


@dataclass(frozen=True)
class Alone:
    """One picture at a time, medians: execution and stages in seconds; states that an execution enters."""

    execution_s: float
    timings_s: Mapping[str, float]
    states: int


@dataclass(frozen=True)
class Load:
    """All that was seen; ``cpu`` is None on AWS."""

    rate: float
    seconds: float
    host: str
    megapixels: float
    seed: int
    alone: Alone
    one_process: Cost
    runs: Sequence[Run]
    samples: Sequence[Sample]
    decisions: Sequence[Decision]
    cpu: CpuTime | None
    reports: int


def title(load: Load) -> str:
    """Return what was done."""
    what = f"{load.megapixels:g} MP, segmentation on {load.host}"
    return f"{load.rate:g} uploads per second for {load.seconds:g} s, {what}"


def report(load: Load) -> str:
    """Return the tables."""
    shares = _percentiles(load)
    parts = [
        f"Machine: {machine.describe()}.",
        table(title(load), ["", ""], _outcome(load)),
        table("Seconds", ["", *(f"p{share}" for share in shares)], _latencies(load, shares)),
    ]
    if load.cpu:
        parts.append(table("Cost", ["", ""], _cost(load, load.cpu)))
    if load.decisions:
        pace = PACE if load.cpu else 1.0
        rows = [(f"{d.at_s / pace:.1f} s", f"to {d.after}", d.reason) for d in load.decisions]
        parts.append(table("Autoscaling", ["at", "workers", "because"], rows))
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
        ("reports", f"{load.reports}"),
        ("failed, by error", ", ".join(f"{error} {count}" for error, count in failed.items()) or "none"),
        ("results per second, first upload to last result", f"{len(finished) / max(last_s - first_s, 1e-9):.2f}"),
        ("most executions at once", f"{max(at_once(load.runs), default=0)}"),
        ("sent later than planned, at most", f"{late_s:.2f} s"),
    ]


def _percentiles(load: Load) -> tuple[int, ...]:
    """Of fewer than a hundred values the 99th percentile is the longest one by another name."""
    return (50, 95, 99) if sum(run.status == "SUCCEEDED" for run in load.runs) >= 100 else (50, 95)


def _latencies(load: Load, shares: Sequence[int]) -> list[tuple[str, ...]]:
    done = [run for run in load.runs if run.status == "SUCCEEDED"]
    kinds: dict[str, list[float]] = {
        "upload to result": [run.stopped_s - run.sent_s for run in done if run.stopped_s is not None],
        "upload to start of the execution": [run.started_s - run.sent_s for run in done if run.started_s is not None],
        "execution": [run.stopped_s - run.started_s for run in done if run.stopped_s and run.started_s is not None],
        "work of its stages": [sum(run.timings_s.values()) for run in done],
    }
    rows = [
        (name, *(f"{np.percentile(values, share):.2f}" for share in shares)) for name, values in kinds.items() if values
    ]
    alone = load.alone
    medians = {"execution": alone.execution_s, "work of its stages": sum(alone.timings_s.values())}
    blank = [""] * (len(shares) - 1)
    rows += [(f"one at a time: {name}", f"{seconds:.2f}", *blank) for name, seconds in medians.items()]
    return rows


def _cost(load: Load, cpu: CpuTime) -> list[tuple[str, str]]:
    uploads = max(len(load.runs), 1)
    cloud, stages = cpu.cloud / uploads, cpu.stages / uploads
    return [
        ("CPU seconds per picture: the stages' processes", f"{stages:.2f}"),
        ("CPU seconds per picture: the embedded cloud itself", f"{cloud:.2f}"),
        ("CPU seconds per picture: core.pipeline in one process", f"{load.one_process.cpu_s:.2f}"),
        ("states per execution", f"{load.alone.states}"),
        ("states that the cloud interprets per second of one core", f"{load.alone.states / cloud:.0f}"),
        ("pictures per second and core: the stages alone", f"{1 / stages:.2f}"),
        ("pictures per second and core: with the embedded cloud", f"{1 / (stages + cloud):.2f}"),
        ("pictures per second and core: core.pipeline", f"{1 / load.one_process.cpu_s:.2f}"),
    ]


def at_once(runs: Sequence[Run]) -> list[int]:
    """Return how many executions ran after each start and each stop, in order of time."""
    changes = [(run.started_s, 1) for run in runs if run.started_s is not None]
    changes += [(run.stopped_s, -1) for run in runs if run.stopped_s is not None]
    return [int(count) for count in np.cumsum([change for _, change in sorted(changes)])]


def series(load: Load) -> load_chart.Series:
    """Return what the chart shows, second by second."""
    pace = PACE if load.cpu else 1.0
    end_s = max([load.seconds, *(sample.at_s for sample in load.samples), *(r.stopped_s or 0.0 for r in load.runs)])
    width_s = max(1.0, round(end_s / 60))
    edges = np.arange(0.0, end_s + 2 * width_s, width_s)
    moments, stops = edges[1:], np.array([run.stopped_s for run in load.runs if run.stopped_s is not None])
    seconds = np.array([run.seconds for run in load.runs if run.seconds is not None])
    bins = np.digitize(stops, edges)

    def running(begins: Sequence[float | None]) -> list[float]:
        pairs = [
            (begin, run.stopped_s or np.inf) for begin, run in zip(begins, load.runs, strict=True) if begin is not None
        ]
        return [float(sum(begin <= moment < end for begin, end in pairs)) for moment in moments]

    def percentile(share: float) -> list[float]:
        return [
            float(np.percentile(seconds[bins == number], share)) if (bins == number).any() else float("nan")
            for number in range(1, len(edges))
        ]

    def sampled(name: str) -> list[tuple[float, float]]:
        return [(sample.at_s, float(getattr(sample, name))) for sample in load.samples]

    def binned(values: Sequence[float]) -> list[tuple[float, float]]:
        return list(zip(map(float, moments), values, strict=True))

    arrived = np.histogram([run.due_s for run in load.runs], edges)[0] / width_s
    completed = np.histogram(stops, edges)[0] / width_s
    panels = [
        ("per second", {"uploads": binned(list(map(float, arrived))), "results": binned(list(map(float, completed)))}),
        (
            "at once",
            {
                "uploads without result": binned(running([run.sent_s for run in load.runs])),
                "executions": binned(running([run.started_s for run in load.runs])),
            },
        ),
        # One second has too few results for more than these two.
        ("seconds, upload to result", {"p50": binned(percentile(50)), "longest": binned(percentile(100))}),
    ]
    if load.host == "ecs":
        queue = {"waiting": sampled("waiting"), "in flight": sampled("held")}
        panels[2:2] = [("segmentation queue", queue), ("workers", {"running": sampled("workers")})]
    marks = [(decision.at_s / pace, f"{decision.after}") for decision in load.decisions]
    return load_chart.Series(title(load), float(edges[-1]), panels, marks)
