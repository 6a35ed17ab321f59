"""Classification of errors that AWS returns."""

from collections.abc import Mapping
from typing import Any, Final

_THROTTLING_CODES: Final = {
    *("SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "TooManyRequests"),
    *("ProvisionedThroughputExceededException", "RequestLimitExceeded"),  # DynamoDB
    "ExecutionLimitExceeded",  # Step Functions, at one million running executions
}


def is_overload(response: Mapping[str, Any]) -> bool:
    """Return whether a request failed for a temporary reason: throttling, or a status of 500 or more.

    Args:
        response: the ``response`` of a botocore ``ClientError``.
    """
    return response["Error"]["Code"] in _THROTTLING_CODES or response["ResponseMetadata"]["HTTPStatusCode"] >= 500
