"""AWS list prices in US dollars: the one table that estimates use. On-demand, without free tiers and discounts."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Final

AS_OF: Final = "2026-11-30"
"""When the table was made, from AWS's pricing pages and public price lists of 2024 to 2026. Check it before quoting."""

DEFAULT_REGION: Final = "eu-west-1"
"""Region whose prices stand in for those of a Region without an entry."""


GPU: Final = "ml.g4dn.xlarge"
"""Smallest GPU instance of SageMaker: NVIDIA T4."""


@dataclass(frozen=True)
class Prices:
    """Prices of a Region.

    Attributes:
        lambda_gb_s: Lambda, x86, per GB and second.
        lambda_request: Lambda, per request.
        standard_transition: Step Functions Standard, per state transition.
        express_request: Step Functions Express, per execution.
        express_gb_s: Step Functions Express, per GB and second, up to 1,000 GB-hours a month; billed in 64 MB.
        s3_write: S3 Standard, per PUT, COPY or LIST.
        s3_read: S3 Standard, per GET or HEAD.
        dynamodb_write: on-demand, per write request unit of 1 KB.
        dynamodb_read: on-demand, per read request unit of 4 KB.
        instance_h: instances of SageMaker by type, endpoint or transform job, per hour.
    """

    lambda_gb_s: float = 0.0000166667
    lambda_request: float = 0.20e-6
    standard_transition: float = 0.025e-3
    express_request: float = 1.0e-6
    express_gb_s: float = 0.00001667
    s3_write: float = 0.005e-3
    s3_read: float = 0.0004e-3
    dynamodb_write: float = 0.625e-6
    dynamodb_read: float = 0.125e-6
    instance_h: Mapping[str, float] = field(
        default_factory=lambda: {GPU: 0.736, "ml.g5.xlarge": 1.408, "ml.c6i.2xlarge": 0.408}
    )

    @property
    def gpu_endpoint_h(self) -> float:
        """A real-time endpoint on the smallest GPU instance, per hour."""
        return self.instance_h[GPU]


REGIONS: Final = {
    "us-east-1": Prices(),
    "eu-west-1": Prices(
        dynamodb_write=0.705e-6,
        dynamodb_read=0.1415e-6,
        instance_h={GPU: 0.821, "ml.g5.xlarge": 1.572, "ml.c6i.2xlarge": 0.456},
    ),
}
"""Prices by Region. Those of DynamoDB in eu-west-1 and of SageMaker are of 2025 and were not confirmed."""


def prices_of(region: str) -> tuple[str, Prices]:
    """Return the prices of a Region, and the Region that they are of: the default one for Regions without an entry."""
    known = region if region in REGIONS else DEFAULT_REGION
    return known, REGIONS[known]


@dataclass(frozen=True)
class Usage:
    """What a number of images takes.

    Attributes:
        transitions: Standard state transitions.
        express_runs: Express executions.
        express_s: their total duration in seconds.
        lambda_requests: calls of functions.
        lambda_gb_s: their memory times their duration, in GB and seconds.
        s3_writes: PUT, COPY and LIST requests.
        s3_reads: GET and HEAD requests.
        dynamodb_writes: write request units.
        dynamodb_reads: read request units.
    """

    transitions: float = 0.0
    express_runs: float = 0.0
    express_s: float = 0.0
    lambda_requests: float = 0.0
    lambda_gb_s: float = 0.0
    s3_writes: float = 0.0
    s3_reads: float = 0.0
    dynamodb_writes: float = 0.0
    dynamodb_reads: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        """Return the sum of both."""
        return Usage(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    def orchestration_usd(self, prices: Prices) -> float:
        """Return the cost of Step Functions."""
        express_gb_s = self.express_s * 64 / 1024  # one chunk: a small definition and payloads below 256 KB
        return (
            self.transitions * prices.standard_transition
            + self.express_runs * prices.express_request
            + express_gb_s * prices.express_gb_s
        )

    def compute_usd(self, prices: Prices) -> float:
        """Return the cost of Lambda."""
        return self.lambda_requests * prices.lambda_request + self.lambda_gb_s * prices.lambda_gb_s

    def requests_usd(self, prices: Prices) -> float:
        """Return the cost of requests to S3 and DynamoDB."""
        return (
            self.s3_writes * prices.s3_write
            + self.s3_reads * prices.s3_read
            + self.dynamodb_writes * prices.dynamodb_write
            + self.dynamodb_reads * prices.dynamodb_read
        )


RUN_TRANSITIONS: Final = 8
"""State transitions of a run itself."""

CHILD_TRANSITIONS: Final = 1
"""State transition of the run for each child that it starts."""

TRANSFORM_TRANSITIONS: Final = 4
"""State transitions of a run for its transform job."""

REQUEST_BATCH: Final = 500
"""Images of a child that requests masks."""

REQUEST_S: Final = 0.01
"""Seconds that an image takes in such a child. Assumed: two requests to S3, in ten threads."""

REQUEST_GB: Final = 3008 / 1024
"""Memory of its function."""

UPLOAD_TRANSITIONS: Final = 13
"""State transitions of an execution of the main state machine that segments on Lambda."""

HIT_TRANSITIONS: Final = 10
"""State transitions of an execution whose result comes from the cache."""

FAILURE_TRANSITIONS: Final = 7
"""State transitions of an execution that fails in Validate. One that fails later has a few more."""

STANDARD_TRANSITIONS: Final = 1 + UPLOAD_TRANSITIONS
"""State transitions of a Standard child for an image: its own, and those of the main state machine."""

_SIDECAR_KB: Final = 3


def express_usage(images: int, cached: int, batch: int, seconds: float, memory_mb: int) -> Usage:
    """Return the usage of images that were processed by Express children.

    Args:
        images: all of them.
        cached: those that had their result already: one HEAD and one GET each.
        batch: images per child.
        seconds: total processing time.
        memory_mb: memory of the bulk function.
    """
    children, new = -(-images // batch), images - cached
    return Usage(
        transitions=RUN_TRANSITIONS + CHILD_TRANSITIONS * children,
        express_runs=children,
        express_s=seconds,
        lambda_requests=children,
        lambda_gb_s=seconds * memory_mb / 1024,
        s3_writes=3 * new + images / 1000,  # cached copy, result and sidecar; and listing 1,000 keys at a time
        s3_reads=2 * images + 2 * new,  # version and sidecar; image, and report of an earlier run
        dynamodb_writes=_SIDECAR_KB * new,
        dynamodb_reads=new,
    )


def mask_usage(images: int, new: int) -> Usage:
    """Return what a transform job takes besides its instances, and besides :func:`express_usage`.

    Args:
        images: of the run.
        new: those that have no result yet.
    """
    children = -(-images // REQUEST_BATCH)
    return Usage(
        transitions=TRANSFORM_TRANSITIONS + CHILD_TRANSITIONS * children,
        express_runs=children,
        express_s=REQUEST_S * images,
        lambda_requests=children,
        lambda_gb_s=REQUEST_S * images * REQUEST_GB,
        s3_writes=new + children,  # a mask each, and the files with the requests
        s3_reads=2 * images + 4 * new,  # version and sidecar; whether there is a mask, twice, image, and mask
        dynamodb_reads=new,
    )


def standard_usage(images: int, seconds: float, memory_mb: int) -> Usage:
    """Return the usage of images that a bulk run processed by executions of the main state machine.

    Args:
        images: all of them.
        seconds: total processing time in functions.
        memory_mb: their memory.
    """
    own = STANDARD_TRANSITIONS - UPLOAD_TRANSITIONS
    transitions = RUN_TRANSITIONS + (CHILD_TRANSITIONS + own) * images
    return Usage(transitions=transitions) + upload_usage(images, 0, 0, seconds * memory_mb / 1024)


def upload_usage(computed: int, cached: int, failed: int, lambda_gb_s: float) -> Usage:
    """Return the usage of images that were processed by executions of the main state machine.

    Args:
        computed: images whose result was computed.
        cached: images whose result came from the cache.
        failed: images that failed.
        lambda_gb_s: memory times processing time of the functions, in GB and seconds.
    """
    return Usage(
        transitions=UPLOAD_TRANSITIONS * computed + HIT_TRANSITIONS * cached + FAILURE_TRANSITIONS * failed,
        lambda_requests=5 * computed + 2 * cached + 3 * failed,
        lambda_gb_s=lambda_gb_s,
        s3_writes=5 * computed + 2 * cached + failed,  # mask, alpha, cached copy; result and sidecar; failure report
        s3_reads=7 * computed + 3 * cached + 2 * failed,
        dynamodb_writes=(1 + _SIDECAR_KB) * computed,
        dynamodb_reads=computed + cached,
    )


def execution_usd(timings_s: Mapping[str, float], memory_mb: Mapping[str, int], region: str, *, cached: bool) -> float:
    """Return what an execution of the main state machine cost, in US dollars.

    Args:
        timings_s: durations of the stages that ran on Lambda, by stage.
        memory_mb: memory of their functions, by stage.
        region: Region of the stack; see :func:`prices_of`.
        cached: whether the result came from the cache.
    """
    gb_s = sum(seconds * memory_mb[stage] / 1024 for stage, seconds in timings_s.items())
    return _usd(upload_usage(int(not cached), int(cached), 0, gb_s), region)


def bulk_image_usd(timings_s: Mapping[str, float], memory_mb: int, region: str, *, cached: bool) -> float:
    """Return what an image of a bulk run cost, in US dollars, without the run and the start of its batch.

    Args:
        timings_s: durations of the stages that ran on Lambda, by stage.
        memory_mb: memory of the bulk function.
        region: Region of the stack; see :func:`prices_of`.
        cached: whether the result came from the cache.
    """
    seconds = sum(timings_s.values())
    gb_s = seconds * memory_mb / 1024
    requests = upload_usage(0, 1, 0, 0.0) if cached else express_usage(1, 0, 1, 0.0, memory_mb)
    usage = replace(requests, transitions=0, express_runs=0, express_s=seconds, lambda_requests=0, lambda_gb_s=gb_s)
    return _usd(usage, region)


def _usd(usage: Usage, region: str) -> float:
    _, prices = prices_of(region)
    return usage.orchestration_usd(prices) + usage.compute_usd(prices) + usage.requests_usd(prices)
