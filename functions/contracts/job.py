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
    """See :class:`functions.contracts.object_keys.ResultKeys`."""

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


class Attempt(_Part):
    """What one model made of the picture."""

    segment: SegmentStage
    refine: RefineStage

    @property
    def score(self) -> float:
        """What it is worth: see :class:`core.matting.quality.Quality`."""
        return float(self.refine.alpha.quality["score"])

    @property
    def seconds(self) -> float:
        """How long it took."""
        return round(self.segment.mask.seconds + self.refine.alpha.seconds, 4)


class Escalation(_Part):
    """The heavier model that a doubtful job is tried with once more, and where its mask and alpha go."""

    model: str
    mask_key: str
    alpha_key: str


class Job(_Part):
    """The state once Validate is done.

    Attributes:
        escalation: what there is to try if the first attempt is doubtful; None for a job that has one attempt.
        first: the first attempt, once there is a second.
        fallback: the errors of hosts that Lambda stands in for.
    """

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
    escalation: Escalation | None = None
    first: Attempt | None = None
    fallback: dict[str, dict[str, str]] = {}

    @property
    def model(self) -> str:
        """The model of the attempt that is being made."""
        return self._second.model if self._second else self.options.model

    @property
    def mask_key(self) -> str:
        """Where the mask of that attempt goes."""
        return self._second.mask_key if self._second else self.keys.mask

    @property
    def alpha_key(self) -> str:
        """Where the alpha of that attempt goes."""
        return self._second.alpha_key if self._second else self.keys.alpha

    @property
    def _second(self) -> Escalation | None:
        return self.escalation if self.first else None


class SegmentedJob(Job):
    """A job that has a mask."""

    segment: SegmentStage


class RefinedJob(SegmentedJob):
    """A job that has an alpha. ``degraded`` holds the error that ended a second attempt."""

    refine: RefineStage
    degraded: dict[str, dict[str, str]] = {}

    @property
    def attempts(self) -> dict[Literal["first", "second"], Attempt]:
        """The attempts that came to an end."""
        if self.first is None:
            return {"first": Attempt(segment=self.segment, refine=self.refine)}
        if self.degraded:
            return {"first": self.first}
        return {"first": self.first, "second": Attempt(segment=self.segment, refine=self.refine)}

    @property
    def kept(self) -> Literal["first", "second"]:
        """The attempt that the result is made of: the one with the better score, of equals the heavier model's."""
        return max(self.attempts, key=lambda name: (self.attempts[name].score, name))

    @property
    def other(self) -> Attempt | None:
        """The attempt that came to an end and is not kept."""
        return next((attempt for name, attempt in self.attempts.items() if name != self.kept), None)
