"""CloudWatch: metrics from logs, exact dimensions, percentiles, metric math, and a limit on the data in memory."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from moto.cloudwatch.exceptions import InvalidParameterCombination, InvalidParameterValue, ValidationError
from moto.cloudwatch.models import CloudWatchBackend, MetricDatum, cloudwatch_backends
from moto.cloudwatch.responses import CloudWatchResponse
from moto.core.responses import ActionResult
from moto.logs.models import LogStream

from embedded_cloud import embedded_metrics
from embedded_cloud.metric_math import MetricMath, MetricMathError, Series, Window
from embedded_cloud.metric_search import Metric, compile_search
from embedded_cloud.metric_store import Dimensions, RecentData
from embedded_cloud.moto_patches.around import around

KEPT_DATA = 50_000  # up to 15 MB, or 5,000 uploads; and as many of the metrics of services
STATISTICS = "SampleCount, Average, Sum, Minimum, Maximum and percentiles such as p90"
_PERCENTILE = re.compile(r"p(\d{1,2}(\.\d+)?|100)")


@around(LogStream, "put_log_events")
def extract_metrics(original: Any, self: Any, log_events: list[dict[str, Any]]) -> Any:
    """AWS publishes the metrics of log events in embedded metric format; moto only stores the events."""
    token = original(self, log_events)
    backend = cloudwatch_backends[self.account_id][self.region]
    for event in log_events:
        for datum in embedded_metrics.extract(event["message"]):
            dimensions = [{"Name": name, "Value": value} for name, value in datum.dimensions]
            for value in datum.values:
                facts = (datum.namespace, datum.name, value, dimensions, datum.timestamp, datum.unit)
                backend.metric_data.append(MetricDatum(*facts))
    return token


@around(CloudWatchBackend, "__init__")
def keep_recent_data(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    """AWS deletes data at a certain age; moto never. This keeps the most recent data."""
    original(self, *args, **kwargs)
    self.metric_data = RecentData(KEPT_DATA)
    self.service_data = RecentData(KEPT_DATA)


@around(CloudWatchBackend, "get_all_metrics")
def copy_all_metrics(_original: Any, self: Any) -> list[Any]:
    """Like moto's, for the type of :func:`keep_recent_data`."""
    return [*self.metric_data, *self.service_data, *self.aws_metric_data]


def _metrics(backend: Any) -> dict[tuple[str, str, Dimensions], Any]:
    """Return a datum of each metric by namespace, name and dimensions."""
    own = {(datum.namespace, datum.name, _pairs(datum.dimensions)): datum for datum in backend.aws_metric_data}
    return {**own, **backend.service_data.metrics(), **backend.metric_data.metrics()}


def _pairs(dimensions: Iterable[Any]) -> Dimensions:
    return tuple(sorted((dimension.name, dimension.value) for dimension in dimensions))


@around(CloudWatchBackend, "get_filtered_metrics")
def list_each_metric_once(
    _original: Any, self: Any, metric_name: str, namespace: str, dimensions: list[dict[str, str]]
) -> list[Any]:
    """AWS lists a metric once; moto once per datum if the metric has no dimensions, or several."""
    return [datum for datum in _metrics(self).values() if datum.filter(namespace, metric_name, dimensions)]


class StoredMetrics:
    """The source of metric math: the metrics of a backend."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def read(self, query: Mapping[str, Any], window: Window) -> Series:
        """Return the values of a query with a ``MetricStat``."""
        wanted = query["MetricStat"]
        metric, stat = wanted["Metric"], wanted["Stat"]
        dimensions = tuple(sorted((one["Name"], one["Value"]) for one in metric.get("Dimensions", ())))
        key = metric["Namespace"], metric["MetricName"], dimensions
        return self._series(
            f"{metric['MetricName']} {stat}", key, stat, int(wanted["Period"]), window, wanted.get("Unit")
        )

    def search(self, expression: str, stat: str, period_s: int, window: Window) -> list[Series]:
        """Return the values of each metric that a search expression finds, without metrics that have no value."""
        matches = compile_search(expression)
        keys = sorted(key for key in _metrics(self._backend) if matches(Metric(*key)))
        found = [
            self._series(
                " ".join([*(value for _, value in dimensions), name]),
                (namespace, name, dimensions),
                stat,
                period_s,
                window,
            )
            for namespace, name, dimensions in keys
        ]
        return [series for series in found if series.points]

    def _series(
        self,
        label: str,
        key: tuple[str, str, Dimensions],
        stat: str,
        period_s: int,
        window: Window,
        unit: str | None = None,
    ) -> Series:
        periods = _periods(_select(self._backend, *key), window, period_s, unit)
        values = {begin: _statistic(stat, found) for (begin, _unit), found in periods.items()}
        return Series(label, period_s, {begin: value for begin, value in values.items() if value is not None})


@around(CloudWatchBackend, "get_metric_data")
def match_all_dimensions(
    _original: Any,
    self: Any,
    queries: list[dict[str, Any]],
    start_time: datetime,
    end_time: datetime,
    scan_by: str = "TimestampDescending",
) -> list[dict[str, Any]]:
    """AWS reads the metric with exactly these dimensions; moto mixes namespaces, and all metrics of a name.

    AWS computes percentiles and metric math; moto returns no value, and wrong ones for most expressions.
    """
    if start_time >= end_time:
        raise ValidationError("The parameter StartTime must be less than the parameter EndTime.")
    evaluation = MetricMath(queries, StoredMetrics(self), Window(_minute(start_time), end_time))
    try:
        return [
            _result(query["Id"], series, descending=scan_by != "TimestampAscending")
            for query in queries
            if query.get("ReturnData", True)
            for series in evaluation.result(query["Id"])
        ]
    except MetricMathError as error:
        raise ValidationError(str(error)) from None


def _result(query_id: str, series: Series, *, descending: bool) -> dict[str, Any]:
    points = sorted(series.points.items(), reverse=descending)
    return {
        "id": query_id,
        "label": series.label,
        "timestamps": [begin for begin, _ in points],
        "values": [value for _, value in points],
        "status_code": "Complete",
    }


def _minute(time: datetime) -> datetime:
    """Return the start of the minute: CloudWatch rounds a start time down."""
    return time.replace(second=0, microsecond=0)


@around(CloudWatchResponse, "get_metric_statistics")
def compute_percentiles(_original: Any, self: Any) -> ActionResult:
    """AWS reads the metric with exactly these dimensions, and computes percentiles; moto does neither."""
    statistics, percentiles = self._get_param("Statistics", []), self._get_param("ExtendedStatistics", [])
    if not statistics and not percentiles:
        raise InvalidParameterCombination("Must specify either Statistics or ExtendedStatistics")
    name, start, end = (self._get_param(key) for key in ("MetricName", "StartTime", "EndTime"))
    if start >= end:
        raise InvalidParameterValue("The parameter StartTime must be less than the parameter EndTime.")
    dimensions = tuple(sorted((one["Name"], one["Value"]) for one in self._get_param("Dimensions", [])))
    data = _select(self.cloudwatch_backend, self._get_param("Namespace"), name, dimensions)
    points = []
    periods = _periods(data, Window(_minute(start), end), int(self._get_param("Period")), self._get_param("Unit"))
    for (begin, unit), found in periods.items():
        values = {stat: value for stat in percentiles if (value := _statistic(stat, found)) is not None}
        extended = {"ExtendedStatistics": values} if percentiles else {}
        plain = {stat: _statistic(stat, found) for stat in statistics}
        points.append({"Timestamp": begin, "Unit": unit or "None", **plain, **extended})
    return ActionResult({"Label": name, "Datapoints": points})


def _select(backend: Any, namespace: str, name: str, dimensions: Dimensions) -> Iterator[Any]:
    """Yield the data of the metric with exactly these dimensions."""
    for store in (backend.metric_data, backend.service_data):
        yield from store.select(namespace, name, dimensions)
    if namespace == "AWS/S3":  # moto counts objects when asked
        for datum in backend.aws_metric_data:
            if datum.name == name and _pairs(datum.dimensions) == dimensions:
                yield datum


def _periods(
    data: Iterable[Any], window: Window, period_s: int, unit: str | None
) -> dict[tuple[datetime, str | None], list[Any]]:
    """Return the data by start of the period and unit."""
    period = timedelta(seconds=period_s)
    periods: dict[tuple[datetime, str | None], list[Any]] = defaultdict(list)
    for datum in data:
        if window.start <= datum.timestamp < window.end and unit in (None, datum.unit):
            begin = window.start + (datum.timestamp - window.start) // period * period
            periods[begin, datum.unit].append(datum)
    return periods


def _statistic(stat: str, data: list[Any]) -> float | None:
    """Return a statistic of data that are not empty, or None for a percentile of statistic sets."""
    single = [datum.value for datum in data if isinstance(datum, MetricDatum)]
    sets = [datum for datum in data if not isinstance(datum, MetricDatum)]
    count = len(single) + sum(item.sample_count for item in sets)
    total = sum(single) + sum(item.sum for item in sets)
    match stat:
        case "SampleCount":
            return float(count)
        case "Sum":
            return float(total)
        case "Average":
            return float(total / count)
        case "Minimum":
            return float(min([*single, *(item.min for item in sets)]))
        case "Maximum":
            return float(max([*single, *(item.max for item in sets)]))
    if not _PERCENTILE.fullmatch(stat):
        raise ValidationError(f"Statistic {stat} is not supported by the embedded cloud, which computes {STATISTICS}.")
    return None if sets else _percentile(float(stat[1:]), sorted(single))


def _percentile(percent: float, ordered: list[float]) -> float:
    position = percent / 100 * (len(ordered) - 1)
    below, above = ordered[math.floor(position)], ordered[math.ceil(position)]
    return below + (above - below) * (position % 1)
