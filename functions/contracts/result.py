"""The result document: the sidecar of a result, and the output of a successful execution."""

from collections.abc import Iterable
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from core.options import Options
from core.types import LookName
from functions.contracts.job import Execution, Source

Number: TypeAlias = Annotated[int | float, WithJsonSchema({"type": "number"})]
"""A JSON number, kept as it was written: 1 does not become 1.0."""

AttemptName: TypeAlias = Literal["first", "second"]

REASONS: Final = {
    "mostly_uncertain": "the model is unsure about large parts of the image",
    "similar_colors": "subject and background have similar colors",
    "mask_and_picture_disagree": "the mask does not follow the edges in the image",
    "looks_differ": "repeated predictions gave different subjects",
    "fragmented": "the subject has many separate parts",
    "tiny_subject": "the subject is very small",
    "fills_picture": "the subject fills almost the whole image",
    "cut_by_border": "the border of the image cuts the subject off",
}
"""Why a person should look at a result, in words, by the code in ``quality.reasons``."""

_CODES: Final = list(REASONS)


def reason_text(code: str) -> str:
    """Return a reason for review in words; a code that only newer stacks know becomes text as it is."""
    return REASONS.get(code, code.replace("_", " "))


def reasons_text(codes: Iterable[str]) -> str:
    """Return the reasons for review as one text, in the same order."""
    return "; ".join(reason_text(code) for code in codes)


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ResultObject(_Document):
    """The object that holds the result."""

    bucket: str = Field(description="Results bucket.")
    key: str = Field(description="Object key of the result.")
    version_id: str | None = Field(description="Version of the result; null if the bucket is unversioned.")
    sidecar_key: str = Field(description="Object key of this document.")


class Foreground(_Document):
    """A rectangle in the result's pixels."""

    left: int = Field(description="Distance from the left edge in pixels.")
    top: int = Field(description="Distance from the top edge in pixels.")
    width: int = Field(description="Width in pixels.")
    height: int = Field(description="Height in pixels.")


class ResultImage(_Document):
    """The encoded result."""

    format: str = Field(description="Format, e.g. png.")
    content_type: str = Field(description="MIME type, e.g. image/png.")
    width: int = Field(description="Width in pixels.")
    height: int = Field(description="Height in pixels.")
    bytes: int = Field(description="Size of the file in bytes.")
    sha256: str = Field(description="SHA-256 of the file, 64 hexadecimal digits.")
    foreground: Foreground | None = Field(description="Bounding box of the subject; null if the result shows none.")


class SegmentationModel(_Document):
    """What made the segmentation mask."""

    name: str = Field(description="Name of the segmentation model.")
    weights_sha256: str | None = Field(description="SHA-256 of the model's weights; null for the classical segmenter.")
    host: Literal["lambda", "ecs", "sagemaker"] = Field(description="Where segmentation ran.")
    looks: list[LookName] = Field(
        default=["first"],
        description="Looks of the model at the image that the mask was made from: first, mirrored, brightened.",
    )
    rejected_looks: list[LookName] = Field(
        default=[], description="Looks that were made and do not count: the first mask was decided enough."
    )


class AttemptError(_Document):
    """The error that ended the second attempt."""

    stage: str = Field(description="State of the state machine that failed.")
    error: str = Field(description="Name of the error.")


class EscalationSummary(_Document):
    """The second attempt, made with a larger model because the first mask was doubtful."""

    model: str = Field(description="Model of the second attempt.")
    kept: AttemptName = Field(description="The attempt that the result was made from.")
    score: dict[AttemptName, Number] = Field(description="Quality score of each attempt that finished, 0 to 1.")
    error: AttemptError | None = Field(description="Error of the second attempt; null if it finished.")


class QualityReport(_Document):
    """Quality figures, estimated without a reference cutout."""

    score: Number = Field(description="Probability that the cutout is usable, 0 to 1.")
    review: bool = Field(description="Whether a person should look at the result.")
    reasons: list[str] = Field(description=f"Why: {', '.join(_CODES[:-1])} or {_CODES[-1]}; the worst first.")
    uncertain_share: Number = Field(description="Share of the image with 0.02 < alpha < 0.98.")
    foreground_share: Number = Field(description="Mean of alpha over the image.")
    regions: int = Field(description="Number of separate foreground regions.")
    touches_border: list[str] = Field(description="Image edges that the subject touches.")


class ClosedFormReport(_Document):
    """Closed-form matting at one scale."""

    scale: str = Field(description="Scale, e.g. 1/2.")
    tiles: int = Field(description="Number of tiles.")
    iterations: int = Field(description="Largest number of solver iterations in a tile.")


class RefinementReport(_Document):
    """How the alpha was refined."""

    precision: str = Field(description="Precision level: draft, standard, high or ultra_high.")
    grid_px: int = Field(description="Cell size of the working grid in pixels.")
    psf_sigma_px: list[Number] = Field(description="Measured blur of the mask in pixels, vertical and horizontal.")
    unexplained: Number = Field(description="Share of the mask's edge that the measured blur does not explain.")
    radius_px: int = Field(description="Radius of the guided filter's windows in pixels.")
    band_share: Number = Field(description="Share of the image that was solved for.")
    tiles: int = Field(description="Number of tiles that were filtered.")
    closed_form: list[ClosedFormReport] = Field(description="Closed-form matting, one entry per scale.")
    warnings: list[str] = Field(description="Steps that were skipped or cut short.")
    disagreement: Number | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="Disagreement of mask and image along the edge; only in results of earlier versions.",
    )


class CacheReport(_Document):
    """The result cache."""

    key: str = Field(description="Cache key, 64 hexadecimal digits.")
    hit: bool = Field(description="Whether the result was copied from the cache.")


class Result(_Document):
    """The sidecar of a result, and the output of a successful execution."""

    execution: Execution = Field(description="Execution that delivered the result.")
    source: Source = Field(description="Uploaded image.")
    options: Options = Field(description="Options in effect, defaults included.")
    result: ResultObject = Field(description="Where the result is stored.")
    image: ResultImage = Field(description="Properties of the result.")
    model: SegmentationModel = Field(description="Segmentation model that was used.")
    degraded: bool = Field(description="Whether segmentation fell back to Lambda from the requested host.")
    escalation: EscalationSummary | None = Field(description="Second attempt; null if there was none.")
    quality: QualityReport = Field(description="Estimated quality of the cutout.")
    refinement: RefinementReport = Field(description="Report of the refinement.")
    timings_s: dict[str, float] = Field(
        description="Seconds by stage: validate, segment, refine, encode, and escalation for the discarded attempt. A "
        "cache hit has validate only."
    )
    cache: CacheReport = Field(description="Cache entry of the result.")
    warnings: list[str] = Field(description="Warnings of all stages.")
