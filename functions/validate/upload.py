"""Parse an execution's input: an S3 event, or a request."""

from contextlib import suppress
from email.errors import HeaderParseError
from email.header import decode_header
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from core.errors import InvalidOptionsError, InvalidRequestError
from functions.contracts.webhook import Webhook
from functions.runtime.handler import parse

_METADATA_PREFIX = "pbr-"

_Text: TypeAlias = Annotated[str, Field(min_length=1)]
"""Text without lone surrogates. JSON can contain them, and pydantic accepts them in a ``str`` without constraints."""


class Upload(BaseModel):
    """The object version to process, its options, not validated, and the tenant whose cache entries it may use."""

    bucket: str
    key: str
    version_id: str | None = None
    etag: str | None = None
    options: dict[str, Any] = {}
    tenant: str | None = None


class _RequestSource(BaseModel):
    model_config = ConfigDict(extra="forbid")

    bucket: _Text
    key: _Text
    version_id: _Text | None = None


class _Request(BaseModel):
    """The input of an execution that a person, a script or the API starts."""

    model_config = ConfigDict(extra="forbid")

    source: _RequestSource
    options: dict[str, Any] = {}
    webhook: Webhook | None = None
    tenant: Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9]+$")] | None = None


class _EventBucket(BaseModel):
    name: _Text


class _EventObject(BaseModel):
    key: _Text
    version_id: _Text | None = Field(default=None, alias="version-id")
    etag: _Text | None = None


class _EventDetail(BaseModel):
    bucket: _EventBucket
    object: _EventObject


class _S3Event(BaseModel):
    """The EventBridge event "Object Created". Unlike in S3 notifications, its keys are not URL-encoded."""

    detail: _EventDetail


def read_upload(event: dict[str, Any]) -> Upload:
    """Return the upload in an execution's input.

    Raises:
        InvalidRequestError: the input is neither an S3 event nor a request.
    """
    if "detail" in event:
        detail = parse(_S3Event, event).detail
        return Upload(
            bucket=detail.bucket.name,
            key=detail.object.key,
            version_id=detail.object.version_id,
            etag=detail.object.etag,
        )
    if "source" in event:
        request = parse(_Request, event)
        return Upload(**request.source.model_dump(), options=request.options, tenant=request.tenant)
    raise InvalidRequestError(
        "The input of the execution has no source",
        field="input",
        value=sorted(event),
        remedy='Start it with {"source": {"bucket": ..., "key": ...}, "options": {...}}, or upload an image.',
    )


def options_in(metadata: dict[str, str]) -> dict[str, Any]:
    """Return the options in an object's user metadata: ``pbr-crop-margin: 0.1`` is ``{"crop_margin": "0.1"}``.

    Raises:
        InvalidOptionsError: a value contains RFC 2047 encoded words that cannot be decoded.
    """
    options = {
        name.lower().removeprefix(_METADATA_PREFIX).replace("-", "_"): value
        for name, value in metadata.items()
        if name.lower().startswith(_METADATA_PREFIX)
    }
    return {name: _decoded(name, value) for name, value in options.items()}


def _decoded(name: str, value: str) -> str:
    """Return a metadata value as its uploader wrote it.

    S3 returns a value that is not ASCII as RFC 2047 encoded words. It reads the bytes of a request's header as Latin-1:
    UTF-8 in a header is encoded twice.
    """
    parts = []
    try:
        for part, charset in decode_header(value):
            if charset not in (None, "utf-8"):
                raise LookupError(charset)
            parts.append(part if isinstance(part, str) else part.decode(charset or "latin-1"))
    except (HeaderParseError, LookupError, UnicodeDecodeError):
        raise InvalidOptionsError(
            "The metadata value cannot be decoded",
            field=f"options.{name}",
            value=value,
            remedy="Send ASCII, or UTF-8 in encoded words as RFC 2047 describes them, e.g. =?UTF-8?B?w6k=?=.",
        ) from None
    text = "".join(parts)
    with suppress(UnicodeError):
        return text.encode("latin-1").decode()
    return text
