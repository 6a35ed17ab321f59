"""Arrivals, report, and emulated autoscaling of the load test."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.autoscaling import Autoscaler, Decision, Policies
from bench.load import arrivals, photograph, with_comment
from bench.load_report import Baseline, Load, Run, Sample, chart, concurrency, report
from bench.measure import Cost
from core.image import decode
from tests.conftest import ROOT

TEMPLATE = ROOT / "template.yaml"
MINUTE_S = 60.0


@pytest.fixture(scope="module")
def policies() -> Policies:
    return Policies.read(TEMPLATE)


def minutes(scaler: Autoscaler, count: int, *, waiting: int = 0, held: int = 0, running: int = 0) -> list[Decision]:
    """Continue for ``count`` minutes with a constant queue; return the new decisions."""
    began, start_s = len(scaler.decisions), getattr(scaler, "now_s", 0.0)
    for second in np.arange(0, count * MINUTE_S, 15.0):
        scaler.sample(start_s + float(second), waiting=waiting, held=held, running=running, taken=held)
    scaler.now_s = start_s + count * MINUTE_S  # type: ignore[attr-defined]
    return scaler.decisions[began:]


def test_arrivals_are_a_poisson_process_with_the_given_rate() -> None:
    gaps = np.diff(arrivals(50, 400, seed=1))
    assert np.mean(gaps) == pytest.approx(1 / 50, rel=0.03)
    assert np.std(gaps) == pytest.approx(1 / 50, rel=0.05)


def test_equal_seeds_give_equal_arrivals() -> None:
    assert arrivals(2, 30, seed=5) == arrivals(2, 30, seed=5) != arrivals(2, 30, seed=6)


def test_numbered_uploads_differ_in_bytes_but_not_in_pixels() -> None:
    picture = photograph(0.05)
    first, second = with_comment(picture, 1), with_comment(picture, 23)
    assert first != second
    assert np.array_equal(decode.decode(first).rgb, decode.decode(second).rgb)


def test_policies_are_read_from_the_template(policies: Policies) -> None:
    assert policies.minimum < policies.maximum
    assert policies.target > 0
    assert Policies.read(TEMPLATE, {"SegmentationCapacity": "GPU"}).target > policies.target
    assert Policies.read(TEMPLATE, {"WorkerMaxCount": "3"}).maximum == 3


def test_waiting_jobs_wake_up_one_worker(policies: Policies) -> None:
    scaler = Autoscaler(policies, 0)
    [woken] = minutes(scaler, 2, waiting=500)
    assert (woken.before, woken.after) == (0, 1)


def test_no_second_worker_is_woken_up_while_the_first_one_starts(policies: Policies) -> None:
    scaler = Autoscaler(policies, 0)
    assert len(minutes(scaler, 5, waiting=1)) == 1


def test_backlog_above_target_adds_workers_in_proportion(policies: Policies) -> None:
    scaler = Autoscaler(policies, 2)
    [more] = minutes(scaler, 4, waiting=int(3 * policies.target), held=int(2 * policies.target), running=2)
    assert more.after == 5  # 2.5 times the target per worker


def test_backlog_peak_of_two_minutes_adds_no_workers(policies: Policies) -> None:
    scaler = Autoscaler(policies, 2)
    minutes(scaler, 2, waiting=500, held=2, running=2)
    assert not minutes(scaler, 3, waiting=0, held=2, running=2)


def test_starting_workers_are_not_added_twice(policies: Policies) -> None:
    scaler = Autoscaler(policies, 2)
    assert len(minutes(scaler, 6, waiting=int(4 * policies.target), held=1, running=2)) == 1


def test_fifteen_idle_minutes_remove_workers(policies: Policies) -> None:
    scaler = Autoscaler(policies, 4)
    assert not minutes(scaler, 15, running=4)
    [fewer] = minutes(scaler, 1, running=4)
    assert fewer.after == policies.minimum


@given(queue=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 40)), min_size=1, max_size=60))
def test_desired_count_stays_within_the_limits_for_any_queue(policies: Policies, queue: list[tuple[int, int]]) -> None:
    scaler = Autoscaler(policies, policies.minimum)
    for minute, (waiting, held) in enumerate(queue):
        scaler.sample(minute * MINUTE_S, waiting=waiting, held=held, running=scaler.desired, taken=held)
        assert policies.minimum <= scaler.desired <= policies.maximum


def test_concurrent_executions_are_counted_at_each_start_and_stop() -> None:
    runs = [Run(0, 0, start, stop, "SUCCEEDED", "", {}) for start, stop in ((0.0, 5.0), (1.0, 2.0), (3.0, None))]
    assert concurrency(runs) == [1, 2, 1, 2, 1]


@pytest.mark.parametrize("uploads", [99, 100])
def test_report_has_a_99th_percentile_from_100_results(uploads: int) -> None:
    assert ("p99" in report(load_of(uploads))) == (uploads == 100)


def load_of(uploads: int, host: str = "lambda") -> Load:
    return Load(
        rate=1.0,
        seconds=float(uploads),
        host=host,
        megapixels=2.0,
        seed=1,
        baseline=Baseline(1.0, {"refine": 0.5}, 13),
        one_process=Cost(1.0, 1.0, 0, None),
        runs=[Run(at_s, at_s, at_s, at_s + 1.0, "SUCCEEDED", "", {"refine": 0.5}) for at_s in range(uploads)],
        samples=[],
        decisions=[],
        cpu=None,
        reports=0,
    )


@pytest.mark.parametrize(("host", "panels"), [("lambda", 3), ("ecs", 5)])
def test_chart_has_a_panel_per_quantity(host: str, panels: int, tmp_path: Path) -> None:
    drawn = chart(replace(load_of(10, host), samples=[Sample(0.0, 1, 0, 1)]))
    assert len(drawn.axes) == panels
    uploads = drawn.axes[0].lines[0]
    assert sum(np.asarray(uploads.get_ydata())) == 10
    drawn.savefig(tmp_path / "load.png")
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")
