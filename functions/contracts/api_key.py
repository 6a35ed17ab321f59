"""API keys: what their holders send, what the stack keeps of them, and what their use is counted under."""

import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, SecretStr

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

KNOWN_FOR_S: Final = 30
"""How long a function knows a key without a look at the table: its revocation takes effect within that time."""

MAX_RATE_PER_MINUTE: Final = 60_000
"""Requests are counted by the millisecond."""

_ID_BYTES: Final = 8
_SECRET_BYTES: Final = 32
_PRINCIPAL_DIGITS: Final = 32
_TEXT: Final = re.compile(r"(pbr_([0-9a-f]{16})_([0-9a-f]{64}))([0-9a-f]{8})")
_SERIALIZER: Final = TypeSerializer()
_DESERIALIZER: Final = TypeDeserializer()


class Scope(StrEnum):
    """What a key may be used for.

    Attributes:
        PROCESS: make jobs, and upload what they work on.
        BUCKET: make jobs of any object in the uploads bucket, whoever put it there.
        READ: look at jobs, their steps and results, and at the account.
        DELETE: delete jobs and what they made.
    """

    PROCESS = "process"
    BUCKET = "bucket"
    READ = "read"
    DELETE = "delete"


@dataclass(frozen=True)
class ApiKey:
    """A key as its holder has it: ``pbr_<key id>_<secret><checksum>``, all in hexadecimal digits.

    The checksum is the CRC-32 of what stands before it. A scanner of source code tells a key from a likeness by it, and
    a key that was cut off or mistyped is refused without a look at the table.

    Attributes:
        key_id: 16 digits; no secret.
        secret: 64 digits, 256 random bits.
    """

    key_id: str
    secret: SecretStr

    @classmethod
    def generate(cls, key_id: str | None = None) -> Self:
        """Make a key; with ``key_id``, another secret for the key of that name."""
        return cls(key_id or secrets.token_hex(_ID_BYTES), SecretStr(secrets.token_hex(_SECRET_BYTES)))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read a key; None if the text is none."""
        match = _TEXT.fullmatch(text)
        if match is None or _checksum(match[1]) != match[4]:
            return None
        return cls(match[2], SecretStr(match[3]))

    def reveal(self) -> str:
        """Return the text, secret and all."""
        text = f"pbr_{self.key_id}_{self.secret.get_secret_value()}"
        return text + _checksum(text)

    @property
    def sha256(self) -> str:
        """Hash of the secret. Of 256 random bits nothing can be guessed, so it needs neither salt nor stretching."""
        return hashlib.sha256(self.secret.get_secret_value().encode()).hexdigest()


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def _printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError("a name has no control characters")
    return name


class SecretHash(BaseModel):
    """A secret that opens a key, as far as the stack knows it.

    Attributes:
        sha256: its hash.
        created_at: since when it opens the key.
        expires_at: until when, if another one has taken its place.
    """

    model_config = ConfigDict(frozen=True)

    sha256: str
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None


class KeyRecord(BaseModel):
    """A key as the table has it: everything but its secret.

    Attributes:
        key_id: its name for programs.
        name: its name for people.
        hashes: the secrets that open it, newest first; there are several after a rotation.
        scopes: what it may be used for.
        rate_per_minute: how many requests; None for the stack's default.
        monthly_quota: how many pictures; None for the stack's default.
        created_at: when it was made.
        expires_at: until when it is good; None for no end.
        revoked_at: when it was revoked.
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
        """Read an item of the table."""
        return cls.model_validate({name: _DESERIALIZER.deserialize(value) for name, value in item.items()})

    def item(self) -> "dict[str, AttributeValueTypeDef]":
        """Return the item of the table."""
        facts: dict[str, Any] = self.model_dump(mode="json", exclude_none=True)
        return {name: _SERIALIZER.serialize(value) for name, value in facts.items()}

    def status(self, now: datetime) -> Literal["active", "expired", "revoked"]:
        """Return whether it is good for anything."""
        if self.revoked_at:
            return "revoked"
        return "expired" if _is_over(self.expires_at, now) else "active"

    def fault(self, key: ApiKey, now: datetime) -> str | None:
        """Return why a key lets nobody in; None if it does. A comparison takes the same time whatever it finds."""
        live = (known.sha256 for known in self.hashes if not _is_over(known.expires_at, now))
        if not any(hmac.compare_digest(sha256, key.sha256) for sha256 in live):
            return "wrong secret"
        status = self.status(now)
        return None if status == "active" else status

    def rotated(self, now: datetime, grace: timedelta) -> tuple[Self, ApiKey]:
        """Return the record with another secret, and the key that has it.

        Args:
            now: since when it opens the key.
            grace: how long those from before still do; zero ends them at once.
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
    """Return the key of the item that has the rate of a caller's requests."""
    return f"rate#{caller_id}"


def quota_meter(caller_id: str, now: datetime) -> str:
    """Return the key of the item that counts a caller's pictures of this month, which begins and ends in UTC."""
    return f"quota#{caller_id}#{now.astimezone(UTC):%Y-%m}"


def principal_id(arn: str) -> str:
    """Return the caller that an IAM principal is: ``iam`` and 32 digits, which no key's id begins with.

    A role is one caller: whoever assumes it names its sessions as they like.

    Args:
        arn: of a user or of a role's session, as ``aws sts get-caller-identity`` has it.
    """
    if arn.split(":")[5].startswith("assumed-role/"):
        arn = arn.rpartition("/")[0]
    return f"iam{hashlib.sha256(arn.encode()).hexdigest()[:_PRINCIPAL_DIGITS]}"
