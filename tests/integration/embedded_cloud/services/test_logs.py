"""Search of log events."""

import time
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from embedded_cloud.cloud import EmbeddedCloud
from tests.integration.embedded_cloud.services.testbed import client

pytestmark = pytest.mark.slow  # the state machine's tests run on these services

NOW_MS = int(time.time() * 1000)


@pytest.fixture
def group(cloud: EmbeddedCloud) -> str:
    """A log group with three streams; the numbers are the order of the events."""
    logs, name = client(cloud, "logs"), uuid.uuid4().hex
    logs.create_log_group(logGroupName=name)
    streams = {
        "function/a": [(0, '{"level": "INFO", "n": 1}'), (20, '{"level": "ERROR", "n": 3}')],
        "function/b": [(10, '{"level": "ERROR", "n": 2}')],
        "worker/a": [(30, "stopped at 4")],
    }
    for stream, events in streams.items():
        logs.create_log_stream(logGroupName=name, logStreamName=stream)
        logs.put_log_events(
            logGroupName=name,
            logStreamName=stream,
            logEvents=[{"timestamp": NOW_MS + ms, "message": message} for ms, message in events],
        )
    return name


def search(cloud: EmbeddedCloud, group: str, **conditions: Any) -> list[int]:
    """Return the numbers of the found events."""
    pages = client(cloud, "logs").get_paginator("filter_log_events").paginate(logGroupName=group, **conditions)
    return [int("".join(filter(str.isdigit, event["message"]))) for page in pages for event in page["events"]]


def test_events_of_all_streams_are_sorted_by_time(cloud: EmbeddedCloud, group: str) -> None:
    assert search(cloud, group) == [1, 2, 3, 4]
    assert search(cloud, group, logStreamNamePrefix="function/") == [1, 2, 3]
    assert search(cloud, group, logStreamNames=["worker/a", "function/b"]) == [2, 4]
    assert search(cloud, group, startTime=NOW_MS + 10, endTime=NOW_MS + 20) == [2, 3]


def test_patterns_select_events(cloud: EmbeddedCloud, group: str) -> None:
    assert search(cloud, group, filterPattern='{ $.level = "ERROR" && $.n > 2 }') == [3]
    assert search(cloud, group, filterPattern="?INFO ?stopped") == [1, 4]
    assert search(cloud, group, filterPattern='-"level"') == [4]


def test_events_are_paged(cloud: EmbeddedCloud, group: str) -> None:
    logs = client(cloud, "logs")
    page = logs.filter_log_events(logGroupName=group, limit=2, filterPattern="-INFO")
    assert [len(page["events"]), page["nextToken"] != ""] == [2, True]
    rest = logs.filter_log_events(logGroupName=group, limit=2, filterPattern="-INFO", nextToken=page["nextToken"])
    assert [event["logStreamName"] for event in rest["events"]] == ["worker/a"]
    assert "nextToken" not in rest


@pytest.mark.parametrize(
    ("conditions", "error"),
    [
        ({"filterPattern": "{ $.level }"}, "Invalid filter pattern"),
        ({"nextToken": "x"}, "nextToken is invalid"),
        ({"logStreamNames": ["a"], "logStreamNamePrefix": "a"}, "Only one of"),
        ({"logStreamNames": ["missing"]}, "log stream does not exist: missing"),
        ({"logGroupName": "missing"}, "log group does not exist"),
        ({"limit": 10_001}, "between 1 and 10000"),
    ],
)
def test_invalid_requests_are_rejected(cloud: EmbeddedCloud, group: str, conditions: Any, error: str) -> None:
    with pytest.raises(ClientError, match=error):
        client(cloud, "logs").filter_log_events(**{"logGroupName": group, **conditions})


def test_a_group_is_found_by_its_arn(cloud: EmbeddedCloud, group: str) -> None:
    logs = client(cloud, "logs")
    [described] = logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    assert len(logs.filter_log_events(logGroupIdentifier=described["logGroupArn"])["events"]) == 4


def test_streams_are_ordered_by_their_latest_event(cloud: EmbeddedCloud, group: str) -> None:
    logs = client(cloud, "logs")
    streams = logs.describe_log_streams(logGroupName=group, orderBy="LastEventTime", descending=True)["logStreams"]
    assert [stream["logStreamName"] for stream in streams] == ["worker/a", "function/a", "function/b"]
    events = logs.get_log_events(logGroupName=group, logStreamName="function/a", startFromHead=True, limit=1)
    assert [event["timestamp"] for event in events["events"]] == [NOW_MS]
    rest = logs.get_log_events(logGroupName=group, logStreamName="function/a", nextToken=events["nextForwardToken"])
    assert [event["timestamp"] for event in rest["events"]] == [NOW_MS + 20]


def query(cloud: EmbeddedCloud, group: str, text: str) -> list[dict[str, str]]:
    logs, now = client(cloud, "logs"), NOW_MS // 1000
    started = logs.start_query(logGroupName=group, startTime=now - 60, endTime=now + 60, queryString=text)
    results = logs.get_query_results(queryId=started["queryId"])
    assert results["status"] == "Complete"
    return [{column["field"]: column["value"] for column in row} for row in results["results"]]


def test_a_simple_query_filters_and_sorts(cloud: EmbeddedCloud, group: str) -> None:
    text = "fields @timestamp, @message | filter @message like /ERROR|at/ | sort @timestamp | limit 2"
    rows = query(cloud, group, text)
    assert [row["@message"] for row in rows] == ["stopped at 4", '{"level": "ERROR", "n": 3}']
    assert rows[0]["@timestamp"].endswith(f".{(NOW_MS + 30) % 1000:03d}") and "@logStream" not in rows[0]
    ascending = query(cloud, group, 'sort @timestamp asc | filter @message like "level" | fields @logStream')
    assert [row["@logStream"] for row in ascending] == ["function/a", "function/b", "function/a"]


def test_a_query_that_is_not_supported_is_rejected(cloud: EmbeddedCloud, group: str) -> None:
    with pytest.raises(ClientError, match=r"MalformedQueryException.*does not support: stats count"):
        query(cloud, group, "fields @message | stats count(*) by level")
