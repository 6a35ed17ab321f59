"""The table of jobs. Each job is created, started and charged once, despite failures and repeated requests."""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from core.options import Options
from functions.api.auth import Authorizer, Caller
from functions.api.config import ApiConfig
from functions.api.problems import Problem, unavailable
from functions.api.requests import ObjectRequest, ProcessRequest, fingerprint
from functions.contracts.object_keys import result_key, sidecar_key, sidecar_keys

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_MAX_ID_CHARS: Final = 36  # DynamoDB rejects long keys
_MAX_IDEMPOTENCY_KEY_CHARS: Final = 255
_SECONDS_PER_DAY: Final = 86_400


def caller_prefix(caller_id: str) -> str:
    """Return the key prefix of all objects that a caller uploaded through the API."""
    return f"api/{caller_id}/"


@dataclass(frozen=True)
class JobRecord:
    """A row of the jobs table.

    Attributes:
        id: a UUID, also the name of the job's execution.
        owner: the caller's id.
        source_key: the image's key in the uploads bucket.
        extension: the result's; None if the object's metadata can set the format, and for jobs of version 0.2.
        created_at: ISO 8601, UTC.
    """

    id: str
    owner: str
    source_key: str
    extension: str | None
    created_at: str

    @property
    def is_callers_upload(self) -> bool:
        """Whether the caller uploaded the image through the API."""
        return self.source_key.startswith(caller_prefix(self.owner))

    @property
    def sidecar_keys(self) -> list[str]:
        """Keys that the result's sidecar can have."""
        if self.extension is None:
            return sidecar_keys(self.source_key)
        return [sidecar_key(result_key(self.source_key, self.extension))]


class JobRepository:
    """Stores jobs, and charges and refunds their callers' quotas.

    Args:
        config: the table's name, and how long jobs are kept.
        authorizer: charges and refunds quotas.
        dynamodb: the DynamoDB client.
    """

    def __init__(self, config: ApiConfig, *, authorizer: Authorizer, dynamodb: "DynamoDBClient") -> None:
        self._config, self._authorizer, self._dynamodb = config, authorizer, dynamodb

    def create(
        self, caller: Caller, request: ProcessRequest | ObjectRequest, idempotency_key: str | None
    ) -> tuple[JobRecord, bool]:
        """Return the job of a request, and whether it is new.

        A new job is charged before it is stored: a repeated request that finds it may start it.

        Raises:
            Problem: ``quota_exceeded``, ``idempotency_key_reused``, ``invalid_request``, ``unavailable``.
        """
        job_id = _job_id(caller, idempotency_key)
        now = time.time()
        own_key = f"{caller_prefix(caller.id)}{job_id}"
        source_key = f"{own_key}/{request.file_name}" if isinstance(request, ProcessRequest) else request.key
        item = {
            "job_id": {"S": job_id},
            "owner": {"S": caller.id},
            "source_key": {"S": source_key},
            "fingerprint": {"S": fingerprint(request)},
            "created_at": {"S": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))},
            "expires_at": {"N": str(int(now) + self._config.job_days * _SECONDS_PER_DAY)},
        }
        if isinstance(request, ProcessRequest) or "format" in request.options:
            item["extension"] = {"S": Options.parse(request.options).format.extension}
        existing = self._item(job_id)
        if existing is None:
            self._authorizer.charge(caller)
            try:
                self._dynamodb.put_item(
                    TableName=self._config.jobs_table, Item=item, ConditionExpression="attribute_not_exists(job_id)"
                )
                return _record(item), True
            except ClientError as error:
                self._authorizer.refund(caller.id)
                if not isinstance(error, self._dynamodb.exceptions.ConditionalCheckFailedException):
                    raise
            existing = self._item(job_id)
        if existing is None:
            raise unavailable()  # a concurrent request with the same key created and cancelled the job
        if existing["fingerprint"] != item["fingerprint"]:
            raise Problem(
                422,
                "idempotency_key_reused",
                "This Idempotency-Key was used for a different request.",
                field="Idempotency-Key",
                remedy="Use a new key for each request, and repeat a key only with the same request.",
            )
        return _record(existing), False

    def find(self, caller: Caller, job_id: str) -> JobRecord:
        """Return a job of the caller.

        Raises:
            Problem: ``job_not_found``.
        """
        item = self._item(job_id) if len(job_id) <= _MAX_ID_CHARS else None
        if item is None or item["owner"]["S"] != caller.id:
            raise Problem(
                404,
                "job_not_found",
                "The job does not exist, or belongs to another caller.",
                field="job_id",
                value=job_id,
                remedy=f"Jobs are kept for {self._config.job_days} days. Use the API key that created the job.",
            )
        return _record(item)

    def record_start(self, job: JobRecord) -> None:
        """Count an attempt to start a job, so that a concurrent request that fails does not cancel the job.

        Raises:
            Problem: ``unavailable``: the job was cancelled.
        """
        try:
            self._dynamodb.update_item(
                TableName=self._config.jobs_table,
                Key={"job_id": {"S": job.id}},
                UpdateExpression="ADD starts :one",
                ConditionExpression="attribute_exists(job_id)",
                ExpressionAttributeValues={":one": {"N": "1"}},
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException:
            raise unavailable() from None

    def start_count(self, job: JobRecord) -> int:
        """Return the number of attempts to start a job."""
        item = self._item(job.id)
        return int(item["starts"]["N"]) if item else 0

    def cancel(self, job: JobRecord, max_starts: int) -> None:
        """Delete and refund a job that was not started, unless it has had more than ``max_starts`` attempts."""
        try:
            self._dynamodb.delete_item(
                TableName=self._config.jobs_table,
                Key={"job_id": {"S": job.id}},
                ConditionExpression="attribute_exists(job_id) AND (attribute_not_exists(starts) OR starts <= :max)",
                ExpressionAttributeValues={":max": {"N": str(max_starts)}},
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException:
            return
        self._authorizer.refund(job.owner)

    def refund_once(self, job: JobRecord) -> None:
        """Refund a job that has no result for its caller. Repeated calls have no effect."""
        try:
            self._dynamodb.update_item(
                TableName=self._config.jobs_table,
                Key={"job_id": {"S": job.id}},
                UpdateExpression="SET refunded = :yes",
                ConditionExpression="attribute_exists(job_id) AND attribute_not_exists(refunded)",
                ExpressionAttributeValues={":yes": {"BOOL": True}},
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException:
            return
        self._authorizer.refund(job.owner)

    def delete(self, job: JobRecord) -> None:
        """Delete a job from the table."""
        self._dynamodb.delete_item(TableName=self._config.jobs_table, Key={"job_id": {"S": job.id}})

    def _item(self, job_id: str) -> Mapping[str, Any] | None:
        return self._dynamodb.get_item(
            TableName=self._config.jobs_table, Key={"job_id": {"S": job_id}}, ConsistentRead=True
        ).get("Item")


def _job_id(caller: Caller, idempotency_key: str | None) -> str:
    if idempotency_key is None:
        return str(uuid.uuid4())
    if not 0 < len(idempotency_key) <= _MAX_IDEMPOTENCY_KEY_CHARS:
        raise Problem(
            400,
            "invalid_request",
            f"The Idempotency-Key has {len(idempotency_key)} characters.",
            field="Idempotency-Key",
            remedy=f"Use 1 to {_MAX_IDEMPOTENCY_KEY_CHARS} characters, e.g. a UUID.",
        )
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{caller.id}/{idempotency_key}"))


def _record(item: Mapping[str, Any]) -> JobRecord:
    return JobRecord(
        id=item["job_id"]["S"],
        owner=item["owner"]["S"],
        source_key=item["source_key"]["S"],
        extension=item["extension"]["S"] if "extension" in item else None,
        created_at=item["created_at"]["S"],
    )
