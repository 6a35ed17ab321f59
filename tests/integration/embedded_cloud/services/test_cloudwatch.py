"""Metrics, also those of the logs."""

import json
import time
import uuid
import weakref
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.cloudwatch.models import cloudwatch_backends

from embedded_cloud.cloud import EmbeddedCloud
from embedded_cloud.moto_patches.cloudwatch import KEPT_DATA
from tests.integration.embedded_cloud.services.testbed import Machines, client, task

pytestmark = pytest.mark.slow  # the state machine's tests run on these services


def write(cloud: EmbeddedCloud, namespace: str, values: list[float], **dimensions: str) -> None:
    """Write a log event in embedded metric format."""
    logs, group = client(cloud, "logs"), uuid.uuid4().hex
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="s")
    metrics = [{"Name": "Time", "Unit": "Milliseconds"}]
    directive = {"Namespace": namespace, "Dimensions": [list(dimensions)], "Metrics": metrics}
    now_ms = int(time.time() * 1000)
    metadata = {"Timestamp": now_ms, "CloudWatchMetrics": [directive]}
    message = json.dumps({"_aws": metadata, "Time": values, **dimensions})
    events = [{"timestamp": now_ms, "message": message}, {"timestamp": now_ms, "message": "not a metric"}]
    logs.put_log_events(logGroupName=group, logStreamName="s", logEvents=events)


def pairs(dimensions: dict[str, str]) -> list[dict[str, str]]:
    return [{"Name": name, "Value": value} for name, value in dimensions.items()]


def period() -> dict[str, datetime]:
    now = datetime.now(UTC)
    return {"StartTime": now - timedelta(minutes=5), "EndTime": now + timedelta(minutes=1)}


def read(cloud: EmbeddedCloud, namespace: str, stat: str, **dimensions: str) -> list[float]:
    metric = {"Namespace": namespace, "MetricName": "Time", "Dimensions": pairs(dimensions)}
    query = {"Id": "a", "MetricStat": {"Metric": metric, "Period": 3600, "Stat": stat}}
    response = client(cloud, "cloudwatch").get_metric_data(MetricDataQueries=[query], **period())
    return list(response["MetricDataResults"][0]["Values"])


def test_metrics_in_logs_are_published_with_their_dimensions(cloud: EmbeddedCloud) -> None:
    namespace = uuid.uuid4().hex
    for _ in range(2):
        write(cloud, namespace, [1, 2, 6], Stage="refine", Size="small")
    write(cloud, namespace, [100], Stage="refine")
    listed = client(cloud, "cloudwatch").list_metrics(Namespace=namespace)["Metrics"]
    assert sorted(len(metric["Dimensions"]) for metric in listed) == [1, 2]
    statistics = ["SampleCount", "Sum", "Average", "Minimum", "Maximum", "p50", "p90"]
    found = {stat: read(cloud, namespace, stat, Size="small", Stage="refine") for stat in statistics}
    assert found == {
        "SampleCount": [6],
        "Sum": [18],
        "Average": [3],
        "Minimum": [1],
        "Maximum": [6],
        "p50": [2],
        "p90": [6],
    }
    assert read(cloud, namespace, "Sum", Stage="refine") == [100]
    assert read(cloud, namespace, "Sum") == []
    assert read(cloud, "Other", "Sum", Stage="refine") == []


def test_metric_statistics_have_units_and_percentiles(cloud: EmbeddedCloud) -> None:
    namespace = uuid.uuid4().hex
    write(cloud, namespace, [1, 2, 6], Stage="refine")
    asked: dict[str, Any] = {"Namespace": namespace, "MetricName": "Time", "Period": 3600, **period()}
    ask = client(cloud, "cloudwatch").get_metric_statistics
    [point] = ask(**asked, Dimensions=pairs({"Stage": "refine"}), Statistics=["Sum"])["Datapoints"]
    assert (point["Sum"], point["Unit"]) == (9, "Milliseconds")
    [point] = ask(**asked, Dimensions=pairs({"Stage": "refine"}), ExtendedStatistics=["p50"])["Datapoints"]
    assert point["ExtendedStatistics"] == {"p50": 2}
    assert ask(**asked, Statistics=["Sum"])["Datapoints"] == []


def test_unsupported_statistics_and_math_are_rejected(cloud: EmbeddedCloud) -> None:
    namespace = uuid.uuid4().hex
    write(cloud, namespace, [1], Stage="refine")
    with pytest.raises(ClientError, match="Statistic tm90 is not supported"):
        read(cloud, namespace, "tm90", Stage="refine")
    query = {"Id": "a", "Expression": "SELECT SUM(Time) FROM Test", "Period": 60}
    with pytest.raises(ClientError, match="Metrics Insights queries are not supported"):
        client(cloud, "cloudwatch").get_metric_data(MetricDataQueries=[query], **period())


def test_queries_compute_with_metrics_and_search_them(cloud: EmbeddedCloud) -> None:
    namespace = uuid.uuid4().hex
    write(cloud, namespace, [1, 2], Stage="refine")
    write(cloud, namespace, [5], Stage="encode")
    metric = {"Namespace": namespace, "MetricName": "Time", "Dimensions": pairs({"Stage": "refine"})}
    stat = {"Metric": metric, "Period": 3600, "Stat": "Sum"}
    queries = [
        {"Id": "m1", "MetricStat": stat, "ReturnData": False},
        {"Id": "double", "Expression": "2 * m1", "Label": "Twice"},
        {"Id": "all", "Expression": f"SEARCH('{{{namespace},Stage}}', 'Sum', 3600)"},
    ]
    results = client(cloud, "cloudwatch").get_metric_data(MetricDataQueries=queries, **period())["MetricDataResults"]
    assert [(found["Id"], found["Label"], found["Values"]) for found in results] == [
        ("double", "Twice", [6]),
        ("all", "encode Time", [5]),
        ("all", "refine Time", [3]),
    ]


def test_a_state_machine_publishes_metrics(cloud: EmbeddedCloud, machines: Machines) -> None:
    namespace = uuid.uuid4().hex
    put = {"Namespace": namespace, "MetricData": [{"MetricName": "Time", "Value": 4, "Unit": "Count"}]}
    machines.output({"Put": task("aws-sdk:cloudwatch:putMetricData", put)})
    assert read(cloud, namespace, "Sum") == [4]


def test_the_number_of_data_is_limited(cloud: EmbeddedCloud) -> None:
    api, namespace = client(cloud, "cloudwatch"), uuid.uuid4().hex
    datum = {"MetricName": "Time", "Values": [1.0], "Counts": [float(KEPT_DATA)]}
    for _ in range(2):
        api.put_metric_data(Namespace=namespace, MetricData=[datum])
    assert read(cloud, namespace, "SampleCount") == [KEPT_DATA]
    stored = cloudwatch_backends["123456789012"][cloud.region].metric_data
    dropped = weakref.ref(stored.select(namespace, "Time", ())[0])
    stored.clear()
    assert dropped() is None
