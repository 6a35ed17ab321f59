"""A Region is killed under load: the other Region serves its clients, and each lost job is reported and repeated."""

import pytest

from tests.resilience.failover.rehearsal import REGIONS, rehearse


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_client_of_a_lost_region_gets_its_results_from_the_other_one() -> None:
    done = rehearse("failover", clients=4, load_s=1)
    assert done.discrepancies == []
    assert done.in_flight and done.lost(at_return=False), "jobs were lost"
    assert {name for _, _, name in done.load.responses} == set(REGIONS)
    assert done.interruptions_s, "clients waited for the other Region"
