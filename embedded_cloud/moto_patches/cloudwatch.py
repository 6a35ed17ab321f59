"""CloudWatch: metrics from logs, exact dimensions, percentiles, and a limit on the data in memory."""

import math
import re
from collections import defaultdict, deque
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from moto.cloudwatch.exceptions import InvalidParameterCombination, InvalidParameterValue, ValidationError
from moto.cloudwatch.models import CloudWatchBackend, MetricDatum, cloudwatch_backends
from moto.cloudwatch.responses import CloudWatchResponse
from moto.core.responses import ActionResult
from moto.logs.models import LogStream

from embedded_cloud import embedded_metrics
from embedded_cloud.moto_patches.around import around

KEPT_DATA = 50_000  # up to 70 MB, or 5,000 uploads
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
    self.metric_data = deque(maxlen=KEPT_DATA)


@around(CloudWatchBackend, "get_all_metrics")
def copy_all_metrics(_original: Any, self: Any) -> list[Any]:
    """Like moto's, for the type of :func:`keep_recent_data`."""
    return [*self.metric_data, *self.aws_metric_data]


def _dimensions(datum: Any) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((dimension.name, dimension.value) for dimension in datum.dimensions))


@around(CloudWatchBackend, "get_filtered_metrics")
def list_each_metric_once(
    _original: Any, self: Any, metric_name: str, namespace: str, dimensions: list[dict[str, str]]
) -> list[Any]:
    """AWS lists a metric once; moto once per datum if the metric has no dimensions, or several."""
    metrics = {
        (datum.namespace, datum.name, _dimensions(datum)): datum
        for datum in self.get_all_metrics()
        if datum.filter(namespace, metric_name, dimensions)
    }
    return list(metrics.values())


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

    AWS computes percentiles and metric math; moto returns no value, and a wrong one for SELECT. Metric math is rejected
    here.
    """
    if start_time >= end_time:
        raise ValidationError("The parameter StartTime must be less than the parameter EndTime.")
    results = {}
    for query in queries:
        if "MetricStat" not in query:
            continue
        wanted = query["MetricStat"]
        metric, stat = wanted["Metric"], wanted["Stat"]
        data = _select(self, metric["Namespace"], metric["MetricName"], metric.get("Dimensions", ()))
        periods = _periods(data, start_time, end_time, int(wanted["Period"]), wanted.get("Unit"))
        values = {begin: _statistic(stat, found) for (begin, _unit), found in periods.items()}
        found = sorted(((begin, value) for begin, value in values.items() if value is not None), reverse=True)
        label = query.get("Label") or f"{metric['MetricName']} {stat}"
        results[query["Id"]] = label, found[:: -1 if scan_by == "TimestampAscending" else 1]
    return [
        {
            "id": query["Id"],
            "label": query.get("Label") or label,
            "timestamps": [begin for begin, _ in found],
            "values": [value for _, value in found],
            "status_code": "Complete",
        }
        for query in queries
        if query.get("ReturnData", True)
        for label, found in [results.get(query["Id"]) or _referenced(query, results)]
    ]


def _referenced(query: dict[str, Any], results: dict[str, Any]) -> Any:
    if (expression := query["Expression"].strip()) not in results:
        message = f"Expression {expression} is not supported by the embedded cloud. Use the Id of another query."
        raise ValidationError(message)
    return query["Id"], results[expression][1]


@around(CloudWatchResponse, "get_metric_statistics")
def compute_percentiles(_original: Any, self: Any) -> ActionResult:
    """AWS reads the metric with exactly these dimensions, and computes percentiles; moto does neither."""
    statistics, percentiles = self._get_param("Statistics", []), self._get_param("ExtendedStatistics", [])
    if not statistics and not percentiles:
        raise InvalidParameterCombination("Must specify either Statistics or ExtendedStatistics")
    name, start, end = (self._get_param(key) for key in ("MetricName", "StartTime", "EndTime"))
    if start >= end:
        raise InvalidParameterValue("The parameter StartTime must be less than the parameter EndTime.")
    data = _select(self.cloudwatch_backend, self._get_param("Namespace"), name, self._get_param("Dimensions", []))
    points = []
    periods = _periods(data, start, end, int(self._get_param("Period")), self._get_param("Unit"))
    for (begin, unit), found in periods.items():
        values = {stat: value for stat in percentiles if (value := _statistic(stat, found)) is not None}
        extended = {"ExtendedStatistics": values} if percentiles else {}
        plain = {stat: _statistic(stat, found) for stat in statistics}
        points.append({"Timestamp": begin, "Unit": unit or "None", **plain, **extended})
    return ActionResult({"Label": name, "Datapoints": points})


def _select(backend: Any, namespace: str, name: str, dimensions: Iterable[dict[str, str]]) -> list[Any]:
    wanted = tuple(sorted((dimension["Name"], dimension["Value"]) for dimension in dimensions))
    return [
        datum
        for datum in backend.get_all_metrics()
        if datum.namespace == namespace and datum.name == name and _dimensions(datum) == wanted
    ]


def _periods(
    data: list[Any], start: datetime, end: datetime, period_s: int, unit: str | None
) -> dict[tuple[datetime, str | None], list[Any]]:
    """Return the data by start of the period and unit. CloudWatch rounds the start down to a minute."""
    start, period = start.replace(second=0, microsecond=0), timedelta(seconds=period_s)
    periods: dict[tuple[datetime, str | None], list[Any]] = defaultdict(list)
    for datum in data:
        if start <= datum.timestamp < end and unit in (None, datum.unit):
            periods[start + (datum.timestamp - start) // period * period, datum.unit].append(datum)
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
