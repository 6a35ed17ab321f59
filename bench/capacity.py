"""Which of an account's limits is met first, at 1 to 10,000 uploads a second, and what happens there.

A simulation of discrete events. Each upload goes the way of the state machine's own definition, with the retries that
the definition has, against token buckets and pools of the size of AWS's default quotas. Where there are too many
uploads to look at each, one stands for several, and each limit is divided by their number. Same seed, same figures.

Run it with ``make capacity``; ``make capacity CHECK=out/load/lambda.json`` simulates this machine and compares that
with what ``make load`` measured there.
"""

import argparse
import hashlib
import json
import math
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
import yaml
from samtranslator.yaml_helper import yaml_parse

from bench import machine
from bench.autoscaling import Autoscaler, Policies
from bench.embedded import ROOT
from bench.load import photograph
from bench.markdown import table
from bench.measure import Cost, Job, measure
from bench.quotas import OTHERS, QUOTAS, Account
from bench.simulation import Cores, Engine, Process, Servers, TokenBucket
from bench.ways import COMPUTED, REQUESTS, WAYS, Step, demand, walk
from core import pipeline
from core.image import decode
from core.options import Options
from core.segmentation.registry import CLASSICAL, ModelSource
from core.segmentation.segment import segment, sufficient_px
from core.segmentation.sessions import Networks
from core.types import Precision
from embedded_cloud.lambda_runtime import CONCURRENCY

OUT: Final = Path("out/capacity")
DEFINITION: Final = ROOT / "statemachine/remove_background.asl.yaml"
TEMPLATE: Final = ROOT / "template.yaml"
RATES: Final = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)
WORKER_RATES: Final = (1, 3, 10)
LOAD_S: Final = 300.0
WORKER_LOAD_S: Final = 1_800.0  # workers come slowly
MEGAPIXELS: Final = (2.0, 12.0)

_THROTTLED: Final = "Lambda.TooManyRequestsException"
_STORAGE: Final = "StorageUnavailableError"
_TABLE: Final = "DynamoDB.ThrottlingException"

_MOST: Final = 2_500  # uploads that are looked at one by one, unless one would have to stand for too many:
_MOST_ALIKE: Final = 150.0  # then a pool of 1,000 has 7
_ROUNDS: Final = 3
_STABLE: Final = 1.2  # times the load's length, and everything is finished
_ENDS: Final = ("report", "left to reconcile", "timed out", "dead-letter queue")
_HEADROOM: Final = 0.8  # of a raised limit that is planned with
_CORES: Final = os.cpu_count() or 1
_TOLERANCE: Final = 0.25  # of the simulation of this machine
_MB_PER_VCPU: Final = 1_769  # Lambda, memory and computing power
_METRICS_S: Final = 0.02
# Assumed, not measured: nothing here is AWS.
_CALL_S: Final = 0.05  # what S3 and Lambda add to a function's own work
_NATIVE_S: Final = 0.01  # a DynamoDB or S3 integration
_SDK_S: Final = 0.5  # a function gives S3 up
_EVENT_RETRY_S: Final = (1.0, 600.0)  # EventBridge's first wait, doubled each time, and its longest; with full jitter
_WORKER_START_S: Final = 150.0
_SAMPLE_S: Final = 15.0

Durations = Mapping[str, Sequence[float]]
"""Seconds of each Lambda function, as measured several times; one of them is drawn for each call."""


@dataclass
class Tally:
    """What became of uploads; seconds since the load began."""

    latencies_s: list[float] = field(default_factory=list)
    finished_s: list[float] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    first_refused_s: dict[str, float] = field(default_factory=dict)
    stood_in: int = 0
    running: int = 0
    most_running: int = 0

    def refuse(self, limit: str, now_s: float) -> None:
        """Count a call that a limit turned away, or made wait."""
        self.refused[limit] += 1
        self.first_refused_s.setdefault(limit, now_s)


class Site:
    """An account's limits, each divided by the number of uploads that one stands for.

    Args:
        engine: whose time it is.
        account: whose defaults hold.
        scale: the divisor.
    """

    def __init__(self, engine: Engine, account: Account, scale: float = 1.0) -> None:
        self.engine, self.tally = engine, Tally()
        self._buckets = {
            quota.limit: TokenBucket(engine, quota.per_second[account] / scale, max(8.0, quota.burst[account] / scale))
            for quota in QUOTAS
        }
        by_limit = {quota.limit: quota for quota in QUOTAS}
        new = by_limit["new environments"]
        self._concurrency = max(1, round(by_limit["concurrency"].per_second[account] / scale))
        self._new = defaultdict[str, TokenBucket](
            lambda: TokenBucket(engine, new.per_second[account] / scale, max(8.0, new.burst[account] / scale))
        )
        self._environments, self._busy = Counter[str](), Counter[str]()

    def take(self, limit: str, tokens: float = 1.0) -> bool:
        """Ask a limit for something, and count a refusal."""
        granted = self._buckets[limit].take(tokens)
        if not granted:
            self.tally.refuse(limit, self.engine.now)
        return granted

    def reserve(self, limit: str, tokens: float) -> float:
        """Ask a limit that makes wait and never refuses; returns for how long."""
        pause_s = self._buckets[limit].reserve(tokens)
        if pause_s > 0:
            self.tally.refuse(limit, self.engine.now)
        return pause_s

    def enter(self, function: str) -> bool:
        """Have an environment of a function, warm or new."""
        if not self.take("invocations"):
            return False
        if self._busy.total() >= self._concurrency:
            self.tally.refuse("concurrency", self.engine.now)
            return False
        if self._busy[function] == self._environments[function]:
            if not self._new[function].take():
                self.tally.refuse("new environments", self.engine.now)
                return False
            self._environments[function] += 1
        self._busy[function] += 1
        return True

    def leave(self, function: str) -> None:
        """Give the environment back."""
        self._busy[function] -= 1

    def transit(self, states: int) -> Process:
        """Wait for so many state transitions."""
        yield self.reserve("transitions", states)

    def work(self, _function: str, seconds: float) -> Process:
        """Be at work in a function."""
        yield seconds


class Machine(Site):
    """A machine with the embedded cloud: its cores are shared, and a function has so many processes.

    Args:
        engine: whose time it is.
        load: what :mod:`bench.load` measured there. CPU time of the cloud counts as its states', that of all
            functions as the stages', also where one has no timing.
    """

    def __init__(self, engine: Engine, load: Mapping[str, Any]) -> None:
        super().__init__(engine, Account.LARGE)
        alone, cpu, uploads = load["alone"], load["cpu"], len(load["runs"])
        self._cores = Cores(engine, _CORES)
        self._processes = defaultdict[str, Servers](lambda: Servers(engine, CONCURRENCY))
        self._state_s = cpu["cloud"] / uploads / alone["states"]
        self._cores_used = cpu["stages"] / uploads / sum(alone["timings_s"].values())

    def transit(self, states: int) -> Process:
        """Have the cloud enter so many states."""
        yield from self._cores.work(states * self._state_s)

    def work(self, function: str, seconds: float) -> Process:
        """Be at work in a process of a function, once one is free."""
        yield from self._processes[function].enter()
        yield from self._cores.work(seconds, self._cores_used)
        self._processes[function].leave()


class Pipeline:
    """Uploads on their way through the state machine.

    Args:
        site: whose limits they meet.
        project: definition and retries.
        durations: of the functions, and of a worker as ``WorkerTask``.
        choices: which way, see :data:`bench.ways.WAYS`.
        workers: who takes the jobs from the queue, on a way that leads there.
        seed: of what is drawn.
    """

    def __init__(
        self,
        site: Site,
        project: "Project",
        durations: Durations,
        choices: Mapping[str, Sequence[str]] = COMPUTED,
        workers: Servers | None = None,
        seed: int = 0,
    ) -> None:
        self._site, self._engine, self._definition = site, site.engine, project.definition
        self._durations, self._delivery, self._choices = durations, project.delivery, choices
        self._workers, self._rng = workers, Random(seed)  # noqa: S311  no secret
        self._way = walk(project.definition, choices)
        self._tasks = {step.name: _Task.of(step) for step in self._way}

    def upload(self) -> Process:
        """Yield the waits of one upload, from the upload to its end."""
        engine, tally = self._engine, self._site.tally
        sent_s = engine.now
        if not (yield from self._deliver()):
            tally.ends["dead-letter queue"] += 1
            return
        tally.running += 1
        tally.most_running = max(tally.most_running, tally.running)
        end = yield from self._execute(self._way, engine.now)
        tally.running -= 1
        tally.ends[end] += 1
        if end == "result":
            tally.latencies_s.append(engine.now - sent_s)
            tally.finished_s.append(engine.now)

    def _deliver(self) -> Generator[float, None, bool]:
        """EventBridge starts the execution, or tries again until its attempts or the event's time are spent."""
        first_s, longest_s = _EVENT_RETRY_S
        last_s = self._engine.now + self._delivery.age_s
        yield self._site.reserve("events", 1)
        for retry in range(self._delivery.retries + 1):
            if self._site.take("starts"):
                return True
            pause_s = self._rng.random() * min(longest_s, first_s * 2**retry)
            if self._engine.now + pause_s > last_s:
                break
            yield pause_s
        return False

    def _execute(self, way: Sequence[Step], started_s: float) -> Generator[float | None, None, str]:
        for step in way:
            if self._engine.now - started_s > self._definition["TimeoutSeconds"]:
                return "timed out"
            failure = yield from self._visit(step)
            if failure is None:
                continue
            follows = step.catches(failure)
            if follows in ("SecondAttempt?", "KeepRawInput", "RecordFailure"):
                return (yield from self._fail(follows, started_s))
            self._site.tally.stood_in += 1
            return (yield from self._execute(self._rest(follows), started_s))
        return "result"

    def _rest(self, start: str) -> list[Step]:
        steps = walk(self._definition, self._choices, start)
        self._tasks |= {step.name: _Task.of(step) for step in steps}
        return steps

    def _fail(self, start: str, started_s: float) -> Generator[float | None, None, str]:
        """Record the failure; that too asks Lambda."""
        choices = {
            "SecondAttempt?": ["RecordFailure"],
            "HoldsClaim?": ["PublishMetrics"],
            "Outcome?": ["Failed"],
        }
        way = walk(self._definition, choices, start)
        self._tasks |= {step.name: _Task.of(step) for step in way}
        for step in way:
            failure = yield from self._visit(step)
            if step.name == "RecordFailure" and failure is not None:
                return "left to reconcile"
        return "timed out" if self._engine.now - started_s > self._definition["TimeoutSeconds"] else "report"

    def _visit(self, step: Step) -> Generator[float | None, None, str | None]:
        """Enter a state, with its retries; returns the error that they were spent on."""
        task, site = self._tasks[step.name], self._site
        spent = Counter[str]()
        while True:
            yield from site.transit(step.entered if not spent else 1)
            error = yield from self._attempt(task, site)
            if error is None:
                return None
            retrier = task.retriers.get(error)
            if retrier is None or spent[error] == retrier.attempts:
                return error
            yield retrier.wait_s(spent[error], self._rng)
            spent[error] += 1

    def _attempt(self, task: "_Task", site: Site) -> Generator[float | None, None, str | None]:
        if task.function:
            if not site.enter(task.function):
                return _THROTTLED
            error = None if all(site.take(limit, times) for limit, times in task.requests) else _STORAGE
            yield from site.work(task.function, _SDK_S if error else self._drawn(task.function))
            site.leave(task.function)
            return error
        if task.table:
            yield _NATIVE_S
            return None if site.take(*task.table) else _TABLE
        if task.queued_s and self._workers:
            if not (yield from self._workers.enter(task.queued_s)):
                return "States.HeartbeatTimeout"
            yield self._drawn("WorkerTask")
            self._workers.leave()
        return None

    def _drawn(self, name: str) -> float:
        measured = self._durations[name]
        return self._rng.choice(measured)


@dataclass(frozen=True)
class _Task:
    """What a step asks for, looked up once."""

    function: str | None
    requests: tuple[tuple[str, int], ...]
    table: tuple[str, float] | None
    queued_s: float | None
    retriers: Mapping[str, Any]

    @classmethod
    def of(cls, step: Step) -> "_Task":
        needed = demand([step])
        table_limit = next(((key, float(needed[key])) for key in ("table reads", "table writes") if needed[key]), None)
        requests = REQUESTS[step.function] if step.function else {}
        retried = {name for entry in step.state.get("Retry", ()) for name in entry["ErrorEquals"]}
        return cls(
            function=step.function,
            requests=tuple((f"{bucket} {kind}", times) for (bucket, kind), times in requests.items()),
            table=table_limit,
            queued_s=step.state.get("HeartbeatSeconds") if step.calls("sqs") else None,
            retriers={error: step.retrier(error) for error in (_THROTTLED, _STORAGE, _TABLE) if error in retried},
        )


def scale_of(rate: float) -> float:
    """Return for how many uploads a simulated one stands."""
    return min(max(1.0, rate * LOAD_S / _MOST), _MOST_ALIKE)


def poisson(engine: Engine, rate: float, seconds: float, process: Callable[[], Process], seed: int) -> Process:
    """Start processes at random moments, so many per second."""
    rng = Random(seed)  # noqa: S311  no secret
    while engine.now < seconds:
        yield rng.expovariate(rate)
        engine.start(process())


def simulate(rate: float, account: Account, durations: Durations, project: "Project", seed: int = 1) -> Tally:
    """Simulate a load of :data:`LOAD_S`, and what is left of it afterwards, on Lambda.

    Its counts are those of simulated uploads, of which one stands for :func:`scale_of` that rate; times are true.
    """
    scale = scale_of(rate)
    engine = Engine()
    site = Site(engine, account, scale)
    uploads = Pipeline(site, project, durations, seed=seed)
    engine.start(poisson(engine, rate / scale, LOAD_S, uploads.upload, seed))
    engine.run()
    return site.tally


def simulate_workers(rate: float, durations: Durations, project: "Project") -> tuple[Tally, Autoscaler]:
    """Simulate :data:`WORKER_LOAD_S` on ECS, in a large region, with the template's autoscaling; none runs at first."""
    engine = Engine()
    site = Site(engine, Account.LARGE)
    workers = Servers(engine, project.policies.minimum)
    scaler = Autoscaler(project.policies, project.policies.minimum)
    uploads = Pipeline(site, project, durations, WAYS["computed, ECS"], workers)
    engine.start(poisson(engine, rate, WORKER_LOAD_S, uploads.upload, 1))
    engine.start(_scaling(engine, scaler, workers, site.tally))
    engine.run()
    return site.tally, scaler


def _scaling(engine: Engine, scaler: Autoscaler, workers: Servers, tally: Tally) -> Process:
    """Sample the queue for the autoscaler, and have workers come and go as it decides."""
    running = scaler.desired

    def resize(to: int) -> Process:
        nonlocal running
        running = to
        workers.resize(to)
        yield from ()

    while engine.now < WORKER_LOAD_S or tally.running:
        decision = scaler.sample(
            engine.now, waiting=workers.waiting, held=workers.busy, running=running, taken=workers.busy
        )
        if decision:
            engine.start(resize(decision.after), _WORKER_START_S if decision.after > running else 0.0)
        yield _SAMPLE_S


# What is put in


@dataclass(frozen=True)
class Delivery:
    """How often EventBridge tries an event again, and how old it may become; whichever ends first."""

    retries: int
    age_s: float


@dataclass(frozen=True)
class Project:
    """What the project's own files say: definition, memory of each function, EventBridge's retries, scaling."""

    definition: Mapping[str, Any]
    memory_mb: Mapping[str, int]
    delivery: Delivery
    policies: Policies

    @classmethod
    def read(cls) -> "Project":
        """Read them."""
        resources = yaml_parse(TEMPLATE.read_text())["Resources"]
        retries = resources["RemoveBackground"]["Properties"]["Events"]["Upload"]["Properties"]["RetryPolicy"]
        return cls(
            definition=yaml.safe_load(DEFINITION.read_text()),
            memory_mb={
                name: resource["Properties"]["MemorySize"]
                for name, resource in resources.items()
                if resource["Type"] == "AWS::Serverless::Function"
            },
            delivery=Delivery(retries["MaximumRetryAttempts"], retries["MaximumEventAgeInSeconds"]),
            policies=Policies.read(TEMPLATE),
        )


def measured(megapixels: float, project: Project) -> dict[str, list[float]]:
    """Measure each stage on a picture of that size, and return what its function takes, by function.

    A stage takes as long as one core needs for it, or longer where its function has less than a core: CPU time is what
    other work on the machine changes least.
    """
    jobs = {function: Job(_stage, (photograph(megapixels), function), _ROUNDS) for function in _STAGES}
    durations = {"MetricsFunction": [_METRICS_S + _CALL_S], "FailureFunction": [_METRICS_S + _CALL_S]}
    for function, cost in measure(jobs).items():
        if not isinstance(cost, Cost):
            raise RuntimeError(cost.reason)
        vcpus = project.memory_mb[function] / _MB_PER_VCPU
        durations[function] = [cost.cpu_s / min(1.0, vcpus) + _CALL_S]
    return durations


_STAGES: Final = ("ValidateFunction", "SegmentFunction", "RefineFunction", "EncodeFunction")


def _stage(picture: bytes, function: str) -> Callable[[], object]:
    """Prepare the work of one function, without S3."""
    networks = Networks(ModelSource((Path(),)))
    full = decode.decode(picture)
    mask = segment(full.rgb, CLASSICAL, networks).mask
    alpha = pipeline.refine_edge(full, mask, Precision.HIGH).alpha

    def validate() -> object:
        return hashlib.sha256(picture).digest(), decode.decode(picture, at_least_px=1)

    def find() -> object:
        small = decode.decode(picture, at_least_px=sufficient_px(CLASSICAL, networks.source.registry))
        return segment(small.rgb, CLASSICAL, networks)

    def refine() -> object:
        return pipeline.refine_edge(decode.decode(picture), mask, Precision.HIGH)

    def encode() -> object:
        return pipeline.finish(decode.decode(picture), alpha, Options(model=CLASSICAL), None)

    call = dict(zip(_STAGES, (validate, find, refine, encode), strict=True))[function]
    call()
    return call


# The check against what was measured


def simulate_machine(load: Mapping[str, Any], project: Project) -> Tally:
    """Simulate a load on Lambda on this machine: its arrivals, and stages as long as they took one at a time."""
    engine = Engine()
    site = Machine(engine, load)
    durations = {f"{stage.title()}Function": [seconds] for stage, seconds in load["alone"]["timings_s"].items()}
    uploads = Pipeline(site, project, {**durations, "MetricsFunction": [0.0]})
    for run in load["runs"]:
        engine.start(uploads.upload(), run["sent_s"])
    engine.run()
    return site.tally


def check(load: Mapping[str, Any]) -> str:
    """Return what was measured and what is simulated, side by side.

    What is checked is the code behind all tables, uploads on their way through the states, sharing what there is too
    little of. This machine refuses nothing, so retries are not checked, and neither are an account's limits.
    """
    done = [run for run in load["runs"] if run["status"] == "SUCCEEDED"]
    first_s = min(run["due_s"] for run in load["runs"])
    seen = Tally(
        latencies_s=[run["stopped_s"] - run["sent_s"] for run in done], finished_s=[run["stopped_s"] for run in done]
    )
    simulated = simulate_machine(load, Project.read())

    def row(name: str, of: Callable[[Tally], float]) -> tuple[str, ...]:
        ratio = of(simulated) / of(seen)
        is_close = abs(ratio - 1) <= _TOLERANCE
        return name, f"{of(seen):.2f}", f"{of(simulated):.2f}", f"{ratio:.2f}", "yes" if is_close else "no"

    rows = [
        row("results per second", lambda tally: len(tally.finished_s) / (max(tally.finished_s) - first_s)),
        row("p50, s", lambda tally: float(np.percentile(tally.latencies_s, 50))),
        row("p95, s", lambda tally: float(np.percentile(tally.latencies_s, 95))),
    ]
    title = f"{load['rate']:g} uploads per second for {load['seconds']:g} s, {load['megapixels']:g} MP, {_CORES} cores"
    return table(title, ["", "measured", "simulated", "ratio", f"within {_TOLERANCE:.0%}"], rows)


# What is told of it


def main() -> None:
    """Print the tables, and write them to ``out/capacity``."""
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description=__doc__)
    parser.add_argument("--check", type=Path, help="figures of a make load on this machine, HOST=lambda")
    arguments = parser.parse_args()
    if arguments.check:
        print(check(json.loads(arguments.check.read_text())))
        return
    started = time.monotonic()
    project = Project.read()
    pictures = {f"{size:g} MP": measured(size, project) for size in MEGAPIXELS}
    network_s = 60.0 / project.policies.target
    network = f"{MEGAPIXELS[-1]:g} MP, a network of {network_s:g} s"
    slower = {"SegmentFunction": [network_s], "WorkerTask": [network_s]}
    pictures[network] = pictures[f"{MEGAPIXELS[-1]:g} MP"] | slower
    ready = time.monotonic()
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / "capacity.md").open("w") as file:
        for part in _parts(pictures, network, project):
            print(part, end="\n\n", flush=True)
            file.write(f"{part}\n\n")
    print(f"Measured in {ready - started:.0f} s, simulated in {time.monotonic() - ready:.0f} s; kept in {OUT}")


def _parts(pictures: Mapping[str, Durations], network: str, project: Project) -> Iterator[str]:
    yield f"Machine: {machine.describe()}."
    yield durations_table(pictures)
    yield demand_table(project)
    yield quota_table()
    yield first_limits(pictures, project)
    for account, name, rates in _runs(network):
        yield overload(account, name, pictures[name], project, rates)
    yield raise_table(pictures[network], project)
    yield workers_table(pictures[network], project)


def _runs(network: str) -> list[tuple[Account, str, Sequence[int]]]:
    """Return what is simulated, and at which rates."""
    small, large = (f"{size:g} MP" for size in MEGAPIXELS)
    return [
        (Account.LARGE, small, RATES),
        (Account.LARGE, large, RATES),
        (Account.LARGE, network, RATES),
        (Account.OTHER, large, RATES[:6]),
        (Account.NEW, large, RATES[:3]),
    ]


def durations_table(pictures: Mapping[str, Durations]) -> str:
    """Return how long functions take."""
    heads = ["", *(function.removesuffix("Function") for function in _STAGES)]
    rows = [(name, *(f"{np.median(took[function]):.2f}" for function in _STAGES)) for name, took in pictures.items()]
    return table("Seconds of each function, on one core", heads, rows)


def demand_table(project: Project) -> str:
    """Return what one upload asks for, on each way."""
    needs = {name: demand(walk(project.definition, way)) for name, way in WAYS.items()}
    limits = [quota.limit for quota in QUOTAS if any(needed[quota.limit] for needed in needs.values())]
    limits = [limit for limit in limits if limit not in ("events", "starts")]
    rows = [(name, *(f"{needed[limit] or ''}" for limit in limits)) for name, needed in needs.items()]
    return table("What one upload asks for", ["", *limits], rows)


def quota_table() -> str:
    """Return the limits with their sources."""

    def amount(long_run: float, burst: float) -> str:
        return f"{long_run:,.0f}" if burst == long_run else f"{long_run:,.0f}, {burst:,.0f} at once"

    def known(source: str, verified: bool) -> str:
        return source if verified else f"{source}; unverified"

    rows = [
        (q.name, *(amount(q.per_second[a], q.burst[a]) for a in Account), known(q.source, q.verified)) for q in QUOTAS
    ]
    rows += [(name, value, "", "", known(source, verified)) for name, value, source, verified in OTHERS]
    return table("Default limits, per second", ["", *Account, "source"], rows)


def allowed(durations: Durations, project: Project, account: Account) -> dict[str, float]:
    """Return how many uploads a second each limit allows in the long run, the tightest first."""
    way = walk(project.definition, COMPUTED)
    needed: dict[str, float] = {limit: float(amount) for limit, amount in demand(way).items()}
    needed["concurrency"] = sum(float(np.mean(durations[step.function])) for step in way if step.function)
    rates = {
        quota.limit: quota.per_second[account] / needed[quota.limit] for quota in QUOTAS if needed.get(quota.limit)
    }
    return dict(sorted(rates.items(), key=lambda entry: entry[1]))


def first_limits(pictures: Mapping[str, Durations], project: Project) -> str:
    """Return the three tightest limits of each account."""
    rows = []
    for account in Account:
        for name, durations in pictures.items():
            tightest = list(allowed(durations, project, account).items())[:4]
            rows.append((f"{account}, {name}", *(f"{limit} {rate:,.0f}" for limit, rate in tightest)))
    return table("Uploads per second that a limit allows", ["", "first", "second", "third", "fourth"], rows)


def overload(account: Account, name: str, durations: Durations, project: Project, rates: Sequence[int]) -> str:
    """Return what happens at each rate."""
    rows = []
    for rate in rates:
        tally = simulate(rate, account, durations, project)
        uploads = max(tally.ends.total(), 1)
        late = sum(LOAD_S / 2 < moment <= LOAD_S for moment in tally.finished_s) * scale_of(rate) / (LOAD_S / 2)
        last_s = max(tally.finished_s, default=LOAD_S)
        stable = last_s < _STABLE * LOAD_S and not tally.ends["dead-letter queue"]
        latencies = np.percentile(tally.latencies_s, (50, 95)) if tally.latencies_s else (math.nan, math.nan)
        met = next((limit for limit in allowed(durations, project, account) if tally.refused[limit]), "")
        rows.append(
            (
                f"{rate:,}",
                f"{met}, after {tally.first_refused_s[met]:.0f} s" if met else "none",
                f"{late:,.0f}" if rate >= 10 else f"{late:.1f}",
                *(_duration(value) for value in latencies),
                "" if stable else _duration(last_s),
                *(f"{tally.ends[end] / uploads:.1%}" if tally.ends[end] else "" for end in _ENDS),
            )
        )
    heads = ["uploads/s", "tightest limit that was met", "results/s", "p50", "p95", "last result after", *_ENDS]
    return table(f"{LOAD_S:g} s of load, {account}, {name}", heads, rows)


def _duration(seconds: float) -> str:
    if math.isnan(seconds):
        return ""
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def raise_table(durations: Durations, project: Project) -> str:
    """Return the limits that have to be raised, and to what."""
    rates = allowed(durations, project, Account.LARGE)
    names = {quota.limit: quota for quota in QUOTAS}
    rows = []
    for limit, rate in rates.items():
        now = names[limit].per_second[Account.LARGE]
        needs = [now / rate * wanted / _HEADROOM for wanted in RATES]
        if needs[-1] > now:
            cells = (f"{_rounded(need):,.0f}" if need > now else "" for need in needs)
            rows.append((names[limit].name, f"{now:,.0f}", *cells, names[limit].raised))
    heads = ["limit", "default", *(f"{rate:,}/s" for rate in RATES), "raised by"]
    title = f"To be raised, {Account.LARGE}, 12 MP and a network, {1 - _HEADROOM:.0%} to spare"
    return table(title, heads, rows)


def _rounded(value: float) -> float:
    """Round up to two digits."""
    power = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / power) * power


def workers_table(durations: Durations, project: Project) -> str:
    """Return what happens with segmentation on ECS."""
    rows = []
    for rate in WORKER_RATES:
        tally, scaler = simulate_workers(rate, durations, project)
        p50, p95 = (_duration(float(value)) for value in np.percentile(tally.latencies_s, (50, 95)))
        late = sum(WORKER_LOAD_S / 2 < moment <= WORKER_LOAD_S for moment in tally.finished_s) / (WORKER_LOAD_S / 2)
        rows.append(
            (
                f"{rate}",
                f"{late:.1f}",
                p50,
                p95,
                f"{tally.ends['result'] and tally.stood_in / tally.ends['result']:.0%}",
                f"{max((decision.after for decision in scaler.decisions), default=0)}",
                f"{len(scaler.decisions)}",
            )
        )
    heads = ["uploads/s", "results/s", "p50", "p95", "done by Lambda instead", "most workers", "decisions"]
    return table(f"{WORKER_LOAD_S:,.0f} s of load on ECS, {Account.LARGE}", heads, rows)


if __name__ == "__main__":
    main()
