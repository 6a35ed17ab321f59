"""Errors that only the cloud has, and how any error crosses from a stage to the state machine."""

import json
from collections.abc import Mapping
from typing import Any, Final

from core.errors import BackgroundRemoverError, PermanentError, TransientError

_THROTTLED: Final = {
    *("SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "TooManyRequests"),
    *("ProvisionedThroughputExceededException", "RequestLimitExceeded"),  # DynamoDB's own words for it
    "ExecutionLimitExceeded",  # Step Functions': a million executions run
}


class StorageUnavailableError(TransientError):
    """S3 throttles, fails or cannot be reached, and the SDK's own retries are spent."""


class StorageDeniedError(PermanentError):
    """S3 refuses: this stage's role may not, or the bucket's key may not be used."""


class WorkerCrashedError(PermanentError):
    """Each worker that took this job died of it, or was taken away."""


class SecretUnavailableError(TransientError):
    """Secrets Manager throttles, fails or refuses, and the SDK's own retries are spent."""


class WebhookUnansweredError(TransientError):
    """The receiver of a webhook cannot be reached, or says that it cannot take it for the moment."""


class WebhookRefusedError(PermanentError):
    """The receiver of a webhook says that it will not have it, or its URL may not be opened."""


def is_overload(answer: Mapping[str, Any]) -> bool:
    """Return whether AWS refuses for a reason that passes; ``answer`` is a ClientError's ``response``."""
    return answer["Error"]["Code"] in _THROTTLED or answer["ResponseMetadata"]["HTTPStatusCode"] >= 500


def to_wire(error: BackgroundRemoverError) -> str:
    """Return the JSON text that stands as ``errorMessage`` of a function and as ``cause`` of a failed task token."""
    return json.dumps(error.facts(), ensure_ascii=False)
