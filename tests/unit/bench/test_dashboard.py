"""The dashboard's body becomes queries and positions as CloudWatch reads it."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bench.dashboard import by_the_minute, draw, placed, queries
from tests.unit.template.test_operations import EVERYTHING
from tests.unit.template.test_template import Stack

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class OnePointEach:
    """CloudWatch with one value of each metric, and no alarm."""

    def get_metric_data(self, *, MetricDataQueries: list[dict[str, Any]], **_: Any) -> dict[str, Any]:  # noqa: N803
        shown = [query for query in MetricDataQueries if query["ReturnData"]]
        return {
            "MetricDataResults": [
                {"Id": one["Id"], "Label": one.get("Label", one["Id"]), "Timestamps": [NOW], "Values": [1.5]}
                for one in shown
            ]
        }

    def describe_alarms(self, **_: Any) -> dict[str, Any]:
        return {"CompositeAlarms": [], "MetricAlarms": [{"AlarmName": "pbr-slow", "StateValue": "OK"}]}


def test_widgets_without_a_position_follow_each_other() -> None:
    sizes = [(24, 2), (12, 6), (12, 6), (8, 5)]
    widgets = [{"width": width, "height": height} for width, height in sizes]

    assert [(one.x, one.y) for one in placed(widgets)] == [(0, 0), (0, 2), (12, 2), (0, 8)]


def test_metrics_and_expressions_become_queries() -> None:
    properties = {
        "stat": "Sum",
        "period": 300,
        "metrics": [
            [{"expression": "errors / 2", "label": "Half"}],
            ["AWS/Lambda", "Errors", "FunctionName", "f", {"id": "errors", "stat": "p95", "visible": False}],
        ],
    }
    half, errors = queries(properties)

    assert half == {"Id": "m0", "Label": "Half", "Expression": "errors / 2", "Period": 300, "ReturnData": True}
    assert (errors["Id"], errors["ReturnData"]) == ("errors", False)
    assert errors["MetricStat"] == {
        "Metric": {
            "Namespace": "AWS/Lambda",
            "MetricName": "Errors",
            "Dimensions": [{"Name": "FunctionName", "Value": "f"}],
        },
        "Period": 300,
        "Stat": "p95",
    }


def test_shortened_metrics_are_refused() -> None:
    with pytest.raises(ValueError, match="write the metric out"):
        queries({"stat": "Sum", "period": 300, "metrics": [["...", "f"]]})


def test_periods_and_texts_become_a_minute() -> None:
    metrics = [[{"expression": "SUM(SEARCH('{A,B} MetricName=\"C\"', 'Sum', 900))"}]]
    body = {"widgets": [{"properties": {"period": 3600, "title": "per 5 minutes", "metrics": metrics}}]}
    [widget] = by_the_minute(body)["widgets"]

    assert widget["properties"]["period"] == 60
    assert widget["properties"]["title"] == "per minute"
    assert widget["properties"]["metrics"][0][0]["expression"].endswith("'Sum', 60))")


def test_every_widget_of_the_template_is_drawn() -> None:
    body = by_the_minute(json.loads(Stack(EVERYTHING)["OperationsDashboard"]["DashboardBody"]))
    figure = draw(placed(body["widgets"]), OnePointEach(), NOW - timedelta(minutes=5), NOW + timedelta(minutes=5))

    drawn = {text.get_text() for text in figure.texts}
    assert "No data" not in drawn
    assert {one["properties"]["title"] for one in body["widgets"] if one["type"] != "text"} <= drawn
