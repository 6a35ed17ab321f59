"""The sweep finds what events have missed, on the deployed template."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from functions.sweep.progress import KEY
from tests.conftest import client, disc
from tests.integration.deployment import Deployed, next_second, until

DRAFT = {"pbr-precision_level": "draft"}
RULES = ("RemoveBackgroundUpload", "ReconcileFunctionEnded")


@pytest.fixture
def without_rules(stack: Deployed) -> Iterator[None]:
    """Deliver no events of uploads, and none of the ends of executions."""
    events = client("events", stack.cloud.endpoint_url, stack.cloud.region)
    rules = [one["Name"] for one in events.list_rules()["Rules"] if any(name in one["Name"] for name in RULES)]
    assert len(rules) == 2
    for name in rules:
        events.disable_rule(Name=name)
    yield
    for name in rules:
        events.enable_rule(Name=name)


def sweep(stack: Deployed, **request: Any) -> dict[str, Any]:
    """Run the next pass, or one that looks at all uploads ``since`` a time. Uploads may be of any age."""
    next_second()
    answer = client("lambda", stack.cloud.endpoint_url, stack.cloud.region).invoke(
        FunctionName=stack.outputs["SweepFunctionArn"], Payload=json.dumps({"min_age_s": 0, **request})
    )
    found = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer and found["complete"], found
    return dict(found)


def started(stack: Deployed) -> set[str]:
    found = stack.sfn.list_executions(stateMachineArn=stack.outputs["StateMachineArn"])["executions"]
    return {one["executionArn"] for one in found if one["name"].startswith("sweep-")}


def lost_uploads(stack: Deployed) -> float:
    """Return the sum of the metric."""
    logs = client("logs", stack.cloud.endpoint_url, stack.cloud.region)
    events = logs.filter_log_events(logGroupName=f"/aws/lambda/{stack.cloud.stack_name}-sweep")["events"]
    lines = [json.loads(event["message"]) for event in events if '"LostUploads"' in event["message"]]
    assert {tuple(map(tuple, line["_aws"]["CloudWatchMetrics"][0]["Dimensions"])) for line in lines} == {((),)}
    return sum(line["LostUploads"][0] for line in lines)


def invocations(stack: Deployed, function: str) -> int:
    logs = client("logs", stack.cloud.endpoint_url, stack.cloud.region)
    pages = logs.get_paginator("filter_log_events").paginate(
        logGroupName=f"/aws/lambda/{stack.cloud.stack_name}-{function}", filterPattern='"START RequestId"'
    )
    return sum(len(page["events"]) for page in pages)


def test_events_of_uploads_and_executions_invoke_no_scheduled_function(stack: Deployed) -> None:
    scheduled = {name: invocations(stack, name) for name in ("sweep", "digest")}
    validated = invocations(stack, "validate")
    assert stack.process("sweep/processed.png", disc(seed=84), DRAFT).status == "SUCCEEDED"
    until(lambda: invocations(stack, "validate") == validated + 1)
    assert {name: invocations(stack, name) for name in scheduled} == scheduled


def test_a_lost_upload_is_processed_once(stack: Deployed, without_rules: None) -> None:
    sweep(stack, since="2026-01-01T00:00:00Z")  # those of other tests have their outcomes
    before, counted = started(stack), lost_uploads(stack)
    stack.upload("sweep/lost.png", disc(seed=81), DRAFT)
    stack.upload("api/sweep/skipped.png", disc(seed=82))
    assert sweep(stack)["started"] == 1
    [execution] = started(stack) - before
    assert stack.wait(execution).status == "SUCCEEDED"
    assert stack.result("results/sweep/lost.png.png")
    assert (again := sweep(stack))["started"] + again["open"] + again["reconciled"] == 0
    assert lost_uploads(stack) - counted == 1
    assert stack.s3.head_object(Bucket=stack.outputs["WorkBucket"], Key=KEY)


@pytest.mark.slow
def test_an_execution_of_the_sweep_that_was_stopped_is_reported(stack: Deployed, without_rules: None) -> None:
    sweep(stack, since="2026-01-01T00:00:00Z")
    before = started(stack)
    with stack.no_workers():
        stack.upload("sweep/stopped.png", disc(seed=83), {**DRAFT, "pbr-segmentation_host": "ecs"})
        assert sweep(stack)["started"] == 1
        [stopped] = started(stack) - before
        until(lambda: "SegmentOnEcs" in stack.states_of(stopped))
        again = sweep(stack)
        assert (again["open"], again["started"]) == (1, 0)
        stack.sfn.stop_execution(executionArn=stopped)
    assert not stack.is_reported("sweep/stopped.png")
    assert sweep(stack)["reconciled"] == 1
    until(lambda: stack.is_reported("sweep/stopped.png"))
    report = stack.report("sweep/stopped.png")
    assert (report["stage"], report["error"]) == ("SegmentOnEcs", "ExecutionAborted")
    assert sweep(stack)["reconciled"] == 0
