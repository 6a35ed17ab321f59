"""AWS list prices in US dollars: the one table that estimates use. On-demand, without free tiers and discounts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

AS_OF: Final = "2026-11-30"
"""When the table was made, from AWS's pricing pages and public price lists of 2024 to 2026. Check it before quoting."""

DEFAULT_REGION: Final = "eu-west-1"
"""Region whose prices stand in for those of a Region without an entry."""

HOURS: Final = 730
"""Hours of a month, as on AWS's pricing pages."""

GPU: Final = "ml.g4dn.xlarge"
"""Smallest GPU instance of SageMaker: NVIDIA T4."""

_PAGES: Final = {
    "API Gateway": "api-gateway/pricing",
    "CloudWatch": "cloudwatch/pricing",
    "Data transfer": "ec2/pricing/on-demand",
    "DynamoDB": "dynamodb/pricing/on-demand",
    "EBS": "ebs/pricing",
    "EC2": "ec2/pricing/on-demand",
    "ECR": "ecr/pricing",
    "EventBridge": "eventbridge/pricing",
    "Fargate": "fargate/pricing",
    "KMS": "kms/pricing",
    "Lambda": "lambda/pricing",
    "S3": "s3/pricing",
    "SNS": "sns/pricing",
    "SQS": "sqs/pricing",
    "SageMaker": "sagemaker/ai/pricing",
    "Secrets Manager": "secrets-manager/pricing",
    "Step Functions": "step-functions/pricing",
    "VPC": "privatelink/pricing",
    "X-Ray": "xray/pricing",
}


def _price(usd: float, service: str, unit: str) -> Any:
    """Return the field of a price in us-east-1, with the service that bills it, and what one of it is."""
    return field(default=usd, metadata={"service": service, "unit": unit})


def _instances(unit: str, usd: Mapping[str, float]) -> Any:
    """Return the field of prices by instance type in us-east-1."""
    return field(default_factory=lambda: dict(usd), metadata={"unit": unit})


@dataclass(frozen=True)
class Prices:
    """Prices of a Region. The defaults are those of us-east-1; :func:`price_list` has them with unit and source.

    Attributes:
        instance_h: instances by type, on demand, per hour. Types with ``ml.`` are SageMaker's, for endpoints and jobs.
        spot_h: Spot instances by type, per hour. The price changes all the time.
        unconfirmed: names and instance types of prices that were not found in a public price list.
    """

    lambda_gb_s: float = _price(0.0000166667, "Lambda", "GB-second, x86")
    lambda_arm_gb_s: float = _price(0.0000133334, "Lambda", "GB-second, arm64")
    lambda_request: float = _price(0.20e-6, "Lambda", "request")
    standard_transition: float = _price(0.025e-3, "Step Functions", "state transition of a Standard workflow")
    express_request: float = _price(1.0e-6, "Step Functions", "execution of an Express workflow")
    express_gb_s: float = _price(0.00001667, "Step Functions", "GB-second of an Express workflow, first 1,000 GB-hours")
    s3_write: float = _price(0.005e-3, "S3", "PUT, COPY or LIST request")
    s3_read: float = _price(0.0004e-3, "S3", "GET or HEAD request")
    s3_gb_month: float = _price(0.023, "S3", "GB-month, Standard")
    dynamodb_write: float = _price(0.625e-6, "DynamoDB", "write request unit, 1 KB")
    dynamodb_read: float = _price(0.125e-6, "DynamoDB", "read request unit, 4 KB")
    dynamodb_gb_month: float = _price(0.25, "DynamoDB", "GB-month")
    sqs_request: float = _price(0.40e-6, "SQS", "request, standard queue")
    sns_publish: float = _price(0.50e-6, "SNS", "message")
    event: float = _price(1.0e-6, "EventBridge", "opt-in event, such as those of S3")
    http_api_request: float = _price(1.0e-6, "API Gateway", "request to an HTTP API")
    log_gb: float = _price(0.50, "CloudWatch", "GB of logs, ingested")
    log_gb_month: float = _price(0.03, "CloudWatch", "GB-month of logs, compressed")
    custom_metric: float = _price(0.30, "CloudWatch", "custom metric, per month")
    alarm_metric: float = _price(0.10, "CloudWatch", "metric of an alarm, per month")
    composite_alarm: float = _price(0.50, "CloudWatch", "composite alarm, per month")
    dashboard: float = _price(3.00, "CloudWatch", "dashboard, per month")
    trace: float = _price(5.0e-6, "X-Ray", "recorded trace")
    key_month: float = _price(1.00, "KMS", "customer-managed key, per month")
    secret_month: float = _price(0.40, "Secrets Manager", "secret, per month")
    fargate_vcpu_h: float = _price(0.04048, "Fargate", "vCPU-hour, x86")
    fargate_gb_h: float = _price(0.004445, "Fargate", "GB-hour, x86")
    fargate_spot_vcpu_h: float = _price(0.012144, "Fargate", "vCPU-hour, Spot")
    fargate_spot_gb_h: float = _price(0.0013335, "Fargate", "GB-hour, Spot")
    endpoint_h: float = _price(0.01, "VPC", "hour of an interface endpoint in a zone")
    endpoint_gb: float = _price(0.01, "VPC", "GB through an interface endpoint")
    disk_gb_month: float = _price(0.08, "EBS", "GB-month, gp3")
    image_gb_month: float = _price(0.10, "ECR", "GB-month")
    internet_gb: float = _price(0.09, "Data transfer", "GB to the internet")
    instance_h: Mapping[str, float] = _instances(
        "hour",
        {
            "g4dn.xlarge": 0.526,
            "g5.xlarge": 1.006,
            "g6.xlarge": 0.805,
            GPU: 0.736,
            "ml.g5.xlarge": 1.408,
            "ml.c6i.2xlarge": 0.408,
        },
    )
    spot_h: Mapping[str, float] = _instances("hour, Spot", {"g4dn.xlarge": 0.21, "g5.xlarge": 0.44, "g6.xlarge": 0.38})
    unconfirmed: frozenset[str] = frozenset(
        {
            *("dynamodb_gb_month", "log_gb_month", "trace", "disk_gb_month"),
            *("fargate_spot_vcpu_h", "fargate_spot_gb_h", "internet_gb", "spot_h"),
            *(GPU, "ml.g5.xlarge", "ml.c6i.2xlarge"),
        }
    )

    @property
    def gpu_endpoint_h(self) -> float:
        """A real-time endpoint on the smallest GPU instance, per hour."""
        return self.instance_h[GPU]


_IRELAND: Final[dict[str, float]] = {
    "dynamodb_write": 0.705e-6,
    "dynamodb_read": 0.1415e-6,
    "dynamodb_gb_month": 0.283,
    "http_api_request": 1.11e-6,
    "log_gb": 0.57,
    "endpoint_h": 0.011,
    "disk_gb_month": 0.088,
}
_IRELAND_INSTANCES: Final = {
    "g4dn.xlarge": 0.587,
    "g5.xlarge": 1.123,
    "g6.xlarge": 0.898,
    GPU: 0.821,
    "ml.g5.xlarge": 1.572,
    "ml.c6i.2xlarge": 0.456,
}

REGIONS: Final = {
    "us-east-1": Prices(),
    "eu-west-1": Prices(
        **_IRELAND,  # type: ignore[arg-type]  # all of them are numbers
        instance_h=_IRELAND_INSTANCES,
        unconfirmed=Prices().unconfirmed | _IRELAND.keys() | _IRELAND_INSTANCES.keys(),
    ),
}
"""Prices by Region. A price that eu-west-1 does not state is the same as in us-east-1."""


def prices_of(region: str) -> tuple[str, Prices]:
    """Return the prices of a Region, and the Region that they are of: the default one for Regions without an entry."""
    known = region if region in REGIONS else DEFAULT_REGION
    return known, REGIONS[known]


@dataclass(frozen=True)
class ListPrice:
    """A line of the price list.

    Attributes:
        service: service that bills it.
        unit: what one of it is.
        usd: price.
        page: AWS's page with the prices of the service.
        confirmed: whether it was found in a public price list.
    """

    service: str
    unit: str
    usd: float
    page: str
    confirmed: bool


def price_list(prices: Prices) -> Iterator[ListPrice]:
    """Yield all prices of a Region."""
    for one in fields(Prices):
        value, unit = getattr(prices, one.name), one.metadata.get("unit", "")
        if "service" in one.metadata:
            yield _list_price(one.metadata["service"], unit, value, one.name not in prices.unconfirmed)
        elif unit:
            for kind, usd in value.items():
                confirmed = not {kind, one.name} & prices.unconfirmed
                yield _list_price("SageMaker" if kind.startswith("ml.") else "EC2", f"{kind}, {unit}", usd, confirmed)


def _list_price(service: str, unit: str, usd: float, confirmed: bool) -> ListPrice:
    return ListPrice(service, unit, usd, f"https://aws.amazon.com/{_PAGES[service]}/", confirmed)


@dataclass(frozen=True)
class Line:
    """A line of a bill.

    Attributes:
        service: service that bills it.
        item: what is billed, in the plural, e.g. ``state transitions``.
        quantity: how many.
        usd_each: price of one.
        arithmetic: how the quantity comes about.
    """

    service: str
    item: str
    quantity: float
    usd_each: float
    arithmetic: str = ""

    @property
    def usd(self) -> float:
        """The product."""
        return self.quantity * self.usd_each


EXPRESS_GB: Final = 64 / 1024
"""Memory of an Express execution: one chunk, because definition and payloads are small."""


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

    def lines(self, prices: Prices) -> list[Line]:
        """Return the bill, one line for each kind of usage."""
        return [
            Line("Step Functions", "state transitions", self.transitions, prices.standard_transition),
            Line("Step Functions", "Express executions", self.express_runs, prices.express_request),
            Line("Step Functions", "GB-seconds of Express", self.express_s * EXPRESS_GB, prices.express_gb_s),
            Line("Lambda", "requests", self.lambda_requests, prices.lambda_request),
            Line("Lambda", "GB-seconds", self.lambda_gb_s, prices.lambda_gb_s),
            Line("S3", "PUT, COPY and LIST requests", self.s3_writes, prices.s3_write),
            Line("S3", "GET and HEAD requests", self.s3_reads, prices.s3_read),
            Line("DynamoDB", "write request units", self.dynamodb_writes, prices.dynamodb_write),
            Line("DynamoDB", "read request units", self.dynamodb_reads, prices.dynamodb_read),
        ]

    def usd(self, prices: Prices) -> float:
        """Return the total cost."""
        return sum(line.usd for line in self.lines(prices))

    def orchestration_usd(self, prices: Prices) -> float:
        """Return the cost of Step Functions."""
        return self._of(prices, "Step Functions")

    def compute_usd(self, prices: Prices) -> float:
        """Return the cost of Lambda."""
        return self._of(prices, "Lambda")

    def requests_usd(self, prices: Prices) -> float:
        """Return the cost of requests to S3 and DynamoDB."""
        return self._of(prices, "S3", "DynamoDB")

    def _of(self, prices: Prices, *services: str) -> float:
        return sum(line.usd for line in self.lines(prices) if line.service in services)


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

UPLOAD_TRANSITIONS: Final = 11
"""State transitions of an execution of the main state machine that segments on Lambda."""

HIT_TRANSITIONS: Final = 11
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
        s3_reads=7 * computed + 2 * cached + 2 * failed,
        dynamodb_writes=(1 + _SIDECAR_KB) * computed + _SIDECAR_KB * cached,  # a refused claim: the size of the item
        dynamodb_reads=cached,
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
    return upload_usage(int(not cached), int(cached), 0, gb_s).usd(prices_of(region)[1])


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
    hit = replace(upload_usage(0, 1, 0, 0.0), dynamodb_writes=0)  # no claim
    requests = hit if cached else express_usage(1, 0, 1, 0.0, memory_mb)
    usage = replace(requests, transitions=0, express_runs=0, express_s=seconds, lambda_requests=0, lambda_gb_s=gb_s)
    return usage.usd(prices_of(region)[1])
