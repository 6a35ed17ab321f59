"""In-memory fakes of CloudWatch metrics and of queues, and a stack that has them."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from client import overview
from client.overview import NAMESPACE, Backlog, Overview, Range
from client.stack import Stack
from tests.fakes.stack_in_memory import Executions, stack

NOW = datetime(2026, 3, 1, 12, 34, 56, tzinfo=UTC)

_OURS = NAMESPACE.format(stack=stack().name)

Key = tuple[str, str, tuple[tuple[str, str], ...]]


class Metrics:
    """CloudWatch, with few results per page.

    Attributes:
        requested: number of queries of each request of GetMetricData.
    """

    def __init__(self) -> None:
        self.data: dict[Key, list[tuple[datetime, float]]] = defaultdict(list)
        self.requested: list[int] = []

    def put(self, name: str, value: float, at: datetime, *, namespace: str = _OURS, **dimensions: str) -> None:
        self.data[namespace, name, tuple(sorted(dimensions.items()))].append((at, value))

    def get_paginator(self, operation: str) -> "_Pages":
        return _Pages(self, operation)


class _Pages:
    def __init__(self, metrics: Metrics, operation: str) -> None:
        self._metrics, self._operation = metrics, operation

    def paginate(self, **request: Any) -> Iterator[dict[str, Any]]:
        if self._operation == "list_metrics":
            for namespace, name, dimensions in self._metrics.data:
                if namespace == request["Namespace"]:
                    pairs = [{"Name": key, "Value": value} for key, value in reversed(dimensions)]
                    yield {"Metrics": [{"Namespace": namespace, "MetricName": name, "Dimensions": pairs}]}
            return
        assert self._operation == "get_metric_data"
        assert request["StartTime"].second == 0  # CloudWatch rounds down to the minute
        self._metrics.requested.append(len(request["MetricDataQueries"]))
        assert 0 < self._metrics.requested[-1] <= 500
        for query in request["MetricDataQueries"]:
            found = self._answer(query["MetricStat"], request["StartTime"], request["EndTime"])
            yield {"MetricDataResults": [{"Id": query["Id"], "Timestamps": [], "Values": []}]}
            for at, value in found:  # the values of a query may be on several pages
                yield {"MetricDataResults": [{"Id": query["Id"], "Timestamps": [at], "Values": [value]}]}

    def _answer(self, wanted: dict[str, Any], start: datetime, end: datetime) -> list[tuple[datetime, float]]:
        metric, period = wanted["Metric"], timedelta(seconds=wanted["Period"])
        assert wanted["Period"] % 60 == 0
        dimensions = tuple(sorted((one["Name"], one["Value"]) for one in metric["Dimensions"]))
        periods: dict[datetime, list[float]] = defaultdict(list)
        for at, value in self._metrics.data.get((metric["Namespace"], metric["MetricName"], dimensions), []):
            if start <= at < end:
                periods[start + (at - start) // period * period].append(value)
        return [(at, _statistic(wanted["Stat"], values)) for at, values in sorted(periods.items(), reverse=True)]


def _statistic(name: str, values: list[float]) -> float:
    if name.startswith("p"):
        return float(np.percentile(values, float(name[1:])))
    return float({"Sum": sum(values), "SampleCount": len(values), "Maximum": max(values)}[name])


class Queues:
    """SQS. ``messages`` has the number of waiting and of received messages by the URL of the queue."""

    def __init__(self) -> None:
        self.messages: dict[str, tuple[int, int]] = {}

    def get_queue_attributes(self, **request: Any) -> dict[str, Any]:
        waiting, received = self.messages.get(request["QueueUrl"], (0, 0))
        counts = {"ApproximateNumberOfMessages": waiting, "ApproximateNumberOfMessagesNotVisible": received}
        return {"Attributes": {name: str(counts[name]) for name in request["AttributeNames"]}}


class Cloud:
    """A stack with metrics, queues and executions."""

    def __init__(self) -> None:
        self.metrics, self.queues, self.executions = Metrics(), Queues(), Executions()
        self.outputs: dict[str, str] = {}
        self.parameters: dict[str, str] = {}
        self.endpoint_url: str | None = None

    @property
    def stack(self) -> Stack:
        plain = stack(self.executions, sqs=self.queues)
        return replace(
            plain,
            endpoint_url=self.endpoint_url,
            outputs={**plain.outputs, **self.outputs},
            parameters=self.parameters,
            client=lambda service: self.metrics if service == "cloudwatch" else plain.client(service),
        )

    def read(self, span: Range = Range.HOUR) -> Overview:
        return overview.read(self.stack, span, NOW)

    def backlog(self) -> Backlog:
        return overview.backlog(self.stack)

    def count(self, name: str, minutes_ago: float = 10, **dimensions: str) -> None:
        self.metrics.put(name, 1, NOW - timedelta(minutes=minutes_ago), **dimensions)

    def took(self, stage: str, *seconds: float, size: str = "<=1MP") -> None:
        for value in seconds:
            self.metrics.put("ProcessingTime", value * 1000, NOW - timedelta(minutes=5), Stage=stage, ImageSize=size)
