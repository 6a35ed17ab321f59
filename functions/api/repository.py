"""The table of jobs. Each job is created, started and charged once, despite failures and repeated requests.

A job, its charge and its place among the caller's jobs in flight are written in one transaction, and so are its end and
what the end changes in them.
"""

import random
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

from core.options import Options
from functions.api.auth import Caller
from functions.api.config import ApiConfig
from functions.api.problems import Problem, unavailable
from functions.api.requests import ObjectRequest, ProcessRequest, fingerprint
from functions.contracts.api_key import flight_meter, quota_meter
from functions.contracts.object_keys import result_key, sidecar_key, sidecar_keys
from functions.runtime.handler import logger

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_MAX_ID_CHARS: Final = 36  # DynamoDB rejects long keys
_MAX_IDEMPOTENCY_KEY_CHARS: Final = 255
_SECONDS_PER_DAY: Final = 86_400
_QUOTA_KEPT_S: Final = 62 * _SECONDS_PER_DAY
_UNFINISHED_KEPT_S: Final = 3600
_SCAN_PAUSE_S: Final = 2
_RETRY_AFTER_S: Final = 5

_FAILED: Final = "ConditionalCheckFailed"
_CONFLICTS: Final = {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}
_MAX_ATTEMPTS: Final = 10
_BACKOFF_S: Final = 0.02
_MAX_BACKOFF_S: Final = 0.5


def caller_prefix(caller_id: str) -> str:
    """Return the key prefix of all objects that a caller uploaded through the API."""
    return f"api/{caller_id}/"


def is_own_key(caller_id: str, key: str) -> bool:
    """Return whether a caller uploaded an object through the API.

    Keys with ``.`` or ``..`` as a folder are never made by the API, and some clients resolve them to other keys.
    """
    return key.startswith(caller_prefix(caller_id)) and {".", ".."}.isdisjoint(key.split("/"))


@dataclass(frozen=True)
class JobRecord:
    """A row of the jobs table.

    Attributes:
        id: a UUID, also the name of the job's execution.
        owner: the caller's id.
        source_key: the image's key in the uploads bucket.
        extension: the result's; None if the object's metadata can set the format, and for jobs of version 0.2.
        created_at: ISO 8601, UTC.
        credits: what the job costs its owner; before it is settled, what was charged in advance.
        is_settled: whether the job has ended and its price is final.
        meter: the quota meter that was charged.
    """

    id: str
    owner: str
    source_key: str
    extension: str | None
    created_at: str
    credits: int
    is_settled: bool
    meter: str

    @property
    def age_s(self) -> float:
        """Seconds since the job was created."""
        return time.time() - datetime.fromisoformat(self.created_at).timestamp()

    @property
    def is_callers_upload(self) -> bool:
        """Whether the caller uploaded the image through the API."""
        return is_own_key(self.owner, self.source_key)

    @property
    def sidecar_keys(self) -> list[str]:
        """Keys that the result's sidecar can have."""
        if self.extension is None:
            return sidecar_keys(self.source_key)
        return [sidecar_key(result_key(self.source_key, self.extension))]


class JobRepository:
    """Stores jobs, and charges and settles their prices.

    Args:
        config: names of the tables, and limits.
        dynamodb: the DynamoDB client.
    """

    def __init__(self, config: ApiConfig, *, dynamodb: "DynamoDBClient") -> None:
        self._config, self._dynamodb = config, dynamodb

    def create(
        self, caller: Caller, request: ProcessRequest | ObjectRequest, idempotency_key: str | None, price: int
    ) -> tuple[JobRecord, bool]:
        """Return the job of a request, and whether it is new. A new job is charged with ``price`` credits.

        Raises:
            Problem: ``quota_exceeded``, ``too_many_jobs``, ``idempotency_key_reused``, ``invalid_request``,
                ``unavailable``.
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
            "credits": {"N": str(price)},
            "meter": {"S": quota_meter(caller.id, datetime.fromtimestamp(now, UTC))},
        }
        if "format" in request.options or (isinstance(request, ProcessRequest) and "preset" not in request.options):
            item["extension"] = {"S": Options.parse_explicit(request.options).format.extension}
        existing = self._item(job_id)
        if existing is None:
            problem = self._charge_and_store(caller, item, price)
            if problem is None:
                return _record(item), True
            existing = self._item(job_id)  # a concurrent request with the same key may have stored it
            if existing is None:
                raise problem
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
                remedy=f"Use the API key that created the job. Jobs are kept for {self._config.job_days} days, in the"
                " Region that accepted them: after a failover, send the request again, with the same Idempotency-Key.",
            )
        logger.append_keys(job_id=job_id)
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
        delete = self._job("Delete", job.id, "attribute_not_exists(starts) OR starts <= :max", max=max_starts)
        self._transact(delete, self._landing(job), *self._correction(job, 0))

    def settle(self, job: JobRecord, price: int) -> None:
        """Record that a job has ended, and correct its charge. Repeated calls have no effect.

        A job that cannot be settled now is settled when its state is next asked for.
        """
        if job.is_settled:
            return
        update = self._job("Update", job.id, "attribute_not_exists(settled)", "SET settled = :price", price=price)
        try:
            self._transact(update, self._landing(job), *self._correction(job, price))
        except Problem:
            logger.warning("job not settled", extra={"job_id": job.id})

    def delete(self, job: JobRecord) -> None:
        """Delete a job from the table. What was charged stays charged."""
        self._transact(self._job("Delete", job.id), self._landing(job))

    def in_flight(self, caller: Caller) -> list[JobRecord]:
        """Return the caller's jobs that are not settled; none if another request has just read them."""
        now = int(time.time())
        try:
            flight = self._dynamodb.update_item(
                TableName=self._config.usage_table,
                Key={"meter": {"S": flight_meter(caller.id)}},
                UpdateExpression="SET scanned_at = :now",
                ConditionExpression="attribute_not_exists(scanned_at) OR scanned_at <= :before",
                ExpressionAttributeValues={":now": {"N": str(now)}, ":before": {"N": str(now - _SCAN_PAUSE_S)}},
                ReturnValues="ALL_NEW",
            )["Attributes"]
        except self._dynamodb.exceptions.ConditionalCheckFailedException:
            return []
        items = {job_id: self._item(job_id) for job_id in flight.get("in_flight", {}).get("SS", [])}
        if expired := [job_id for job_id, item in items.items() if item is None]:
            self._transact(self._meter(flight_meter(caller.id), "DELETE in_flight :jobs", jobs=set(expired)))
        return [_record(item) for item in items.values() if item is not None]

    def unfinished(self, caller: Caller, request: ProcessRequest) -> JobRecord | None:
        """Return a job of the same request that a caller has paid for and whose outcome it has not received."""
        note = self._item(_note_id(caller, request))
        if note is None or int(note["expires_at"]["N"]) < time.time():
            return None
        jobs = (self._item(job_id) for job_id in sorted(note.get("jobs", {}).get("SS", [])))
        return next((_record(job) for job in jobs if job is not None), None)

    def note_unfinished(self, caller: Caller, request: ProcessRequest, job: JobRecord, *, is_unfinished: bool) -> None:
        """Record whether the caller has yet to receive the job's outcome, so that the same request gets it."""
        self._dynamodb.update_item(
            TableName=self._config.jobs_table,
            Key={"job_id": {"S": _note_id(caller, request)}},
            UpdateExpression=f"{'ADD' if is_unfinished else 'DELETE'} jobs :job SET expires_at = :expires_at",
            ExpressionAttributeValues={
                ":job": {"SS": [job.id]},
                ":expires_at": {"N": str(int(time.time()) + _UNFINISHED_KEPT_S)},
            },
        )

    def _charge_and_store(self, caller: Caller, item: Mapping[str, Any], price: int) -> Problem | None:
        """Charge and store a job, and return None; or do neither, and return why."""
        expires_at, room = int(time.time()) + _QUOTA_KEPT_S, caller.monthly_quota - price
        if room < 0:  # no meter exists before the month's first job
            return _quota_exceeded(caller)
        failed = self._transact(
            self._meter(
                item["meter"]["S"],
                "ADD used :price SET expires_at = :expires_at",
                "attribute_not_exists(used) OR used <= :room",
                price=price,
                room=room,
                expires_at=expires_at,
            ),
            self._meter(
                flight_meter(caller.id),
                "ADD in_flight :job SET expires_at = :expires_at",
                "attribute_not_exists(in_flight) OR size(in_flight) < :limit",
                job={item["job_id"]["S"]},
                limit=self._config.jobs_in_flight,
                expires_at=expires_at,
            ),
            {
                "Put": {
                    "TableName": self._config.jobs_table,
                    "Item": item,
                    "ConditionExpression": "attribute_not_exists(job_id)",
                }
            },
        )
        match failed:
            case []:
                return None
            case [True, *_]:
                return _quota_exceeded(caller)
            case [_, True, _]:
                return _too_many_jobs(self._config.jobs_in_flight)
        return unavailable()  # a concurrent request with the same key created and cancelled the job

    def _landing(self, job: JobRecord) -> dict[str, Any]:
        return self._meter(flight_meter(job.owner), "DELETE in_flight :job", job={job.id})

    def _correction(self, job: JobRecord, price: int) -> list[dict[str, Any]]:
        """Return the write that corrects the charge of a job to a price. Expired meters are not corrected."""
        difference = price - job.credits
        if not difference:
            return []
        return [self._meter(job.meter, "ADD used :difference", "attribute_exists(used)", difference=difference)]

    def _meter(self, meter: str, update: str, condition: str = "", **values: int | set[str]) -> dict[str, Any]:
        key = {"meter": {"S": meter}}
        return _write("Update", self._config.usage_table, key, condition, update, **values)

    def _job(self, action: str, job_id: str, condition: str = "", update: str = "", **values: int) -> dict[str, Any]:
        exists = f"attribute_exists(job_id) AND ({condition})" if condition else ""
        return _write(action, self._config.jobs_table, {"job_id": {"S": job_id}}, exists, update, **values)

    def _transact(self, *writes: dict[str, Any]) -> list[bool]:
        """Do all writes and return an empty list; or do none, and return whose conditions failed.

        Raises:
            Problem: ``unavailable``: other requests write the same items.
        """
        for attempt in range(_MAX_ATTEMPTS):
            try:
                self._dynamodb.transact_write_items(TransactItems=cast("Any", writes))
                return []
            except self._dynamodb.exceptions.TransactionCanceledException as error:
                response: Any = error.response  # its type lacks CancellationReasons
                codes = [reason.get("Code") for reason in response["CancellationReasons"]]
                if not _CONFLICTS.intersection(codes):
                    if _FAILED not in codes:
                        raise
                    return [code == _FAILED for code in codes]
            time.sleep(random.uniform(0, min(_MAX_BACKOFF_S, _BACKOFF_S * 2**attempt)))  # noqa: S311
        raise unavailable()

    def _item(self, job_id: str) -> Mapping[str, Any] | None:
        return self._dynamodb.get_item(
            TableName=self._config.jobs_table, Key={"job_id": {"S": job_id}}, ConsistentRead=True
        ).get("Item")


def _write(
    action: str, table: str, key: Mapping[str, Any], condition: str, update: str, **values: int | set[str]
) -> dict[str, Any]:
    """Return a member of a transaction."""
    write: dict[str, Any] = {"TableName": table, "Key": key}
    if condition:
        write["ConditionExpression"] = condition
    if update:
        write["UpdateExpression"] = update
    if values:
        write["ExpressionAttributeValues"] = {
            f":{name}": {"SS": sorted(value)} if isinstance(value, set) else {"N": str(value)}
            for name, value in values.items()
        }
    return {action: write}


def _quota_exceeded(caller: Caller) -> Problem:
    return Problem(
        402,
        "quota_exceeded",
        f"The monthly quota of {caller.monthly_quota} credits does not suffice for this image.",
        remedy="Wait until the next month (UTC), or ask for a higher quota.",
    )


def _too_many_jobs(limit: int) -> Problem:
    return Problem(
        429,
        "too_many_jobs",
        f"{limit} jobs of this caller have not ended yet.",
        remedy="Retry after the number of seconds in the Retry-After header.",
        headers={"Retry-After": str(_RETRY_AFTER_S)},
    )


def _note_id(caller: Caller, request: ProcessRequest) -> str:
    """Return the key of the item that lists unfinished jobs of a request. It is too long for a job's ID."""
    return f"unfinished/{uuid.uuid5(uuid.NAMESPACE_URL, f'{caller.id}/{fingerprint(request)}')}"


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
    """Return a job's record. Versions before 0.3 stored no price, and called settled failures refunded."""
    owner, created_at = item["owner"]["S"], item["created_at"]["S"]
    return JobRecord(
        id=item["job_id"]["S"],
        owner=owner,
        source_key=item["source_key"]["S"],
        extension=item["extension"]["S"] if "extension" in item else None,
        created_at=created_at,
        credits=int((item.get("settled") or item.get("credits") or {"N": "1"})["N"]),
        is_settled=not item.keys().isdisjoint({"settled", "refunded"}),
        meter=item["meter"]["S"] if "meter" in item else quota_meter(owner, datetime.fromisoformat(created_at)),
    )
