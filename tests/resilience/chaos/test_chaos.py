"""Uploads while faults are injected: each ends with its result or its report, and the account adds up."""

import pytest

from tests.resilience.chaos.run import run


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_upload_has_a_result_or_a_report_in_spite_of_faults() -> None:
    uploads = 40  # make chaos uploads any number
    done = run(uploads, 0.15, 7)
    assert done.discrepancies == []
    assert len(done.found.results) + len(done.found.reports) == uploads
    assert done.found.reports and done.plan.certain, "faults were injected"
