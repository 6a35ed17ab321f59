"""Metric math and search expressions."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest

from embedded_cloud.metric_math import MetricMath, MetricMathError, Series, Window
from embedded_cloud.metric_search import Metric, compile_search

START = datetime(2026, 1, 1, 12)
METRICS: dict[str, list[float | None]] = {
    "m1": [1, 2, None, 4],
    "m2": [10, 0, 30, None],
    "none": [None, None, None, None],
}
LAMBDA = Metric("AWS/Lambda", "ConcurrentExecutions", (("FunctionName", "stack-SegmentFunction-1"),))


class Metrics:
    """Four one-minute values of each metric; earlier minutes have the values 8, 10 and 12 in turn."""

    def read(self, query: Mapping[str, Any], window: Window) -> Series:
        name = query["MetricStat"]["Metric"]["MetricName"]
        points: dict[datetime, float] = {}
        for at in window.starts(60):
            number = (at - START) // timedelta(minutes=1)
            value = METRICS[name][number] if number >= 0 else (8, 10, 12)[number % 3]
            if value is not None:
                points[at] = value
        return Series(name, 60, points)

    def search(self, expression: str, stat: str, period_s: int, window: Window) -> list[Series]:
        assert (expression, stat, period_s) == ("{N}", "Sum", 60)
        return [self.read(metric("m1"), window), self.read(metric("m2"), window)]


def metric(name: str) -> dict[str, Any]:
    return {"Id": name, "MetricStat": {"Metric": {"Namespace": "N", "MetricName": name}, "Period": 60, "Stat": "Sum"}}


def evaluate(expression: str, **others: str) -> list[list[float | None]]:
    """Return the four values of each time series of an expression."""
    expressions = [{"Id": name, "Expression": text} for name, text in {**others, "e": expression}.items()]
    window = Window(START, START + timedelta(minutes=4))
    found = MetricMath([*map(metric, METRICS), *expressions], Metrics(), window).result("e")
    return [[series.points.get(at) for at in window.starts(60)] for series in found]


@pytest.mark.parametrize(
    ("expression", "values"),
    [
        ("m1 + m2", [11, 2, None, None]),
        ("m1 - 1", [0, 1, None, 3]),
        ("1 + 2 * m1 ^ 2", [3, 9, None, 33]),
        ("-m1 * -2", [2, 4, None, 8]),
        ("100*(m1/m2)", [10, None, None, None]),
        ("m1 >= 2", [0, 1, None, 1]),
        ("m1 == 2 || m1 > 3", [0, 1, None, 1]),
        ("m1 > 1 AND m1 < 4", [0, 1, None, 0]),
        ("ABS(m1 - 3) + CEIL(0.5)", [3, 2, None, 2]),
        ("LOG10(m2)", [1, None, pytest.approx(1.477, abs=0.001), None]),
        ("FILL(m1, 0)", [1, 2, 0, 4]),
        ("FILL(none, -1)", [-1, -1, -1, -1]),
        ("FILL(m1, REPEAT)", [1, 2, 2, 4]),
        ("FILL(m1, LINEAR)", [1, 2, 3, 4]),
        ("IF(m1 > 1, 5)", [None, 5, None, 5]),
        ("IF(FILL(m1, 0) > 1, m1, m2)", [10, 2, 30, 4]),
        ("IF(1, m1, m2)", [1, 2, None, 4]),
        ("IF(MAX(m2) > 40, m1, 7 * m1)", [7, 14, None, 28]),
        ("m1 / SUM(m1)", [pytest.approx(1 / 7), pytest.approx(2 / 7), None, pytest.approx(4 / 7)]),
        ("SUM(METRICS())", [11, 2, 30, 4]),
        ("AVG(METRICS('m'))", [5.5, 1, 30, 4]),
        ("MAX([m1, m2, 3])", [10, 3, 30, 4]),
        ("MIN([m1, m2])", [1, 0, 30, 4]),
        ("RUNNING_SUM(m1)", [1, 3, None, 7]),
        ("DIFF(m2)", [None, -10, 30, None]),
        ("RATE(m1) * PERIOD(m1)", [None, 1, None, 1]),
        ("TIME_SERIES(3)", [3, 3, 3, 3]),
        ("TIME_SERIES(DATAPOINT_COUNT(m1) + METRIC_COUNT(METRICS()))", [6, 6, 6, 6]),
        ("FIRST(METRICS()) + LAST([m1, m2])", [11, 2, None, None]),
        ("e1 * 2", [22, 4, None, None]),
    ],
)
def test_an_expression_has_a_value_for_each_period(expression: str, values: list[float | None]) -> None:
    assert evaluate(expression, e1="m1 + m2") == [values]


def test_an_array_is_several_time_series() -> None:
    assert evaluate("SEARCH('{N}', 'Sum', 60) * 2") == [[2, 4, None, 8], [20, 0, 60, None]]
    assert evaluate("REMOVE_EMPTY(METRICS())") == evaluate("[m1, m2]")
    assert evaluate("IF(METRICS() > 1, 1, 0)") == [[0, 1, None, 1], [1, 0, 1, None], [None] * 4]


def test_a_band_follows_the_earlier_values() -> None:
    low, high = evaluate("ANOMALY_DETECTION_BAND(m1, 2)")
    deviation = 8**0.5 / 3**0.5  # of 8, 10 and 12
    assert low[0] == pytest.approx(10 - 2 * deviation, abs=0.01)
    assert high[0] == pytest.approx(10 + 2 * deviation, abs=0.01)


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("m1 +", "expected an operand"),
        ("(m1", r"expected \) instead"),
        ("m1 m2", "unexpected 'm2'"),
        ("m1 ? m2", r"unexpected '\? m2'"),
        ("unknown + 1", "Unknown Id 'unknown'"),
        ("e + 1", "it refers to itself"),
        ("NOSUCH(m1)", "Function NOSUCH is not supported by the embedded cloud, which has ABS"),
        ("FILL(m1)", "FILL does not take these arguments"),
        ("FILL(m1, ZERO)", "FILL needs a number, REPEAT or LINEAR"),
        ("METRICS() + METRICS()", "two arrays cannot be combined"),
        ("SUM(m1)", "the result is not a time series"),
        ("m1 + 1 / 0", "divided by zero"),
        ("m1 + 'text'", "a time series is needed, not a text"),
        ("SELECT SUM(m1) FROM N", "Metrics Insights queries are not supported"),
        ("(" * 60 + "m1" + ")" * 60, "too many nested parentheses"),
        ("m1" + " + m1" * 500, "more than 2048 characters"),
        ("__import__('os')", "unexpected '__import__"),
    ],
)
def test_an_invalid_expression_is_rejected(expression: str, problem: str) -> None:
    with pytest.raises(MetricMathError, match=problem):
        evaluate(expression)


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("{AWS/Lambda,FunctionName}", True),
        ("{AWS/Lambda}", False),
        ('{"AWS/Lambda","FunctionName"} MetricName="ConcurrentExecutions"', True),
        ('{AWS/Lambda,FunctionName} MetricName="Concurrent"', False),
        ("{AWS/Lambda,FunctionName} MetricName=Concurrent", True),
        ("{AWS/Lambda,FunctionName} segment", True),
        ("{AWS/Lambda,FunctionName} segment refine", False),
        ("{AWS/Lambda,FunctionName} (segment OR refine) NOT encode", True),
        ('{AWS/Lambda,FunctionName} MetricName=("Errors" OR "ConcurrentExecutions")', True),
        ("{AWS/Lambda,FunctionName} NOT segment", False),
        ('Namespace="AWS/Lambda" AND FunctionName="stack-SegmentFunction-1"', True),
        ('Namespace="AWS/SQS"', False),
    ],
)
def test_a_search_finds_metrics(expression: str, found: bool) -> None:
    assert compile_search(expression)(LAMBDA) is found


@pytest.mark.parametrize("expression", ["{N} (a", "{N} =", "{N} a )", "(" * 60])
def test_an_invalid_search_is_rejected(expression: str) -> None:
    with pytest.raises(MetricMathError, match="Invalid search expression"):
        compile_search(expression)
