"""What a stack did in a past range of time, what that cost, and what waits now.

The figures of the past come from CloudWatch metrics, see docs/reference/metrics.md. Each combination of dimension
values is a metric of its own: counts are summed over those that CloudWatch lists. Percentiles cannot be summed, so they
are per stage and image size.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from math import ceil
from typing import Any, Final

from client import history
from client.dead_letters import Queue
from client.stack import Stack
from functions.contracts.prices import AS_OF, prices_of, upload_usage

NAMESPACE: Final = "PrecisionBackgroundRemover/{stack}"
"""Namespace of a stack's metrics, with the stack's name."""

DIMENSIONS: Final = {
    "Processed": ("ImageSize",),
    "CacheHit": ("ImageSize",),
    "Failed": ("Error", "Stage"),
    "ProcessingTime": ("ImageSize", "Stage"),
}
"""The metrics that are read, and their dimensions in alphabetical order."""

STAGES: Final = ("validate", "segment", "refine", "encode", "escalation")
"""Stages in the order in which they run, as in the sidecar's ``timings_s``."""

VALIDATE_MEMORY_MB: Final = 2048
"""Memory of the validate function. That of the others is a parameter of the stack."""

_DEFAULT_MEMORY_MB: Final = 3008
_MEMORY_PARAMETERS: Final = {
    "segment": "SegmentMemory",
    "refine": "RefineMemory",
    "encode": "EncodeMemory",
    "escalation": "SegmentMemory",
}
_SEGMENTATION: Final = ("segment", "escalation")

_TIME_STATISTICS: Final = ("p50", "p95", "SampleCount", "Sum")
_QUEUES: Final = "AWS/SQS"
_MAX_QUERIES: Final = 500  # of GetMetricData
_MAX_RUNNING: Final = 1000


class Range(StrEnum):
    """A range of time that ends now."""

    HOUR = "1h"
    DAY = "24h"
    WEEK = "7d"

    @property
    def length(self) -> timedelta:
        """Its length."""
        return {"1h": timedelta(hours=1), "24h": timedelta(days=1), "7d": timedelta(days=7)}[self]

    @property
    def period(self) -> timedelta:
        """Length of the periods that counts are given for."""
        return {"1h": timedelta(minutes=5), "24h": timedelta(hours=1), "7d": timedelta(hours=6)}[self]

    def window(self, now: datetime) -> "Window":
        """Return the range in UTC. It starts with a whole period, and is up to one period longer than its length."""
        start = (now - self.length).timestamp() // self.period.total_seconds() * self.period.total_seconds()
        return Window(datetime.fromtimestamp(start, UTC), now.astimezone(UTC), self.period)


@dataclass(frozen=True)
class Window:
    """A range of time in periods. The last period may be incomplete."""

    start: datetime
    end: datetime
    period: timedelta

    @property
    def starts(self) -> list[datetime]:
        """Start of each period."""
        return [self.start + number * self.period for number in range(ceil((self.end - self.start) / self.period))]

    @property
    def hours(self) -> float:
        """Length in hours."""
        return (self.end - self.start) / timedelta(hours=1)

    @property
    def whole_s(self) -> int:
        """Length in seconds, rounded up to a minute: the period of a single value for all of it."""
        return 60 * ceil((self.end - self.start) / timedelta(minutes=1))


@dataclass(frozen=True)
class Count:
    """Images whose execution ended in a period.

    Attributes:
        start: start of the period.
        computed: results that were computed.
        cached: results that came from the cache.
        failed: images without a result.
    """

    start: datetime
    computed: int
    cached: int
    failed: int


@dataclass(frozen=True)
class StageTime:
    """Processing time of a stage for images of a size class.

    Attributes:
        stage: stage, as in :data:`STAGES`.
        image_size: size class, e.g. ``<=4MP``.
        images: number of values.
        p50_s: median, seconds.
        p95_s: 95th percentile, seconds.
        total_s: sum, seconds.
    """

    stage: str
    image_size: str
    images: int
    p50_s: float
    p95_s: float
    total_s: float


@dataclass(frozen=True)
class Failure:
    """Failures with the same cause.

    Attributes:
        stage: state that failed.
        error: class name of the error.
        images: their number.
    """

    stage: str
    error: str
    images: int


@dataclass(frozen=True)
class Cost:
    """An estimate in US dollars, at list prices, as if each image were uploaded on its own: bulk runs cost less.

    Times are those that stages report: starts of functions are left out, and an embedded cloud reports the times of its
    machine.

    Attributes:
        results: delivered results; failed images are part of the cost.
        functions_usd: Lambda.
        orchestration_usd: Step Functions.
        requests_usd: requests to S3 and DynamoDB.
        region: Region of the prices.
        prices_as_of: date of the prices.
        not_included: what is billed by the hour, e.g. ``the SageMaker endpoint``.
    """

    results: int
    functions_usd: float
    orchestration_usd: float
    requests_usd: float
    region: str
    prices_as_of: str
    not_included: tuple[str, ...]

    @property
    def total_usd(self) -> float:
        """Cost of all images."""
        return self.functions_usd + self.orchestration_usd + self.requests_usd

    @property
    def per_image_usd(self) -> float | None:
        """Cost per delivered result; None without results."""
        return self.total_usd / self.results if self.results else None


@dataclass(frozen=True)
class Overview:
    """What happened in a window.

    Attributes:
        window: the window.
        counts: one entry per period, oldest first.
        stages: processing times, by stage and size.
        failures: failures by cause, the most frequent first.
        cost: estimated cost.
        most_waiting: highest number of messages that waited in the worker's queue; None if that is not recorded.
    """

    window: Window
    counts: tuple[Count, ...]
    stages: tuple[StageTime, ...]
    failures: tuple[Failure, ...]
    cost: Cost
    most_waiting: int | None

    @property
    def computed(self) -> int:
        """Results that were computed."""
        return sum(count.computed for count in self.counts)

    @property
    def cached(self) -> int:
        """Results that came from the cache."""
        return sum(count.cached for count in self.counts)

    @property
    def failed(self) -> int:
        """Images without a result."""
        return sum(count.failed for count in self.counts)

    @property
    def images(self) -> int:
        """Images whose execution ended."""
        return self.computed + self.cached + self.failed

    @property
    def per_hour(self) -> float | None:
        """Images per hour; None if there are none."""
        return self.images / self.window.hours if self.images else None

    @property
    def success_rate(self) -> float | None:
        """Share of images with a result, 0 to 1; None without images."""
        return 1 - self.failed / self.images if self.images else None

    @property
    def hit_rate(self) -> float | None:
        """Share of results that came from the cache, 0 to 1; None without results."""
        results = self.computed + self.cached
        return self.cached / results if results else None


@dataclass(frozen=True)
class Backlog:
    """What waits or runs now.

    Attributes:
        running: running executions, up to 1,000.
        more_running: whether there may be more.
        waiting: messages that wait for the worker; None if the stack has no worker.
        received: messages that the worker is working on; None if the stack has no worker.
        dead_letters: number of messages of each dead-letter queue that is not empty.
    """

    running: int
    more_running: bool
    waiting: int | None
    received: int | None
    dead_letters: Mapping[Queue, int]


def read(stack: Stack, span: Range, now: datetime) -> Overview:
    """Return what happened in a range.

    CloudWatch lists a new metric up to 15 minutes after its first value, so the first images are counted with a delay.

    Args:
        stack: the stack.
        span: the range.
        now: its end.
    """
    cloudwatch, window = stack.client("cloudwatch"), span.window(now)
    namespace = NAMESPACE.format(stack=stack.name)
    queries = [*_queries(cloudwatch, namespace, window), *_queue_queries(stack, window)]
    values = dict(_values(cloudwatch, queries, window))
    counts, stages = _counts(values, window), _stage_times(values)
    return Overview(
        window=window,
        counts=counts,
        stages=stages,
        failures=_failures(values),
        cost=_cost(stack, counts, stages),
        most_waiting=next((round(max(found.values())) for query, found in values.items() if query.is_queue), None),
    )


def backlog(stack: Stack) -> Backlog:
    """Return what waits or runs now."""
    queues = [queue for queue in Queue if queue.output in stack.outputs]
    with ThreadPoolExecutor(len(queues) + 2) as pool:
        running = pool.submit(history.count, stack, "RUNNING", _MAX_RUNNING)
        worker = pool.submit(stack.messages, "QueueUrl") if has_worker(stack) else None
        dead = list(pool.map(lambda queue: stack.messages(queue.output)[0], queues))
    waiting, received = worker.result() if worker else (None, None)
    return Backlog(
        running=running.result(),
        more_running=running.result() == _MAX_RUNNING,
        waiting=waiting,
        received=received,
        dead_letters={queue: count for queue, count in zip(queues, dead, strict=True) if count},
    )


def has_worker(stack: Stack) -> bool:
    """Return whether the stack has an ECS worker."""
    return "WorkerServiceName" in stack.outputs


@dataclass(frozen=True)
class _Query:
    namespace: str
    metric: str
    dimensions: tuple[tuple[str, str], ...]
    statistic: str
    period_s: int

    @property
    def is_queue(self) -> bool:
        return self.namespace == _QUEUES

    def to_request(self, number: int) -> dict[str, Any]:
        """Return the query as GetMetricData expects it."""
        dimensions = [{"Name": name, "Value": value} for name, value in self.dimensions]
        metric = {"Namespace": self.namespace, "MetricName": self.metric, "Dimensions": dimensions}
        return {"Id": f"q{number}", "MetricStat": {"Metric": metric, "Period": self.period_s, "Stat": self.statistic}}


_Values = dict[_Query, dict[datetime, float]]


def _listed(cloudwatch: Any, namespace: str) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    """Yield the name and the dimensions of each metric that is read. Others, of earlier versions, are left out."""
    for page in cloudwatch.get_paginator("list_metrics").paginate(Namespace=namespace):
        for metric in page["Metrics"]:
            dimensions = tuple(sorted((one["Name"], one["Value"]) for one in metric["Dimensions"]))
            if DIMENSIONS.get(metric["MetricName"]) == tuple(name for name, _ in dimensions):
                yield metric["MetricName"], dimensions


def _queries(cloudwatch: Any, namespace: str, window: Window) -> Iterator[_Query]:
    for name, dimensions in _listed(cloudwatch, namespace):
        if name == "ProcessingTime":
            for statistic in _TIME_STATISTICS:
                yield _Query(namespace, name, dimensions, statistic, window.whole_s)
        else:
            yield _Query(namespace, name, dimensions, "Sum", int(window.period.total_seconds()))


def _queue_queries(stack: Stack, window: Window) -> Iterator[_Query]:
    """Yield the query for the worker's queue."""
    if has_worker(stack):
        name = stack.outputs["QueueUrl"].rpartition("/")[2]
        metric = "ApproximateNumberOfMessagesVisible"
        yield _Query(_QUEUES, metric, (("QueueName", name),), "Maximum", window.whole_s)


def _values(
    cloudwatch: Any, queries: Sequence[_Query], window: Window
) -> Iterator[tuple[_Query, dict[datetime, float]]]:
    """Yield the values of each query that has any, by the start of their period."""
    pages = cloudwatch.get_paginator("get_metric_data")
    for first in range(0, len(queries), _MAX_QUERIES):
        found: dict[str, dict[datetime, float]] = {}
        requests = [query.to_request(number) for number, query in enumerate(queries[first : first + _MAX_QUERIES])]
        for page in pages.paginate(MetricDataQueries=requests, StartTime=window.start, EndTime=window.end):
            for result in page["MetricDataResults"]:
                points = zip(result["Timestamps"], result["Values"], strict=True)
                found.setdefault(result["Id"], {}).update(points)
        for request, query in zip(requests, queries[first : first + _MAX_QUERIES], strict=True):
            if values := found.get(request["Id"]):
                yield query, values


def _counts(values: _Values, window: Window) -> tuple[Count, ...]:
    totals = {name: [0] * len(window.starts) for name in ("Processed", "CacheHit", "Failed")}
    for query, found in values.items():
        if query.metric in totals:
            for at, value in found.items():
                totals[query.metric][(at - window.start) // window.period] += round(value)
    return tuple(map(Count, window.starts, totals["Processed"], totals["CacheHit"], totals["Failed"]))


def _stage_times(values: _Values) -> tuple[StageTime, ...]:
    found: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
    for query, points in values.items():
        if query.metric == "ProcessingTime":
            found.setdefault(query.dimensions, {})[query.statistic] = next(iter(points.values()))
    times = [
        StageTime(
            stage=dict(dimensions)["Stage"],
            image_size=dict(dimensions)["ImageSize"],
            images=round(statistics["SampleCount"]),
            p50_s=statistics["p50"] / 1000,
            p95_s=statistics["p95"] / 1000,
            total_s=statistics["Sum"] / 1000,
        )
        for dimensions, statistics in found.items()
        if statistics.keys() == set(_TIME_STATISTICS)
    ]
    return tuple(sorted(times, key=lambda time: (_position(time.stage), size_order(time.image_size))))


def size_order(image_size: str) -> tuple[bool, int]:
    """Return the sort key of a size class, e.g. ``<=4MP``: smaller images first."""
    return image_size.startswith(">"), int("0" + "".join(filter(str.isdigit, image_size)))


def _position(stage: str) -> tuple[int, str]:
    return (STAGES.index(stage) if stage in STAGES else len(STAGES)), stage


def _failures(values: _Values) -> tuple[Failure, ...]:
    failures = [
        Failure(dict(query.dimensions)["Stage"], dict(query.dimensions)["Error"], round(sum(found.values())))
        for query, found in values.items()
        if query.metric == "Failed"
    ]
    return tuple(sorted(failures, key=lambda failure: (-failure.images, failure.stage, failure.error)))


def _cost(stack: Stack, counts: Iterable[Count], stages: Iterable[StageTime]) -> Cost:
    counts, on_lambda = list(counts), stack.parameters.get("SegmentationHost", "lambda") == "lambda"
    gb_s = sum(
        time.total_s * _memory_mb(stack, time.stage) / 1024
        for time in stages
        if on_lambda or time.stage not in _SEGMENTATION
    )
    computed, cached = sum(count.computed for count in counts), sum(count.cached for count in counts)
    usage = upload_usage(computed, cached, sum(count.failed for count in counts), gb_s)
    region, prices = prices_of(stack.region)
    by_the_hour = {"WorkerServiceName": "the worker", "SageMakerEndpoint": "the SageMaker endpoint"}
    return Cost(
        results=computed + cached,
        functions_usd=usage.compute_usd(prices),
        orchestration_usd=usage.orchestration_usd(prices),
        requests_usd=usage.requests_usd(prices),
        region=region,
        prices_as_of=AS_OF,
        not_included=tuple(text for output, text in by_the_hour.items() if output in stack.outputs),
    )


def _memory_mb(stack: Stack, stage: str) -> int:
    if stage == "validate":
        return VALIDATE_MEMORY_MB
    return int(stack.parameters.get(_MEMORY_PARAMETERS.get(stage, "SegmentMemory"), _DEFAULT_MEMORY_MB))
