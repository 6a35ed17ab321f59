"""What a stack costs a month, by the number of images and the host: a bill whose lines can be recomputed by hand.

The durations of the functions are measured (``measured_durations.json``), state transitions and requests are counted on
the embedded cloud, prices are list prices. :class:`Assumptions` has everything else.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from functions.contracts.durations import durations
from functions.contracts.prices import (
    CHILD_TRANSITIONS,
    EXPRESS_GB,
    GPU,
    HOURS,
    REQUEST_BATCH,
    REQUEST_GB,
    REQUEST_S,
    RUN_TRANSITIONS,
    TRANSFORM_TRANSITIONS,
    Line,
    Prices,
    Usage,
    express_usage,
    mask_usage,
    upload_usage,
)

_MEMORY_PARAMETERS: Final = {
    "segment": "SegmentMemory",
    "refine": "RefineMemory",
    "encode": "EncodeMemory",
    "bulk": "BulkMemory",
}

VOLUMES: Final = (1_000, 10_000, 100_000, 1_000_000)
"""Images a month."""


class Host(StrEnum):
    """Host of the segmentation of single uploads."""

    LAMBDA = "lambda"
    FARGATE = "fargate"
    FARGATE_SPOT = "fargate-spot"
    GPU = "gpu"
    GPU_SPOT = "gpu-spot"
    SAGEMAKER = "sagemaker"
    SAGEMAKER_ASYNC = "sagemaker-async"


class Bulk(StrEnum):
    """How bulk runs process images: Express children with batches of 10 or 100, a transform job, Standard children."""

    EXPRESS_10 = "express-10"
    EXPRESS_100 = "express-100"
    TRANSFORM = "batch-transform"
    STANDARD = "standard"


Method = Host | Bulk
"""Each of them runs all stages but segmentation on Lambda."""


@dataclass(frozen=True)
class Assumptions:
    """What is neither measured durations nor prices.

    Bytes were measured with the photograph of 2 megapixels that ``make tune`` uses, on the embedded cloud
    (tests/integration/state_machine/test_cost.py); a photograph with a larger subject has a larger result.

    Attributes:
        source_bytes: JPEG.
        result_bytes: PNG with the cut-out, which is stored twice: as result and in the cache.
        sidecar_bytes: JSON next to the result.
        work_bytes: mask and alpha, which are kept for two days.
        item_bytes: item in the table of the cache.
        log_bytes: log lines of an execution that computes a result, with 26 bytes that CloudWatch adds to each. A bulk
            run is taken to write a fifth for an image, because one function processes it.
        hit_log_bytes: log lines of one that is served from the cache.
        days_kept: days for which sources, results, cached results and logs are kept.
        s3_request_s: time that a function waits for a request to S3. S3's guide expects 0.1 to 0.2 s for small objects;
            on the embedded cloud, where durations were measured, it is a few milliseconds.
        function_idle_s: time after which Lambda ends an idle function. AWS documents none.
        cold_share: smallest share of calls that start a function.
        core_s: time of a core to segment an image with ``u2netp``: 2.86 images per second on two cores, see
            bench/studies/segmentation.md. Two vCPUs are one core.
        gpu_s: time of a GPU for it. Not measured.
        busy_share: how busy workers and endpoints are at most, on average.
        worker_idle_s: time after which the last worker or instance is stopped: 15 minutes of target tracking, cooldown.
        worker_start_s: billed start time of a Fargate worker.
        gpu_start_s: billed start time of a worker on a GPU instance.
        endpoint_start_s: billed start time of an instance of SageMaker.
        polls_h: requests of an idle worker to the queue per hour, of 20 s each.
        worker_requests: requests to the queue for an image: send, receive, delete.
        zones: zones of the private network.
        image_gb: container image in ECR.
    """

    source_bytes: int = 400_907
    result_bytes: int = 1_356_069
    sidecar_bytes: int = 2_770
    work_bytes: int = 55_997
    item_bytes: int = 2_374
    log_bytes: int = 10_244
    hit_log_bytes: int = 3_819
    days_kept: int = 30
    s3_request_s: float = 0.1
    function_idle_s: float = 300.0
    cold_share: float = 0.01
    core_s: float = 0.7
    gpu_s: float = 0.15
    busy_share: float = 0.7
    worker_idle_s: float = 1200.0
    worker_start_s: float = 150.0
    gpu_start_s: float = 450.0
    endpoint_start_s: float = 300.0
    polls_h: int = 180
    worker_requests: int = 3
    zones: int = 2
    image_gb: float = 1.0


ASSUMED: Final = Assumptions()

_S3_CALLS: Final[Mapping[str, int]] = {"validate": 1, "segment": 2, "refine": 3, "encode": 6, "metrics": 0, "bulk": 7}
"""Requests to S3 that a function waits for, one after the other, with a computed result."""

_COMPUTED: Final = ("validate", "segment", "refine", "encode", "metrics")
_CACHED: Final = ("validate", "metrics")

_WORKER_VCPU: Final = 4
_WORKER_GB: Final = 12
_GPU_INSTANCE: Final = "g4dn.xlarge"
_DISK_GB: Final = 60
_CPU_INSTANCE: Final = "ml.c6i.2xlarge"
_CPU_INSTANCE_CORES: Final = 4
_SWEEP_MB: Final = 1024
_REALTIME_TARGET: Final = 6
_REALTIME_MAX: Final = 4
"""Invocations per minute and instance that infrastructure/endpoint.yaml scales to, and its most instances."""

_ASYNC: Final = Usage(transitions=3, s3_writes=2, s3_reads=2)
"""What an asynchronous endpoint takes more: three states in branches; request and response objects."""


@dataclass(frozen=True)
class Fixed:
    """What a stack has whether or not it processes images. tests/unit/client/test_monthly_cost.py counts the template.

    Attributes:
        alarm_metrics: metrics of alarms; an anomaly alarm has three.
        composite_alarms: number of composite alarms.
        dashboards: number of dashboards.
        custom_metrics: of two size classes and one model, see docs/reference/metrics.md#cost.
        keys: customer-managed keys.
        secrets: secrets.
        worker_alarm_metrics: of the worker's alarms, and of the six that target tracking creates.
        endpoint_alarm_metrics: of the alarms of an endpoint.
        insights_metrics: of Container Insights for a cluster with one service. Counted from AWS's documentation,
            not measured.
        endpoints: interface endpoints of the private network.
        gpu_endpoints: further ones with GPU instances.
    """

    alarm_metrics: int = 35
    composite_alarms: int = 2
    dashboards: int = 1
    custom_metrics: int = 26
    keys: int = 1
    secrets: int = 1
    worker_alarm_metrics: int = 11
    endpoint_alarm_metrics: int = 4
    insights_metrics: int = 38
    endpoints: int = 5
    gpu_endpoints: int = 3


FIXED: Final = Fixed()


@dataclass(frozen=True)
class Bill:
    """What a number of images costs in a month.

    Attributes:
        method: host, or kind of bulk run.
        images: their number.
        lines: what depends on the images.
        fixed: what does not.
    """

    method: Method
    images: int
    lines: tuple[Line, ...]
    fixed: tuple[Line, ...]

    @property
    def usd(self) -> float:
        """Total per month."""
        return sum(line.usd for line in (*self.lines, *self.fixed))

    @property
    def fixed_usd(self) -> float:
        """Part that does not depend on the images."""
        return sum(line.usd for line in self.fixed)

    @property
    def image_usd(self) -> float:
        """Cost of an image without the fixed part."""
        return (self.usd - self.fixed_usd) / self.images


def number_text(value: float) -> str:
    """Return a quantity or price without trailing zeros: four decimals, or for less than 1 six significant digits."""
    decimals = 4 if value >= 1 or value == 0 else 5 - math.floor(math.log10(value))
    return f"{value:,.{decimals}f}".rstrip("0").rstrip(".") if decimals else f"{value:,.0f}"


def memory_of(parameters: Mapping[str, str]) -> dict[str, int]:
    """Return the memory of the functions of a stack in MB.

    Args:
        parameters: parameters of the stack; without them, the template's defaults.
    """
    memory = {name: one.proposed_mb for name, one in durations().functions.items()}  # a test holds the template to it
    for name, parameter in _MEMORY_PARAMETERS.items():
        memory[name] = int(parameters.get(parameter, 0)) or memory["segment" if name == "bulk" else name]
    return memory


def bill(method: Method, images: int, hits: float, prices: Prices, memory_mb: Mapping[str, int] | None = None) -> Bill:
    """Return the bill of a month.

    Args:
        method: host, or kind of bulk run.
        images: photographs of 2 megapixels, evenly spread over the month; in one run for bulk runs.
        hits: share of them whose result exists already, 0 to 1.
        prices: of the Region.
        memory_mb: memory of the functions; None for the template's defaults.
    """
    month = _Month(images, hits, prices, memory_mb or memory_of({}))
    lines = month.of_host(method) if isinstance(method, Host) else month.of_bulk(method)
    kept = [line for line in (*lines, *month.traffic(method), *month.storage(method)) if line.quantity]
    return Bill(method, images, tuple(kept), tuple(_fixed(method, prices)))


def cheapest(methods: type[Host] | type[Bulk], images: int, hits: float, prices: Prices) -> Bill:
    """Return the bill of the host, or the kind of bulk run, that costs least."""
    return min((bill(method, images, hits, prices) for method in methods), key=lambda one: one.usd)


@dataclass(frozen=True)
class _Month:
    images: int
    hits: float
    prices: Prices
    memory_mb: Mapping[str, int]

    @property
    def cached(self) -> int:
        return round(self.images * self.hits)

    @property
    def computed(self) -> int:
        return self.images - self.cached

    def of_host(self, host: Host) -> list[Line]:
        """Return the lines of single uploads, without logs and storage."""
        each, hit = upload_usage(1, 0, 0, 0.0), upload_usage(0, 1, 0, 0.0)
        functions: tuple[str, ...] = _COMPUTED
        if host is not Host.LAMBDA:
            each = replace(each, lambda_requests=each.lambda_requests - 1)
            functions = tuple(name for name in _COMPUTED if name != "segment")
        if host is Host.SAGEMAKER_ASYNC:
            each += _ASYNC
        return [*self._counted(each, hit), *self._functions(functions), *self._hours(host)]

    def _counted(self, each: Usage, hit: Usage) -> list[Line]:
        lines = []
        for one, other in zip(each.lines(self.prices), hit.lines(self.prices), strict=True):
            text = f"{self.computed:,} x {one.quantity:g}"
            text += f" + {self.cached:,} x {other.quantity:g}" if self.cached else ""
            lines.append(
                replace(one, quantity=self.computed * one.quantity + self.cached * other.quantity, arithmetic=text)
            )
        return lines

    def _functions(self, names: tuple[str, ...]) -> list[Line]:
        """Return a line for each function, and one for their cold starts."""
        lines, cold_gb_s = [], 0.0
        for name in names:
            calls = self.images if name in _CACHED else self.computed
            lines.append(self._gb_s(name, calls, _seconds(name, self.memory_mb[name])))
            cold_gb_s += calls * _cold_s(name, self.memory_mb[name]) * self.memory_mb[name] / 1024
        share = max(ASSUMED.cold_share, math.exp(-self.images / (HOURS * 3600) * ASSUMED.function_idle_s))
        text = f"{share:.1%} of {cold_gb_s:,.0f} if all calls started their function"
        return [*lines, Line("Lambda", "GB-seconds of cold starts", share * cold_gb_s, self.prices.lambda_gb_s, text)]

    def _gb_s(self, name: str, calls: int, seconds: float) -> Line:
        gb = self.memory_mb[name] / 1024
        text = f"{calls:,} x {seconds:.4f} s x {gb:.4f} GB"
        return Line("Lambda", f"GB-seconds of {name}", calls * seconds * gb, self.prices.lambda_gb_s, text)

    def _hours(self, host: Host) -> list[Line]:
        """Return the lines of workers and endpoints."""
        if host in (Host.FARGATE, Host.FARGATE_SPOT):
            return self._fargate(spot=host is Host.FARGATE_SPOT)
        if host in (Host.GPU, Host.GPU_SPOT):
            return self._gpu(spot=host is Host.GPU_SPOT)
        if host is Host.LAMBDA:
            return []
        if host is Host.SAGEMAKER_ASYNC:
            hours, text = self._scaled_h(ASSUMED.core_s / _CPU_INSTANCE_CORES, ASSUMED.endpoint_start_s)
        else:
            per_minute = self.computed / (HOURS * 60)
            more = min(_REALTIME_MAX, max(1.0, per_minute / _REALTIME_TARGET)) - 1
            hours, text = HOURS * more, f"{HOURS} h x {more:.2f} further ones for {per_minute:.1f} requests a minute"
        return [Line("SageMaker", f"hours of {_CPU_INSTANCE}", hours, self.prices.instance_h[_CPU_INSTANCE], text)]

    def _fargate(self, *, spot: bool) -> list[Line]:
        prices = self.prices
        hours, text = self._scaled_h(ASSUMED.core_s / (_WORKER_VCPU / 2), ASSUMED.worker_start_s)
        vcpu_h = prices.fargate_spot_vcpu_h if spot else prices.fargate_vcpu_h
        gb_h = prices.fargate_spot_gb_h if spot else prices.fargate_gb_h
        return [
            Line("Fargate", "vCPU-hours", hours * _WORKER_VCPU, vcpu_h, f"{_WORKER_VCPU} x ({text})"),
            Line("Fargate", "GB-hours", hours * _WORKER_GB, gb_h, f"{_WORKER_GB} x ({text})"),
            self._queue(hours),
        ]

    def _gpu(self, *, spot: bool) -> list[Line]:
        hours, text = self._scaled_h(ASSUMED.gpu_s, ASSUMED.gpu_start_s)
        usd = (self.prices.spot_h if spot else self.prices.instance_h)[_GPU_INSTANCE]
        disk = f"{_DISK_GB} GB x {hours:,.1f} h / {HOURS} h"
        return [
            Line("EC2", f"hours of {_GPU_INSTANCE}", hours, usd, text),
            Line("EBS", "GB-months", _DISK_GB * hours / HOURS, self.prices.disk_gb_month, disk),
            self._queue(hours),
        ]

    def _scaled_h(self, image_s: float, start_s: float) -> tuple[float, str]:
        """Return the hours of workers that are stopped when there is nothing to do, and how they come about.

        Images arrive at random times: one worker runs whenever an image arrived within ``worker_idle_s``.
        """
        rate = self.computed / (HOURS * 3600)
        idle = math.exp(-rate * ASSUMED.worker_idle_s)
        up, busy = HOURS * (1 - idle), self.computed * image_s / 3600 / ASSUMED.busy_share
        starts = self.computed * idle
        text = f"{max(up, busy):,.1f} h at work or idle + {starts:,.0f} starts of {start_s:g} s"
        return max(up, busy) + starts * start_s / 3600, text

    def _queue(self, hours: float) -> Line:
        requests = self.computed * ASSUMED.worker_requests + hours * ASSUMED.polls_h
        text = f"{self.computed:,} x {ASSUMED.worker_requests} + {hours:,.1f} h x {ASSUMED.polls_h}"
        return Line("SQS", "requests", requests, self.prices.sqs_request, text)

    def of_bulk(self, kind: Bulk) -> list[Line]:
        """Return the lines of a bulk run, without logs and storage."""
        if kind is Bulk.STANDARD:
            each, hit = upload_usage(1, 0, 0, 0.0), upload_usage(0, 1, 0, 0.0)
            child = Usage(transitions=CHILD_TRANSITIONS + 1)  # started by the run, and its own state
            run = Line(
                "Step Functions", "state transitions of the run", RUN_TRANSITIONS, self.prices.standard_transition
            )
            return [
                replace(run, arithmetic=str(RUN_TRANSITIONS)),
                *self._counted(each + child, hit + child),
                *self._functions(_COMPUTED),
            ]
        batch = 100 if kind is Bulk.EXPRESS_100 else 10
        seconds, text = self._bulk_s(kind)
        usage = express_usage(self.images, self.cached, batch, self.computed * seconds, self.memory_mb["bulk"])
        lines = _explained(usage.lines(self.prices), self._express_arithmetic(batch, text))
        return lines + (self._transform() if kind is Bulk.TRANSFORM else [])

    def _bulk_s(self, kind: Bulk) -> tuple[float, str]:
        """Return the seconds of an image in the bulk function, and how they come about."""
        seconds = _seconds("bulk", self.memory_mb["bulk"])
        if kind is Bulk.TRANSFORM:
            network = durations().functions["segment"].seconds(self.memory_mb["bulk"])
            return seconds - network, f"({seconds:.4f} s - {network:.4f} s)"
        return seconds, f"{seconds:.4f} s"

    def _express_arithmetic(self, batch: int, seconds: str) -> dict[str, str]:
        children, gb = f"{-(-self.images // batch):,}", self.memory_mb["bulk"] / 1024
        return {
            "state transitions": f"{RUN_TRANSITIONS} + {CHILD_TRANSITIONS} x {children} children",
            "Express executions": children,
            "GB-seconds of Express": f"{self.computed:,} x {seconds} x {EXPRESS_GB:g} GB",
            "requests": children,
            "GB-seconds": f"{self.computed:,} x {seconds} x {gb:.4f} GB",
            "PUT, COPY and LIST requests": f"{self.computed:,} x 3 + {self.images:,} / 1,000",
            "GET and HEAD requests": f"{self.images:,} x 2 + {self.computed:,} x 2",
            "write request units": f"{self.computed:,} x 3",
            "read request units": f"{self.computed:,} x 1",
        }

    def _transform(self) -> list[Line]:
        """Return what a transform job takes besides Express children: requests for masks, and its instance."""
        children = f"{-(-self.images // REQUEST_BATCH):,}"
        arithmetic = {
            "state transitions": f"{TRANSFORM_TRANSITIONS} + {CHILD_TRANSITIONS} x {children} children",
            "Express executions": children,
            "GB-seconds of Express": f"{self.images:,} x {REQUEST_S:g} s x {EXPRESS_GB:g} GB",
            "requests": children,
            "GB-seconds": f"{self.images:,} x {REQUEST_S:g} s x {REQUEST_GB:.4f} GB",
            "PUT, COPY and LIST requests": f"{self.computed:,} + {children}",
            "GET and HEAD requests": f"{self.images:,} x 2 + {self.computed:,} x 4",
            "read request units": f"{self.computed:,} x 1",
        }
        lines = _explained(mask_usage(self.images, self.computed).lines(self.prices), arithmetic)
        named = [replace(line, item=f"{line.item} for masks") for line in lines]
        hours = (self.computed * ASSUMED.gpu_s + ASSUMED.endpoint_start_s) / 3600
        text = f"({self.computed:,} x {ASSUMED.gpu_s:g} s + {ASSUMED.endpoint_start_s:g} s) / 3,600"
        return [*named, Line("SageMaker", f"hours of {GPU}", hours, self.prices.instance_h[GPU], text)]

    def traffic(self, method: Method) -> list[Line]:
        """Return the lines of uploads, downloads, events, logs and traces."""
        prices, images = self.prices, f"{self.images:,}"
        express = isinstance(method, Bulk) and method is not Bulk.STANDARD
        log_bytes = self.computed * ASSUMED.log_bytes + self.cached * ASSUMED.hit_log_bytes
        text = f"{self.computed:,} x {ASSUMED.log_bytes:,} + {self.cached:,} x {ASSUMED.hit_log_bytes:,} bytes"
        if express:  # one function instead of five
            log_bytes, text = (
                self.computed * ASSUMED.log_bytes // 5,
                f"{self.computed:,} x {ASSUMED.log_bytes:,} bytes / 5",
            )
        lines = [
            Line("S3", "uploads of sources", self.images, prices.s3_write, images),
            Line("S3", "downloads of results", self.images, prices.s3_read, images),
            Line("CloudWatch", "GB of logs", log_bytes / 1e9, prices.log_gb, text),
            Line("CloudWatch", "GB-months of logs", log_bytes / 1e9, prices.log_gb_month, "the same, for a month"),
            self._events(express),
        ]
        if isinstance(method, Host):  # it leaves out what bulk runs and the API upload
            lines += self._sweep()
        return lines if express else [*lines, Line("X-Ray", "traces", self.images, prices.trace, images)]

    def _sweep(self) -> list[Line]:
        """Return the lines of the sweep, which lists the sources each hour and looks for the outcome of new ones."""
        pages, text = self.images / 1000 * HOURS, f"{self.images:,} / 1,000 x {HOURS} runs"
        gb = _SWEEP_MB / 1024
        wait = f"{text} x {ASSUMED.s3_request_s:g} s x {gb:g} GB"
        return [
            Line("S3", "lists of the sweep", pages, self.prices.s3_write, text),
            Line("S3", "reads of the sweep", self.images, self.prices.s3_read, f"{self.images:,}"),
            Line("Lambda", "GB-seconds of the sweep", pages * ASSUMED.s3_request_s * gb, self.prices.lambda_gb_s, wait),
        ]

    def _events(self, express: bool) -> Line:
        """Return the line of S3's events: of the source, of the result and of its sidecar."""
        written = self.computed if express else self.images
        text = f"{self.images:,} sources + {written:,} x 2 results and sidecars"
        return Line("EventBridge", "events of S3", self.images + 2 * written, self.prices.event, text)

    def storage(self, method: Method) -> list[Line]:
        """Return the lines of what is stored for a month: the sources and results of a month."""
        express, prices = isinstance(method, Bulk) and method is not Bulk.STANDARD, self.prices
        written, months = self.computed if express else self.images, ASSUMED.days_kept / 30
        parts = (
            ("sources", self.images, ASSUMED.source_bytes, months),
            ("results", written, ASSUMED.result_bytes + ASSUMED.sidecar_bytes, months),
            ("cached results", self.computed, ASSUMED.result_bytes, months),
            ("masks and alphas", 0 if express else self.computed, ASSUMED.work_bytes, 2 / 30),
        )
        lines = [
            Line(
                "S3",
                f"GB-months of {name}",
                count * size / 1e9 * share,
                prices.s3_gb_month,
                f"{count:,} x {size:,} bytes x {share:.3g} month{'' if share == 1 else 's'}",
            )
            for name, count, size, share in parts
        ]
        items = self.computed * ASSUMED.item_bytes / 1e9 * months
        text = f"{self.computed:,} x {ASSUMED.item_bytes:,} bytes"
        return [*lines, Line("DynamoDB", "GB-months of the cache", items, prices.dynamodb_gb_month, text)]


def _explained(lines: list[Line], arithmetic: Mapping[str, str]) -> list[Line]:
    return [replace(line, arithmetic=arithmetic[line.item]) for line in lines if line.quantity]


def _seconds(function: str, memory_mb: int) -> float:
    """Return the billed seconds of a warm call on AWS: as measured, and the time of requests to S3."""
    return durations().functions[function].seconds(memory_mb) + _S3_CALLS[function] * ASSUMED.s3_request_s


def _cold_s(function: str, memory_mb: int) -> float:
    """Return the seconds that a cold start is billed in addition, from the largest measured size that fits."""
    samples = durations().functions[function].samples
    sample = next((one for one in reversed(samples) if one.memory_mb <= memory_mb), samples[0])
    return sample.init_seconds + max(0.0, sample.first_seconds - sample.seconds)


def _fixed(method: Method, prices: Prices) -> list[Line]:
    """Return the lines of an idle stack: a real-time endpoint has one instance at least, the other hosts none."""
    one = FIXED
    lines = [
        Line("CloudWatch", "metrics of alarms", one.alarm_metrics, prices.alarm_metric),
        Line("CloudWatch", "composite alarms", one.composite_alarms, prices.composite_alarm),
        Line("CloudWatch", "dashboards", one.dashboards, prices.dashboard),
        Line("CloudWatch", "custom metrics", one.custom_metrics, prices.custom_metric),
        Line("KMS", "keys", one.keys, prices.key_month),
        Line("Secrets Manager", "secrets", one.secrets, prices.secret_month),
        Line("ECR", "GB-months", ASSUMED.image_gb, prices.image_gb_month),
    ]
    if method in (Host.SAGEMAKER, Host.SAGEMAKER_ASYNC):
        lines.append(
            Line("CloudWatch", "metrics of the endpoint's alarms", one.endpoint_alarm_metrics, prices.alarm_metric)
        )
    if method is Host.SAGEMAKER:
        first = f"{HOURS} h x 1, the first instance"
        lines.append(Line("SageMaker", f"hours of {_CPU_INSTANCE}", HOURS, prices.instance_h[_CPU_INSTANCE], first))
    if method not in (Host.FARGATE, Host.FARGATE_SPOT, Host.GPU, Host.GPU_SPOT):
        return lines
    count = one.endpoints + (one.gpu_endpoints if method in (Host.GPU, Host.GPU_SPOT) else 0)
    text = f"{count} x {ASSUMED.zones} zones x {HOURS} h"
    return [
        *lines,
        Line("CloudWatch", "metrics of the worker's alarms", one.worker_alarm_metrics, prices.alarm_metric),
        Line("CloudWatch", "metrics of Container Insights", one.insights_metrics, prices.custom_metric),
        Line("VPC", "hours of interface endpoints", count * ASSUMED.zones * HOURS, prices.endpoint_h, text),
    ]
