"""API keys of a stack: create, list, rotate and revoke them; and the signing secrets of webhooks."""

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import ValidationError

from client.errors import KeyConflictError, KeyNotFoundError, UsageError
from client.stack import Stack
from core.errors import reason
from functions.contracts.api_key import ApiKey, KeyRecord, Scope, SecretHash, principal_id, quota_meter
from functions.contracts.webhook_signature import signing_secret

_THREADS: Final = 8
_LIST_KEYS: Final = "Run pbr keys list for the IDs."


@dataclass(frozen=True)
class KeyInfo:
    """An API key with its limits and usage.

    Attributes:
        record: the stored key.
        rate_per_minute: limit of requests per minute; the stack's default unless the key has its own.
        monthly_quota: limit of credits per month; the stack's default unless the key has its own.
        used: credits used this month.
        status: ``active``, ``expired`` or ``revoked``.
    """

    record: KeyRecord
    rate_per_minute: int
    monthly_quota: int
    used: int
    status: str

    def to_json(self) -> dict[str, Any]:
        """Return the key as ``pbr keys list --json`` prints it, without its hashes."""
        record = self.record.model_dump(mode="json")
        times = {name: record[name] for name in ("created_at", "expires_at", "revoked_at")}
        return {
            "id": self.record.key_id,
            "name": self.record.name,
            "scopes": sorted(self.record.scopes),
            "rate_per_minute": self.rate_per_minute,
            "monthly_quota": self.monthly_quota,
            "used": self.used,
            **times,
            "rotated_at": record["hashes"][0]["created_at"] if self.rotated_at else None,
            "status": self.status,
        }

    @property
    def rotated_at(self) -> datetime | None:
        """Time of the latest rotation; None if the key was never rotated."""
        newest = self.record.hashes[0].created_at
        return newest if newest > self.record.created_at else None


@dataclass(frozen=True)
class IssuedKey:
    """A key that was just created or rotated.

    Attributes:
        info: the key with its limits.
        key: the key with its secret, which is not stored anywhere.
    """

    info: KeyInfo
    key: ApiKey

    def to_json(self) -> dict[str, Any]:
        """Return the key as ``pbr keys create --json`` prints it, including the secret."""
        return {**self.info.to_json(), "key": self.key.reveal()}


def create(
    stack: Stack,
    name: str,
    scopes: Iterable[Scope],
    *,
    rate_per_minute: int | None,
    monthly_quota: int | None,
    lifetime: timedelta | None,
    now: datetime,
) -> IssuedKey:
    """Create a key.

    Args:
        stack: the stack of the API.
        name: display name, 1 to 100 printable characters.
        scopes: what the key allows.
        rate_per_minute: limit of requests per minute; None for the stack's default.
        monthly_quota: limit of credits per month; None for the stack's default.
        lifetime: time until the key expires; None for never.
        now: current time.

    Raises:
        UsageError: if the name or a limit is invalid.
        StackUnavailableError: if the stack has no API.
    """
    key = ApiKey.generate()
    try:
        record = KeyRecord(
            key_id=key.key_id,
            name=name,
            hashes=(SecretHash(sha256=key.sha256, created_at=now),),
            scopes=frozenset(scopes),
            rate_per_minute=rate_per_minute,
            monthly_quota=monthly_quota,
            created_at=now,
            expires_at=None if lifetime is None else now + lifetime,
        )
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise UsageError(
            f"The key is invalid: {reason(fault['msg'])}",
            field=str(fault["loc"][0]),
            value=fault["input"],
            remedy="Use a name of 1 to 100 printable characters; pbr keys create --help lists the other limits.",
        ) from None
    # Read the usage before the key is stored: if that fails, no key exists whose secret was never shown.
    issued = IssuedKey(_info(stack, record, now), key)
    stack.dynamodb.put_item(TableName=stack.output("ApiKeysTable"), Item=record.item())
    return issued


def list_keys(stack: Stack, now: datetime) -> list[KeyInfo]:
    """Return all keys, newest first.

    Raises:
        StackUnavailableError: if the stack has no API.
    """
    pages = stack.dynamodb.get_paginator("scan").paginate(TableName=stack.output("ApiKeysTable"))
    records = [KeyRecord.of_item(item) for page in pages for item in page["Items"]]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda record: _info(stack, record, now), records)
        return sorted(found, key=lambda info: (info.record.created_at, info.record.key_id), reverse=True)


def rotate(stack: Stack, key: str, grace: timedelta, now: datetime) -> IssuedKey:
    """Give a key a new secret.

    Args:
        stack: the stack of the API.
        key: ID of the key, or the key itself.
        grace: how long the previous secrets stay valid.
        now: current time.

    Raises:
        KeyNotFoundError: if the key does not exist.
        KeyConflictError: if the key is revoked or expired, or was changed at the same time.
        StackUnavailableError: if the stack has no API.
    """
    key_id = _key_id(key)
    before = _record(stack, key_id)
    if (status := before.status(now)) != "active":
        raise KeyConflictError(
            f"The key is {status}", field="ID", value=key_id, remedy="Create a new one with pbr keys create."
        )
    record, newest = before.rotated(now, grace)
    issued = IssuedKey(_info(stack, record, now), newest)
    try:
        stack.dynamodb.update_item(
            TableName=stack.output("ApiKeysTable"),
            Key={"key_id": {"S": key_id}},
            UpdateExpression="SET hashes = :new",
            ConditionExpression="hashes = :old AND attribute_not_exists(revoked_at)",
            ExpressionAttributeValues={":new": record.item()["hashes"], ":old": before.item()["hashes"]},
        )
    except stack.dynamodb.exceptions.ConditionalCheckFailedException:
        raise KeyConflictError(
            "The key was rotated or revoked at the same time",
            field="ID",
            value=key_id,
            remedy="Check it with pbr keys list, then rotate it again.",
        ) from None
    return issued


def revoke(stack: Stack, key: str, now: datetime) -> KeyRecord:
    """Revoke a key permanently and return it. Does nothing if it is already revoked.

    Args:
        stack: the stack of the API.
        key: ID of the key, or the key itself, such as one that has leaked.
        now: current time.

    Raises:
        KeyNotFoundError: if the key does not exist.
        StackUnavailableError: if the stack has no API.
    """
    key_id = _key_id(key)
    try:
        answer = stack.dynamodb.update_item(
            TableName=stack.output("ApiKeysTable"),
            Key={"key_id": {"S": key_id}},
            UpdateExpression="SET revoked_at = if_not_exists(revoked_at, :now)",
            ConditionExpression="attribute_exists(key_id)",
            ExpressionAttributeValues={":now": {"S": now.isoformat()}},
            ReturnValues="ALL_NEW",
        )
    except stack.dynamodb.exceptions.ConditionalCheckFailedException:
        raise _not_found(key_id) from None
    return KeyRecord.of_item(answer["Attributes"])


def webhook_secret(stack: Stack, caller: str) -> str:
    """Return the secret that signs a caller's webhooks.

    Args:
        stack: the stack of the API.
        caller: ID of a key, the key itself, or the ARN of a caller with AWS credentials; see
            :func:`functions.contracts.api_key.principal_id`.

    Raises:
        KeyNotFoundError: if the key does not exist.
        UsageError: if the ARN is not that of a caller.
        StackUnavailableError: if the stack has no API.
    """
    if caller.startswith("arn:"):
        if not re.match(r"arn:[^:]*:(iam::\d+:(user/|root$)|sts::\d+:(assumed-role|federated-user)/)", caller):
            raise UsageError(
                "This ARN does not identify a caller",
                field="ID",
                value=caller,
                remedy="Use the ARN that aws sts get-caller-identity prints.",
            )
        caller_id = principal_id(caller)
    else:
        caller_id = _record(stack, _key_id(caller)).key_id
    master = stack.secrets.get_secret_value(SecretId=stack.output("WebhookSecretArn"))["SecretString"]
    return signing_secret(master, caller_id)


def _record(stack: Stack, key_id: str) -> KeyRecord:
    table = stack.output("ApiKeysTable")
    item = stack.dynamodb.get_item(TableName=table, Key={"key_id": {"S": key_id}}, ConsistentRead=True).get("Item")
    if item is None:
        raise _not_found(key_id)
    return KeyRecord.of_item(item)


def _key_id(key: str) -> str:
    if parsed := ApiKey.parse(key):
        return parsed.key_id
    if not key.isalnum():  # may be a truncated or mistyped key, so the message must not repeat it
        raise UsageError("Neither the ID of a key nor a key", field="ID", value=None, remedy=_LIST_KEYS)
    return key


def _not_found(key_id: str) -> KeyNotFoundError:
    return KeyNotFoundError("No key has this ID", field="ID", value=key_id, remedy=_LIST_KEYS)


def _info(stack: Stack, record: KeyRecord, now: datetime) -> KeyInfo:
    meter = {"meter": {"S": quota_meter(record.key_id, now)}}
    used = stack.dynamodb.get_item(TableName=stack.output("ApiUsageTable"), Key=meter).get("Item")
    own_quota = record.monthly_quota
    return KeyInfo(
        record=record,
        rate_per_minute=record.rate_per_minute or int(stack.parameters["ApiRatePerMinute"]),
        monthly_quota=int(stack.parameters["ApiMonthlyQuota"]) if own_quota is None else own_quota,
        used=int(used["used"]["N"]) if used else 0,
        status=record.status(now),
    )
