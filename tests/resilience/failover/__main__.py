"""Kill one of two Regions under load; exit with 1 if a client sees more than docs/how-to/regions.md says."""

import argparse
import sys
from collections import Counter
from typing import get_args

from rich.console import Console
from rich.table import Table

from tests.resilience.failover.rehearsal import REGIONS, Rehearsal, rehearse
from tests.resilience.failover.routing import Routing


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.resilience.failover", description=__doc__)
    parser.add_argument("--routing", choices=get_args(Routing), default="latency", help="Records of Route 53.")
    parser.add_argument("--clients", type=int, default=6, help="Number of clients, half of them near each Region.")
    parser.add_argument("--load", type=float, default=6, help="Seconds of load in each phase.")
    arguments = parser.parse_args()
    done = rehearse(arguments.routing, arguments.clients, arguments.load)
    console = Console()
    console.print(
        f"Two embedded clouds: {' and '.join(REGIONS)}, {arguments.routing} records. Stand-ins: Route 53 (health"
        " checks, records, cached addresses), the global table of API keys (copied). Results are not replicated.",
        highlight=False,
    )
    console.print(report(done))
    for line in done.discrepancies:
        console.print(f"[red]{line}[/red]", highlight=False, soft_wrap=True)
    sys.exit(1 if done.discrepancies else 0)


def report(done: Rehearsal) -> Table:
    """Tabulate what clients saw."""
    load, check = done.load, done.check
    failed = sum(job.failed_requests for job in load.jobs)
    rows = {
        "jobs": len(load.jobs),
        "with the right result": sum(job.error is None for job in load.jobs),
        "responses": ", ".join(f"{n} from {name}" for name, n in sorted(Counter(r[2] for r in load.responses).items())),
        f"{REGIONS[0]} killed, unhealthy after": f"{done.unhealthy_s:.1f} s",
        "first response of the other Region": f"after {min(done.interruptions_s):.1f} s",
        "and to the last client": f"after {max(done.interruptions_s):.1f} s",
        "on AWS": f"up to {check.longest_s:.0f} s: {check.threshold} checks, {check.interval_s} s apart, and DNS",
        "attempts that failed": ", ".join(f"{n} {name}" for name, n in load.attempts_failed.most_common()) or 0,
        "requests that failed in all 3 attempts": failed,
        "jobs in flight in the lost Region": len(done.in_flight),
        "reported as lost": _codes(done, at_return=False),
        f"{REGIONS[0]} back, first response": f"after {done.returned_s:.1f} s",
        "reported as lost at its return": _codes(done, at_return=True),
        "discrepancies": len(done.discrepancies),
    }
    table = Table(title="Failover", show_header=False)
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table


def _codes(done: Rehearsal, *, at_return: bool) -> str:
    counts = Counter(problem["code"] for _, problem in done.lost(at_return=at_return))
    return ", ".join(f"{number} {code}" for code, number in sorted(counts.items())) or "0"


if __name__ == "__main__":
    main()
