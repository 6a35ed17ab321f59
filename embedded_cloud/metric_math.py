"""Metric math of CloudWatch: expressions over time series.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
"""

import inspect
import math
import operator
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

MAX_CHARACTERS = 2048
_MAX_DEPTH = 50

BAND_HISTORY = timedelta(days=1)
"""Time before the first value of a band whose data it is computed from."""

_BAND_DATA = 3  # fewer earlier values give no band
_LEAST_DEVIATION = 0.01  # of the mean. Without it, rounding errors would leave the band of a constant metric.

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+)
        |(?P<text>'[^']*'|"[^"]*")
        |(?P<name>[A-Za-z]\w*)
        |(?P<symbol>==|!=|<=|>=|&&|\|\||[-+*/^<>(),\[\]])
    )""",
    re.VERBOSE,
)
_OPERATORS: dict[str, tuple[int, Callable[[float, float], float]]] = {
    "OR": (1, lambda left, right: float(bool(left or right))),
    "AND": (2, lambda left, right: float(bool(left and right))),
    "==": (3, lambda left, right: float(left == right)),
    "!=": (3, lambda left, right: float(left != right)),
    "<": (3, lambda left, right: float(left < right)),
    "<=": (3, lambda left, right: float(left <= right)),
    ">": (3, lambda left, right: float(left > right)),
    ">=": (3, lambda left, right: float(left >= right)),
    "+": (4, operator.add),
    "-": (4, operator.sub),
    "*": (5, operator.mul),
    "/": (5, operator.truediv),
    "^": (6, operator.pow),
}
_SAME = {"&&": "AND", "||": "OR"}


class MetricMathError(ValueError):
    """An expression that CloudWatch rejects, or that is not supported here."""


@dataclass(frozen=True)
class Window:
    """A range of time. Periods begin at ``start``; ``end`` is not part of it."""

    start: datetime
    end: datetime

    def starts(self, period_s: int) -> Iterator[datetime]:
        """Yield the start of each period."""
        at = self.start
        while at < self.end:
            yield at
            at += timedelta(seconds=period_s)


@dataclass(frozen=True)
class Series:
    """A time series: values by the start of their period. Periods without a value are missing."""

    label: str
    period_s: int
    points: Mapping[datetime, float]


Value = float | str | Series | list[Series]


class Source(Protocol):
    """Where expressions read metrics."""

    def read(self, query: Mapping[str, Any], window: Window) -> Series:
        """Return the values of a query with a ``MetricStat``."""

    def search(self, expression: str, stat: str, period_s: int, window: Window) -> list[Series]:
        """Return the values of each metric that a search expression finds."""


@dataclass(frozen=True)
class _Call:
    function: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class _Binary:
    symbol: str
    left: Any
    right: Any


@dataclass(frozen=True)
class _Reference:
    name: str


class MetricMath:
    """Evaluates queries as GetMetricData gets them, also those that refer to each other.

    Args:
        queries: queries with ``Id`` and ``MetricStat`` or ``Expression``.
        source: where to read metrics.
        window: range of time.
    """

    def __init__(self, queries: Sequence[Mapping[str, Any]], source: Source, window: Window) -> None:
        self._queries, self._source, self._window = {query["Id"]: query for query in queries}, source, window
        self._values: dict[str, Value] = {}
        self._open: set[str] = set()

    def result(self, query_id: str) -> list[Series]:
        """Return the time series of a query; several for an expression that returns an array.

        Raises:
            MetricMathError: an expression is invalid or not supported, or its result is no time series.
        """
        value, query = self._value(query_id), self._queries[query_id]
        label = query.get("Label")
        if isinstance(value, Series):
            return [replace(value, label=label or (value.label if "MetricStat" in query else query_id))]
        if isinstance(value, list):
            return [replace(series, label=f"{label} {series.label}" if label else series.label) for series in value]
        raise MetricMathError(f"Error in expression '{query_id}': the result is not a time series. Use TIME_SERIES.")

    def _value(self, query_id: str) -> Value:
        if query_id not in self._queries:
            raise MetricMathError(f"Unknown Id '{query_id}'. Use the Id of another query.")
        if query_id in self._open:
            raise MetricMathError(f"Error in expression '{query_id}': it refers to itself.")
        if query_id not in self._values:
            query = self._queries[query_id]
            self._open.add(query_id)
            try:
                self._values[query_id] = (
                    self._source.read(query, self._window)
                    if "MetricStat" in query
                    else self._evaluate(parse(query["Expression"]))
                )
            except MetricMathError as error:
                message = str(error)
                at = "" if message.startswith("Error in expression") else f"Error in expression '{query_id}': "
                raise MetricMathError(at + message) from None
            finally:
                self._open.discard(query_id)
        return self._values[query_id]

    def _evaluate(self, node: Any) -> Value:
        match node:
            case float() | str():
                return node
            case _Reference(name):
                return self._value(name)
            case _Binary(symbol, left, right):
                return _combine(_OPERATORS[symbol][1], self._evaluate(left), self._evaluate(right))
            case _Call(function, arguments):
                return self._call(function, arguments)
            case tuple():
                return [series for item in node for series in self._as_list(self._evaluate(item))]
        raise AssertionError(node)

    def _call(self, function: str, arguments: tuple[Any, ...]) -> Value:
        if function == "ANOMALY_DETECTION_BAND":
            return _apply(function, self._band, *arguments)
        values = [self._evaluate(argument) for argument in arguments]
        if method := _METHODS.get(function):
            return _apply(function, method, self, *values)
        if aggregate := _AGGREGATES.get(function):
            return _apply(function, partial(self._aggregate, aggregate), *values)
        if pointwise := _POINTWISE.get(function):
            return _apply(function, partial(_map, pointwise), *values)
        known = ", ".join(sorted({"ANOMALY_DETECTION_BAND", *_METHODS, *_AGGREGATES, *_POINTWISE}))
        raise MetricMathError(f"Function {function} is not supported by the embedded cloud, which has {known}.")

    def _as_list(self, value: Value) -> list[Series]:
        if isinstance(value, float):
            return [self._time_series(value)]
        return value if isinstance(value, list) else [_series(value)]

    def _aggregate(self, aggregate: Callable[[Sequence[float]], float], value: Value) -> Value:
        """Return a number for one time series, and for an array a time series: the aggregate of each period."""
        if not isinstance(value, list):
            numbers = list(_series(value).points.values())
            return float(aggregate(numbers)) if numbers else 0.0
        times = sorted({at for series in value for at in series.points})
        points = {at: float(aggregate([one.points[at] for one in value if at in one.points])) for at in times}
        return Series("", self._period_s(value), points)

    def _period_s(self, found: Sequence[Series] = ()) -> int:
        """Return the period of the series, or else the shortest period of the queries."""
        if found:
            return min(series.period_s for series in found)
        periods = [query.get("MetricStat", {}).get("Period") or query.get("Period") for query in self._queries.values()]
        return min((int(period) for period in periods if period), default=60)

    def _time_series(self, value: Value) -> Series:
        if not isinstance(value, float):
            raise MetricMathError("TIME_SERIES needs a number")
        period_s = self._period_s()
        return Series(f"{value:g}", period_s, dict.fromkeys(self._window.starts(period_s), value))

    def _metrics(self, part: Value = "") -> Value:
        wanted = (query_id for query_id, query in self._queries.items() if "MetricStat" in query)
        return [_series(self._value(query_id)) for query_id in wanted if str(part) in query_id]

    def _search(self, expression: Value, stat: Value, period_s: Value | None = None) -> Value:
        if not isinstance(expression, str) or not isinstance(stat, str) or isinstance(period_s, Series | list | str):
            raise MetricMathError("SEARCH needs an expression and a statistic in quotation marks, and a period")
        return self._source.search(expression, stat, int(period_s or self._period_s()), self._window)

    def _fill(self, value: Value, by: Value) -> Value:
        if isinstance(value, list):
            return [_series(self._fill(series, by)) for series in value]
        series = _series(value)
        if not isinstance(by, float) and by not in ("REPEAT", "LINEAR"):
            raise MetricMathError("FILL needs a number, REPEAT or LINEAR")
        times = list(self._window.starts(series.period_s))
        if isinstance(by, float):
            return replace(series, points={at: series.points.get(at, by) for at in times})
        fill = _repeat if by == "REPEAT" else _linear
        return replace(series, points=dict(fill(series.points, times)))

    def _if(self, condition: Value, yes: Value, no: Value | None = None) -> Value:
        if isinstance(condition, float):
            if condition:
                return yes
            return Series("", self._period_s(), {}) if no is None else no
        lists = [value for value in (condition, yes, no) if isinstance(value, list)]
        if not lists:
            return _choose(_series(condition), yes, no)
        if any(len(value) != len(lists[0]) for value in lists):
            raise MetricMathError("IF cannot combine arrays of different length")
        columns = [value if isinstance(value, list) else [value] * len(lists[0]) for value in (condition, yes, no)]
        return [_choose(_series(chosen), then, other) for chosen, then, other in zip(*columns, strict=True)]

    def _period(self, value: Value) -> Value:
        return float(_series(value).period_s)

    def _metric_count(self, value: Value) -> Value:
        return float(len(value)) if isinstance(value, list) else 1.0

    def _datapoint_count(self, value: Value) -> Value:
        if isinstance(value, list):
            return sum(float(len(series.points)) for series in value)
        return float(len(_series(value).points))

    def _first(self, value: Value) -> Value:
        return _element(value, 0)

    def _last(self, value: Value) -> Value:
        return _element(value, -1)

    def _remove_empty(self, value: Value) -> Value:
        return [series for series in self._as_list(value) if series.points]

    def _running_sum(self, value: Value) -> Value:
        def sums(points: list[tuple[datetime, float]]) -> Iterator[tuple[datetime, float]]:
            total = 0.0
            for at, number in points:
                total += number
                yield at, total

        return _over_time(sums, value)

    def _diff(self, value: Value) -> Value:
        return _over_time(lambda points: ((at, b - a) for (_, a), (at, b) in pairwise(points)), value)

    def _rate(self, value: Value) -> Value:
        def rates(points: list[tuple[datetime, float]]) -> Iterator[tuple[datetime, float]]:
            for (before, a), (at, b) in pairwise(points):
                yield at, (b - a) / (at - before).total_seconds()

        return _over_time(rates, value)

    def _band(self, argument: Any, width: Any = 2.0) -> Value:
        """Return mean - and + ``width`` standard deviations of the earlier values, for each period: lower, upper.

        CloudWatch trains a model of its own that knows hours and days.
        """
        wider = replace(self._window, start=self._window.start - BAND_HISTORY)
        history = _series(MetricMath(list(self._queries.values()), self._source, wider)._evaluate(argument))
        factor = self._evaluate(width)
        if not isinstance(factor, float):
            raise MetricMathError("ANOMALY_DETECTION_BAND needs a number of standard deviations")
        past = sorted(history.points.items())
        low, high = {}, {}
        for at in self._window.starts(history.period_s):
            earlier = [value for time, value in past if time < at]
            if len(earlier) >= _BAND_DATA:
                mean = statistics.fmean(earlier)
                half = factor * max(statistics.pstdev(earlier), _LEAST_DEVIATION * abs(mean))
                low[at], high[at] = mean - half, mean + half
        return [Series("Low", history.period_s, low), Series("High", history.period_s, high)]


_AGGREGATES: dict[str, Callable[[Sequence[float]], float]] = {
    "SUM": sum,
    "AVG": statistics.fmean,
    "MIN": min,
    "MAX": max,
    "STDDEV": statistics.pstdev,
}
_POINTWISE: dict[str, Callable[[float], float]] = {
    "ABS": abs,
    "CEIL": math.ceil,
    "FLOOR": math.floor,
    "LOG": math.log,
    "LOG10": math.log10,
}
_METHODS: dict[str, Callable[..., Value]] = {
    "DATAPOINT_COUNT": MetricMath._datapoint_count,
    "DIFF": MetricMath._diff,
    "FILL": MetricMath._fill,
    "FIRST": MetricMath._first,
    "IF": MetricMath._if,
    "LAST": MetricMath._last,
    "METRICS": MetricMath._metrics,
    "METRIC_COUNT": MetricMath._metric_count,
    "PERIOD": MetricMath._period,
    "RATE": MetricMath._rate,
    "REMOVE_EMPTY": MetricMath._remove_empty,
    "RUNNING_SUM": MetricMath._running_sum,
    "SEARCH": MetricMath._search,
    "TIME_SERIES": MetricMath._time_series,
}


def parse(expression: str) -> Any:
    """Return the syntax tree of an expression.

    Raises:
        MetricMathError: the syntax is invalid.
    """
    if len(expression) > MAX_CHARACTERS:
        raise MetricMathError(f"The expression has more than {MAX_CHARACTERS} characters")
    if expression.lstrip().upper().startswith("SELECT"):
        raise MetricMathError("Metrics Insights queries are not supported by the embedded cloud. Use SEARCH.")
    return _Parser(expression).parse()


def functions(node: Any) -> set[str]:
    """Return the names of the functions that a syntax tree calls."""
    match node:
        case _Call(function, arguments):
            return {function}.union(*map(functions, arguments))
        case _Binary(_, left, right):
            return functions(left) | functions(right)
        case tuple():
            return set().union(*map(functions, node))
    return set()


class _Parser:
    """Precedence climbing over the tokens of an expression."""

    def __init__(self, text: str) -> None:
        self._tokens, self._next, self._depth = list(_tokenize(text)), 0, 0

    def parse(self) -> Any:
        node = self._expression(0)
        if self._peek()[1]:
            raise MetricMathError(f"unexpected '{self._peek()[1]}'")
        return node

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._next] if self._next < len(self._tokens) else ("end", "")

    def _take(self, expected: str = "") -> tuple[str, str]:
        kind, text = self._peek()
        if kind == "end" or (expected and text != expected):
            raise MetricMathError(f"expected {expected or 'an operand'} instead of '{text}'")
        self._next += 1
        return kind, text

    def _expression(self, least: int) -> Any:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise MetricMathError("too many nested parentheses")
        node = self._operand()
        while (symbol := self._peek()[1]) in _OPERATORS and _OPERATORS[symbol][0] > least:
            self._next += 1
            node = _Binary(symbol, node, self._expression(_OPERATORS[symbol][0]))
        self._depth -= 1
        return node

    def _operand(self) -> Any:
        kind, text = self._take()
        if kind == "number":
            return float(text)
        if kind == "text":
            return text[1:-1]
        if text == "-":
            return _Binary("*", -1.0, self._expression(_OPERATORS["*"][0]))
        if text == "(":
            node = self._expression(0)
            self._take(")")
            return node
        if text == "[":
            return self._list("]")
        if kind != "name" or text in _OPERATORS:
            raise MetricMathError(f"unexpected '{text}'")
        if self._peek()[1] == "(":
            self._next += 1
            return _Call(text, self._list(")"))
        return text if text.isupper() else _Reference(text)

    def _list(self, end: str) -> tuple[Any, ...]:
        items: list[Any] = []
        while self._peek()[1] != end:
            if items:
                self._take(",")
            items.append(self._expression(0))
        self._take(end)
        return tuple(items)


def _tokenize(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    while text[position:].strip():
        if not (found := _TOKEN.match(text, position)) or not found.lastgroup:
            raise MetricMathError(f"unexpected '{text[position:].strip()}'")
        token = found[found.lastgroup]
        yield found.lastgroup, token if found.lastgroup == "text" else _SAME.get(token, token)
        position = found.end()


def _series(value: Value | None) -> Series:
    if not isinstance(value, Series):
        kind = "an array" if isinstance(value, list) else "a text" if isinstance(value, str) else "a number"
        raise MetricMathError(f"a time series is needed, not {kind}")
    return value


def _element(value: Value, index: int) -> Series:
    if not isinstance(value, list) or not value:
        raise MetricMathError("an array of time series is needed")
    return value[index]


def _apply(function: str, method: Callable[..., Value], *arguments: Any) -> Value:
    try:
        inspect.signature(method).bind(*arguments)
    except TypeError:
        raise MetricMathError(f"{function} does not take these arguments") from None
    return method(*arguments)


def _number(function: Callable[..., float], *numbers: float) -> float | None:
    """Return the result; None where it is missing: after a division by zero, and outside a function's domain."""
    try:
        result = function(*numbers)
    except (ArithmeticError, ValueError):
        return None
    return float(result) if isinstance(result, int | float) and math.isfinite(result) else None


def _map(function: Callable[[float], float], value: Value) -> Value:
    if isinstance(value, list):
        return [_series(_map(function, series)) for series in value]
    if isinstance(value, float):
        return _needed(_number(function, value))
    series = _series(value)
    return replace(series, points=dict(_present(series.points, lambda number: _number(function, number))))


def _combine(function: Callable[[float, float], float], left: Value, right: Value) -> Value:
    """Apply an operator to each pair of values with the same time; numbers combine with all, arrays by element."""
    if isinstance(left, list) and isinstance(right, list):
        raise MetricMathError("two arrays cannot be combined")
    if isinstance(left, list):
        return [_series(_combine(function, series, right)) for series in left]
    if isinstance(right, list):
        return [_series(_combine(function, left, series)) for series in right]
    if isinstance(left, float) and isinstance(right, float):
        return _needed(_number(function, left, right))
    if isinstance(right, float):
        return _map(lambda number: function(number, right), left)
    if isinstance(left, float):
        return _map(lambda number: function(left, number), right)
    one, other = _series(left), _series(right)
    both = {at: (number, other.points[at]) for at, number in one.points.items() if at in other.points}
    return replace(one, points=dict(_present(both, lambda pair: _number(function, *pair))))


def _needed(number: float | None) -> float:
    if number is None:
        raise MetricMathError("a number is divided by zero")
    return number


def _present(
    points: Mapping[datetime, Any], compute: Callable[[Any], float | None]
) -> Iterator[tuple[datetime, float]]:
    for at, number in points.items():
        if (result := compute(number)) is not None:
            yield at, result


def _choose(condition: Series, yes: Value, no: Value | None) -> Series:
    """Return the values of ``yes`` where the condition is not 0, and elsewhere those of ``no``."""
    points = {}
    for at, number in condition.points.items():
        chosen = yes if number else no
        value = chosen if isinstance(chosen, float) else _series(chosen).points.get(at) if chosen is not None else None
        if value is not None:
            points[at] = value
    return replace(condition, points=points)


def _over_time(
    function: Callable[[list[tuple[datetime, float]]], Iterator[tuple[datetime, float]]], value: Value
) -> Value:
    if isinstance(value, list):
        return [_series(_over_time(function, series)) for series in value]
    series = _series(value)
    return replace(series, points=dict(function(sorted(series.points.items()))))


def _repeat(points: Mapping[datetime, float], times: list[datetime]) -> Iterator[tuple[datetime, float]]:
    last = None
    for at in times:
        last = points.get(at, last)
        if last is not None:
            yield at, last


def _linear(points: Mapping[datetime, float], times: list[datetime]) -> Iterator[tuple[datetime, float]]:
    """Yield values, also between two known ones; none before the first and after the last."""
    known = sorted(points)
    yield from points.items()
    for before, after in pairwise(known):
        for at in times:
            if before < at < after:
                share = (at - before) / (after - before)
                yield at, points[before] + share * (points[after] - points[before])
