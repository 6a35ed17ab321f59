"""Runs the chaos test by hand; exits with 1 if the account does not add up. See ``--help``."""

import argparse
import sys
from collections import Counter, defaultdict

from rich.console import Console
from rich.table import Table

from tests.resilience.chaos.account import Picture
from tests.resilience.chaos.run import Run, run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.resilience.chaos", description=__doc__)
    parser.add_argument("--uploads", type=int, default=500)
    parser.add_argument("--faults", type=float, default=0.15)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    done = run(arguments.uploads, arguments.faults, arguments.seed)
    console = Console()
    for table in (faults(done), account(done)):
        console.print(table)
    for wrong in done.discrepancies:
        console.print(f"[red]{wrong.rule}[/red] {wrong.subject}: {wrong.what}", highlight=False, soft_wrap=True)
    sys.exit(1 if done.discrepancies else 0)


def faults(done: Run) -> Table:
    """Tabulate the faults and the outcomes."""
    table = Table(title=f"{len(done.expected)} uploads in {done.seconds:.0f} s")
    for column in ("fault", "uploads", "attempts that failed", "results", "reports"):
        table.add_column(column, justify="left" if column == "fault" else "right")
    attempts: Counter[str] = Counter()
    for (_, fault), times in done.injector.injected.items():
        attempts[fault.kind] += times
    ends: defaultdict[str, Counter[bool]] = defaultdict(Counter)
    for upload in done.expected:
        ends[upload.why.partition(",")[0] or "nothing"][isinstance(upload.outcome, Picture)] += 1
    for kind, counts in sorted(ends.items()):
        row = (sum(counts.values()), attempts[kind], counts[True], counts[False])
        table.add_row(kind, *map(str, row))
    return table


def account(done: Run) -> Table:
    """Tabulate the account."""
    found = done.found
    statuses = Counter(execution.status for execution in found.executions)
    rows = {
        "uploads": len(done.expected),
        "results": len(found.results),
        "of these served from the cache": sum(result.hit for result in found.results),
        "of these degraded (fallback to Lambda)": sum(result.degraded for result in found.results),
        "reports": len(found.reports),
        "executions": ", ".join(f"{count} {status}" for status, count in sorted(statuses.items())),
        "contents": len(done.plan.contents),
        "masks": sum(found.masks.values()),
        "claims left": len(found.claims),
        "objects in the work bucket": len(found.work),
        "messages left in the queue": found.waiting,
        "dead letters": ", ".join(f"{len(bodies)} in {queue}" for queue, bodies in found.dead.items()),
        "discrepancies": len(done.discrepancies),
        "digest of all outcomes": done.digest,
    }
    table = Table(title="The account", show_header=False)
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table


if __name__ == "__main__":
    main()
