"""The result cache, as bulk runs use it: they hold no claims and wait for none."""

import json
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from functions.contracts.errors import StorageUnavailableError
from functions.contracts.job import Job
from functions.runtime.aws_errors import is_overload
from functions.runtime.config import SDK

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class Cache:
    """Cache entries.

    Args:
        table: their table.
        client: DynamoDB client; None creates one from the environment.
    """

    def __init__(self, table: str, client: "DynamoDBClient | None" = None) -> None:
        self._table = table
        self._client = client or boto3.client("dynamodb", config=SDK)

    def find(self, cache_key: str) -> dict[str, Any] | None:
        """Return the sidecar in a finished entry; None without one.

        Raises:
            StorageUnavailableError: DynamoDB throttles or fails.
        """
        try:
            found = self._client.get_item(
                TableName=self._table, Key={"cache_key": {"S": cache_key}}, ConsistentRead=True
            ).get("Item", {})
        except (ClientError, BotoCoreError) as error:
            raise self._typed(error) from error
        if found.get("status") != {"S": "DONE"} or "document" not in found:
            return None
        document: dict[str, Any] = json.loads(found["document"]["S"])
        return document

    def save(self, job: Job, document: dict[str, Any]) -> None:
        """Save a result's sidecar, unless there is an entry, finished or claimed.

        Raises:
            StorageUnavailableError: DynamoDB throttles or fails.
        """
        item: Any = {
            "cache_key": {"S": job.cache_key},
            "status": {"S": "DONE"},
            "owner": {"S": job.execution.id},
            "document": {"S": json.dumps(document)},
            "expires_at": {"N": job.cache_expires_at},
        }
        try:
            self._client.put_item(
                TableName=self._table, Item=item, ConditionExpression="attribute_not_exists(cache_key)"
            )
        except (ClientError, BotoCoreError) as error:
            if _code(error) != "ConditionalCheckFailedException":
                raise self._typed(error) from error

    def _typed(self, error: ClientError | BotoCoreError) -> Exception:
        if isinstance(error, ClientError) and not is_overload(error.response):
            return error
        return StorageUnavailableError(
            f"DynamoDB is unavailable: {_code(error)}",
            field="cache_table",
            value=self._table,
            remedy="Start the run again later.",
        )


def _code(error: ClientError | BotoCoreError) -> str:
    return error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
