"""The table of jobs: each is entered once, started once and counted once, whatever fails or comes twice."""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from functions.api.auth import Authorizer, Caller
from functions.api.config import ApiConfig
from functions.api.problems import Problem, come_again
from functions.api.requests import ObjectRequest, ProcessRequest, fingerprint

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_MAX_ID_CHARS: Final = 36  # DynamoDB refuses long keys
_MAX_IDEMPOTENCY_KEY_CHARS: Final = 255
_SECONDS_PER_DAY: Final = 86_400


def own_prefix(caller_id: str) -> str:
    """Return what the keys of all pictures begin with that a caller put there through the API."""
    return f"api/{caller_id}/"


@dataclass(frozen=True)
class Job:
    """A job as the table knows it; ``source_key`` is that of its picture in the uploads bucket."""

    id: str
    owner: str
    source_key: str
    created_at: str

    @property
    def is_of_the_callers_own(self) -> bool:
        """Whether the caller put the picture there through the API."""
        return self.source_key.startswith(own_prefix(self.owner))


class JobRepository:
    """The jobs that there are, and what was counted for them.

    Args:
        config: which table, and how long a job stays in it.
        authorizer: keeps the accounts.
        table: DynamoDB.
    """

    def __init__(self, config: ApiConfig, *, authorizer: Authorizer, table: "DynamoDBClient") -> None:
        self._config, self._authorizer, self._table = config, authorizer, table

    def enter(
        self, caller: Caller, order: ProcessRequest | ObjectRequest, idempotency_key: str | None
    ) -> tuple[Job, bool]:
        """Count a job and enter it, and return it and whether it was not there.

        It is counted first: whoever finds it in the table may start it.

        Raises:
            Problem: ``quota_exceeded``, ``idempotency_key_reused``, ``invalid_request``, ``unavailable``.
        """
        job_id = _job_id(caller, idempotency_key)
        now = time.time()
        own_key = f"{own_prefix(caller.id)}{job_id}"
        source_key = f"{own_key}/{order.file_name}" if isinstance(order, ProcessRequest) else order.key
        item = {
            "job_id": {"S": job_id},
            "owner": {"S": caller.id},
            "source_key": {"S": source_key},
            "fingerprint": {"S": fingerprint(order)},
            "created_at": {"S": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))},
            "expires_at": {"N": str(int(now) + self._config.job_days * _SECONDS_PER_DAY)},
        }
        there = self._item(job_id)
        if there is None:
            self._authorizer.charge(caller)
            try:
                self._table.put_item(
                    TableName=self._config.jobs_table, Item=item, ConditionExpression="attribute_not_exists(job_id)"
                )
                return _job_of(item), True
            except ClientError as error:
                self._authorizer.refund(caller.id)
                if not isinstance(error, self._table.exceptions.ConditionalCheckFailedException):
                    raise
            there = self._item(job_id)
        if there is None:
            raise come_again()  # another request like this one got in the way
        if there["fingerprint"] != item["fingerprint"]:
            raise Problem(
                422,
                "idempotency_key_reused",
                "This Idempotency-Key came with another request before.",
                field="Idempotency-Key",
                remedy="Send a key of its own with each request, and the same key only with the same request.",
            )
        return _job_of(there), False

    def find(self, caller: Caller, job_id: str) -> Job:
        """Return a caller's own job.

        Raises:
            Problem: ``job_not_found``.
        """
        item = self._item(job_id) if len(job_id) <= _MAX_ID_CHARS else None
        if item is None or item["owner"]["S"] != caller.id:
            raise Problem(
                404,
                "job_not_found",
                "There is no such job of yours.",
                field="job_id",
                value=job_id,
                remedy=f"Jobs are kept for {self._config.job_days} days. Ask with the key that made the job.",
            )
        return _job_of(item)

    def count_start(self, job: Job) -> None:
        """Note that a job is about to be started: from here on it is not given back because another start fails.

        Raises:
            Problem: ``unavailable``: it is not in the table any more.
        """
        try:
            self._table.update_item(
                TableName=self._config.jobs_table,
                Key={"job_id": {"S": job.id}},
                UpdateExpression="ADD starts :one",
                ConditionExpression="attribute_exists(job_id)",
                ExpressionAttributeValues={":one": {"N": "1"}},
            )
        except self._table.exceptions.ConditionalCheckFailedException:
            raise come_again() from None

    def starts(self, job: Job) -> int:
        """Return how often a job was about to be started."""
        item = self._item(job.id)
        return int(item["starts"]["N"]) if item else 0

    def withdraw(self, job: Job, most_starts: int) -> None:
        """Forget a job that was not started and give back what it was counted, unless it was tried more often."""
        try:
            self._table.delete_item(
                TableName=self._config.jobs_table,
                Key={"job_id": {"S": job.id}},
                ConditionExpression="attribute_exists(job_id) AND (attribute_not_exists(starts) OR starts <= :most)",
                ExpressionAttributeValues={":most": {"N": str(most_starts)}},
            )
        except self._table.exceptions.ConditionalCheckFailedException:
            return
        self._authorizer.refund(job.owner)

    def refund_once(self, job: Job) -> None:
        """Give back what a job was counted that made nothing for its caller, the first time that this is seen."""
        try:
            self._table.update_item(
                TableName=self._config.jobs_table,
                Key={"job_id": {"S": job.id}},
                UpdateExpression="SET refunded = :yes",
                ConditionExpression="attribute_exists(job_id) AND attribute_not_exists(refunded)",
                ExpressionAttributeValues={":yes": {"BOOL": True}},
            )
        except self._table.exceptions.ConditionalCheckFailedException:
            return
        self._authorizer.refund(job.owner)

    def forget(self, job: Job) -> None:
        """Strike a job out."""
        self._table.delete_item(TableName=self._config.jobs_table, Key={"job_id": {"S": job.id}})

    def _item(self, job_id: str) -> Mapping[str, Any] | None:
        return self._table.get_item(
            TableName=self._config.jobs_table, Key={"job_id": {"S": job_id}}, ConsistentRead=True
        ).get("Item")


def _job_id(caller: Caller, idempotency_key: str | None) -> str:
    if idempotency_key is None:
        return str(uuid.uuid4())
    if not 0 < len(idempotency_key) <= _MAX_IDEMPOTENCY_KEY_CHARS:
        raise Problem(
            400,
            "invalid_request",
            f"The key has {len(idempotency_key)} characters.",
            field="Idempotency-Key",
            remedy=f"Send 1 to {_MAX_IDEMPOTENCY_KEY_CHARS} characters, such as a UUID.",
        )
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{caller.id}/{idempotency_key}"))


def _job_of(item: Mapping[str, Any]) -> Job:
    return Job(
        id=item["job_id"]["S"],
        owner=item["owner"]["S"],
        source_key=item["source_key"]["S"],
        created_at=item["created_at"]["S"],
    )
