"""Delete what the cache and the work bucket hold of a job."""

from typing import TYPE_CHECKING

from functions.runtime.store import Store

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class ResultCache:
    """The cache of results.

    Args:
        table: the table of cache entries and claims.
        work_bucket: bucket of cached copies, masks and alphas.
        store: S3.
        dynamodb: the DynamoDB client.
    """

    def __init__(self, *, table: str, work_bucket: str, store: Store, dynamodb: "DynamoDBClient") -> None:
        self._table, self._bucket, self._store, self._dynamodb = table, work_bucket, store, dynamodb

    def delete(self, cache_key: str, execution_arn: str) -> None:
        """Delete a cache entry with its mask, its alpha and its result, unless another execution computes them anew.

        The entry is deleted last. Executions that find it without its result take over the claim, and only then write
        objects, which are no longer deleted here.

        Args:
            cache_key: the job's cache key.
            execution_arn: the job's execution, which must not be running.
        """
        key = {"cache_key": {"S": cache_key}}
        item = self._dynamodb.get_item(TableName=self._table, Key=key, ConsistentRead=True).get("Item", {})
        if item and item["status"]["S"] != "DONE" and item["owner"]["S"] != execution_arn:
            return
        self._store.delete_prefix(self._bucket, f"work/{cache_key}/")
        self._store.delete_prefix(self._bucket, f"cache/{cache_key}.")
        try:
            self._dynamodb.delete_item(
                TableName=self._table,
                Key=key,
                ConditionExpression="#status = :done OR #owner = :me",
                ExpressionAttributeNames={"#status": "status", "#owner": "owner"},
                ExpressionAttributeValues={":done": {"S": "DONE"}, ":me": {"S": execution_arn}},
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException:
            return  # no entry, or another execution has taken over the claim
