"""The usage that costs are computed from is that of executions of the deployed state machine."""

from collections import Counter
from itertools import pairwise

import pytest

from bench.load import photograph
from client.monthly_cost import ASSUMED
from functions.contracts.prices import Usage, upload_usage
from tests.conftest import client
from tests.integration.deployment import Deployed, Ended, until

LOG_OVERHEAD_BYTES = 26
"""What CloudWatch adds to each event when it bills ingestion."""


def usage_of(stack: Deployed, ended: Ended, *keys: str) -> Usage:
    """Return what an execution used, counted from its history and from the requests with its object keys."""
    upload = ("PUT", stack.outputs["UploadsBucket"])  # what this test itself did
    requests = [
        one
        for one in stack.crashes.requests
        if any(key in one.path for key in keys) and (one.method, one.path.split("/")[1]) != upload
    ]
    methods = Counter(one.method for one in requests)
    scheduled = [one["taskScheduledEventDetails"] for one in ended.events if one["type"] == "TaskScheduled"]
    return Usage(
        transitions=sum(one["type"].endswith("StateEntered") for one in ended.events),
        lambda_requests=sum(one["resourceType"] == "lambda" for one in scheduled),
        s3_writes=methods["PUT"],
        s3_reads=methods["GET"] + methods["HEAD"],
    )


def log_bytes(stack: Deployed, ended: Ended) -> int:
    """Return the bytes that an execution's functions wrote to their logs. A stream has one call after the other."""
    logs, name, total = (
        client("logs", stack.cloud.endpoint_url, stack.cloud.region),
        ended.output["execution"]["name"],
        0,
    )
    for group in logs.describe_log_groups(logGroupNamePrefix="/aws/lambda/")["logGroups"]:
        for stream in logs.describe_log_streams(logGroupName=group["logGroupName"])["logStreams"]:
            where = {"logGroupName": group["logGroupName"], "logStreamName": stream["logStreamName"]}
            lines = [one["message"] for one in logs.get_log_events(**where, startFromHead=True, limit=10_000)["events"]]
            starts = [index for index, line in enumerate(lines) if line.startswith("START ")]
            calls = [lines[start:end] for start, end in pairwise([*starts, len(lines)])]
            ours = [call for call in calls if any(name in line for line in call)]
            total += sum(len(line.encode()) + LOG_OVERHEAD_BYTES for call in ours for line in call)
    return total


def size(stack: Deployed, bucket: str, key: str) -> int:
    return stack.s3.head_object(Bucket=stack.outputs[bucket], Key=key)["ContentLength"]


def counted(usage: Usage) -> tuple[float, ...]:
    return usage.transitions, usage.lambda_requests, usage.s3_writes, usage.s3_reads


def test_uploads_use_what_costs_are_computed_from(stack: Deployed) -> None:
    data, about = photograph(2.0), lambda value: pytest.approx(value, rel=0.3)
    stack.crashes.requests.clear()
    computed = stack.process("cost/a.jpg", data)
    cache_key = computed.output["cache"]["key"]
    assert counted(usage_of(stack, computed, "cost/a.jpg", cache_key)) == counted(upload_usage(1, 0, 0, 0))

    stack.crashes.requests.clear()
    hit = stack.process("cost/b.jpg", data)
    assert counted(usage_of(stack, hit, "cost/b.jpg", cache_key)) == counted(upload_usage(0, 1, 0, 0))

    item = until(lambda: next((one for one in stack.cached() if one["cache_key"]["S"] == cache_key), None))
    item_bytes = len("".join(name + text for name, typed in item.items() for text in typed.values()))
    assert -(-item_bytes // 1024) + 1 == upload_usage(1, 0, 0, 0).dynamodb_writes  # and one for the claim
    assert item_bytes == about(ASSUMED.item_bytes)
    assert len(data) == about(ASSUMED.source_bytes)
    assert size(stack, "ResultsBucket", "results/cost/a.jpg.png") == about(ASSUMED.result_bytes)
    assert size(stack, "ResultsBucket", "results/cost/a.jpg.png.json") == about(ASSUMED.sidecar_bytes)
    work = stack.s3.list_objects_v2(Bucket=stack.outputs["WorkBucket"], Prefix=f"work/{cache_key}/")["Contents"]
    assert sum(one["Size"] for one in work) == about(ASSUMED.work_bytes)
    assert log_bytes(stack, computed) == about(ASSUMED.log_bytes)
    assert log_bytes(stack, hit) == about(ASSUMED.hit_log_bytes)
