"""Failure reports of a window of time, grouped by error."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Final

from pydantic import ValidationError

from core.errors import SourceNotFoundError
from functions.contracts.failure_report import FailureReport
from functions.contracts.object_keys import FAILURES
from functions.runtime.handler import logger
from functions.runtime.store import ListedVersion, Store

THREADS: Final = 16
MAX_REPORTS: Final = 10_000
"""Most reports to read; they are the newest ones."""

LISTING_S: Final = 600.0
"""Longest time to list reports, seconds. The function has 900 s."""

EXAMPLES: Final = 5


@dataclass
class Group:
    """Failures with the same error."""

    error: str
    count: int = 0
    messages: Counter[str] = field(default_factory=Counter)
    remedies: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, report: FailureReport) -> None:
        """Count a failure."""
        self.count += 1
        self.messages[report.message] += 1
        self.remedies[report.remedy] += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(report.source.key or f"execution {report.execution.name}")


@dataclass(frozen=True)
class Failures:
    """The failures of a window of time.

    Attributes:
        groups: by error, the most frequent first.
        unread: number of reports that were not read, or are not valid.
        complete: whether all reports have been listed.
    """

    groups: tuple[Group, ...]
    unread: int
    complete: bool

    @property
    def count(self) -> int:
        """Number of failed images."""
        return sum(group.count for group in self.groups) + self.unread


def read(
    store: Store, bucket: str, since: datetime, until: datetime, clock: Callable[[], float] = time.monotonic
) -> Failures:
    """Return the failures that were reported in a window of time.

    Args:
        store: S3.
        bucket: the results bucket.
        since: start of the window.
        until: its end, exclusive.
        clock: monotonic time in seconds.
    """
    found: list[ListedVersion] = []
    ends, complete = clock() + LISTING_S, True
    for page in store.newest_versions(bucket, prefix=FAILURES):
        found += [one for one in page.newest if since <= one.modified < until]
        if clock() >= ends:
            complete = False
            break
    found.sort(key=attrgetter("modified"), reverse=True)
    groups: dict[str, Group] = {}
    unread = max(0, len(found) - MAX_REPORTS)
    for report in _reports(store, bucket, [one.key for one in found[:MAX_REPORTS]]):
        if report is None:
            unread += 1
        else:
            groups.setdefault(report.error, Group(report.error)).add(report)
    ordered = sorted(groups.values(), key=attrgetter("count"), reverse=True)
    return Failures(tuple(ordered), unread, complete)


def _reports(store: Store, bucket: str, keys: list[str]) -> Iterator[FailureReport | None]:
    """Yield reports, and None for each that is not valid. Those that a later result has deleted are left out."""

    def report(key: str) -> tuple[FailureReport | None] | None:
        try:
            return (FailureReport.model_validate_json(store.fetch(bucket, key).data),)
        except SourceNotFoundError:
            return None
        except ValidationError as error:
            logger.warning("not a failure report", extra={"key": key, "problem": str(error)})
            return (None,)

    with ThreadPoolExecutor(THREADS) as pool:
        for found in filter(None, pool.map(report, keys)):
            yield from found
