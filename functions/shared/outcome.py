"""What has become of an upload: a result, or the report of a failure, and never both.

A result is one when its sidecar, which is written last, names the uploaded version. A report names its version too.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from core.errors import SourceNotFoundError
from core.keys import failure_key, sidecar_key
from functions.shared.store import Store

MADE_BY: Final = "pbr-execution"
"""The user metadata of a result that names its execution."""


class Subject(BaseModel):
    """The upload that a result or a report is of: one version of one object, as far as it is known."""

    bucket: str | None
    key: str | None
    version_id: str | None


class _Document(BaseModel):
    source: Subject


@dataclass(frozen=True)
class Outcomes:
    """The outcomes that lie in one results bucket."""

    store: Store
    bucket: str

    def result_of(self, subject: Subject) -> str | None:
        """Return the key of the sidecar that names this upload; None as long as it has no result."""
        key = subject.key and sidecar_key(subject.key)
        return key if key and self._names(key, subject) else None

    def report(self, subject: Subject, execution: str, facts: dict[str, Any]) -> str | None:
        """Write the report of a failure and return its key; None where the upload has its result, which then stands.

        Two executions of one upload may end at the same moment. Each writes its own word before it looks for the
        other's, so at least one of them sees both, and the report goes.

        Args:
            subject: the upload that failed.
            execution: name of the execution that it failed in.
            facts: what the report says beside the upload's name.
        """
        if self.result_of(subject):
            return None
        key = failure_key(subject.key, execution)
        data = json.dumps({**facts, "source": subject.model_dump()}, indent=2).encode()
        version_id = self.store.put(self.bucket, key, data, "application/json")
        if self.result_of(subject):
            self.store.delete(self.bucket, key, version_id)
            return None
        return key

    def take_back_report(self, subject: Subject, execution: str) -> None:
        """Delete what earlier executions reported of an upload that has its result."""
        key = failure_key(subject.key, execution)
        while (newest := self.store.newest(self.bucket, key)) and self._names(key, subject):
            self.store.delete(self.bucket, key, newest.version_id)

    def take_back_result(self, key: str, execution: str) -> None:
        """Delete a result that an execution wrote and did not come to describe, as often as it wrote it."""
        while (newest := self.store.newest(self.bucket, key)) and newest.metadata.get(MADE_BY) == execution:
            self.store.delete(self.bucket, key, newest.version_id)

    def _names(self, key: str, subject: Subject) -> bool:
        try:
            return _Document.model_validate_json(self.store.fetch(self.bucket, key).data).source == subject
        except (SourceNotFoundError, ValidationError):
            return False
