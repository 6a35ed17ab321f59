import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from client import history, logs
from client.commands.logs import Level, print_logs
from client.stack import Stack
from tests.fakes import stack_in_memory
from tests.fakes.aws_account import refusal
from tests.fakes.stack_in_memory import NOW, Executions

REQUEST = "8f5c1d5e-0000-4000-8000-000000000001"
REPORT = (
    f"REPORT RequestId: {REQUEST}\tDuration: 812.31 ms\tBilled Duration: 1904 ms\tMemory Size: 3008 MB\t"
    "Max Memory Used: 611 MB\tInit Duration: 1091.02 ms\t\n"
)
"""As Lambda writes it, see https://docs.aws.amazon.com/lambda/latest/dg/python-logging.html."""


class LogGroups:
    """CloudWatch Logs. Terms of a filter pattern are alternatives; a page has one event."""

    exceptions = SimpleNamespace(ResourceNotFoundException=KeyError)

    def __init__(self) -> None:
        self.events: dict[str, list[dict[str, Any]]] = {}
        self.searches: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.refusals: list[Exception] = []

    def add(self, group: str, message: str | dict[str, Any], after_s: float = 1, stream: str = "s") -> None:
        text = message if isinstance(message, str) else json.dumps(message)
        at = NOW + timedelta(seconds=after_s)
        event = {"eventId": f"{group}{len(self.events.get(group, []))}", "timestamp": int(at.timestamp() * 1000)}
        self.events.setdefault(group, []).append({**event, "message": text, "logStreamName": stream})

    def filter_log_events(self, **request: Any) -> dict[str, Any]:
        self.searches.append(request)
        self.times.append(time.monotonic())
        if self.refusals:
            raise self.refusals.pop()
        terms = [term.strip('?"') for term in request["filterPattern"].split()]
        found = [
            event
            for event in self.events[request["logGroupName"]]
            if request["startTime"] <= event["timestamp"] <= request["endTime"]
            and any(term in event["message"] for term in terms)
        ]
        first = int(request.get("nextToken", 0))
        more = {"nextToken": str(first + 1)} if first + 1 < len(found) else {}
        return {"events": found[first : first + 1], **more}


class Resources:
    """CloudFormation: log groups of a stack and of a nested one."""

    def get_paginator(self, operation: str) -> Any:
        assert operation == "list_stack_resources"
        return SimpleNamespace(paginate=self._pages)

    def _pages(self, *, StackName: str) -> Iterator[dict[str, Any]]:  # noqa: N803
        groups = {"pbr": ["/aws/lambda/pbr-segment", "/aws/lambda/pbr-webhook"], "nested": ["/aws/lambda/pbr-bulk"]}
        found = [("AWS::Logs::LogGroup", name) for name in groups[StackName]]
        if StackName == "pbr":
            found.append(("AWS::CloudFormation::Stack", "nested"))
        for kind, name in found:
            one = {"LogicalResourceId": "Logs", "ResourceType": kind, "PhysicalResourceId": name}
            yield {"StackResourceSummaries": [{**one, "ResourceStatus": "CREATE_COMPLETE"}]}


@pytest.fixture
def groups() -> LogGroups:
    found = LogGroups()
    for name in ("/aws/lambda/pbr-segment", "/aws/lambda/pbr-webhook", "/aws/lambda/pbr-bulk"):
        found.events[name] = []
    return found


@pytest.fixture
def executions() -> Executions:
    found = Executions()
    found.add("job-1", {}, status="SUCCEEDED", stopDate=NOW + timedelta(seconds=9))
    return found


@pytest.fixture
def stack(groups: LogGroups, executions: Executions) -> Stack:
    clients = {"logs": groups, "cloudformation": Resources(), "stepfunctions": executions}
    return replace(stack_in_memory.stack(), client=clients.__getitem__, endpoint_url="http://localhost:1")


def read(stack: Stack) -> list[logs.Line]:
    [execution] = history.named(stack, ["job-1"])
    return logs.lines(stack, execution)


def own(message: str, job: str = "job-1", **fields: Any) -> dict[str, Any]:
    facts = {"level": "INFO", "message": message, "job_id": job, "function_request_id": REQUEST, "location": "f:1"}
    return {**facts, **fields}


def test_lambdas_report_is_found_by_the_request_id(stack: Stack, groups: LogGroups) -> None:
    groups.add("/aws/lambda/pbr-segment", f"START RequestId: {REQUEST} Version: $LATEST")
    groups.add("/aws/lambda/pbr-segment", own("stage done"), 2)
    groups.add("/aws/lambda/pbr-segment", REPORT, 3)
    groups.add("/aws/lambda/pbr-segment", REPORT.replace(REQUEST, "another"), 3)
    done, report = read(stack)
    assert (done.message, done.fields, done.request_id) == ("stage done", {}, REQUEST)
    assert report.report == logs.Report(
        REQUEST, "segment", NOW + timedelta(seconds=3), 812.31, 1904, 3008, 611, 1091.02, "success"
    )
    assert report.message == "ran 812 ms, billed 1,904 ms, start 1,091 ms, 611 of 3008 MB"


@pytest.mark.parametrize(
    ("message", "level"),
    [
        (f"2026-03-01T12:00:01Z {REQUEST} Task timed out after 300.00 seconds", "ERROR"),
        (f"RequestId: {REQUEST} Error: Runtime exited with error: signal: killed", "ERROR"),
        (f"[WARNING] {REQUEST} a library's line", "WARNING"),
        (REPORT.rstrip() + "\tStatus: timeout", "ERROR"),
    ],
)
def test_lambdas_lines_have_a_level(stack: Stack, groups: LogGroups, message: str, level: str) -> None:
    groups.add("/aws/lambda/pbr-segment", own("stage started"))
    groups.add("/aws/lambda/pbr-segment", message, 2)
    assert [line.level for line in read(stack)] == ["INFO", level]


def test_a_name_that_only_starts_alike_is_another_execution(stack: Stack, groups: LogGroups) -> None:
    groups.add("/aws/lambda/pbr-segment", own("stage done", job="job-1-retry-1"))
    groups.add("/aws/lambda/pbr-segment", "job-1-retry-1 as text")
    groups.add("/aws/lambda/pbr-segment", "job-1 as text")
    groups.add("/aws/lambda/pbr-segment", {"level": "INFO", "message": "jobs returned", "jobs": ["job-0", "job-1"]})
    assert [line.message for line in read(stack)] == ["job-1 as text", "jobs returned"]


def test_groups_of_nested_stacks_are_searched_and_lines_sorted_by_time(stack: Stack, groups: LogGroups) -> None:
    groups.add("/aws/lambda/pbr-segment", own("second"), 2)
    groups.add("/aws/lambda/pbr-bulk", own("first"), 1)
    groups.add("/aws/lambda/pbr-segment", own("third"), 3, stream="worker/worker/0af3")
    assert [(line.source, line.message) for line in read(stack)] == [
        ("bulk", "first"),
        ("segment", "second"),
        ("worker", "third"),
    ]


def test_the_search_ends_soon_after_the_execution_but_hours_later_for_webhooks(stack: Stack, groups: LogGroups) -> None:
    read(stack)
    ends = {one["logGroupName"]: datetime.fromtimestamp(one["endTime"] / 1000, UTC) for one in groups.searches}
    assert ends["/aws/lambda/pbr-segment"] < NOW + timedelta(minutes=16)
    assert ends["/aws/lambda/pbr-webhook"] > NOW + timedelta(hours=10)


def test_a_group_that_does_not_exist_yet_has_no_lines(stack: Stack, groups: LogGroups) -> None:
    groups.add("/aws/lambda/pbr-segment", own("stage done"))
    del groups.events["/aws/lambda/pbr-webhook"]
    assert len(read(stack)) == 1


def test_following_yields_each_line_once_until_the_end(stack: Stack, groups: LogGroups, executions: Executions) -> None:
    started = datetime.now(UTC)
    ago_s = (started - NOW).total_seconds()
    executions.add("job-2", {}, startDate=started)
    groups.add("/aws/lambda/pbr-segment", own("stage started", job="job-2"), ago_s)
    [execution] = history.named(stack, ["job-2"])
    followed = logs.follow(stack, execution, poll_s=0, settled_s=0)
    assert next(followed).message == "stage started"
    groups.add("/aws/lambda/pbr-segment", own("stage done", job="job-2"), ago_s)
    executions.end("job-2", "SUCCEEDED", stopDate=started + timedelta(seconds=3))
    assert [line.message for line in followed] == ["stage done"]


def test_following_searches_only_what_is_new(stack: Stack, groups: LogGroups, executions: Executions) -> None:
    started = datetime.now(UTC)
    executions.add("job-2", {}, startDate=started - timedelta(hours=1))
    ago_s = (started - NOW).total_seconds()
    groups.add("/aws/lambda/pbr-segment", own("stage started", job="job-2"), ago_s - 1800)
    [execution] = history.named(stack, ["job-2"])
    followed = logs.follow(stack, execution, poll_s=0, settled_s=0)
    assert next(followed).message == "stage started"
    first = len(groups.searches)
    groups.add("/aws/lambda/pbr-segment", REPORT, ago_s)
    bulk = "8f5c1d5e-0000-4000-8000-000000000002"
    groups.add("/aws/lambda/pbr-bulk", own("no job yet", job="", function_request_id=bulk), ago_s - 900)
    groups.add("/aws/lambda/pbr-bulk", own("job read", job="job-2", function_request_id=bulk), ago_s)
    executions.end("job-2", "SUCCEEDED", stopDate=started)
    assert {line.message for line in followed} == {"no job yet", "job read", logs.lines(stack, execution)[-1].message}
    later = [one for one in groups.searches[first : first + 4] if one["filterPattern"] != f'"{bulk}"']
    recent = int((started - timedelta(minutes=2)).timestamp() * 1000)
    assert later and all(one["startTime"] > recent for one in later)


def test_calls_keep_to_the_quota_of_aws(stack: Stack, groups: LogGroups) -> None:
    groups.add("/aws/lambda/pbr-segment", own("stage done"))
    assert len(read(replace(stack, endpoint_url=None))) == 1
    assert len(groups.times) == 4
    assert max(groups.times) - min(groups.times) >= 3 / 5


def test_following_waits_when_there_are_too_many_requests(stack: Stack, groups: LogGroups) -> None:
    groups.add("/aws/lambda/pbr-segment", own("stage done"))
    groups.refusals = [refusal("ThrottlingException"), refusal("ThrottlingException")]
    [execution] = history.named(stack, ["job-1"])
    assert [line.message for line in logs.follow(stack, execution, poll_s=0, settled_s=0)] == ["stage done"]
    groups.refusals = [refusal("ThrottlingException")] * 50
    with pytest.raises(ClientError):
        list(logs.follow(stack, execution, poll_s=0, settled_s=0))
    groups.refusals = [refusal("AccessDeniedException")]
    with pytest.raises(ClientError):
        list(logs.follow(stack, execution, poll_s=0, settled_s=0))


def test_a_traceback_and_a_failure_are_fields_of_their_own(stack: Stack, groups: LogGroups) -> None:
    failure = {"error": "CorruptImageError", "message": "no", "remedy": "Send another."}
    groups.add("/aws/lambda/pbr-segment", own("stage failed", level="WARNING", failure=failure, xray_trace_id="1-2"))
    groups.add("/aws/lambda/pbr-segment", own("stage failed", level="ERROR", exception="Traceback\nValueError"), 2)
    expected, unexpected = read(stack)
    assert (expected.fields, expected.exception) == ({"failure": failure}, "")
    assert (unexpected.fields, unexpected.exception) == ({}, "Traceback\nValueError")
    assert [logs.is_at_least(line, "ERROR") for line in (expected, unexpected)] == [False, True]


@pytest.mark.parametrize(
    ("level", "since", "days_ago", "said"),
    [
        (Level.ERROR, None, 0, "No line has level error or above. 2 lines are less severe"),
        (Level.INFO, NOW + timedelta(minutes=5), 0, "There are no log lines since"),
        (Level.INFO, None, 31, "CloudWatch deletes them after 30 days"),
        (Level.INFO, None, 1, "The log groups have no line of this execution"),
        (Level.INFO, None, 0, "There are no log lines yet"),
    ],
)
def test_the_reason_is_said_if_no_line_is_printed(
    stack: Stack,
    groups: LogGroups,
    executions: Executions,
    capsys: pytest.CaptureFixture[str],
    level: Level,
    since: datetime | None,
    days_ago: int,
    said: str,
) -> None:
    if level is Level.ERROR:
        groups.add("/aws/lambda/pbr-segment", own("Started"))
        groups.add("/aws/lambda/pbr-segment", own("Ended"), after_s=2)
    start = datetime.now(UTC) - timedelta(days=days_ago)
    found = replace(
        history.named(stack, ["job-1"])[0], **({} if level is Level.ERROR or since else {"started_at": start})
    )
    print_logs(stack, found, level=level, since=since)
    printed = capsys.readouterr()
    assert printed.out == "" and said in printed.err


def test_the_failure_of_an_execution_follows_its_lines(
    stack: Stack, groups: LogGroups, executions: Executions, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = {"status": "FAILED", "error": "NoSubjectError", "cause": "Segment: No subject.", "stopDate": NOW}
    executions.add("job-1", {}, **ended)
    groups.add("/aws/lambda/pbr-segment", own("Started"))
    print_logs(stack, history.named(stack, ["job-1"])[0], as_json=True)
    printed = capsys.readouterr()
    assert json.loads(printed.out)["message"] == "Started"
    assert printed.err.splitlines() == [
        "FAILED NoSubjectError: Segment: No subject.",
        "To see its states: pbr history job-1",
    ]
