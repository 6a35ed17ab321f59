"""The CloudWatch metrics of this project. The code publishes no others; docs/reference/metrics.md describes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True)
class Metric:
    """A CloudWatch metric.

    Attributes:
        unit: CloudWatch's name of the unit.
        dimension_sets: each value is published once in each set of dimensions; an empty set is the metric without
            dimensions. CloudWatch has, and bills, a metric for each combination of values of a set.
    """

    name: str
    unit: str
    dimension_sets: tuple[tuple[str, ...], ...]
    description: str

    @property
    def dimensions(self) -> frozenset[str]:
        """Names in any of the sets."""
        return frozenset(name for one in self.dimension_sets for name in one)


_METRICS: Final = (
    Metric("Processed", "Count", (("ImageSize",),), "Results that were computed."),
    Metric("CacheHit", "Count", (("ImageSize",),), "Results that were served from the cache."),
    Metric("Failed", "Count", (("Stage", "Error"),), "Executions that ended with a failure report."),
    Metric(
        "Degraded",
        "Count",
        (("Stage",),),
        "States that failed without failing the job: a host that Lambda replaced, a second attempt, a cache write, or "
        "the entry of a review.",
    ),
    Metric("Escalated", "Count", (("Kept",),), "Second attempts on a heavier model, by the attempt that was kept."),
    Metric("Review", "Count", (("Model", "ImageSize"),), "1 if a person should look at the result, else 0."),
    Metric("QualityScore", "None", (("Model", "ImageSize"),), "Quality score of a computed result, 0 to 1."),
    Metric("ProcessingTime", "Milliseconds", (("Stage", "ImageSize"), ("Stage",)), "Time that a stage took."),
    Metric("Segmented", "Count", (("Host",),), "Computed results, by the host that made the delivered mask."),
    Metric(
        "EstimatedCost",
        "None",
        ((),),
        "Cost of an execution that delivered a result, in US dollars at list prices: Lambda, by the times of its "
        "stages; Step Functions; and requests to S3 and DynamoDB. Not included: workers, endpoints and transform jobs, "
        "starts of functions, storage, transfer and logs. For bulk runs: the cost of the image, "
        "without that of the run.",
    ),
    Metric("BatchSize", "Count", ((),), "Images in a prediction of a worker whose PBR_BATCH is above 1, as on a GPU."),
    Metric(
        "GpuUtilization",
        "Percent",
        ((),),
        "GPU utilization over one second, sampled once a minute per worker.",
    ),
    Metric(
        "GpuMemoryUtilization", "Percent", ((),), "Share of a worker's GPU memory in use; once a minute per worker."
    ),
    Metric(
        "GpuUnavailable",
        "Count",
        ((),),
        "Failed attempts to load a model onto a GPU because none is usable.",
    ),
    Metric("LostUploads", "Count", ((),), "Uploads that a run of the sweep started because they had no outcome."),
    Metric("ApiError", "Count", (("Code",),), "Responses of the HTTP API with status 500 or more, by problem code."),
)

METRICS: Final[Mapping[str, Metric]] = MappingProxyType({metric.name: metric for metric in _METRICS})
"""All metrics by name."""
