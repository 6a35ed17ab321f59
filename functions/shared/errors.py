"""Errors that only the cloud has, and how any error crosses from a stage to the state machine."""

import json

from core.errors import BackgroundRemoverError, PermanentError, TransientError


class StorageUnavailableError(TransientError):
    """S3 throttles, fails or cannot be reached, and the SDK's own retries are spent."""


class StorageDeniedError(PermanentError):
    """S3 refuses: this stage's role may not, or the bucket's key may not be used."""


class WorkerCrashedError(PermanentError):
    """Each worker that took this job died of it, or was taken away."""


def to_wire(error: BackgroundRemoverError) -> str:
    """Return the JSON text that stands as ``errorMessage`` of a function and as ``cause`` of a failed task token."""
    return json.dumps(error.facts(), ensure_ascii=False)
