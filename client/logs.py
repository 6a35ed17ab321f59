"""Log lines of an execution: of functions, workers and the endpoint, in the order of time.

Lines of this project are JSON with the job ID, which is the name of the execution. Lines of Lambda about an invocation
have its request ID, which the function's own lines have, too. So the log group of a function is searched twice: for the
job ID, then for the request IDs that were found.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from client import history, resources
from client.errors import client_error
from client.history import ExecutionSummary
from client.stack import Stack

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
"""Levels of lines, the least severe first."""

BEFORE: Final = timedelta(minutes=1)
"""The HTTP API logs a job before its execution starts."""

AFTER: Final = timedelta(minutes=15)
"""Reconcile runs after the end of an execution, and Lambda retries it after one minute and after another two."""

AFTER_WEBHOOK: Final = timedelta(hours=11)
"""Deliveries of webhooks are retried for hours: TimeoutSeconds of their state machine, and some more."""

_ENDPOINT_LOGS: Final = "/aws/sagemaker/Endpoints/"
_WEBHOOK_LOGS: Final = "webhook"  # in the names of the groups of the function and of the state machine

_THREADS: Final = 4
_CALLS_PER_S: Final = 4  # FilterLogEvents allows 5 in an account and Region, which others use, too
_TERMS_PER_CALL: Final = 20  # a filter pattern may have 1,024 characters
_AWS_POLL_S: Final = 10.0
_EMBEDDED_POLL_S: Final = 1.5
_OVERLAP: Final = timedelta(minutes=1)  # a line can be found some seconds after its time
_THROTTLED: Final = "ThrottlingException"
_MOST_THROTTLED: Final = 5  # searches in a row; the SDK has retried each call
_SETTLED_S: Final = 15.0  # CloudWatch returns a line some seconds after it was written

_PLATFORM: Final = re.compile(r"^(?:START|END|REPORT|INIT_\w+) ")
_REPORT: Final = re.compile(r"^REPORT RequestId: (?P<id>\S+)\s")
_MEASURE: Final = re.compile(r"(?P<name>[A-Z][A-Za-z ]*): (?P<value>[\d.]+) (?:ms|MB)")
_STATUS: Final = re.compile(r"\bStatus: (?P<status>\w+)")
_LEVEL: Final = re.compile(rf"^\[?({'|'.join(LEVELS)})\]?\b")
_FAILED: Final = re.compile(r"Task timed out|Error: ")

_OWN_FIELDS: Final = {"level", "message", "timestamp", "service", "job_id", "function_request_id"}
_LEFT_OUT: Final = {
    "cold_start",
    "exception_name",
    "function_arn",
    "function_memory_size",
    "function_name",
    "location",
    "stack_trace",
    "xray_trace_id",
}


@dataclass(frozen=True)
class Report:
    """What Lambda reports about an invocation.

    Attributes:
        request_id: ID of the invocation.
        function: service name of the function, e.g. ``segment``.
        at: end of the invocation.
        duration_ms: time that the handler took.
        billed_ms: time that is billed.
        memory_mb: configured memory.
        max_memory_mb: highest memory in use; None if it is not reported.
        init_ms: time that the start of the function took; None if it was running already.
        status: ``success``, ``error`` or ``timeout``.
    """

    request_id: str
    function: str
    at: datetime
    duration_ms: float
    billed_ms: float
    memory_mb: int
    max_memory_mb: int | None
    init_ms: float | None
    status: str


@dataclass(frozen=True)
class Line:
    """A log line.

    Attributes:
        id: unique ID.
        at: when it was written.
        group: log group.
        stream: log stream.
        source: function, or ``worker``, ``endpoint``, ``api access`` or ``state machine``.
        level: one of :data:`LEVELS`.
        message: the text.
        fields: what the line has in addition.
        exception: traceback; empty without one.
        request_id: ID of the function's invocation; None for other sources.
        report: what Lambda reports about the invocation, if this is that line.
    """

    id: str
    at: datetime
    group: str
    stream: str
    source: str
    level: str
    message: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    exception: str = ""
    request_id: str | None = None
    report: Report | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return {
            "time": self.at.isoformat(timespec="milliseconds"),
            "source": self.source,
            "level": self.level,
            "message": self.message,
            "fields": dict(self.fields),
            "exception": self.exception or None,
            "request_id": self.request_id,
            "group": self.group,
            "stream": self.stream,
        }


@dataclass(frozen=True)
class _Group:
    name: str
    source: str
    is_function: bool


def lines(stack: Stack, execution: ExecutionSummary, *, since: datetime | None = None) -> list[Line]:
    """Return the log lines of an execution, oldest first.

    Lambda's lines about the start and the end of an invocation are left out, except for its report.

    Args:
        stack: the stack that runs it.
        execution: the execution.
        since: leave out earlier lines; None for all.
    """
    return _Search(stack).lines(execution, since)


def reports(stack: Stack, execution: ExecutionSummary) -> list[Report]:
    """Return what Lambda reports about the invocations of an execution, oldest first."""
    return [line.report for line in lines(stack, execution) if line.report]


def follow(
    stack: Stack,
    execution: ExecutionSummary,
    *,
    since: datetime | None = None,
    poll_s: float | None = None,
    settled_s: float | None = None,
) -> Iterator[Line]:
    """Yield the log lines of an execution as they are found, until some time after its end.

    Args:
        stack: the stack that runs it.
        execution: the execution.
        since: leave out earlier lines; None for all.
        poll_s: time between two searches; None for one that the quota of CloudWatch allows.
        settled_s: how long to look for more lines after the end; None for as long as CloudWatch may need.

    Raises:
        ClientError: AWS rejects the requests, also after several retries if there are too many.
    """
    on_aws = stack.endpoint_url is None
    poll_s = (_AWS_POLL_S if on_aws else _EMBEDDED_POLL_S) if poll_s is None else poll_s
    settled_s = (_SETTLED_S if on_aws else _EMBEDDED_POLL_S) if settled_s is None else settled_s
    search, seen, throttled = _Search(stack), set[str](), 0
    ended_at: float | None = None
    found_until: datetime | None = None
    while True:
        started = datetime.now(UTC)
        now = history.summarize(stack, execution.arn)
        try:
            found = search.lines(now, since, found_until)
        except client_error() as error:
            throttled += 1
            if error.response["Error"]["Code"] != _THROTTLED or throttled == _MOST_THROTTLED:  # type: ignore[attr-defined]
                raise
            time.sleep(poll_s * 2**throttled)
            continue
        throttled = 0
        for line in found:
            if line.id not in seen:
                seen.add(line.id)
                yield line
        if now.status != "RUNNING":
            ended_at = ended_at or time.monotonic()
            if time.monotonic() - ended_at >= settled_s:
                return
        found_until = started - _OVERLAP
        time.sleep(poll_s)


def groups(stack: Stack) -> list[_Group]:
    """Return the log groups of a stack, and that of its endpoint."""
    names = [one.id for one in resources.read(stack) if one.type == "AWS::Logs::LogGroup" and one.id]
    endpoint = stack.outputs.get("SageMakerEndpoint") or stack.parameters.get("SageMakerEndpointName")
    if endpoint:
        names.append(f"{_ENDPOINT_LOGS}{endpoint}")
    return [_Group(name, _source(stack, name), name.startswith("/aws/lambda/")) for name in names]


def _source(stack: Stack, group: str) -> str:
    name = group.rpartition("/")[2].removeprefix(f"{stack.name}-")
    if group.startswith(_ENDPOINT_LOGS):
        return "endpoint"
    if group.startswith("/aws/vendedlogs/apis/"):
        return "api access"
    if group.startswith("/aws/vendedlogs/states/"):
        return "state machine" if name == stack.name else f"{name} machine"
    return name


class _Search:
    """Searches the log groups of a stack, at the rate that CloudWatch allows.

    It remembers the request IDs of an execution, so that later searches find their new lines.
    """

    def __init__(self, stack: Stack) -> None:
        self._logs = stack.client("logs")
        self._groups = groups(stack)
        self._requests: dict[str, set[str]] = {group.name: set() for group in self._groups}
        self._pause_s = 1 / _CALLS_PER_S if stack.endpoint_url is None else 0.0
        self._lock, self._next_call = threading.Lock(), 0.0

    def lines(
        self, execution: ExecutionSummary, since: datetime | None, found_until: datetime | None = None
    ) -> list[Line]:
        """Return the lines of an execution, oldest first.

        Args:
            execution: the execution.
            since: leave out earlier lines; None for all.
            found_until: earlier lines of the requests that are known were found before; None for none.
        """
        with ThreadPoolExecutor(_THREADS) as pool:
            parts = pool.map(lambda group: self._of_group(execution, since, found_until, group), self._groups)
            found = [line for part in parts for line in part]
        return sorted(found, key=lambda line: (line.at, line.id))

    def _of_group(
        self, execution: ExecutionSummary, since: datetime | None, found_until: datetime | None, group: _Group
    ) -> list[Line]:
        known = self._requests[group.name]
        later = max(filter(None, (since, found_until)), default=None)
        events = self._events(group.name, _window(execution, later, group), [execution.name, *sorted(known)])
        named = [event for event in events if is_about(event["message"], execution.name)]
        if group.is_function:
            new = {request for event in named if (request := _request_id(event["message"]))} - known
            events += self._events(group.name, _window(execution, since, group), sorted(new)) if new else []
            known |= new
        mine = (event for event in events if any(one in event["message"] for one in known))
        read = (_line(event, group) for event in {event["eventId"]: event for event in (*named, *mine)}.values())
        return [line for line in read if line]

    def _events(self, group: str, window: Mapping[str, int], terms: Sequence[str]) -> list[Mapping[str, Any]]:
        """Return the events with one of the terms; none if there is no such group: an endpoint makes it later."""
        found: list[Mapping[str, Any]] = []
        if window["startTime"] > window["endTime"]:
            return found
        for first in range(0, len(terms), _TERMS_PER_CALL):
            some = terms[first : first + _TERMS_PER_CALL]
            pattern = " ".join(f'?"{one}"' for one in some) if len(some) > 1 else f'"{some[0]}"'
            request = {"logGroupName": group, "filterPattern": pattern, **window}
            try:
                while (page := self._page(request)).get("nextToken"):
                    found += page["events"]
                    request["nextToken"] = page["nextToken"]
            except self._logs.exceptions.ResourceNotFoundException:
                return []
            found += page["events"]
        return found

    def _page(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make a call as soon as the rate allows it."""
        with self._lock:
            at = max(self._next_call, time.monotonic())
            self._next_call = at + self._pause_s
        time.sleep(max(0.0, at - time.monotonic()))
        page: Mapping[str, Any] = self._logs.filter_log_events(**request)
        return page


def is_about(message: str, job_id: str) -> bool:
    """Return whether a log line is about a job: the name of an execution may be the start of another one's."""
    document = _document(message)
    if document is not None and "job_id" in document:
        return bool(document["job_id"] == job_id)
    return re.search(rf"(?<![\w-]){re.escape(job_id)}(?![\w-])", message) is not None


def _window(execution: ExecutionSummary, since: datetime | None, group: _Group) -> dict[str, int]:
    after = AFTER_WEBHOOK if _WEBHOOK_LOGS in group.source else AFTER
    now = datetime.now(UTC)
    end = now if execution.seconds is None else execution.started_at + timedelta(seconds=execution.seconds) + after
    start = max(filter(None, (execution.started_at - BEFORE, since)))
    return {"startTime": _ms(start), "endTime": _ms(min(end, now) + timedelta(seconds=1))}


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _document(message: str) -> dict[str, Any] | None:
    """Return a line that is a JSON object; None for others."""
    if not message.startswith("{"):
        return None
    try:
        document = json.loads(message)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _request_id(message: str) -> str | None:
    return (_document(message) or {}).get("function_request_id")


def _line(event: Mapping[str, Any], group: _Group) -> Line | None:
    """Return the line of an event, or None for Lambda's lines about the start and the end of an invocation."""
    message = event["message"].rstrip()
    make = partial(
        Line,
        id=event["eventId"],
        at=datetime.fromtimestamp(event["timestamp"] / 1000, UTC),
        group=group.name,
        stream=event["logStreamName"],
    )
    if (document := _document(message)) is not None:
        return _structured(make, document, group, event["logStreamName"])
    if report := _report(message, event["timestamp"], group):
        level = "INFO" if report.status == "success" else "ERROR"
        return make(
            source=group.source, level=level, message=_measured(report), request_id=report.request_id, report=report
        )
    if _PLATFORM.match(message):
        return None
    named = _LEVEL.match(message)
    level = named[1] if named else "ERROR" if _FAILED.search(message) else "INFO"
    return make(source=group.source, level=level, message=message)


def _structured(make: Callable[..., Line], document: Mapping[str, Any], group: _Group, stream: str) -> Line:
    if group.source == "api access":
        request = f"{document.get('method')} {document.get('path')}: {document.get('status')}"
        return make(source=group.source, level="INFO", message=request, fields=document)
    source = "worker" if group.is_function and stream.startswith("worker/") else group.source
    return make(
        source=source,
        level=document.get("level", "INFO"),
        message=str(document.get("message", document.get("type", ""))),
        fields={name: value for name, value in document.items() if name not in _OWN_FIELDS | _LEFT_OUT | {"exception"}},
        exception=document.get("exception") or "",
        request_id=document.get("function_request_id"),
    )


def _report(message: str, timestamp_ms: int, group: _Group) -> Report | None:
    if not (match := _REPORT.match(message)):
        return None
    measures = {found["name"]: float(found["value"]) for found in _MEASURE.finditer(message)}
    status = _STATUS.search(message)
    highest = measures.get("Max Memory Used")
    return Report(
        request_id=match["id"],
        function=group.source,
        at=datetime.fromtimestamp(timestamp_ms / 1000, UTC),
        duration_ms=measures["Duration"],
        billed_ms=measures.get("Billed Duration", measures["Duration"]),
        memory_mb=int(measures["Memory Size"]),
        max_memory_mb=None if highest is None else int(highest),
        init_ms=measures.get("Init Duration"),
        status=status["status"] if status else "success",
    )


def _measured(report: Report) -> str:
    memory = "" if report.max_memory_mb is None else f"{report.max_memory_mb} of "
    init = "" if report.init_ms is None else f", start {report.init_ms:,.0f} ms"
    ended = "" if report.status == "success" else f", {report.status}"
    times = f"ran {report.duration_ms:,.0f} ms, billed {report.billed_ms:,.0f} ms{init}"
    return f"{times}, {memory}{report.memory_mb} MB{ended}"


def is_at_least(line: Line, level: str) -> bool:
    """Return whether a line has this level or a more severe one; a line of an unknown level counts."""
    return line.level not in LEVELS or LEVELS.index(line.level) >= LEVELS.index(level)
