"""Look at the uploads of a window of time, and start those that have no outcome."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from functions.contracts.object_keys import PREFIXES_WITHOUT_EXECUTION, starts_execution
from functions.contracts.outcome import ObjectVersion
from functions.runtime.handler import count, logger, measure
from functions.runtime.outcomes import Outcomes
from functions.runtime.store import ListedPage, ListedVersion, Store
from functions.sweep.executions import Executions
from functions.sweep.progress import Progress, save

BUDGET_S: Final = 720.0
"""Duration after which a run stops. The function has 900 s; a page that has been listed can take two minutes."""

THREADS: Final = 16
_SAVE_S: Final = 60.0
_PAUSE_S: Final = 0.1  # at most ten starts per second: a small part of the quota, which uploads need, too

_NOT_RUNNING_AFTER: Final = timedelta(hours=15)
"""Age at which no execution that an upload's event started is running: EventBridge delivers for 6 h at most, and an
execution takes 8 h at most."""

LONGEST_UPLOAD: Final = timedelta(days=2)
"""Longest time between creation and completion of a multipart upload: the bucket aborts it at the midnight (UTC) after
one day. S3 dates objects by the creation, so a multipart upload is looked at again when it has been completed at the
latest."""

MARKERS_KEPT: Final = timedelta(days=30)
"""Least time for which the delete marker of an expired outcome exists: the days of noncurrent versions of the results
bucket. S3 then deletes it, too."""

_LAST_CHARACTER: Final = "\U0010ffff"

Finding = Literal["done", "started", "open", "reconciled"]
"""``done``: the upload has an outcome. ``started``: it had none, and was started. ``open``: an execution may run.
``reconciled``: its execution ended without outcome, and its failure is being reported."""

_LEFT_OPEN: Final = ("started", "open")


@dataclass
class Sweep:
    """One run.

    Attributes:
        uploads_bucket: bucket of the uploads.
        work_bucket: bucket of the progress.
        store: S3.
        outcomes: results and failure reports.
        executions: executions of the main state machine.
        now: time of the run.
        result_days: days after which outcomes expire; 0 means never.
        clock: monotonic time in seconds.
        sleep: waits for a number of seconds.
    """

    uploads_bucket: str
    work_bucket: str
    store: Store
    outcomes: Outcomes
    executions: Executions
    now: datetime
    result_days: int = 0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        self.findings: Counter[Finding] = Counter()
        self._ends = self.clock() + BUDGET_S

    def run(self, progress: Progress) -> bool:
        """Continue a pass, and return whether it is complete."""
        complete = self._continue(progress)
        measure("LostUploads", 0)  # so that the metric has a value for each run that ended
        return complete

    def _continue(self, progress: Progress) -> bool:
        saved_at = self.clock()
        with ThreadPoolExecutor(THREADS) as pool:
            for page in self._pages(progress.after):
                window = [
                    (one, due)
                    for one in page.newest
                    if (due := _due(one, progress)) and not self._may_have_lost_marker(one)
                ]
                outcomes = pool.map(self._has_outcome, [upload for upload, _ in window])
                for (upload, due), is_done in zip(window, outcomes, strict=True):
                    if not is_done and self._is_over():
                        save(self.store, self.work_bucket, progress, complete=False)
                        return False
                    finding: Finding = "done" if is_done else self._settle(upload, progress.until)
                    self.findings[finding] += 1
                    progress = progress.advanced(upload.key, due if finding in _LEFT_OPEN else None)
                progress = progress.advanced(page.last_key)
                if self._is_over() or self.clock() - saved_at > _SAVE_S:
                    save(self.store, self.work_bucket, progress, complete=False)
                    saved_at = self.clock()
                if self._is_over():
                    return False
        save(self.store, self.work_bucket, progress, complete=True)
        return True

    def _is_over(self) -> bool:
        return self.clock() >= self._ends

    def _pages(self, after: str) -> Iterator[ListedPage]:
        """Yield the uploads that start executions, after a key. The rest of a prefix that starts none is not listed."""
        continues: str | None = after
        while continues is not None:
            start, continues = continues, None
            for page in self.store.newest_versions(self.uploads_bucket, start):
                newest = tuple(one for one in page.newest if starts_execution(one.key))
                yield ListedPage(newest, page.last_key)
                prefix = next((one for one in PREFIXES_WITHOUT_EXECUTION if page.last_key.startswith(one)), None)
                if prefix and page.last_key < prefix + _LAST_CHARACTER:
                    continues = prefix + _LAST_CHARACTER
                    break

    def _source(self, upload: ListedVersion) -> ObjectVersion:
        return ObjectVersion(bucket=self.uploads_bucket, key=upload.key, version_id=upload.version_id)

    def _has_outcome(self, upload: ListedVersion) -> bool:
        """Return whether an upload has a result or a failure report, or had one that was deleted."""
        source = self._source(upload)
        return self.outcomes.has_outcome(source) or self.outcomes.is_outcome_deleted(source, upload.modified)

    def _may_have_lost_marker(self, upload: ListedVersion) -> bool:
        """Return whether the outcome of an upload may have expired without a trace."""
        return self.result_days > 0 and self.now - upload.modified >= timedelta(days=self.result_days) + MARKERS_KEPT

    def _settle(self, upload: ListedVersion, until: datetime) -> Finding:
        """Start an upload without outcome, or have the failure of its execution reported.

        Args:
            upload: the upload.
            until: executions that ended later are left alone: their outcome may be on its way.
        """
        self.sleep(_PAUSE_S)
        own = self.executions.own(upload)
        if own is None:
            is_recent = self.now - _times(upload)[-1] < _NOT_RUNNING_AFTER
            may_run = is_recent and self.executions.may_be_running(upload)
            return "open" if may_run else self._start(upload)
        if own.ended_at is None or own.ended_at >= until:
            return "open"
        if own.status == "SUCCEEDED" or self._has_outcome(upload):
            return "done"
        self.executions.reconcile(own)
        logger.warning("execution without outcome", extra={"key": upload.key, "execution": own.name})
        return "reconciled"

    def _start(self, upload: ListedVersion) -> Finding:
        if self._has_outcome(upload):  # its execution has ended since the first look
            return "done"
        name = self.executions.start(upload)
        if name is None:
            return "open"
        count("LostUploads")
        facts = {"key": upload.key, "version_id": upload.version_id, "uploaded_at": upload.modified.isoformat()}
        logger.warning("lost upload", extra={**facts, "execution": name})
        return "started"


def _times(upload: ListedVersion) -> tuple[datetime, ...]:
    """Return the times in whose windows an upload is looked at."""
    return (upload.modified, *((upload.modified + LONGEST_UPLOAD,) if upload.may_be_multipart else ()))


def _due(upload: ListedVersion, progress: Progress) -> datetime | None:
    """Return the first of the upload's times in the window of a pass; None if there is none."""
    return next((time for time in _times(upload) if progress.since <= time < progress.until), None)
