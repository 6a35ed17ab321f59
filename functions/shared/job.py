"""The state of the state machine, typed: what Validate makes and every later stage reads."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from core.options import Options


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Execution(_Part):
    """Which execution this is; ``id`` is its ARN."""

    id: str
    name: str
    started_at: str


class StoredObject(_Part):
    """One version of one object. ``sha256`` is that of its bytes."""

    bucket: str
    key: str
    version_id: str | None = None
    etag: str | None = None
    sha256: str


class Source(StoredObject):
    """The uploaded picture: ``bytes`` long, ``width`` x ``height`` pixels after EXIF rotation."""

    bytes: int
    format: str
    width: int
    height: int


class Keys(_Part):
    """See :class:`core.keys.ResultKeys`."""

    mask: str
    alpha: str
    cached: str
    result: str
    sidecar: str


class MaskPart(_Part):
    """What segmentation hands on: a mask of ``width`` x ``height`` at ``key``, who made it and how."""

    key: str
    width: int
    height: int
    model: str
    weights_sha256: str | None
    host: Literal["lambda", "ecs", "sagemaker"]
    seconds: float
    warnings: list[str]


class AlphaPart(_Part):
    """What refinement hands on: the alpha at ``key``, how it was made and what it is worth."""

    key: str
    report: dict[str, Any]
    quality: dict[str, Any]
    seconds: float


class SegmentStage(_Part):
    """``$.segment``."""

    mask: MaskPart


class RefineStage(_Part):
    """``$.refine``."""

    alpha: AlphaPart


class Job(_Part):
    """The state once Validate is done. ``fallback`` holds the errors of hosts that Lambda stands in for."""

    execution: Execution
    source: Source
    options: Options
    host: Literal["lambda", "ecs", "sagemaker"]
    background: StoredObject | None
    cache_key: str
    cache_expires_at: str
    keys: Keys
    timings_s: dict[str, float]
    warnings: list[str]
    fallback: dict[str, dict[str, str]] = {}


class SegmentedJob(Job):
    """A job that has a mask."""

    segment: SegmentStage


class RefinedJob(SegmentedJob):
    """A job that has an alpha."""

    refine: RefineStage
