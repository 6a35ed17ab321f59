"""The API keys of a stack: made, listed, rotated, revoked; and what webhooks are signed with."""

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import ValidationError

from client.errors import KeyConflictError, KeyNotFoundError, UsageError
from client.stack import Stack
from functions.contracts.api_key import ApiKey, KeyRecord, Scope, SecretHash, principal_id, quota_meter
from functions.contracts.webhook_signature import signing_secret

_AT_ONCE: Final = 8
_WHICH: Final = "Give an id that pbr keys list has."


@dataclass(frozen=True)
class Entry:
    """A key at a glance.

    Attributes:
        record: what the stack has of it.
        rate_per_minute: how many requests; the stack's default if the key has no limit of its own.
        monthly_quota: how many pictures; likewise.
        used: how many pictures it has had this month.
        status: ``active``, ``expired`` or ``revoked``.
    """

    record: KeyRecord
    rate_per_minute: int
    monthly_quota: int
    used: int
    status: str

    def facts(self) -> dict[str, Any]:
        """Return it as a JSON object, for scripts; its hashes stay in the table."""
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
        """When it got its newest secret; None if that is its first."""
        newest = self.record.hashes[0].created_at
        return newest if newest > self.record.created_at else None


@dataclass(frozen=True)
class Issued:
    """A key that was made or rotated.

    Attributes:
        entry: the key.
        key: its text, which nobody can find out again.
    """

    entry: Entry
    key: ApiKey

    def facts(self) -> dict[str, Any]:
        """Return it as a JSON object, for scripts, secret and all."""
        return {**self.entry.facts(), "key": self.key.reveal()}


def create(
    stack: Stack,
    name: str,
    scopes: Iterable[Scope],
    *,
    rate_per_minute: int | None,
    monthly_quota: int | None,
    lifetime: timedelta | None,
    now: datetime,
) -> Issued:
    """Make a key.

    Args:
        stack: whose API it is for.
        name: what people call it.
        scopes: what it may be used for.
        rate_per_minute: how many requests; None for the stack's default.
        monthly_quota: how many pictures; None for the stack's default.
        lifetime: how long it is good; None for no end.
        now: the time.

    Raises:
        UsageError: the name is empty, too long, or not fit to be printed.
        StackUnavailableError: the stack has no API.
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
            f"No such key can be made: {fault['msg']}",
            field=str(fault["loc"][0]),
            value=fault["input"],
            remedy="Names have 1 to 100 printable characters; pbr keys create --help tells the rest.",
        ) from None
    issued = Issued(_entry(stack, record, now), key)  # before it is written: no key is made that nobody gets to see
    stack.dynamodb.put_item(TableName=stack.output("ApiKeysTable"), Item=record.item())
    return issued


def entries(stack: Stack, now: datetime) -> list[Entry]:
    """Return all keys, newest first.

    Raises:
        StackUnavailableError: the stack has no API.
    """
    pages = stack.dynamodb.get_paginator("scan").paginate(TableName=stack.output("ApiKeysTable"))
    records = [KeyRecord.of_item(item) for page in pages for item in page["Items"]]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = pool.map(lambda record: _entry(stack, record, now), records)
        return sorted(found, key=lambda entry: (entry.record.created_at, entry.record.key_id), reverse=True)


def rotate(stack: Stack, key: str, grace: timedelta, now: datetime) -> Issued:
    """Give a key another secret.

    Args:
        stack: whose it is.
        key: its id, or its text.
        grace: how long the secrets from before still open it.
        now: the time.

    Raises:
        KeyNotFoundError: there is none.
        KeyConflictError: it is revoked or expired, or somebody else changed it at the same moment.
        StackUnavailableError: the stack has no API.
    """
    key_id = _key_id(key)
    before = _record(stack, key_id)
    if (status := before.status(now)) != "active":
        raise KeyConflictError(
            f"The key is {status}", field="ID", value=key_id, remedy="Make another: pbr keys create."
        )
    record, newest = before.rotated(now, grace)
    issued = Issued(_entry(stack, record, now), newest)
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
            "Somebody else rotated or revoked the key at the same moment",
            field="ID",
            value=key_id,
            remedy="Look at it with pbr keys list, and rotate it again if it is still to be used.",
        ) from None
    return issued


def revoke(stack: Stack, key: str, now: datetime) -> KeyRecord:
    """End a key for good, and return it. One that is revoked already stays as it is.

    Args:
        stack: whose it is.
        key: its id, or its text: that of a key that was found where it should not be.
        now: the time.

    Raises:
        KeyNotFoundError: there is none.
        StackUnavailableError: the stack has no API.
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
    """Return what a caller's webhooks are signed with.

    Args:
        stack: whose webhooks.
        caller: a key's id, or its text; or the ARN of a caller without a key, see
            :func:`functions.contracts.api_key.principal_id`.

    Raises:
        KeyNotFoundError: there is no such key.
        UsageError: the ARN is none that calls have.
        StackUnavailableError: the stack has no API.
    """
    if caller.startswith("arn:"):
        if not re.match(r"arn:[^:]*:(iam::\d+:(user/|root$)|sts::\d+:(assumed-role|federated-user)/)", caller):
            raise UsageError(
                "Nobody calls by this ARN", field="ID", value=caller, remedy="aws sts get-caller-identity has yours."
            )
        caller_id = principal_id(caller)
    else:
        caller_id = _record(stack, _key_id(caller)).key_id
    master = stack.secrets.get_secret_value(SecretId=stack.output("WebhookSecretArn"))["SecretString"]
    return signing_secret(master, caller_id)


def _record(stack: Stack, key_id: str) -> KeyRecord:
    table, place = stack.output("ApiKeysTable"), {"key_id": {"S": key_id}}
    item = stack.dynamodb.get_item(TableName=table, Key=place, ConsistentRead=True).get("Item")
    if item is None:
        raise _not_found(key_id)
    return KeyRecord.of_item(item)


def _key_id(key: str) -> str:
    if parsed := ApiKey.parse(key):
        return parsed.key_id
    if not key.isalnum():  # a key's text, cut off or mistyped: it is not repeated
        raise UsageError("This is neither a key's id nor a key", field="ID", value=None, remedy=_WHICH)
    return key


def _not_found(key_id: str) -> KeyNotFoundError:
    return KeyNotFoundError("No key has that id", field="ID", value=key_id, remedy=_WHICH)


def _entry(stack: Stack, record: KeyRecord, now: datetime) -> Entry:
    meter = {"meter": {"S": quota_meter(record.key_id, now)}}
    used = stack.dynamodb.get_item(TableName=stack.output("ApiUsageTable"), Key=meter).get("Item")
    own = record.monthly_quota
    return Entry(
        record=record,
        rate_per_minute=record.rate_per_minute or int(stack.parameters["ApiRatePerMinute"]),
        monthly_quota=int(stack.parameters["ApiMonthlyQuota"]) if own is None else own,
        used=int(used["used"]["N"]) if used else 0,
        status=record.status(now),
    )
