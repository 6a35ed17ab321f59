"""Embedded metric format: metrics that a log message contains.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeGuard

MAX_DIMENSIONS = 30
MAX_METRICS = 100
MAX_VALUES = 100
MAX_NAME_CHARACTERS = 1024
MAX_DATA = 1000  # of a message; without a limit, one of 400 kB could have 3 million
MAX_AGE_S = 14 * 24 * 3600
MAX_AHEAD_S = 2 * 3600

_SIZES = ("Bytes", "Kilobytes", "Megabytes", "Gigabytes", "Terabytes", "Bits", "Kilobits", "Megabits", "Gigabits")
_PLAIN = (*_SIZES, "Terabits", "Count")
UNITS = {*_PLAIN, *(f"{unit}/Second" for unit in _PLAIN), "Seconds", "Milliseconds", "Microseconds", "Percent", "None"}


@dataclass(frozen=True)
class Datum:
    """Values of one metric: a name and a set of dimensions."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]
    values: tuple[float, ...]
    unit: str
    timestamp: datetime


def extract(message: str) -> list[Datum]:
    """Return the metrics in a log message, without invalid ones: none if the message is not in the format."""
    if '"CloudWatchMetrics"' not in message:
        return []
    try:
        root = json.loads(message, parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        return []
    metadata = root.get("_aws") if isinstance(root, dict) else None
    if not isinstance(metadata, dict) or (timestamp := _timestamp(metadata.get("Timestamp"))) is None:
        return []
    directives = metadata.get("CloudWatchMetrics")
    data = (
        Datum(namespace, name, dimensions, values, unit, timestamp)
        for directive in (directives if isinstance(directives, list) else [])
        if isinstance(directive, dict) and _is_text(namespace := directive.get("Namespace"))
        for dimensions in _dimension_sets(root, directive.get("Dimensions"))
        for name, unit, values in _metrics(root, directive.get("Metrics"))
    )
    return list(islice(data, MAX_DATA))


def _reject_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _timestamp(milliseconds: Any) -> datetime | None:
    now = time.time()
    if not _is_number(milliseconds) or not now - MAX_AGE_S <= milliseconds / 1000 <= now + MAX_AHEAD_S:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).replace(tzinfo=None)


def _dimension_sets(root: dict[str, Any], sets: Any) -> Iterator[tuple[tuple[str, str], ...]]:
    for names in sets if isinstance(sets, list) else []:
        if not isinstance(names, list) or len(names) > MAX_DIMENSIONS or not all(map(_is_text, names)):
            continue
        dimensions = {name: value for name in names if _is_text(value := root.get(name)) and (name + value).isascii()}
        if dimensions.keys() == set(names):
            yield tuple(sorted(dimensions.items()))


def _metrics(root: dict[str, Any], definitions: Any) -> Iterator[tuple[str, str, tuple[float, ...]]]:
    if not isinstance(definitions, list) or len(definitions) > MAX_METRICS:
        return
    for definition in definitions:
        if not isinstance(definition, dict) or not _is_text(name := definition.get("Name")):
            continue
        unit, target = definition.get("Unit", "None"), root.get(name)
        values = target if isinstance(target, list) else [target]
        if isinstance(unit, str) and unit in UNITS and len(values) <= MAX_VALUES and all(map(_is_number, values)):
            yield name, unit, tuple(map(float, values))


def _is_text(value: Any) -> TypeGuard[str]:
    """Return whether the value is a text that a response in XML can contain."""
    return (
        isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARACTERS and value.isprintable() and not value.isspace()
    )


def _is_number(value: Any) -> bool:
    """Return whether the value is a number that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**360
