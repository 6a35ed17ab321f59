"""What the rehearsal reports as harm to clients."""

from typing import Any

import pytest

from tests.resilience.failover.clients import Job
from tests.resilience.failover.rehearsal import HealthCheck, unreported, wrong_results


def job(**facts: Any) -> Job:
    return Job(1, "upload", 0, 0.0, **facts)


def test_wrong_and_missing_results_are_reported() -> None:
    wrong, missing = wrong_results([job(result=b"other"), job(error="No result in 90 s.")])
    assert wrong == "Job 1 (upload) has a wrong result, of 5 bytes"
    assert missing == "Job 1 (upload) has no result: No result in 90 s."


@pytest.mark.parametrize(
    ("lost", "harm"),
    [
        ([], "Job 1 (upload) was lost without a report"),
        ([(1.0, {"code": "job_not_found", "remedy": None})], "Job 1 (upload) was lost without a remedy: "),
    ],
)
def test_lost_jobs_need_a_report_with_a_remedy(lost: list[Any], harm: str) -> None:
    [line] = unreported([job(lost=lost)])
    assert line.startswith(harm)


def test_jobs_reported_with_a_remedy_are_no_harm() -> None:
    problem = {"code": "job_not_found", "remedy": "Send the request again, with the same Idempotency-Key."}
    assert list(unreported([job(lost=[(1.0, problem)])])) == []


def test_the_longest_interruption_includes_cached_addresses() -> None:
    assert HealthCheck(interval_s=10, threshold=3).longest_s == 90
