"""The two ways a picture is named: by the event that S3 sends, and by who starts an execution."""

from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from core.errors import InvalidRequestError
from functions.contracts.webhook import Webhook
from functions.runtime.handler import parse

_METADATA_PREFIX = "pbr-"

_Text: TypeAlias = Annotated[str, Field(min_length=1)]
"""Text that UTF-8 has: JSON can hold halves of surrogate pairs, and pydantic lets them pass in a bare ``str``."""


class Upload(BaseModel):
    """Which version of which object to process; ``options`` as they came, not validated."""

    bucket: str
    key: str
    version_id: str | None = None
    etag: str | None = None
    options: dict[str, Any] = {}


class _Named(BaseModel):
    model_config = ConfigDict(extra="forbid")

    bucket: _Text
    key: _Text
    version_id: _Text | None = None


class _Request(BaseModel):
    """What a person, the API or a script starts an execution with."""

    model_config = ConfigDict(extra="forbid")

    source: _Named
    options: dict[str, Any] = {}
    webhook: Webhook | None = None


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
    """What EventBridge hands over; its keys are plain, not URL-encoded as in S3's own notifications."""

    detail: _EventDetail


def read_upload(event: dict[str, Any]) -> Upload:
    """Read either form of an execution's input.

    Raises:
        InvalidRequestError: it is neither.
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
        return Upload(**request.source.model_dump(), options=request.options)
    raise InvalidRequestError(
        "The execution's input names no picture",
        field="input",
        value=sorted(event),
        remedy='Start it with {"source": {"bucket": ..., "key": ...}, "options": {...}}, or by an upload.',
    )


def options_in(metadata: dict[str, str]) -> dict[str, Any]:
    """Return the options that an object's user metadata carry: ``pbr-crop-margin: 0.1`` is ``crop_margin``."""
    return {
        name.lower().removeprefix(_METADATA_PREFIX).replace("-", "_"): value
        for name, value in metadata.items()
        if name.lower().startswith(_METADATA_PREFIX)
    }
