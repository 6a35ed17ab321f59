import os
import time
from pathlib import Path

import numpy as np
import pytest

from bench.measure import Failure, Job, measure

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


def break_down():
    raise LookupError("no such picture")


@pytest.fixture(scope="module")
def measured():
    return measure(
        {
            "filled": Job(fill, (256 * MIB,), rounds=2, memory_limit_bytes=300 * MIB),
            "filled less than before": Job(fill_before_and_during, (256 * MIB,), rounds=1),
            "slept": Job(sleep, (0.2,), rounds=1),
            "worked": Job(work, (0.2,), rounds=1),
            "in turn": Job(sleep_in_turn, ((0.4, 0.0, 0.2),), rounds=3),
            "too much": Job(fill, (256 * MIB,), memory_limit_bytes=128 * MIB),
            "too long": Job(sleep, (60,), time_limit_s=0.2),
            "dead": Job(die),
            "broken": Job(break_down),
        }
    )


@pytest.mark.parametrize(("name", "size_mib"), [("filled", 256), ("filled less than before", 64), ("slept", 0)])
def test_memory_is_what_the_call_adds(measured, name, size_mib):
    assert measured[name].peak_bytes == pytest.approx(size_mib * MIB, abs=8 * MIB)


def test_time_asleep_is_no_cpu_time(measured):
    assert measured["slept"].wall_s >= 0.2
    assert measured["slept"].cpu_s < 0.1
    assert measured["worked"].cpu_s >= 0.2


def test_rounds_share_a_process_and_the_median_one_is_told(measured):
    assert measured["in turn"].result == 0.2
    assert measured["in turn"].wall_s == pytest.approx(0.2, abs=0.1)


def test_what_fails_says_why_and_stops_nothing(measured):
    assert measured["too much"].reason.startswith(("MemoryError", "_ArrayMemoryError"))
    assert measured["too long"] == Failure("time limit of 0.2 s")
    assert measured["dead"] == Failure("its process ended with 3")
    assert measured["broken"] == Failure("LookupError: no such picture")
