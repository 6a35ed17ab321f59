"""Log lines of executions: each function that takes part logs the job ID, and no line has a secret."""

import json
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from client import api_keys, history, logs
from client.logs import Line, Report
from client.stack import Stack
from functions.contracts.api_key import Scope
from tests.conftest import client, disc
from tests.integration.deployment import Deployed, until

STAGES = {"validate", "segment", "refine", "encode", "metrics"}
FAILURE = {"validate", "failure", "metrics", "reconcile"}

PLATFORM = re.compile(
    r"(START|END|REPORT) RequestId: |RequestId: \S+ Error: |\S+ \S+ Task timed out|"
    r"\[ERROR\] |Traceback \(most recent call last\):$|\s\s|The container ended with "
)
"""Lines of Lambda, those of its runtime about an error that a function raised, and those of the embedded cloud."""


@pytest.fixture(scope="module")
def connected(stack: Deployed) -> Stack:
    cloud = stack.cloud
    return Stack.connect(cloud.stack_name, region=cloud.region, endpoint_url=cloud.endpoint_url)


@pytest.fixture(scope="module")
def read(connected: Stack) -> Callable[[str, set[str]], list[Line]]:
    """Return the lines of an execution once all of these sources have some with a result."""

    def lines_of(name: str, sources: set[str]) -> list[Line]:
        [execution] = history.named(connected, [name])

        def complete() -> list[Line]:
            found = logs.lines(connected, execution)
            ended = {line.source for line in found if line.message in ("stage done", "stage failed")}
            return found if ended >= sources else []

        return until(complete, timeout_s=60)

    return lines_of


def name_of(execution_arn: str) -> str:
    return execution_arn.rpartition(":")[2]


@pytest.mark.parametrize("host", ["lambda", "ecs", "sagemaker"])
def test_each_stage_logs_the_job_on_every_host(
    stack: Deployed, read: Callable[[str, set[str]], list[Line]], host: str
) -> None:
    key = f"logged-{host}.png"
    version = stack.upload(key, disc(seed=700 + len(host)), {"pbr-segmentation-host": host})
    execution = stack.execution_of(key, version)
    assert stack.wait(execution).output["model"]["host"] == host
    segments = {"lambda": "segment", "ecs": "worker", "sagemaker": "endpoint"}[host]
    found = read(name_of(execution), STAGES - {"segment"} | {segments})
    assert {line.source for line in found} == STAGES - {"segment"} | {segments}
    assert [line.at for line in found] == sorted(line.at for line in found)
    order = dict.fromkeys(line.source for line in found if line.message == "stage done")  # a busy host is called again
    assert list(order) == ["validate", segments, "refine", "encode", "metrics"]


def test_reports_have_duration_and_memory_of_each_invocation(
    stack: Deployed, connected: Stack, read: Callable[[str, set[str]], list[Line]]
) -> None:
    execution = stack.execution_of("reported.png", stack.upload("reported.png", disc(seed=710)))
    stack.wait(execution)
    [found] = history.named(connected, [name_of(execution)])

    def complete() -> list[Report]:
        some = logs.reports(connected, found)
        return some if {report.function for report in some} == STAGES else []

    reports = until(complete)
    for report in reports:
        assert report.status == "success"
        assert report.duration_ms <= report.billed_ms
        assert 20 < (report.max_memory_mb or 0) < 1024
    assert {report.function: report.memory_mb for report in reports}["metrics"] == 512


def test_a_failure_and_a_stopped_execution_log_their_reports(
    stack: Deployed, read: Callable[[str, set[str]], list[Line]]
) -> None:
    execution = stack.execution_of("no-image.png", stack.upload("no-image.png", b"no image"))
    stack.wait(execution)
    found = read(name_of(execution), FAILURE)
    [failed] = [line for line in found if line.message == "stage failed"]
    assert (failed.source, failed.level, failed.fields["failure"]["error"]) == (
        "validate",
        "WARNING",
        "UnsupportedFormatError",
    )
    assert [line for line in found if logs.is_at_least(line, "WARNING")] == [failed]


def test_a_job_of_the_api_is_logged_from_the_request_to_the_webhook(
    stack: Deployed, connected: Stack, read: Callable[[str, set[str]], list[Line]]
) -> None:
    key = api_keys.create(
        connected, "logs", Scope, rate_per_minute=600, monthly_quota=None, lifetime=None, now=datetime.now(UTC)
    ).key
    headers = {"X-API-Key": key.reveal(), "Idempotency-Key": str(uuid.uuid4())}
    form = {"webhook_url": "https://hooks.invalid/hook?secret=hunter2"}
    with httpx.Client(base_url=stack.outputs["ApiUrl"], headers=headers, timeout=40) as api:
        answer = api.post("/process", files={"image": ("cup.png", disc(seed=712))}, data=form)
        assert answer.status_code == 200, answer.text
        job = answer.json()["job_id"]
        stack.wait(f"{stack.outputs['StateMachineArn'].replace(':stateMachine:', ':execution:')}:{job}")
        assert api.get(f"/jobs/{job}").json()["status"] == "succeeded"
    found = read(job, STAGES | {"webhook"})
    assert {line.source for line in found} >= STAGES | {"api", "webhook"}
    assert "job started" in [line.message for line in found if line.source == "api"]
    assert not [line for line in every_line(stack) if key.reveal() in line or "hunter2" in line]


def test_every_line_is_json_without_secrets(stack: Deployed) -> None:
    """Runs last: of all executions of this package."""
    written = every_line(stack)
    assert len(written) > 100
    assert [line for line in written if not PLATFORM.match(line) and not is_object(line)] == []
    tokens = [
        token
        for execution in stack.sfn.list_executions(stateMachineArn=stack.outputs["StateMachineArn"])["executions"]
        for token in tokens_of(stack, execution["executionArn"])
    ]
    assert tokens
    for secret in ("X-Amz-Signature", "X-Amz-Security-Token", *tokens):
        assert [line for line in written if secret in line] == []


def every_line(stack: Deployed) -> list[str]:
    """Return the messages of all log groups, those of Python's tracebacks included."""
    reader = client("logs", stack.cloud.endpoint_url, stack.cloud.region)
    names = [group["logGroupName"] for group in reader.describe_log_groups()["logGroups"]]
    return [
        event["message"]
        for name in names
        for page in reader.get_paginator("filter_log_events").paginate(logGroupName=name)
        for event in page["events"]
    ]


def is_object(line: str) -> bool:
    try:
        document: Any = json.loads(line)
    except ValueError:
        return False
    return isinstance(document, dict)


def tokens_of(stack: Deployed, execution_arn: str) -> list[str]:
    """Return the task tokens that an execution passed on."""
    history_of = stack.sfn.get_execution_history(executionArn=execution_arn, maxResults=1000)["events"]
    scheduled = (event["taskScheduledEventDetails"] for event in history_of if event["type"] == "TaskScheduled")
    return [token for task in scheduled for token in re.findall(r'"[Tt]oken"\s*:\s*"([^"]+)"', task["parameters"])]
