"""Names and facts that stages pass on. Processes without images import it, so it needs no NumPy."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, TypeAlias

LookName: TypeAlias = Literal["first", "mirrored", "brightened"]
"""A look of a network at an image; see :mod:`core.segmentation.looks`."""


class Precision(StrEnum):
    """Work put into the edge."""

    DRAFT = "draft"
    STANDARD = "standard"
    HIGH = "high"
    ULTRA_HIGH = "ultra_high"


@dataclass(frozen=True)
class ImageInfo:
    """Facts from a file's header; ``width`` and ``height`` are in pixels, after EXIF rotation."""

    format: str
    width: int
    height: int
    bytes: int


@dataclass(frozen=True)
class Quality:
    """Quality of a mask, estimated without ground truth; see :mod:`core.segmentation.quality`.

    Attributes:
        score: probability that the cut-out is usable, 0 to 1.
        reasons: codes of what a person should review; empty if no review is needed.
    """

    score: float
    reasons: tuple[str, ...]

    @property
    def review(self) -> bool:
        """Whether a person should review the result."""
        return bool(self.reasons)

    def facts(self) -> dict[str, Any]:
        """Return a JSON object with a rounded score."""
        return {"score": round(self.score, 3), "review": self.review, "reasons": list(self.reasons)}
