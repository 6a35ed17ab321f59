"""Who calls, what they may do, and how much of it."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import boto3
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2

from functions.api.problems import Problem
from functions.contracts.api_key import KNOWN_FOR_S, ApiKey, KeyRecord, Scope, principal_id, quota_meter, rate_meter
from functions.runtime.config import SDK
from functions.runtime.handler import logger

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    _Item = Mapping[str, AttributeValueTypeDef]

_MINUTE_MS: Final = 60_000
_RATE_KEPT: Final = timedelta(hours=1)
_QUOTA_KEPT: Final = timedelta(days=62)


@dataclass(frozen=True)
class Caller:
    """Who calls.

    Attributes:
        id: the key's id, or ``iam`` with a hash of the IAM principal: ``[a-z0-9]+``, at most 35 characters.
        scopes: what they may do.
        rate_per_minute: how many requests.
        monthly_quota: how many pictures.
    """

    id: str
    scopes: frozenset[Scope]
    rate_per_minute: int
    monthly_quota: int


@dataclass(frozen=True)
class Rate:
    """How a caller's bucket of requests stands.

    Attributes:
        limit: how many it holds, which is how many flow back in a minute.
        remaining: how many are left.
        reset_at: when it is full again, in seconds since 1970.
    """

    limit: int
    remaining: int
    reset_at: int

    @property
    def headers(self) -> dict[str, str]:
        """What answers say of it."""
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset_at),
        }


@dataclass(frozen=True)
class Admission:
    """A caller who was let in, and what they have left."""

    caller: Caller
    rate: Rate


@dataclass(frozen=True)
class Usage:
    """How many pictures a caller may have this month, and how many they have had."""

    quota: int
    used: int


class Authorizer:
    """Lets callers in, and counts what they do.

    Whoever cannot be looked up or counted is not let in: what DynamoDB raises passes through.

    Args:
        keys_table: has the keys, see :class:`functions.contracts.api_key.KeyRecord`.
        usage_table: has the meters.
        rate_per_minute: of keys that have none of their own, and of IAM's callers.
        monthly_quota: likewise.
        dynamodb_client: the client to use; made from the environment if None.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        *,
        keys_table: str,
        usage_table: str,
        rate_per_minute: int,
        monthly_quota: int,
        dynamodb_client: "DynamoDBClient | None" = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys_table, self._usage_table = keys_table, usage_table
        self._rate_per_minute, self._monthly_quota = rate_per_minute, monthly_quota
        self._dynamodb = dynamodb_client or boto3.client("dynamodb", config=SDK)
        self._clock = clock
        self._known: dict[str, tuple[KeyRecord, datetime]] = {}

    def admit(self, event: APIGatewayProxyEventV2, scope: Scope) -> Admission:
        """Find out who calls, whether they may, and count the request.

        Raises:
            Problem: ``auth_failed``, ``scope_missing``, ``rate_limit_exceeded``.
        """
        caller = self._authenticate(event)
        if scope not in caller.scopes:
            raise Problem(
                403,
                "scope_missing",
                f"The key has no scope {scope}.",
                field="scope",
                value=str(scope),
                remedy="Use a key that has it; a key's scopes are chosen when it is made.",
            )
        return Admission(caller, self._count(caller))

    def charge(self, caller: Caller) -> None:
        """Count one picture of this month.

        Raises:
            Problem: ``quota_exceeded``.
        """
        charged = False
        if caller.monthly_quota:  # a month's first picture finds no item to compare
            charged, _ = self._update(
                quota_meter(caller.id, self._now()),
                "ADD used :one SET expires_at = :expires_at",
                "attribute_not_exists(used) OR used < :quota",
                one=1,
                quota=caller.monthly_quota,
                expires_at=self._in(_QUOTA_KEPT),
            )
        if not charged:
            raise Problem(
                402,
                "quota_exceeded",
                f"This month's {caller.monthly_quota} pictures are used up.",
                remedy="Wait for the next month, which begins at midnight UTC, or have the quota raised.",
            )

    def refund(self, caller_id: str) -> None:
        """Take back the charge for a picture that came to nothing."""
        self._update(quota_meter(caller_id, self._now()), "ADD used :less", "used > :zero", less=-1, zero=0)

    def usage(self, caller: Caller) -> Usage:
        """Return how this month's quota stands."""
        item = self._read(self._usage_table, {"meter": {"S": quota_meter(caller.id, self._now())}})
        return Usage(caller.monthly_quota, _number(item, "used") if item else 0)

    def _authenticate(self, event: APIGatewayProxyEventV2) -> Caller:
        if arn := event.request_context.authorizer.iam.user_arn:  # only the gateway writes there
            return Caller(principal_id(arn), frozenset(Scope), self._rate_per_minute, self._monthly_quota)
        key = ApiKey.parse(_credential(event.headers))
        if key is None:
            raise _auth_failed("no key, or a malformed one")
        now = self._now()
        record = self._cached(key.key_id, now)
        if record is None or record.fault(key, now):  # it may have been rotated since
            record = self._look_up(key.key_id, now)
        if record is None:
            raise _auth_failed("unknown key", key.key_id)
        if fault := record.fault(key, now):
            raise _auth_failed(fault, key.key_id)
        return Caller(
            id=record.key_id,
            scopes=record.scopes,
            rate_per_minute=record.rate_per_minute or self._rate_per_minute,
            monthly_quota=self._monthly_quota if record.monthly_quota is None else record.monthly_quota,
        )

    def _cached(self, key_id: str, now: datetime) -> KeyRecord | None:
        record, until = self._known.get(key_id, (None, now))
        return record if now < until else None

    def _look_up(self, key_id: str, now: datetime) -> KeyRecord | None:
        item = self._read(self._keys_table, {"key_id": {"S": key_id}})
        if item is None:
            return None
        record = KeyRecord.of_item(item)
        self._known[key_id] = record, now + timedelta(seconds=KNOWN_FOR_S)
        return record

    def _count(self, caller: Caller) -> Rate:
        """Take one request out of the caller's bucket. Its item says only when the bucket is full again.

        Each request moves that on by the time in which one flows back, from now on if the bucket is full.
        """
        limit, now_ms = caller.rate_per_minute, int(self._clock() * 1000)
        one_ms = _MINUTE_MS // limit
        latest_ms = now_ms + (limit - 1) * one_ms
        meter, expires_at = rate_meter(caller.id), self._in(_RATE_KEPT)
        counted, item = self._update(
            meter,
            "SET full_at_ms = :full_at_ms, expires_at = :expires_at",
            "attribute_not_exists(full_at_ms) OR full_at_ms <= :now_ms",
            full_at_ms=now_ms + one_ms,
            now_ms=now_ms,
            expires_at=expires_at,
        )
        if not counted:
            counted, item = self._update(
                meter,
                "SET full_at_ms = full_at_ms + :one_ms, expires_at = :expires_at",
                "full_at_ms <= :latest_ms",
                one_ms=one_ms,
                latest_ms=latest_ms,
                expires_at=expires_at,
            )
        full_at_ms = _number(item, "full_at_ms")
        rate = Rate(limit, max(0, (latest_ms + one_ms - full_at_ms) // one_ms), math.ceil(full_at_ms / 1000))
        if not counted:
            raise Problem(
                429,
                "rate_limit_exceeded",
                f"More than {limit} requests a minute.",
                remedy="Wait as long as Retry-After says.",
                headers={"Retry-After": str(math.ceil((full_at_ms - latest_ms) / 1000)), **rate.headers},
            )
        return rate

    def _update(self, meter: str, update: str, condition: str, **values: int) -> "tuple[bool, _Item]":
        """Update a meter if it meets a condition: whether it did, and the item, as it is or as it stays."""
        try:
            answer = self._dynamodb.update_item(
                TableName=self._usage_table,
                Key={"meter": {"S": meter}},
                UpdateExpression=update,
                ConditionExpression=condition,
                ExpressionAttributeValues={f":{name}": {"N": str(value)} for name, value in values.items()},
                ReturnValues="ALL_NEW",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException as error:
            refusal: Any = error.response  # whose type knows no item
            return False, refusal.get("Item", {})
        return True, answer["Attributes"]

    def _read(self, table: str, key: "_Item") -> "_Item | None":
        return self._dynamodb.get_item(TableName=table, Key=key, ConsistentRead=True).get("Item")

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _in(self, period: timedelta) -> int:
        """Return when a period that begins at this moment is over, in seconds since 1970."""
        return int((self._now() + period).timestamp())


def _credential(headers: Mapping[str, str]) -> str:
    """Return what a request offers as its key; empty if it offers none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")


def _auth_failed(why: str, key_id: str | None = None) -> Problem:
    """Return the one answer to all that is no valid key, so that it tells nothing of which keys there are."""
    logger.warning("caller refused", extra={"reason": why, "key_id": key_id})
    return Problem(
        401,
        "auth_failed",
        "The request has no valid API key.",
        remedy="Send a key as X-API-Key, or as Authorization: Bearer.",
        headers={"WWW-Authenticate": "Bearer"},
    )


def _number(item: "_Item", name: str) -> int:
    return int(item[name]["N"])
