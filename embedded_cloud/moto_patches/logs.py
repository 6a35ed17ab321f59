"""CloudWatch Logs: search of log events."""

import functools
import json
from collections.abc import Callable
from typing import Any

from moto.logs import models
from moto.logs.exceptions import InvalidParameterException, ResourceNotFoundException
from moto.logs.responses import LogsResponse

from embedded_cloud.log_filter import FilterPatternError, compile_pattern
from embedded_cloud.moto_patches.around import around

MAX_EVENTS = 10_000
MAX_PAGE_CHARACTERS = 1024**2


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
