"""What has become of an upload: a result, or the report of a failure, and never both.

A result is one when its sidecar, which is written last, names the uploaded version. A report names its version too.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from core.errors import SourceNotFoundError
from functions.contracts.job import Execution
from functions.contracts.object_keys import failure_key, sidecar_key
from functions.runtime.store import Store

DELETED: Final = "JobDeleted"
"""The error that an execution is stopped with because its job was deleted: nobody is told of that end."""


class ObjectVersion(BaseModel):
    """The upload that a result or a report is of: one version of one object, as far as it is known."""

    bucket: str | None
    key: str | None
    version_id: str | None

    def is_of(self, other: "ObjectVersion") -> bool:
        """Whether both are of one upload. Who names no version means the newest, whichever that was at the time."""
        versions = {self.version_id, other.version_id}
        return (self.bucket, self.key) == (other.bucket, other.key) and (len(versions) == 1 or None in versions)


class OutcomeRecord(BaseModel):
    """What a sidecar or a report says: of which upload, by which execution, and what was asked for."""

    source: ObjectVersion
    execution: Execution
    options: dict[str, Any]


def execution_metadata(execution: Execution) -> dict[str, str]:
    """Return the user metadata of a result: whose it is, as S3 takes it. Names of executions may have any letters."""
    return {"pbr-execution": hashlib.sha256(execution.id.encode()).hexdigest()}


@dataclass(frozen=True)
class Outcomes:
    """The outcomes that lie in one results bucket."""

    store: Store
    bucket: str

    def result_of(self, subject: ObjectVersion) -> OutcomeRecord | None:
        """Return what the sidecar of this upload says; None as long as the upload has no result."""
        word = subject.key and self._read(sidecar_key(subject.key))
        return word[0] if word and word[0].source.is_of(subject) else None

    def report(self, subject: ObjectVersion, execution: Execution, facts: dict[str, Any]) -> str | None:
        """Write the report of a failure and return its key; None where the upload has its result, which then stands.

        Two executions of one upload may end at the same moment. Each writes its own word before it looks for the
        other's, so at least one of them sees both, and the report goes. So does one that should have gone before.

        Args:
            subject: the upload that failed.
            execution: what it failed in.
            facts: what the report says beside these two.
        """
        key = failure_key(subject.key, execution.name)
        if self.result_of(subject) is None:
            document = {**facts, "execution": execution.model_dump(), "source": subject.model_dump()}
            self.store.put(self.bucket, key, json.dumps(document, indent=2).encode(), "application/json")
            if self.result_of(subject) is None:
                return key
        self.delete_stale_reports(subject, execution)
        return None

    def delete_stale_reports(self, subject: ObjectVersion, execution: Execution) -> None:
        """Delete what executions up to this one reported of an upload that has its result."""
        key = failure_key(subject.key, execution.name)
        while (read := self._read(key)) and read[0].source.is_of(subject):
            self.store.delete(self.bucket, key, read[1])

    def delete_undescribed_results(self, key: str, execution: Execution) -> None:
        """Delete a result that an execution wrote and did not come to describe, as often as it wrote it."""
        mark = execution_metadata(execution)
        while (newest := self.store.newest(self.bucket, key)) and newest.metadata.items() >= mark.items():
            self.store.delete(self.bucket, key, newest.version_id)

    def _read(self, key: str) -> tuple[OutcomeRecord, str | None] | None:
        """Return a sidecar or a report, and its version; None for what is neither."""
        try:
            file = self.store.fetch(self.bucket, key)
            return OutcomeRecord.model_validate_json(file.data), file.version_id
        except (SourceNotFoundError, ValidationError):
            return None
