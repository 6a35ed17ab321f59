"""Errors of the AWS stages, and the JSON in which an error reaches the state machine."""

import json

from core.errors import BackgroundRemoverError, PermanentError, TransientError


class StorageUnavailableError(TransientError):
    """S3 throttles, fails or cannot be reached, and the SDK's retries are used up."""


class StorageDeniedError(PermanentError):
    """S3 denies access: the stage's role or the bucket's KMS key policy lacks a permission."""


class WorkerCrashedError(PermanentError):
    """Several workers in a row crashed, or were lost without notice, while they processed this job."""


class SecretUnavailableError(TransientError):
    """Secrets Manager throttles, fails or denies access, and the SDK's retries are used up."""


class WebhookUnansweredError(TransientError):
    """The webhook's receiver cannot be reached, or returns a status that is worth a retry."""


class WebhookRefusedError(PermanentError):
    """The webhook's receiver rejects the message, or its URL is not allowed."""


def to_wire(error: BackgroundRemoverError) -> str:
    """Return the error as JSON text, for a function's ``errorMessage`` and the ``cause`` of a failed task token."""
    return json.dumps(error.facts(), ensure_ascii=False)
