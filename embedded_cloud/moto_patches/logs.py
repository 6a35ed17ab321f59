"""CloudWatch Logs: search of log events, and metric filters."""

import functools
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from moto.cloudwatch.models import MetricDatum, cloudwatch_backends
from moto.logs import models
from moto.logs.exceptions import InvalidParameterException, LogsClientError, ResourceNotFoundException
from moto.logs.models import LogsBackend, LogStream
from moto.logs.responses import LogsResponse

from embedded_cloud.log_filter import FilterPatternError, compile_pattern, compile_value
from embedded_cloud.moto_patches.around import around

MAX_EVENTS = 10_000
MAX_PAGE_CHARACTERS = 1024**2
QUERY_FIELDS = ("@timestamp", "@message", "@logStream", "@log", "@ingestionTime")
_FIELD = "|".join(QUERY_FIELDS)
_COMMAND = re.compile(
    rf"""\s*(?:
        (?:fields|display)\s+(?P<fields>(?:{_FIELD})(?:\s*,\s*(?:{_FIELD}))*)
        |sort\s+@timestamp(?:\s+(?P<order>asc|desc))?
        |limit\s+(?P<limit>\d+)
        |filter\s+@message\s+like\s+(?:/(?P<regex>(?:[^/\\]|\\.)+)/|"(?P<text>[^"]+)")
    )\s*(?:\||$)""",
    re.VERBOSE,
)


@functools.lru_cache
def _compile(pattern: str) -> Callable[[str], bool]:
    try:
        return compile_pattern(pattern)
    except FilterPatternError as error:
        raise InvalidParameterException(str(error)) from None


class EventMessageFilter:
    """AWS understands conditions on JSON, alternatives and exclusions; moto returns all events for them."""

    def __init__(self, pattern: str | None) -> None:
        self.matches = _compile(pattern or "")


models.EventMessageFilter = EventMessageFilter


@around(LogsBackend, "put_metric_filter")
def replace_the_filter(
    original: Any, self: Any, filter_name: str, filter_pattern: str, log_group_name: str, transformations: Any
) -> None:
    """AWS replaces a filter of the same name and rejects invalid patterns; moto adds another, and stores any."""
    _compile(filter_pattern)
    for transformation in transformations:
        _compile_value(transformation["metricValue"])
    kept = [
        one
        for one in self.filters.metric_filters
        if (one["filterName"], one["logGroupName"]) != (filter_name, log_group_name)
    ]
    self.filters.metric_filters[:] = kept
    original(self, filter_name, filter_pattern, log_group_name, transformations)


@functools.lru_cache
def _compile_value(text: str) -> Callable[[str], float | None]:
    try:
        return compile_value(text)
    except FilterPatternError as error:
        raise InvalidParameterException(str(error)) from None


@around(LogStream, "put_log_events")
def publish_filtered_events(original: Any, self: Any, log_events: list[dict[str, Any]]) -> Any:
    """AWS publishes the metrics of metric filters; moto only stores the filters."""
    token = original(self, log_events)
    name, messages = self.log_group.name, [event["message"] for event in log_events]
    for metric_filter in models.logs_backends[self.account_id][self.region].filters.metric_filters:
        if metric_filter["logGroupName"] == name:
            matching = [message for message in messages if _compile(metric_filter["filterPattern"])(message)]
            for transformation in metric_filter["metricTransformations"]:
                _publish(cloudwatch_backends[self.account_id][self.region], transformation, matching)
    return token


def _publish(backend: Any, transformation: dict[str, Any], messages: list[str]) -> None:
    """Publish a value for each matching message; without one, the default value if there is one."""
    found = [(message, _compile_value(transformation["metricValue"])(message)) for message in messages]
    data = [(message, value) for message, value in found if value is not None]
    if not messages and "defaultValue" in transformation:
        data = [("", float(transformation["defaultValue"]))]
    names = (transformation["metricNamespace"], transformation["metricName"])
    for message, value in data:
        dimensions = [
            {"Name": name, "Value": text}
            for name, selector in (transformation.get("dimensions") or {}).items()
            if (text := _text_at(selector, message)) is not None
        ]
        backend.metric_data.append(MetricDatum(*names, value, dimensions, None, transformation.get("unit", "None")))


def _text_at(selector: str, message: str) -> str | None:
    """Return the text of a JSON field such as ``$.stage``; None without one."""
    try:
        document = json.loads(message)
    except (ValueError, RecursionError):
        return None
    value = document.get(selector.removeprefix("$.")) if isinstance(document, dict) else None
    return None if value is None else str(value)


@around(LogsResponse, "filter_log_events")
def search_the_streams(_original: Any, self: Any) -> str:
    """AWS selects streams by prefix, and sorts the events of all; moto ignores the prefix, and sorts each stream."""
    group = _group(self.logs_backend, self._get_param("logGroupName") or self._get_param("logGroupIdentifier"))
    limit = self._get_param("limit") or MAX_EVENTS
    if not 0 < limit <= MAX_EVENTS:
        between = f"Member must have value between 1 and {MAX_EVENTS}"
        raise InvalidParameterException(constraint=between, parameter="limit", value=limit)
    first, last = self._get_param("startTime") or 0, self._get_param("endTime") or float("inf")
    cursor, matches = _cursor(self._get_param("nextToken")), _compile(self._get_param("filterPattern") or "")
    candidates = sorted(
        (event.timestamp, event.event_id, stream.log_stream_name, event)
        for stream in _streams(group, self._get_param("logStreamNames"), self._get_param("logStreamNamePrefix"))
        for event in list(stream.events)
        if first <= event.timestamp <= last and (event.timestamp, event.event_id) > cursor
    )
    page: list[dict[str, Any]] = []
    size, more = 0, {}
    for _timestamp, _id, stream_name, event in candidates:
        if not matches(event.message):
            continue
        size += len(event.message)
        if page and (len(page) == limit or size > MAX_PAGE_CHARACTERS):
            more = {"nextToken": f"{page[-1]['timestamp']}/{page[-1]['eventId']}"}
            break
        page.append({"logStreamName": stream_name, **event.to_filter_dict()})
    return json.dumps({"events": page, "searchedLogStreams": [], **more})


def _group(backend: Any, identifier: str | None) -> Any:
    """Return a log group by name or ARN."""
    name = (identifier or "").partition(":log-group:")[2].removesuffix(":*") or identifier
    if name not in backend.groups:
        raise ResourceNotFoundException
    return backend.groups[name]


def _cursor(token: str | None) -> tuple[int, int]:
    """Return timestamp and ID of the last event of the page before."""
    if token is None:
        return -1, -1
    try:
        timestamp, event_id = map(int, token.split("/"))
    except ValueError:
        raise InvalidParameterException("The specified nextToken is invalid.") from None
    return timestamp, event_id


def _streams(group: Any, names: list[str] | None, prefix: str | None) -> list[Any]:
    if names and prefix:
        raise InvalidParameterException("Only one of logStreamNames or logStreamNamePrefix can be provided.")
    streams = dict(group.streams)
    if not names:
        return [stream for name, stream in streams.items() if name.startswith(prefix or "")]
    if missing := [name for name in names if name not in streams]:
        raise ResourceNotFoundException(f"The specified log stream does not exist: {missing[0]}")
    return [streams[name] for name in names]


@around(models, "execute_query")
def run_simple_queries(
    _original: Any, log_groups: list[Any], query: str, start_time: int, end_time: int
) -> list[dict[str, Any]]:
    """AWS runs Logs Insights queries; moto ignores their filters and statistics, and returns milliseconds."""
    commands = list(_commands(query))
    fields = next((command["fields"] for command in commands if command["fields"]), "@timestamp, @message")
    patterns = [re.compile(command["regex"] or re.escape(command["text"])) for command in commands if _filters(command)]
    descending = not any(command["order"] == "asc" for command in commands)
    limit = min([int(command["limit"]) for command in commands if command["limit"]], default=MAX_EVENTS)
    found = [
        (event.timestamp, event.event_id, event, stream, group)
        for group in log_groups
        for stream in list(group.streams.values())
        for event in list(stream.events)
        if start_time * 1000 <= event.timestamp <= end_time * 1000
        if all(pattern.search(event.message) for pattern in patterns)
    ]
    rows = []
    for timestamp, event_id, event, stream, group in sorted(found, reverse=descending)[:limit]:
        row = {
            "@timestamp": _time(timestamp),
            "@message": event.message,
            "@logStream": stream.log_stream_name,
            "@log": f"{group.account_id}:{group.name}",
            "@ingestionTime": _time(event.ingestion_time),
        }
        rows.append({name: row[name] for name in re.findall(_FIELD, fields)} | {"@ptr": event_id})
    return rows


def _commands(query: str) -> Iterator[re.Match[str]]:
    position = 0
    while position < len(query):
        if not (command := _COMMAND.match(query, position)):
            message = f"The embedded cloud does not support: {query[position:].strip()}. Use filter-log-events."
            raise LogsClientError("MalformedQueryException", message)
        yield command
        position = command.end()


def _filters(command: re.Match[str]) -> bool:
    return bool(command["regex"] or command["text"])


def _time(milliseconds: int) -> str:
    time = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return time.strftime("%Y-%m-%d %H:%M:%S.") + f"{milliseconds % 1000:03d}"
