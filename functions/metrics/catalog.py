"""The CloudWatch metrics of this project, for docs/reference/metrics.md. A unit test compares them with the code."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Metric:
    """A CloudWatch metric.

    Attributes:
        unit: CloudWatch's name of the unit.
        dimensions: always sent together, so each combination of values is one metric.
    """

    name: str
    unit: str
    dimensions: tuple[str, ...]
    description: str


METRICS: Final = (
    Metric("Processed", "Count", ("ImageSize",), "Results that were computed."),
    Metric("CacheHit", "Count", ("ImageSize",), "Results that were served from the cache."),
    Metric("Failed", "Count", ("Stage", "Error"), "Executions that ended with a failure report."),
    Metric(
        "Degraded",
        "Count",
        ("Stage",),
        "States that failed without failing the job: a host that Lambda replaced, a second attempt, a cache write, or "
        "the entry of a review.",
    ),
    Metric("Escalated", "Count", ("Kept",), "Second attempts on a heavier model, by the attempt that was kept."),
    Metric("Review", "Count", ("Model", "ImageSize"), "1 if a person should look at the result, else 0."),
    Metric("QualityScore", "None", ("Model", "ImageSize"), "Quality score of a computed result, 0 to 1."),
    Metric("ProcessingTime", "Milliseconds", ("Stage", "ImageSize"), "Time that a stage took."),
    Metric("ApiError", "Count", ("Code",), "Errors that the HTTP API returned, by problem code."),
)
