"""Whether what a job needs is there."""

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

KNOWN_FOR_S: Final = 10.0
"""How long an answer is given again: anybody may ask, and each look is six calls."""


class Readiness:
    """Looks at the stack.

    Args:
        config: what there has to be.
        s3, table, machine, queue: the clients.
    """

    def __init__(
        self, config: ApiConfig, *, s3: "S3Client", table: "DynamoDBClient", machine: "SFNClient", queue: "SQSClient"
    ) -> None:
        tables = (config.keys_table, config.usage_table, config.jobs_table)
        self._looks: dict[str, list[Callable[[], object]]] = {
            "bucket": [
                partial(s3.head_bucket, Bucket=bucket) for bucket in (config.uploads_bucket, config.results_bucket)
            ],
            "table": [partial(table.describe_table, TableName=name) for name in tables],
            "machine": [partial(machine.describe_state_machine, stateMachineArn=config.state_machine_arn)],
            "queue": [
                partial(queue.get_queue_attributes, QueueUrl=config.segmentation_queue_url, AttributeNames=["QueueArn"])
            ],
        }
        self._found: Ready | None = None
        self._looked_at = 0.0

    def look(self) -> Ready:
        """Return what is there."""
        if self._found is None or time.monotonic() - self._looked_at > KNOWN_FOR_S:
            there = {name: all(_answers(name, look) for look in looks) for name, looks in self._looks.items()}
            self._found, self._looked_at = Ready(ready=all(there.values()), **there), time.monotonic()
        return self._found


def _answers(name: str, look: Callable[[], object]) -> bool:
    try:
        look()
    except (ClientError, BotoCoreError) as error:
        logger.error("not ready", extra={"part": name, "error": str(error)})
        return False
    return True
