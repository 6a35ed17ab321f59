"""Open reviews of doubtful results."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from functions.contracts import review
from functions.runtime.config import SDK
from functions.runtime.handler import count, logger

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class Reviews:
    """The table of reviews.

    Args:
        table: its name.
        client: DynamoDB client; None creates one from the environment.
    """

    def __init__(self, table: str, client: "DynamoDBClient | None" = None) -> None:
        self._table, self._client = table, client

    def open(self, document: dict[str, Any]) -> None:
        """Open the review of a result if it is doubtful and has none.

        The result is delivered, and its sidecar says that it is doubtful, so that an error does not fail the job.

        Args:
            document: the sidecar.
        """
        if not review.is_doubtful(document):
            return
        if self._client is None:  # most results need no review, and so no client
            import boto3

            self._client = boto3.client("dynamodb", config=SDK)
        try:
            self._client.update_item(TableName=self._table, **review.opening(document, datetime.now(UTC)))
        except (ClientError, BotoCoreError) as error:
            if isinstance(error, ClientError) and error.response["Error"]["Code"] == "ConditionalCheckFailedException":
                logger.warning("review has too many sources", extra={"cut_out": document["cache"]["key"]})
                return
            logger.error("degraded", extra={"state": "OpenReview", "caught": str(error)})
            count("Degraded", Stage="OpenReview")
