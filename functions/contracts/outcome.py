"""The facts that results and failure reports share: which upload, which execution, which options."""

from typing import Any

from pydantic import BaseModel, Field

from functions.contracts.job import Execution


class ObjectVersion(BaseModel):
    """The uploaded object that a result or a failure report belongs to, as far as it is known."""

    bucket: str | None = Field(description="Bucket; null if the request named none.")
    key: str | None = Field(description="Object key; null if the request named none.")
    version_id: str | None = Field(description="Version; null if the request named none or the bucket is unversioned.")

    def is_of(self, other: "ObjectVersion") -> bool:
        """Return whether both are the same upload. No version means the newest one and equals any version."""
        versions = {self.version_id, other.version_id}
        return (self.bucket, self.key) == (other.bucket, other.key) and (len(versions) == 1 or None in versions)


class OutcomeRecord(BaseModel):
    """The part of a sidecar or a failure report that decides which upload and execution it belongs to."""

    source: ObjectVersion
    execution: Execution
    options: dict[str, Any]
