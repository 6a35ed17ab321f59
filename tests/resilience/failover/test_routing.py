"""The stand-in for Route 53: thresholds, both kinds of records, cached answers."""

import pytest

from tests.resilience.failover.regions import Region
from tests.resilience.failover.routing import Records, Resolver, Routing

EU, US = Region("eu-west-1"), Region("us-east-1")


def records(routing: Routing) -> Records:
    return Records((EU, US), routing, threshold=3)


def fail(found: Records, region: Region, times: int = 3) -> None:
    for _ in range(times):
        found.note(region.name, False, 0)


@pytest.mark.parametrize(("routing", "near_us"), [("latency", US), ("failover", EU)])
def test_latency_records_name_the_near_region_and_failover_records_the_primary(
    routing: Routing, near_us: Region
) -> None:
    assert records(routing).answer(EU.name) is EU
    assert records(routing).answer(US.name) is near_us


@pytest.mark.parametrize("routing", ["latency", "failover"])
def test_unhealthy_regions_are_left_out_until_they_recover(routing: Routing) -> None:
    found = records(routing)
    fail(found, EU)
    assert found.answer(EU.name) is US
    for _ in range(3):
        found.note(EU.name, True, 1)
    assert found.answer(EU.name) is EU
    assert (found.left_at(EU), found.left_at(US)) == (0, None)
    assert found.changes == [(0, EU.name, False), (1, EU.name, True)]


def test_checks_below_the_threshold_change_nothing() -> None:
    found = records("latency")
    for _ in range(3):
        fail(found, EU, 2)
        found.note(EU.name, True, 0)
    assert found.answer(EU.name) is EU
    assert found.changes == []


def test_all_regions_count_as_healthy_if_none_is() -> None:
    found = records("failover")
    fail(found, EU)
    fail(found, US)
    assert found.answer(US.name) is EU


def test_clients_cache_the_answer() -> None:
    found, now = records("failover"), [0.0]
    resolver = Resolver(found, EU.name, ttl_s=60, clock=lambda: now[0])
    assert resolver.resolve() is EU
    fail(found, EU)
    now[0] = 59
    assert resolver.resolve() is EU
    now[0] = 60
    assert resolver.resolve() is US
