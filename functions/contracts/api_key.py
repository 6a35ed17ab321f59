"""API keys: the key itself, its record in DynamoDB, and the items that count its usage."""

import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, SecretStr

from functions.contracts.dynamodb import from_item, to_item

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

KNOWN_FOR_S: Final = 30
"""How long a function caches a key's record. A revocation takes effect within this time."""

MAX_RATE_PER_MINUTE: Final = 60_000
"""Highest rate limit: the limiter has a resolution of one millisecond."""

_ID_BYTES: Final = 8
_SECRET_BYTES: Final = 32
_PRINCIPAL_DIGITS: Final = 32
_TEXT: Final = re.compile(r"(pbr_([0-9a-f]{16})_([0-9a-f]{64}))([0-9a-f]{8})")


class Scope(StrEnum):
    """A permission of a key.

    Attributes:
        PROCESS: create jobs and upload their images.
        BUCKET: create jobs for any object in the uploads bucket, including other callers' objects.
        READ: read jobs, their steps and results, and the account.
        DELETE: delete jobs and their objects.
    """

    PROCESS = "process"
    BUCKET = "bucket"
    READ = "read"
    DELETE = "delete"


@dataclass(frozen=True)
class ApiKey:
    """An API key in full: ``pbr_<key id>_<secret><checksum>``, each part in hexadecimal digits.

    The checksum is the CRC-32 of the preceding text. Secret scanners use it to avoid false positives, and truncated or
    mistyped keys are rejected without a read of the table.

    Attributes:
        key_id: 16 digits; not secret.
        secret: 64 digits, 256 random bits.
    """

    key_id: str
    secret: SecretStr

    @classmethod
    def generate(cls, key_id: str | None = None) -> Self:
        """Return a new key, or a new secret for an existing ``key_id``."""
        return cls(key_id or secrets.token_hex(_ID_BYTES), SecretStr(secrets.token_hex(_SECRET_BYTES)))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the key in a text, or None if the text is not a valid key."""
        match = _TEXT.fullmatch(text)
        if match is None or _checksum(match[1]) != match[4]:
            return None
        return cls(match[2], SecretStr(match[3]))

    def reveal(self) -> str:
        """Return the key as text, including its secret."""
        text = f"pbr_{self.key_id}_{self.secret.get_secret_value()}"
        return text + _checksum(text)

    @property
    def sha256(self) -> str:
        """SHA-256 of the secret. 256 random bits cannot be guessed, so the hash needs no salt or key stretching."""
        return hashlib.sha256(self.secret.get_secret_value().encode()).hexdigest()


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def _printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError("a name must not contain control characters")
    return name


class SecretHash(BaseModel):
    """The stored hash of a key's secret.

    Attributes:
        sha256: hash of the secret.
        created_at: when the secret was created.
        expires_at: when a rotated secret stops working; None for the current one.
    """

    model_config = ConfigDict(frozen=True)

    sha256: str
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None


class KeyRecord(BaseModel):
    """A key's record in the table: everything except the secret.

    Attributes:
        key_id: identifier.
        name: display name, 1 to 100 characters.
        hashes: hashes of the accepted secrets, newest first; several after a rotation.
        scopes: permissions.
        rate_per_minute: limit of requests per minute; None for the stack's default.
        monthly_quota: limit of credits per month; None for the stack's default.
        created_at: when the key was created.
        expires_at: when the key expires; None for never.
        revoked_at: when the key was revoked; None if it was not.
    """

    model_config = ConfigDict(frozen=True)

    key_id: str
    name: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_printable)]
    hashes: Annotated[tuple[SecretHash, ...], Field(min_length=1)]
    scopes: Annotated[frozenset[Scope], Field(min_length=1)]
    rate_per_minute: Annotated[int, Field(ge=1, le=MAX_RATE_PER_MINUTE)] | None = None
    monthly_quota: Annotated[int, Field(ge=0)] | None = None
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    revoked_at: AwareDatetime | None = None

    @classmethod
    def of_item(cls, item: "Mapping[str, AttributeValueTypeDef]") -> Self:
        """Return the record stored in a DynamoDB item."""
        return cls.model_validate(from_item(item))

    def item(self) -> "dict[str, AttributeValueTypeDef]":
        """Return the record as a DynamoDB item."""
        return to_item(self.model_dump(mode="json", exclude_none=True))

    def status(self, now: datetime) -> Literal["active", "expired", "revoked"]:
        """Return the key's status at a point in time."""
        if self.revoked_at:
            return "revoked"
        return "expired" if _is_over(self.expires_at, now) else "active"

    def fault(self, key: ApiKey, now: datetime) -> str | None:
        """Return why a key is rejected, or None if it is accepted. Secrets are compared in constant time."""
        live = (known.sha256 for known in self.hashes if not _is_over(known.expires_at, now))
        if not any(hmac.compare_digest(sha256, key.sha256) for sha256 in live):
            return "wrong secret"
        status = self.status(now)
        return None if status == "active" else status

    def rotated(self, now: datetime, grace: timedelta) -> tuple[Self, ApiKey]:
        """Return the record with a new secret, and the key that contains it.

        Args:
            now: when the new secret starts to work.
            grace: how long earlier secrets continue to work; zero ends them at once.
        """
        key, end = ApiKey.generate(self.key_id), now + grace
        before = tuple(
            known.model_copy(update={"expires_at": min(end, known.expires_at or end)})
            for known in self.hashes
            if not _is_over(known.expires_at, now)
        )
        newest = SecretHash(sha256=key.sha256, created_at=now)
        return self.model_copy(update={"hashes": (newest, *before)}), key


def _is_over(end: datetime | None, now: datetime) -> bool:
    return end is not None and end <= now


def rate_meter(caller_id: str) -> str:
    """Return the key of the item that limits a caller's request rate."""
    return f"rate#{caller_id}"


def quota_meter(caller_id: str, now: datetime) -> str:
    """Return the key of the item that counts a caller's credits in the current month (UTC)."""
    return f"quota#{caller_id}#{now.astimezone(UTC):%Y-%m}"


def flight_meter(caller_id: str) -> str:
    """Return the key of the item that lists a caller's jobs that are not settled."""
    return f"flight#{caller_id}"


def principal_id(arn: str) -> str:
    """Return the caller ID of an IAM principal: ``iam`` and 32 hexadecimal digits. No key ID starts with ``iam``.

    All sessions of a role are one caller, because callers choose their session names.

    Args:
        arn: ARN of a user or an assumed role, as ``aws sts get-caller-identity`` returns it.
    """
    if arn.split(":")[5].startswith("assumed-role/"):
        arn = arn.rpartition("/")[0]
    return f"iam{hashlib.sha256(arn.encode()).hexdigest()[:_PRINCIPAL_DIGITS]}"
