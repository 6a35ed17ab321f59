import os
import time
from pathlib import Path

import numpy as np
import pytest

from bench.measure import Case, Failure, measure

MIB = 2**20

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")


def fill(size_bytes):
    return lambda: int(np.ones(size_bytes, np.uint8)[-1])


def fill_before_and_during(size_bytes):
    kept = np.ones(size_bytes, np.uint8)
    del kept
    return fill(size_bytes // 4)


def sleep(duration_s):
    return lambda: time.sleep(duration_s)


def work(duration_s):
    def call():
        until = time.process_time() + duration_s
        while time.process_time() < until:
            pass

    return call


def sleep_in_turn(durations_s):
    remaining = iter(durations_s)

    def call():
        duration_s = next(remaining)
        time.sleep(duration_s)
        return duration_s

    return call


def die():
    return lambda: os._exit(3)


def fail():
    raise LookupError("no such picture")


@pytest.fixture(scope="module")
def measured():
    return measure(
        {
            "filled": Case(fill, (256 * MIB,), rounds=2, memory_limit_bytes=300 * MIB),
            "filled less than before": Case(fill_before_and_during, (256 * MIB,), rounds=1),
            "slept": Case(sleep, (0.2,), rounds=1),
            "worked": Case(work, (0.2,), rounds=1),
            "in turn": Case(sleep_in_turn, ((0.4, 0.0, 0.2),), rounds=3),
            "too much": Case(fill, (256 * MIB,), memory_limit_bytes=128 * MIB),
            "too long": Case(sleep, (60,), time_limit_s=0.2),
            "dead": Case(die),
            "broken": Case(fail),
        }
    )


@pytest.mark.parametrize(("name", "size_mib"), [("filled", 256), ("filled less than before", 64), ("slept", 0)])
def test_peak_memory_counts_only_what_the_call_adds(measured, name, size_mib):
    assert measured[name].peak_bytes == pytest.approx(size_mib * MIB, abs=8 * MIB)


def test_sleep_counts_as_wall_time_but_not_as_cpu_time(measured):
    assert measured["slept"].wall_s >= 0.2
    assert measured["slept"].cpu_s < 0.1
    assert measured["worked"].cpu_s >= 0.2


def test_rounds_share_a_process_and_the_median_round_is_returned(measured):
    assert measured["in turn"].result == 0.2
    assert measured["in turn"].wall_s == pytest.approx(0.2, abs=0.1)


def test_failed_cases_have_a_reason_and_do_not_stop_the_others(measured):
    assert measured["too much"].reason.startswith(("MemoryError", "_ArrayMemoryError"))
    assert measured["too long"] == Failure("time limit of 0.2 s")
    assert measured["dead"] == Failure("the process exited with 3")
    assert measured["broken"] == Failure("LookupError: no such picture")
