"""Check that the resources a job needs exist."""

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from functions.api.config import ApiConfig
from functions.api.schemas import Ready
from functions.runtime.handler import logger

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_stepfunctions import SFNClient

CACHED_FOR_S: Final = 10.0
"""How long a check is reused: the route needs no key, and each check makes several AWS calls."""


class Readiness:
    """Checks the stack's resources.

    Args:
        config: the resources.
        s3, dynamodb, stepfunctions, sqs: AWS clients.
    """

    def __init__(
        self,
        config: ApiConfig,
        *,
        s3: "S3Client",
        dynamodb: "DynamoDBClient",
        stepfunctions: "SFNClient",
        sqs: "SQSClient",
    ) -> None:
        tables = (config.keys_table, config.usage_table, config.jobs_table)
        self._checks: dict[str, list[Callable[[], object]]] = {
            "bucket": [
                partial(s3.head_bucket, Bucket=bucket) for bucket in (config.uploads_bucket, config.results_bucket)
            ],
            "table": [partial(dynamodb.describe_table, TableName=name) for name in tables],
            "machine": [partial(stepfunctions.describe_state_machine, stateMachineArn=config.state_machine_arn)],
            "queue": [
                partial(sqs.get_queue_attributes, QueueUrl=config.segmentation_queue_url, AttributeNames=["QueueArn"])
            ],
        }
        self._cached: Ready | None = None
        self._checked_at = 0.0

    def check(self) -> Ready:
        """Return which resources exist; the answer is up to 10 seconds old."""
        if self._cached is None or time.monotonic() - self._checked_at > CACHED_FOR_S:
            found = {name: all(_succeeds(name, check) for check in checks) for name, checks in self._checks.items()}
            self._cached, self._checked_at = Ready(ready=all(found.values()), **found), time.monotonic()
        return self._cached


def _succeeds(name: str, check: Callable[[], object]) -> bool:
    try:
        check()
    except (ClientError, BotoCoreError) as error:
        logger.error("not ready", extra={"part": name, "error": str(error)})
        return False
    return True
