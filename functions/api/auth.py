"""Authentication, scopes and rate limits. Quotas are charged with jobs, see :mod:`functions.api.repository`."""

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


@dataclass(frozen=True)
class Caller:
    """An authenticated caller.

    Attributes:
        id: the API key's id, or ``iam`` and a hash of the IAM principal: ``[a-z0-9]+``, at most 35 characters.
        scopes: the operations that the caller may use.
        rate_per_minute: maximum requests per minute.
        monthly_quota: maximum credits per month.
    """

    id: str
    scopes: frozenset[Scope]
    rate_per_minute: int
    monthly_quota: int


@dataclass(frozen=True)
class RateLimit:
    """The state of a caller's token bucket.

    Attributes:
        limit: the bucket's size, and the number of tokens added per minute.
        remaining: tokens left.
        reset_at: when the bucket is full again, in seconds since 1970.
    """

    limit: int
    remaining: int
    reset_at: int

    @property
    def headers(self) -> dict[str, str]:
        """The ``X-RateLimit-*`` response headers."""
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset_at),
        }


@dataclass(frozen=True)
class Authorization:
    """An authorized request: its caller, and the state of the caller's rate limit."""

    caller: Caller
    rate_limit: RateLimit


@dataclass(frozen=True)
class Usage:
    """A caller's monthly quota of credits, and how many are used."""

    quota: int
    used: int


class Authorizer:
    """Authenticates callers, checks scopes, and enforces rate limits.

    DynamoDB errors propagate: a request that cannot be checked or counted is rejected.

    Args:
        keys_table: the table of API keys, see :class:`functions.contracts.api_key.KeyRecord`.
        usage_table: the table of rate and quota meters.
        rate_per_minute: default for keys without their own limit, and for IAM callers.
        monthly_quota: default for keys without their own quota, and for IAM callers.
        dynamodb_client: created from the environment if None.
        clock: returns the time in seconds since 1970.
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
        self._cache: dict[str, tuple[KeyRecord, datetime]] = {}

    def authorize(self, event: APIGatewayProxyEventV2, scope: Scope) -> Authorization:
        """Authenticate the caller, check the scope, and count the request against the rate limit.

        Raises:
            Problem: ``auth_failed``, ``scope_missing``, ``rate_limit_exceeded``.
        """
        caller = self._authenticate(event)
        if scope not in caller.scopes:
            raise Problem(
                403,
                "scope_missing",
                f"The API key does not have the scope {scope}.",
                field="scope",
                value=str(scope),
                remedy="Use a key with this scope. Scopes are set when a key is created.",
            )
        return Authorization(caller, self._count(caller))

    def usage(self, caller: Caller) -> Usage:
        """Return the caller's usage of this month."""
        item = self._read(self._usage_table, {"meter": {"S": quota_meter(caller.id, self._now())}})
        return Usage(caller.monthly_quota, _number(item, "used") if item else 0)

    def _authenticate(self, event: APIGatewayProxyEventV2) -> Caller:
        if arn := event.request_context.authorizer.iam.user_arn:  # set by API Gateway only
            return Caller(principal_id(arn), frozenset(Scope), self._rate_per_minute, self._monthly_quota)
        key = ApiKey.parse(_credential(event.headers))
        if key is None:
            raise _auth_failed("missing or malformed key")
        now = self._now()
        record = self._cached(key.key_id, now)
        if record is None or record.fault(key, now):  # the key may have been rotated since it was cached
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
        record, until = self._cache.get(key_id, (None, now))
        return record if now < until else None

    def _look_up(self, key_id: str, now: datetime) -> KeyRecord | None:
        item = self._read(self._keys_table, {"key_id": {"S": key_id}})
        if item is None:
            return None
        record = KeyRecord.of_item(item)
        self._cache[key_id] = record, now + timedelta(seconds=KNOWN_FOR_S)
        return record

    def _count(self, caller: Caller) -> RateLimit:
        """Take one token from the caller's bucket.

        The item stores only the time when the bucket is full again. Each request moves that time forward by the
        interval of one token, starting from now if the bucket is full.
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
        rate_limit = RateLimit(limit, max(0, (latest_ms + one_ms - full_at_ms) // one_ms), math.ceil(full_at_ms / 1000))
        if not counted:
            raise Problem(
                429,
                "rate_limit_exceeded",
                f"The rate limit of {limit} requests per minute is exceeded.",
                remedy="Retry after the number of seconds in the Retry-After header.",
                headers={"Retry-After": str(math.ceil((full_at_ms - latest_ms) / 1000)), **rate_limit.headers},
            )
        return rate_limit

    def _update(self, meter: str, update: str, condition: str, **values: int) -> "tuple[bool, _Item]":
        """Update a meter if the condition holds. Return whether it held, and the meter after the call."""
        try:
            updated = self._dynamodb.update_item(
                TableName=self._usage_table,
                Key={"meter": {"S": meter}},
                UpdateExpression=update,
                ConditionExpression=condition,
                ExpressionAttributeValues={f":{name}": {"N": str(value)} for name, value in values.items()},
                ReturnValues="ALL_NEW",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException as error:
            response: Any = error.response  # its type lacks Item
            return False, response.get("Item", {})
        return True, updated["Attributes"]

    def _read(self, table: str, key: "_Item") -> "_Item | None":
        return self._dynamodb.get_item(TableName=table, Key=key, ConsistentRead=True).get("Item")

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _in(self, period: timedelta) -> int:
        """Return the time after a period, in seconds since 1970."""
        return int((self._now() + period).timestamp())


def _credential(headers: Mapping[str, str]) -> str:
    """Return the API key that a request sends; empty if none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")


def _auth_failed(reason: str, key_id: str | None = None) -> Problem:
    """Return the same problem for every invalid key, so that it does not reveal which keys exist."""
    logger.warning("authentication failed", extra={"reason": reason, "key_id": key_id})
    return Problem(
        401,
        "auth_failed",
        "The API key is missing or invalid.",
        remedy="Send a valid key in the header X-API-Key, or as Authorization: Bearer.",
        headers={"WWW-Authenticate": "Bearer"},
    )


def _number(item: "_Item", name: str) -> int:
    return int(item[name]["N"])
