"""Paths and demand from the state machine, and the S3 requests of a failure report."""

import json
from collections import Counter
from typing import Any, Final

import pytest
import yaml
from botocore.exceptions import ClientError

from bench.studies.capacity import DEFINITION, Project, allowed
from bench.studies.demand import COMPUTED, PATHS, REQUESTS, demand, walk
from bench.studies.quotas import QUOTAS, Account
from functions.contracts.job import Execution
from functions.runtime.failure_reports import FailureConfig, FailureReporter
from functions.runtime.store import Store
from tests.conftest import ROOT

MACHINE = yaml.safe_load(DEFINITION.read_text())


def test_lowest_limit_comes_first() -> None:
    """10 concurrent executions in a new account and five functions of 0.4 s each allow 5 uploads per second."""
    rates = allowed(dict.fromkeys(REQUESTS, 0.4), Project.read(), Account.NEW)
    assert next(iter(rates)) == "concurrency" and rates["concurrency"] == pytest.approx(10 / (5 * 0.4))
    assert list(rates.values()) == sorted(rates.values())


@pytest.mark.parametrize("name", sorted(PATHS))
def test_each_path_exists_in_the_definition(name: str) -> None:
    steps = walk(MACHINE, PATHS[name])
    assert steps[-1].name in ("Done", "Failed")
    assert demand(steps)["transitions"] >= len(steps)


def test_path_missing_from_the_definition_is_rejected() -> None:
    with pytest.raises(ValueError, match="ClaimWork does not lead to Refine"):
        walk(MACHINE, {**COMPUTED, "ClaimWork": ["Refine"]})


def test_s3_requests_are_listed_for_every_function() -> None:
    called = {step.function for path in PATHS.values() for step in walk(MACHINE, path) if step.function}
    assert called == set(REQUESTS)


class EmptyS3:
    """An S3 client for an empty bucket that counts requests."""

    def __init__(self) -> None:
        self.requests = Counter[str]()

    def get_object(self, **_: Any) -> None:
        self.requests["get"] += 1
        raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")

    head_object = get_object

    def put_object(self, **_: Any) -> dict[str, Any]:
        self.requests["put"] += 1
        return {}


class Topic:
    """A topic that drops messages."""

    def publish(self, **_: Any) -> None: ...


REJECTED: Final = json.loads((ROOT / "events/failure.json").read_text())["state"]
FAILED: Final = {
    "source": {"bucket": "uploads", "key": "a.jpg"},
    "options": {},
    "keys": {"result": "results/a.jpg.png", "sidecar": "results/a.jpg.png.json"},
}


@pytest.mark.parametrize(("state", "before"), [(REJECTED, ["KeepRawInput"]), (FAILED, [])])
def test_failure_report_makes_the_counted_s3_requests(state: dict[str, Any], before: list[str]) -> None:
    s3 = EmptyS3()
    config = FailureConfig(uploads_bucket="uploads", results_bucket="results", topic_arn="topic")
    recorder = FailureReporter(config, store=Store(s3), topic=Topic())
    execution = Execution(id="arn", name="name", started_at="2026-01-01T00:00:00Z")
    recorder.delete_undescribed_results(state, execution)
    recorder.record(state, execution, "Stage", {"Error": "Boom", "Cause": ""})
    path = PATHS["rejected by Validate"]
    counted = demand([step for step in walk(MACHINE, path) if step.name in ("RecordFailure", *before)])
    assert s3.requests == {"get": counted["results get"], "put": counted["results put"]}


def test_every_demand_names_a_known_limit() -> None:
    limits = {quota.limit for quota in QUOTAS}
    assert {name for path in PATHS.values() for name in demand(walk(MACHINE, path))} <= limits
