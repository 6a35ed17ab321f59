"""Alarms, the topic for alerts, the dashboard and queries: that they are complete, valid, and refer to what exists."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from embedded_cloud.metric_math import MetricMath, Series, Window
from tests.conftest import ROOT
from tests.unit.template.test_template import ASYNC, FARGATE, OWN_GPU, REALTIME, TRANSFORM, Stack

EVERYTHING = {**OWN_GPU, **ASYNC, "AlertEmail": "who@example.com", "MonthlyBudget": "500", "BudgetTag": "a$b"}
GPU_ENDPOINT = {"SageMakerInstanceType": "ml.g4dn.xlarge"}
SCALING = {"WorkerWakeUpAlarm", "EndpointWakeUpAlarm"}
"""Alarms that start workers and instances."""


@pytest.fixture(scope="module")
def stack() -> Stack:
    return Stack(EVERYTHING)


def alarms(stack: Stack) -> dict[str, dict[str, Any]]:
    """Return the alarms for people by logical ID."""
    return {
        name: one["Properties"]
        for name, one in stack.resources.items()
        if one["Type"] == "AWS::CloudWatch::Alarm" and name not in SCALING
    }


def names(stack: Stack) -> set[str]:
    return {alarm["AlarmName"].removeprefix("pbr-") for alarm in alarms(stack).values()}


def test_alarms_watch_functions_of_the_stack(stack: Stack) -> None:
    functions = {
        one["Properties"].get("FunctionName", f"<{name}>"): name
        for name, one in stack.resources.items()
        if one["Type"] == "AWS::Lambda::Function"
    }
    found = set(re.findall(r"'Name': 'FunctionName', 'Value': '([^']+)'", str(alarms(stack))))
    assert found <= functions.keys()
    assert {"SweepFunction", "DigestFunction"} <= {functions[name] for name in found}


def watched_queues(stack: Stack) -> set[str]:
    found = {item["Value"] for alarm in alarms(stack).values() for item in alarm.get("Dimensions", ())}
    return {value.removesuffix(".QueueName") for value in found}


def dead_letter_queues(node: Any) -> Iterator[str]:
    """Yield the target of each redrive policy and dead-letter configuration."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in {"RedrivePolicy", "DeadLetterConfig"}:
                [arn] = {one for name, one in value.items() if name in {"deadLetterTargetArn", "Arn", "TargetArn"}}
                yield arn.removesuffix(".Arn")
            elif key == "Destination" and "Queue" in str(value):
                yield value.removesuffix(".Arn")
            else:
                yield from dead_letter_queues(value)
    elif isinstance(node, list):
        for item in node:
            yield from dead_letter_queues(item)


def test_every_dead_letter_queue_has_an_alarm(stack: Stack) -> None:
    all_queues = {f"<{name}>" for name, one in stack.resources.items() if one["Type"] == "AWS::SQS::Queue"}
    named = {name for name in all_queues if "DeadLetter" in name}  # a state machine sends to that of webhooks
    targets = set(dead_letter_queues(stack.resources))
    assert targets <= all_queues
    assert targets | named <= watched_queues(stack)


@pytest.mark.parametrize("parameters", [{}, FARGATE, EVERYTHING], ids=["defaults", "worker", "everything"])
def test_every_alarm_reaches_the_topic_once(parameters: dict[str, str]) -> None:
    stack = Stack(parameters)
    composites = stack.of_type("AWS::CloudWatch::CompositeAlarm")
    members = [name for one in composites for name in re.findall(r'ALARM\("<(\w+)>"\)', one["AlarmRule"])]
    assert sorted(members) == sorted(alarms(stack))
    for one in composites:
        assert one["AlarmActions"] == one["OKActions"] == ["<AlertsTopic>"]
    for alarm in alarms(stack).values():
        assert "AlarmActions" not in alarm


def test_alarms_say_how_severe_they_are_and_where_the_runbook_is(stack: Stack) -> None:
    rules = {one["AlarmName"]: one["AlarmRule"] for one in stack.of_type("AWS::CloudWatch::CompositeAlarm")}
    for name, alarm in alarms(stack).items():
        severity, _, rest = alarm["AlarmDescription"].partition(". ")
        assert f'"<{name}>"' in rules[f"pbr-{severity.lower()}"]
        suffix = alarm["AlarmName"].removeprefix("pbr-")
        assert rest.endswith(f"Runbook: docs/how-to/runbook.md#{suffix}")


def runbook() -> dict[str, str]:
    """Return the sections of the runbook by heading."""
    _, *parts = re.split(r"^## (.+)$", (ROOT / "docs/how-to/runbook.md").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_every_alarm_and_the_budget_have_a_section_in_the_runbook(stack: Stack) -> None:
    assert sorted(runbook()) == sorted({*names(stack), "budget", "critical", "warning"})


def test_sections_of_the_runbook_are_complete(stack: Stack) -> None:
    for name in {*names(stack), "budget"}:
        parts = re.findall(r"^\*\*(.+?)\.\*\*", runbook()[name], re.MULTILINE)
        assert parts == ["Meaning", "First look", "Action", "Verification"], name


def test_the_table_of_the_runbook_has_each_alarm_with_its_severity(stack: Stack) -> None:
    rows = re.findall(
        r"^\| \[([\w-]+)\]\(#\1\) \| (\w+) \|", (ROOT / "docs/how-to/runbook.md").read_text(), re.MULTILINE
    )
    severities = {
        alarm["AlarmName"].removeprefix("pbr-"): alarm["AlarmDescription"].partition(".")[0].lower()
        for alarm in alarms(stack).values()
    }
    assert dict(rows) == {**severities, "budget": "message"}


def test_alarms_keep_the_limits_of_cloudwatch() -> None:
    stack = Stack({**EVERYTHING, "RunbookUrl": "https://example.com/" + "x" * 380})
    for alarm in alarms(stack).values():
        metrics = alarm.get("Metrics", [])
        assert sum("MetricStat" in one for one in metrics) <= 10
        assert len(alarm["AlarmDescription"]) <= 1024
        assert alarm["TreatMissingData"] in {"notBreaching", "ignore"}
        watched = [one["Id"] for one in metrics if one.get("ReturnData", True)]
        assert watched == (["expected", "cost"] if "ThresholdMetricId" in alarm else watched[:1])


def test_alarms_of_absent_hosts_do_not_exist() -> None:
    without = names(Stack({}))
    worker = {"oldest-request", "no-scale-out"}
    assert names(Stack(FARGATE)) - without == worker
    assert names(Stack(OWN_GPU)) - without == {*worker, "gpu-unavailable"}
    assert names(Stack(ASYNC)) - without == {"endpoint-no-scale-out"}
    assert names(Stack({**REALTIME, **GPU_ENDPOINT})) - without == {"gpu-unavailable"}
    assert names(Stack({**TRANSFORM, **GPU_ENDPOINT})) == without


@pytest.mark.parametrize("worker", [FARGATE, OWN_GPU], ids=["cpu", "gpu"])
def test_no_scale_out_measures_against_the_target_of_scaling(worker: dict[str, str]) -> None:
    stack = Stack(worker)
    target = stack["WorkerBacklog"]["TargetTrackingScalingPolicyConfiguration"]["TargetValue"]
    [expression] = [one["Expression"] for one in stack["NoScaleOutAlarm"]["Metrics"] if one["Id"] == "factor"]
    assert f" {target} * workers)" in expression


class Metrics:
    """Metrics with one value each; those that are not listed have none."""

    def __init__(self, **values: float) -> None:
        self._values = values

    def read(self, query: Mapping[str, Any], window: Window) -> Series:
        """See :class:`embedded_cloud.metric_math.Source`."""
        period_s = query["MetricStat"]["Period"]
        value = self._values.get(query["Id"])
        return Series("", period_s, {} if value is None else dict.fromkeys(window.starts(period_s), value))

    def search(self, expression: str, stat: str, period_s: int, window: Window) -> list[Series]:
        """See :class:`embedded_cloud.metric_math.Source`."""
        raise AssertionError("alarms cannot search")


def factor(stack: Stack, **values: float) -> float:
    """Return what no-scale-out compares with its threshold."""
    begin = datetime(2030, 1, 1, tzinfo=UTC)
    window = Window(begin, begin + timedelta(seconds=300))
    [series] = MetricMath(stack["NoScaleOutAlarm"]["Metrics"], Metrics(**values), window).result("factor")
    [value] = series.points.values()
    return value


@pytest.mark.parametrize("threshold", [1, 3, 500])
@pytest.mark.parametrize(("worker", "target"), [(FARGATE, 10), (OWN_GPU, 100)], ids=["cpu", "gpu"])
def test_no_scale_out_counts_every_request_if_there_is_no_worker(
    worker: dict[str, str], target: int, threshold: int
) -> None:
    stack = Stack({**worker, "AlarmBacklogFactor": str(threshold), "WorkerMaxCount": "4"})
    for none in ({}, {"running": 0.0}):
        assert factor(stack, waiting=1, **none) > threshold
        assert factor(stack, waiting=0, **none) == 0
    assert factor(stack, waiting=6 * target, running=3) == 2
    assert factor(stack, waiting=10**6, running=4) == 0, "no further worker may start"


def test_thresholds_are_parameters() -> None:
    changed = Stack({**EVERYTHING, "AlarmFailureRate": "33", "AlarmDeadLetters": "7", "AlarmCostDeviations": "4"})
    assert changed["FailureRateAlarm"]["Threshold"] == "33"
    assert changed["UploadsDeadLettersAlarm"]["Threshold"] == "7"
    assert changed["CostAnomalyAlarm"]["Metrics"][0]["Expression"] == "ANOMALY_DETECTION_BAND(cost, 4)"


def test_cloudwatch_and_budgets_can_publish_to_the_topic(stack: Stack) -> None:
    assert stack["AlertsTopic"]["KmsMasterKeyId"] == "<AlertsKey>.Arn"
    for document, action in (
        (stack["AlertsKey"]["KeyPolicy"], "kms:GenerateDataKey*"),
        (stack["AlertsTopicPolicy"]["PolicyDocument"], "sns:Publish"),
    ):
        [publishers] = [one for one in document["Statement"] if one["Sid"] == "Publishers"]
        assert action in publishers["Action"]
        assert publishers["Principal"] == {"Service": ["cloudwatch.amazonaws.com", "budgets.amazonaws.com"]}
        assert publishers["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}


def test_emails_are_alerts_not_single_failures(stack: Stack) -> None:
    [subscription] = stack.of_type("AWS::SNS::Subscription")
    assert subscription == {"TopicArn": "<AlertsTopic>", "Protocol": "email", "Endpoint": "who@example.com"}


def test_a_budget_is_that_of_the_tag_or_of_the_account(stack: Stack) -> None:
    assert stack["StackBudget"]["Budget"]["CostFilters"] == {"TagKeyValue": ["user:a$b"]}
    assert "CostFilters" not in Stack({"MonthlyBudget": "500"})["StackBudget"]["Budget"]
    assert "StackBudget" not in Stack({}).resources
    assert stack.resources["StackBudget"]["DependsOn"] == "AlertsTopicPolicy", "the topic allows the budget to publish"


# ---- Dashboard


def widgets(stack: Stack) -> list[dict[str, Any]]:
    body = json.loads(stack["OperationsDashboard"]["DashboardBody"])
    return list(body["widgets"])


def test_names_of_dashboards_are_unique_in_an_account(stack: Stack) -> None:
    assert stack["OperationsDashboard"]["DashboardName"] == "pbr-eu-west-1"


HOSTS = [{}, FARGATE, OWN_GPU, REALTIME, ASYNC, EVERYTHING]


@pytest.mark.parametrize("parameters", HOSTS, ids=["lambda", "cpu", "gpu", "realtime", "async", "everything"])
def test_the_dashboard_is_valid_and_its_rows_are_full(parameters: dict[str, str]) -> None:
    filled, heights = 0, set()
    for widget in widgets(Stack(parameters)):
        assert "x" not in widget  # CloudWatch places it after the one before
        heights.add(widget["height"])
        filled += widget["width"]
        if filled == 24:
            assert len(heights) == 1
            filled, heights = 0, set()
        assert filled < 24
    assert filled == 0


def test_every_widget_has_a_title_and_its_axes_have_labels(stack: Stack) -> None:
    for widget in widgets(stack):
        properties = widget["properties"]
        if widget["type"] == "text":
            assert properties["markdown"].startswith("#")
            continue
        assert properties["title"]
        if widget["type"] == "metric" and properties["view"] == "timeSeries":
            assert properties["yAxis"]["left"]["label"]
    titles = [one["properties"]["title"] for one in widgets(stack) if one["type"] != "text"]
    assert len(titles) == len(set(titles))


def test_the_dashboard_shows_every_alarm_first(stack: Stack) -> None:
    shown = [one["properties"]["alarms"] for one in widgets(stack)[:7] if one["type"] == "alarm"]
    composites = {"<CriticalAlarm>.Arn", "<WarningAlarm>.Arn"}
    assert [sorted(one) for one in shown] == [sorted({*(f"<{name}>.Arn" for name in alarms(stack)), *composites})]


def test_rows_of_absent_hosts_are_left_out() -> None:
    def titles(parameters: dict[str, str]) -> set[str]:
        return {one["properties"].get("title", "") for one in widgets(Stack(parameters))}

    assert not {"Workers", "GPU and its memory", "Time of the model"} & titles({})
    assert {"Workers", "GPU and its memory", "Time of the model"} <= titles(EVERYTHING)
    assert "GPU and its memory" not in titles(FARGATE)


def test_the_dashboard_draws_thresholds_as_the_alarms_have_them(stack: Stack) -> None:
    drawn = {
        one["properties"]["title"]: one["properties"]["annotations"]["horizontal"][0]["value"]
        for one in widgets(stack)
        if "annotations" in one["properties"]
    }
    assert drawn["Failed share"] == float(stack["FailureRateAlarm"]["Threshold"])
    assert drawn["Time of an execution"] == float(stack["SlowAlarm"]["Threshold"])
    assert drawn["Age of the oldest request"] == float(stack["OldestRequestAlarm"]["Threshold"])


# ---- Queries and metric filters


def test_queries_and_filters_read_log_groups_of_the_stack(stack: Stack) -> None:
    existing = {one["LogGroupName"] for one in stack.of_type("AWS::Logs::LogGroup")}
    for query in stack.of_type("AWS::Logs::QueryDefinition"):
        assert set(query["LogGroupNames"]) <= existing
    assert {one["LogGroupName"] for one in stack.of_type("AWS::Logs::MetricFilter")} <= existing


def test_metric_filters_feed_the_dashboard(stack: Stack) -> None:
    filters = stack.of_type("AWS::Logs::MetricFilter")
    counted = {(one["MetricNamespace"], one["MetricName"]) for f in filters for one in f["MetricTransformations"]}
    shown = {tuple(map(str, metric[:2])) for one in widgets(stack) for metric in one["properties"].get("metrics", [])}
    assert counted <= shown
