"""Two hundred uploads, of which every seventh is struck: each ends with its result or its report, and all adds up."""

import pytest

from tests.resilience.chaos.run import run


@pytest.mark.timeout(900)
def test_nothing_is_lost_whatever_strikes() -> None:
    done = run(200, 0.15, 7)
    assert done.discrepancies == []
    assert len(done.found.results) + len(done.found.reports) == 200
    assert done.found.reports and done.plan.certain, "there was something to survive"
