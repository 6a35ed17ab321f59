"""The workflow state: Validate creates it, and later stages add their part."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.options import Options
from core.types import LookName


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Execution(_Part):
    """An execution of the state machine."""

    id: str = Field(description="ARN.")
    name: str = Field(description="Name.")
    started_at: str = Field(description="Start time, ISO 8601.")


class StoredObject(_Part):
    """A version of an object."""

    bucket: str = Field(description="Bucket.")
    key: str = Field(description="Object key.")
    version_id: str | None = Field(default=None, description="Version; null in an unversioned bucket.")
    etag: str | None = Field(default=None, description="ETag.")
    sha256: str = Field(description="SHA-256 of the content, 64 hexadecimal digits.")


class Source(StoredObject):
    """The uploaded image."""

    bytes: int = Field(description="Size of the file in bytes.")
    format: str = Field(description="Format, e.g. jpeg.")
    width: int = Field(description="Width in pixels after EXIF rotation.")
    height: int = Field(description="Height in pixels after EXIF rotation.")


class Keys(_Part):
    """S3 keys of a job; see :class:`functions.contracts.object_keys.ResultKeys`."""

    mask: str
    alpha: str
    cached: str
    result: str
    sidecar: str


class MaskQuality(_Part):
    """Quality of a mask; see :class:`core.types.Quality`."""

    score: float
    review: bool
    reasons: tuple[str, ...]


class MaskPart(_Part):
    """Output of segmentation: the mask's key in the work bucket, its size in pixels, model, host, quality and looks.

    ``quality`` is None in executions that an earlier version started; Refine then assesses the mask. ``looks`` and
    ``rejected_looks`` are those of :class:`core.arrays.Segmentation`, as is ``from_alpha``; an earlier version made one
    look.
    """

    key: str
    width: int
    height: int
    model: str
    weights_sha256: str | None
    host: Literal["lambda", "ecs", "sagemaker"]
    seconds: float
    warnings: list[str]
    quality: MaskQuality | None = None
    looks: tuple[LookName, ...] = ("first",)
    rejected_looks: tuple[LookName, ...] = ()
    from_alpha: bool = False


class AlphaPart(_Part):
    """Output of refinement: the alpha's key in the work bucket, the refinement report and the quality."""

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
    """The mask and the alpha that one model produced."""

    segment: SegmentStage
    refine: RefineStage

    @property
    def score(self) -> float:
        """Quality score, 0 to 1; see :class:`core.types.Quality`."""
        return float(self.refine.alpha.quality["score"])

    @property
    def seconds(self) -> float:
        """Duration of segmentation and refinement in seconds."""
        return round(self.segment.mask.seconds + self.refine.alpha.seconds, 4)


class Escalation(_Part):
    """A possible second attempt: its larger model, and the keys of its mask and alpha."""

    model: str
    mask_key: str
    alpha_key: str


class Job(_Part):
    """The workflow state after Validate.

    Attributes:
        escalation: the second attempt to make if the first is doubtful; None allows one attempt only.
        first: the first attempt, while and after the second is made.
        fallback: errors of hosts that failed before segmentation fell back to Lambda, by state.
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
        """Model of the current attempt."""
        return self._second.model if self._second else self.options.model

    @property
    def mask_key(self) -> str:
        """Key of the current attempt's mask."""
        return self._second.mask_key if self._second else self.keys.mask

    @property
    def alpha_key(self) -> str:
        """Key of the current attempt's alpha."""
        return self._second.alpha_key if self._second else self.keys.alpha

    @property
    def _second(self) -> Escalation | None:
        return self.escalation if self.first else None


class SegmentedJob(Job):
    """The workflow state after segmentation."""

    segment: SegmentStage


class RefinedJob(SegmentedJob):
    """The workflow state after refinement. ``degraded`` holds the error of a failed second attempt, by state."""

    refine: RefineStage
    degraded: dict[str, dict[str, str]] = {}

    @property
    def attempts(self) -> dict[Literal["first", "second"], Attempt]:
        """The attempts that finished."""
        if self.first is None:
            return {"first": Attempt(segment=self.segment, refine=self.refine)}
        if self.degraded:
            return {"first": self.first}
        return {"first": self.first, "second": Attempt(segment=self.segment, refine=self.refine)}

    @property
    def kept(self) -> Literal["first", "second"]:
        """The attempt that the result is made from: the better score; the second attempt if scores are equal."""
        return max(self.attempts, key=lambda name: (self.attempts[name].score, name))

    @property
    def other(self) -> Attempt | None:
        """The attempt that finished and is not kept."""
        return next((attempt for name, attempt in self.attempts.items() if name != self.kept), None)
