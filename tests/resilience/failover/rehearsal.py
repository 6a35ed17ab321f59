"""Rehearse the loss of a Region under load, with two embedded clouds and a stand-in for Route 53."""

import hashlib
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from samtranslator.yaml_helper import yaml_parse

from client import api_keys
from core.options import Options
from core.segmentation.sessions import Networks
from functions.contracts.api_key import ApiKey, Scope
from functions.runtime.weights import ModelSource
from tests.conftest import ROOT
from tests.resilience.chaos.run import process
from tests.resilience.failover.clients import Job, Load
from tests.resilience.failover.regions import Region
from tests.resilience.failover.routing import Records, Routing

T = TypeVar("T")

REGIONS: Final = ("eu-west-1", "us-east-1")
TTL_S: Final = 60.0
"""How long resolvers cache an alias record of API Gateway."""

PACE: Final = 1 / 30
"""Factor for the interval of health checks and the lifetime of cached addresses."""

_SETTLED_S: Final = 0.2
_WAIT_S: Final = 60.0
_REMEDIES: Final = {"job_not_found": "Idempotency-Key", "source_not_found": "Upload the image again"}


@dataclass(frozen=True)
class HealthCheck:
    """The health check of ``infrastructure/domain.yaml``.

    Attributes:
        interval_s: seconds between checks.
        threshold: number of failed checks in sequence that make a Region unhealthy.
    """

    interval_s: float
    threshold: int

    @classmethod
    def of_template(cls) -> "HealthCheck":
        """Return what the template says."""
        template = yaml_parse((ROOT / "infrastructure" / "domain.yaml").read_text(encoding="utf-8"))
        config = template["Resources"]["HealthCheck"]["Properties"]["HealthCheckConfig"]
        return cls(config["RequestInterval"], config["FailureThreshold"])

    @property
    def longest_s(self) -> float:
        """Seconds that clients may be sent to a lost Region."""
        return self.interval_s * self.threshold + TTL_S


@dataclass(frozen=True)
class Rehearsal:
    """A finished rehearsal. Times are in seconds.

    Attributes:
        check: the health check of the template.
        load: the clients and their jobs.
        in_flight: jobs that the lost Region had accepted and whose results had not arrived.
        killed_at: when the first Region was killed.
        unhealthy_s: from then to the change of the records.
        interruptions_s: for each client of the lost Region, from then to the first response of the other Region.
        restored_at: when the first Region ran again.
        returned_s: from then to its first response.
        discrepancies: what should not have happened.
    """

    check: HealthCheck
    load: Load
    in_flight: list[Job]
    killed_at: float
    unhealthy_s: float
    interruptions_s: list[float]
    restored_at: float
    returned_s: float
    discrepancies: list[str]

    def lost(self, *, at_return: bool) -> list[tuple[Job, dict[str, Any]]]:
        """Return the reports of lost jobs: after the loss of the Region, or after its return."""
        return [
            (job, problem)
            for job in self.load.jobs
            for when, problem in job.lost
            if (when > self.restored_at) == at_return
        ]


def rehearse(routing: Routing, clients: int, load_s: float) -> Rehearsal:
    """Kill the first of two Regions under load, and bring it back.

    Args:
        routing: kind of the records.
        clients: number of clients; every second one is near the second Region.
        load_s: seconds of load before the loss, after the failover, and after the return.

    Raises:
        TimeoutError: a step took longer than a minute.
    """
    check = HealthCheck.of_template()
    first, second = regions = (Region(REGIONS[0]), Region(REGIONS[1]))
    records = Records(regions, routing, check.threshold)
    with ExitStack() as stack:
        for region in regions:
            stack.callback(region.kill)
        with ThreadPoolExecutor() as pool:
            list(pool.map(Region.start, regions))
        key = _create_key(first)
        second.copy_keys(first)
        stop = threading.Event()
        stack.callback(stop.set)
        records.watch(check.interval_s * PACE, stop)
        load = Load(records, [REGIONS[number % 2] for number in range(clients)], key, TTL_S * PACE)
        load.start()

        time.sleep(load_s)
        _wait("a job in flight", lambda: load.in_flight(first.name))
        former = {client for _, client, name in load.responses if name == first.name}
        first.kill()
        killed_at = time.monotonic()
        time.sleep(_SETTLED_S)  # clients may still read what has arrived
        in_flight = load.in_flight(first.name)
        unhealthy_at = _wait("a failed health check", lambda: records.left_at(first))
        _wait("the failover", lambda: former <= set(_first_responses(load, second.name, killed_at)))
        interruptions_s = [
            when - killed_at
            for client, when in _first_responses(load, second.name, killed_at).items()
            if client in former
        ]
        time.sleep(load_s)

        first.start()
        first.copy_keys(second)
        restored_at = time.monotonic()
        returned = _wait("the return", lambda: _first_responses(load, first.name, restored_at))
        time.sleep(load_s)
        load.stop()
        discrepancies = [
            *wrong_results(load.jobs),
            *unreported(in_flight),
            *(line for region in regions for line in _duplicates(region, load.jobs, key)),
        ]
    return Rehearsal(
        check,
        load,
        in_flight,
        killed_at,
        unhealthy_at - killed_at,
        interruptions_s,
        restored_at,
        min(returned.values()) - restored_at,
        discrepancies,
    )


def _create_key(region: Region) -> ApiKey:
    return api_keys.create(
        region.stack,
        "failover",
        Scope,
        rate_per_minute=60_000,
        monthly_quota=None,
        lifetime=None,
        now=datetime.now(UTC),
    ).key


def _wait(what: str, read: Callable[[], T | None]) -> T:
    """Return the first true value that ``read`` returns."""
    deadline = time.monotonic() + _WAIT_S
    while not (value := read()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"No sign of {what} in {_WAIT_S:.0f} s.")
        time.sleep(0.02)
    return value


def _first_responses(load: Load, region: str, since: float) -> dict[int, float]:
    """Return by client the time of the first response of a Region after ``since``."""
    found: dict[int, float] = {}
    for when, client, name in list(load.responses):
        if name == region and when > since:
            found.setdefault(client, when)
    return found


def wrong_results(jobs: list[Job]) -> Iterator[str]:
    """Compare each result with what this process makes of the image."""
    networks, options = Networks(ModelSource(()), threads=1), Options.parse({"model": "classical"})
    for job in jobs:
        if job.result is None:
            yield f"Job {job.number} ({job.kind}) has no result: {job.error}"
        elif _digest(job.result) != _digest(process(job.image, options, networks).data):
            yield f"Job {job.number} ({job.kind}) has a wrong result, of {len(job.result)} bytes"


def unreported(in_flight: list[Job]) -> Iterator[str]:
    """Check that the clients of jobs in flight learned that these are lost, and what to do."""
    for job in in_flight:
        if not job.lost:
            yield f"Job {job.number} ({job.kind}) was lost without a report"
        for _, problem in job.lost:
            if _REMEDIES[problem["code"]] not in str(problem.get("remedy")):
                yield f"Job {job.number} ({job.kind}) was lost without a remedy: {problem}"


def _duplicates(region: Region, jobs: list[Job], key: ApiKey) -> Iterator[str]:
    """Check that a Region ran and charged one job for each Idempotency-Key."""
    wanted = {str(uuid.uuid5(uuid.NAMESPACE_URL, f"{key.key_id}/{sent}")) for job in jobs for sent in job.keys}
    rows = region.items("ApiJobsTable")
    stored = [row["job_id"]["S"] for row in rows]
    prices = sum(int(row.get("settled", row["credits"])["N"]) for row in rows)
    charged = sum(int(item["used"]["N"]) for item in region.items("ApiUsageTable") if "used" in item)
    if unknown := set(stored) - wanted:
        yield f"{region.name} has jobs of no request: {sorted(unknown)}"
    if Counter(region.executions()) != Counter(stored):
        yield f"{region.name} has {len(stored)} jobs, but {len(region.executions())} executions"
    if charged != prices:
        yield f"{region.name} charged {charged} credits for jobs of {prices} credits"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
