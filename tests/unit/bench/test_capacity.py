"""The simulation against what is known in closed form, and what it reads against the project."""

import json
import math
import os
from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any, Final

import pytest
import yaml
from botocore.exceptions import ClientError

from bench.capacity import (
    DEFINITION,
    LOAD_S,
    Delivery,
    Pipeline,
    Project,
    Site,
    allowed,
    check,
    poisson,
    scale_of,
    simulate,
    simulate_machine,
)
from bench.quotas import QUOTAS, Account
from bench.simulation import Cores, Engine, Process, Servers, TokenBucket
from bench.ways import COMPUTED, REQUESTS, WAYS, Retrier, demand, walk
from functions.contracts.job import Execution
from functions.runtime.failure_reports import FailureConfig, Recorder
from functions.runtime.store import Store
from tests.conftest import ROOT

MACHINE = yaml.safe_load(DEFINITION.read_text())
DURATIONS = {name: [0.4] for name in REQUESTS}


@pytest.fixture(scope="module")
def project() -> Project:
    return Project.read()


def erlang_c_wait_s(arrivals: float, service_s: float, servers: int) -> float:
    """Return the mean wait in an M/M/c queue."""
    load = arrivals * service_s
    terms = [load**n / math.factorial(n) for n in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(terms) + last) * service_s / (servers - load)


@pytest.mark.parametrize(("arrivals", "servers"), [(0.7, 1), (3.2, 4), (8.5, 10)])
def test_a_queue_waits_as_long_as_erlang_says(arrivals: float, servers: int) -> None:
    engine, rng = Engine(), Random(3)
    queue, waits = Servers(engine, servers), list[float]()

    def customer() -> Process:
        came = engine.now
        yield from queue.enter()
        waits.append(engine.now - came)
        yield rng.expovariate(1.0)
        queue.leave()

    engine.start(poisson(engine, arrivals, 60_000 / arrivals, customer, seed=1))
    engine.run()
    assert sum(waits) / len(waits) == pytest.approx(erlang_c_wait_s(arrivals, 1.0, servers), rel=0.1)


def test_who_loses_patience_leaves_the_queue() -> None:
    engine, served = Engine(), list[bool]()
    queue = Servers(engine, 1)

    def customer() -> Process:
        mine = yield from queue.enter(patience_s=5.0)
        served.append(mine)
        if mine:
            yield 4.0
            queue.leave()

    for _ in range(4):
        engine.start(customer())
    engine.run()
    assert served == [True, True, False, False]  # the third would have its turn after eight seconds
    assert queue.waiting == 0


def test_shared_cores_take_as_long_as_processor_sharing_says() -> None:
    engine, rng, times = Engine(), Random(4), list[float]()
    cores = Cores(engine, 1)

    def work() -> Process:
        came = engine.now
        yield from cores.work(rng.expovariate(1.0))
        times.append(engine.now - came)

    engine.start(poisson(engine, 0.6, 60_000, work, seed=2))
    engine.run()
    assert sum(times) / len(times) == pytest.approx(1 / (1 - 0.6), rel=0.1)


def test_a_bucket_lets_its_burst_through_and_then_its_rate() -> None:
    engine, granted = Engine(), list[float]()
    bucket = TokenBucket(engine, per_second=5, size=100)

    def ask() -> Process:
        if bucket.take():
            granted.append(engine.now)
        yield from ()

    engine.start(poisson(engine, 50, 60, ask, seed=1))
    engine.run()
    assert len(granted) == pytest.approx(100 + 60 * 5, abs=3)
    assert sum(moment > 30 for moment in granted) == pytest.approx(30 * 5, abs=2)


def test_a_bucket_that_makes_wait_passes_its_rate_on() -> None:
    engine, passed = Engine(), list[float]()
    bucket = TokenBucket(engine, per_second=10, size=20)

    def ask() -> Process:
        yield bucket.reserve()
        passed.append(engine.now)

    for _ in range(120):
        engine.start(ask())
    engine.run()
    assert sum(moment == 0 for moment in passed) == 20
    assert max(passed) == pytest.approx(10.0)


def test_littles_law_holds_for_the_pipeline(project: Project) -> None:
    engine = Engine()
    site, seen = Site(engine, Account.LARGE), list[int]()
    uploads = Pipeline(site, project, DURATIONS)

    def watch() -> Process:
        while engine.now < 300:
            yield 1.0
            seen.append(site.tally.running)

    engine.start(poisson(engine, 20, 300, uploads.upload, seed=1))
    engine.start(watch())
    engine.run()
    in_flight, latency_s = sum(seen) / len(seen), sum(site.tally.latencies_s) / len(site.tally.latencies_s)
    assert in_flight == pytest.approx(len(site.tally.latencies_s) / 300 * latency_s, rel=0.05)


@pytest.mark.parametrize("rate", [1, 100, 3_000])
def test_every_upload_ends_once(project: Project, rate: int) -> None:
    engine, sent = Engine(), list[Process]()
    site = Site(engine, Account.LARGE, scale_of(rate))
    uploads = Pipeline(site, project, DURATIONS)

    def upload() -> Process:
        sent.append(uploads.upload())
        return sent[-1]

    engine.start(poisson(engine, rate / scale_of(rate), LOAD_S, upload, seed=1))
    engine.run()
    assert site.tally.running == 0
    assert site.tally.ends.total() == len(sent) > 0


def test_the_same_seed_gives_the_same_figures(project: Project) -> None:
    first, second = (simulate(3, Account.NEW, DURATIONS, project).ends for _ in range(2))
    assert first == second


def test_below_every_limit_nothing_is_refused_and_nothing_waits(project: Project) -> None:
    tally = simulate(1, Account.LARGE, DURATIONS, project)
    assert not tally.refused
    functions = demand(walk(MACHINE, COMPUTED))["invocations"]
    assert max(tally.latencies_s) == pytest.approx(functions * 0.4, abs=0.1)


def test_what_is_too_much_is_worked_off_at_the_rate_of_the_tightest_limit(project: Project) -> None:
    tightest, rate = next(iter(allowed(DURATIONS, project, Account.OTHER).items()))
    tally = simulate(100, Account.OTHER, DURATIONS, project)
    assert tightest == "transitions"
    assert rate < 100
    assert max(tally.finished_s) == pytest.approx(100 * LOAD_S / rate, rel=0.05)


def test_lambda_that_is_far_too_small_makes_pictures_fail(project: Project) -> None:
    tally = simulate(20, Account.NEW, DURATIONS, project)
    assert tally.refused["concurrency"]
    assert tally.ends["report"] + tally.ends["left to reconcile"] > 0


class Shut(Site):
    """An account where nothing ever starts."""

    def take(self, limit: str, tokens: float = 1.0) -> bool:
        return limit != "starts" and super().take(limit, tokens)


def given_up_after_s(project: Project) -> float:
    engine = Engine()
    site = Shut(engine, Account.LARGE)
    engine.start(Pipeline(site, project, DURATIONS).upload())
    engine.run()
    assert site.tally.ends == {"dead-letter queue": 1}
    return engine.now


def test_an_event_is_given_up_at_the_end_of_its_six_hours_and_not_of_its_attempts(project: Project) -> None:
    assert 6 * 3600 - 600 < given_up_after_s(project) <= 6 * 3600  # no wait is longer than 600 s


def test_an_event_is_given_up_at_the_end_of_its_attempts_if_that_is_first(project: Project) -> None:
    assert given_up_after_s(replace(project, delivery=Delivery(retries=5, age_s=6 * 3600))) < 2**6


ALONE_S: Final = 2.16  # four stages of half a second, 13 states of 10 ms, three calls of the table of 10 ms


def load_of(uploads: int, gap_s: float, took_s: float = ALONE_S) -> dict[str, Any]:
    """What the bench of load keeps, of uploads that each took so long, and of stages that use one core."""
    moments = [gap_s * number for number in range(uploads)]
    return {
        "rate": 1 / max(gap_s, 1.0),
        "seconds": gap_s * uploads,
        "megapixels": 2.0,
        "alone": {"timings_s": dict.fromkeys(("validate", "segment", "refine", "encode"), 0.5), "states": 13},
        "cpu": {"cloud": 0.13 * uploads, "stages": 2.0 * uploads},
        "runs": [
            {"due_s": at_s, "sent_s": at_s, "stopped_s": at_s + took_s, "status": "SUCCEEDED"} for at_s in moments
        ],
    }


def test_on_an_idle_machine_an_upload_takes_as_long_as_its_work(project: Project) -> None:
    tally = simulate_machine(load_of(5, gap_s=60.0), project)
    assert tally.latencies_s == pytest.approx([ALONE_S] * 5)


def test_uploads_that_come_at_once_take_as_long_as_the_machines_cores_need_for_all(project: Project) -> None:
    cores = os.cpu_count() or 1
    tally = simulate_machine(load_of(20 * cores, gap_s=0.0), project)
    assert max(tally.finished_s) == pytest.approx(20 * 2.13, rel=0.1)


@pytest.mark.parametrize(("took_s", "answers"), [(ALONE_S, ["yes", "yes", "yes"]), (2 * ALONE_S, ["yes", "no", "no"])])
def test_the_check_tells_what_the_simulation_foresaw(took_s: float, answers: list[str]) -> None:
    rows = check(load_of(10, gap_s=60.0, took_s=took_s)).splitlines()[-3:]
    assert [row.split("|")[-2].strip() for row in rows] == answers


@pytest.mark.parametrize("name", sorted(WAYS))
def test_each_way_is_one_of_the_definition(name: str) -> None:
    steps = walk(MACHINE, WAYS[name])
    assert steps[-1].name in ("Done", "Failed")
    assert demand(steps)["transitions"] >= len(steps)


def test_a_way_that_the_definition_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"CacheHit\? does not lead to Refine"):
        walk(MACHINE, {**COMPUTED, "CacheHit?": ["Refine"]})


def test_the_requests_of_every_function_of_the_machine_are_known() -> None:
    called = {step.function for way in WAYS.values() for step in walk(MACHINE, way) if step.function}
    assert called == set(REQUESTS)


class EmptyS3:
    """Stands for the client where nothing lies, and counts."""

    def __init__(self) -> None:
        self.asked = Counter[str]()

    def get_object(self, **_: Any) -> None:
        self.asked["get"] += 1
        raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")

    head_object = get_object

    def put_object(self, **_: Any) -> dict[str, Any]:
        self.asked["put"] += 1
        return {}


class Topic:
    """Stands for SNS."""

    def publish(self, **_: Any) -> None: ...


REFUSED: Final = json.loads((ROOT / "events/failure.json").read_text())["state"]
GAVE_UP: Final = {"source": {"bucket": "uploads", "key": "a.jpg"}, "options": {}, "keys": {"result": "a.png"}}


@pytest.mark.parametrize(("state", "before"), [(REFUSED, ["KeepRawInput"]), (GAVE_UP, [])])
def test_a_failure_asks_s3_as_often_as_is_counted(state: dict[str, Any], before: list[str]) -> None:
    s3 = EmptyS3()
    config = FailureConfig(results_bucket="results", topic_arn="topic")
    recorder = Recorder(config, store=Store(s3), topic=Topic())  # type: ignore[arg-type]
    execution = Execution(id="arn", name="name", started_at="2026-01-01T00:00:00Z")
    recorder.delete_undescribed_results(state, execution)
    recorder.record(state, execution, "Stage", {"Error": "Boom", "Cause": ""})
    way = WAYS["refused by Validate"]
    counted = demand([step for step in walk(MACHINE, way) if step.name in ("RecordFailure", *before)])
    assert s3.asked == {"get": counted["results get"], "put": counted["results put"]}


def test_a_demand_is_counted_against_a_limit_that_exists() -> None:
    limits = {quota.limit for quota in QUOTAS}
    assert {name for way in WAYS.values() for name in demand(walk(MACHINE, way))} <= limits


def test_waits_grow_to_their_cap() -> None:
    retrier = Retrier(attempts=5, interval_s=2, rate=2, most_s=10)
    assert [retrier.longest_wait_s(retries) for retries in range(5)] == [2, 4, 8, 10, 10]
