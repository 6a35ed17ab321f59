"""Results and failure reports in the results bucket. An upload has one of them, never both.

A result exists once its sidecar, which is written last, names the uploaded version. A report names its version too.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from os.path import commonprefix
from typing import Final

from pydantic import ValidationError

from core.errors import SourceNotFoundError
from functions.contracts.failure_report import FailureReport
from functions.contracts.job import Execution
from functions.contracts.object_keys import failure_key, sidecar_keys
from functions.contracts.outcome import ObjectVersion, OutcomeRecord
from functions.runtime.store import Store

DELETED: Final = "JobDeleted"
"""The error that stops an execution because its job was deleted. Such an end is not reported."""


def execution_metadata(execution: Execution) -> dict[str, str]:
    """Return the user metadata that marks a result as an execution's. The ARN is hashed: S3 accepts ASCII only."""
    return {"pbr-execution": hashlib.sha256(execution.id.encode()).hexdigest()}


@dataclass(frozen=True)
class Outcomes:
    """The results and failure reports in one results bucket.

    Attributes:
        store: S3.
        bucket: the results bucket.
        folder: prefix of the source keys from which the names derive; see
            :func:`functions.contracts.object_keys.source_folder`.
    """

    store: Store
    bucket: str
    folder: str = ""

    def results_of(self, source: ObjectVersion) -> Iterator[OutcomeRecord]:
        """Yield the records in the upload's sidecars, one for each file extension it has a result of."""
        for key in sidecar_keys(self.folder + source.key) if source.key else ():
            if (found := self._read(key)) and found[0].source.is_of(source):
                yield found[0]

    def has_result(self, source: ObjectVersion) -> bool:
        """Return whether the upload has a result of any file extension."""
        return any(True for _ in self.results_of(source))

    def has_outcome(self, source: ObjectVersion) -> bool:
        """Return whether the upload has a result or a failure report."""
        if self.has_result(source):
            return True
        found = self._read(failure_key(self._name(source), "")) if source.key else None
        return found is not None and found[0].source.is_of(source)

    def is_outcome_deleted(self, source: ObjectVersion, since: datetime) -> bool:
        """Return whether a sidecar or a failure report of the upload's key was deleted at this time or later."""
        name = self._name(source) or ""
        *sidecars, _ = sidecar_keys(name)
        report = failure_key(name, "")
        return any(
            key in (*sidecars, report) and deleted_at >= since
            for prefix in (commonprefix(sidecars), report)  # noqa: RUF071  not of path components
            for key, deleted_at in self.store.deletions(self.bucket, prefix)
        )

    def write_report(self, report: FailureReport, *, is_own: bool = True) -> str | None:
        """Write a failure report and return its key, or return None if the upload has a result.

        The report of a source that is not in the uploads bucket (``is_own`` is false) is named after its execution: an
        upload may have the same key.

        Two executions of one upload can end at the same time. Each writes its own outcome before it reads the other's,
        so at least one of them sees both and deletes the report. Outdated reports are deleted too.
        """
        key = failure_key(self._name(report.source) if is_own else None, report.execution.name)
        if not self.has_result(report.source):
            data = json.dumps(report.model_dump(), indent=2).encode()
            self.store.put(self.bucket, key, data, "application/json")
            if not self.has_result(report.source):
                return key
        self.delete_stale_reports(report.source, report.execution)
        return None

    def delete_stale_reports(self, source: ObjectVersion, execution: Execution) -> None:
        """Delete the reports of this and earlier executions of an upload that has a result."""
        key = failure_key(self._name(source), execution.name)
        while (found := self._read(key)) and found[0].source.is_of(source):
            self.store.delete(self.bucket, key, found[1])

    def delete_undescribed_results(self, key: str, sidecar_key: str, execution: Execution) -> None:
        """Delete all versions of a result that an execution wrote, unless it also wrote the sidecar."""
        if (found := self._read(sidecar_key)) and found[0].execution.id == execution.id:
            return
        own_metadata = execution_metadata(execution)
        while (newest := self.store.newest(self.bucket, key)) and newest.metadata.items() >= own_metadata.items():
            self.store.delete(self.bucket, key, newest.version_id)

    def _name(self, source: ObjectVersion) -> str | None:
        return self.folder + source.key if source.key else None

    def _read(self, key: str) -> tuple[OutcomeRecord, str | None] | None:
        """Return the record in a sidecar or report, and its version; None if there is no valid one."""
        try:
            file = self.store.fetch(self.bucket, key)
            return OutcomeRecord.model_validate_json(file.data), file.version_id
        except (SourceNotFoundError, ValidationError):
            return None
