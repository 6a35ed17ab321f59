"""Every metric and field that a template names exists: it is this project's, or AWS documents it."""

import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest
from pydantic import BaseModel

from client.overview import NAMESPACE
from core.errors import EmptyImageError
from embedded_cloud import metric_math
from functions.contracts.metrics import METRICS
from functions.runtime.handler import logger, stage
from tests.unit.template.test_operations import EVERYTHING
from tests.unit.template.test_template import REALTIME, Stack

OURS: Final = NAMESPACE.format(stack="pbr")


def with_dimensions(names: str, *dimension_sets: tuple[str, ...]) -> dict[str, set[frozenset[str]]]:
    return {name: {frozenset(one) for one in dimension_sets} for name in names.split()}


VARIANT = ("EndpointName", "VariantName")
SERVICE = ("ClusterName", "ServiceName")
OF_AWS: Final = {
    # https://docs.aws.amazon.com/step-functions/latest/dg/procedure-cw-metrics.html
    "AWS/States": with_dimensions(
        "ExecutionsStarted ExecutionsSucceeded ExecutionsFailed ExecutionsTimedOut ExecutionsAborted ExecutionTime",
        ("StateMachineArn",),
    ),
    # https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
    "AWS/Lambda": with_dimensions(
        "Invocations Errors Throttles ConcurrentExecutions Duration", ("FunctionName",), ("FunctionName", "Resource")
    ),
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
    "AWS/SQS": with_dimensions(
        "ApproximateAgeOfOldestMessage ApproximateNumberOfMessagesVisible ApproximateNumberOfMessagesNotVisible "
        "NumberOfMessagesReceived NumberOfMessagesSent NumberOfMessagesDeleted",
        ("QueueName",),
    ),
    # https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-metrics.html
    "AWS/ApiGateway": with_dimensions(
        "4xx 5xx Count IntegrationLatency Latency DataProcessed", ("ApiId",), ("ApiId", "Stage")
    ),
    # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/available-metrics.html
    "AWS/ECS": with_dimensions("CPUUtilization MemoryUtilization", ("ClusterName",), SERVICE),
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Container-Insights-metrics-ECS.html
    "ECS/ContainerInsights": with_dimensions("RunningTaskCount DesiredTaskCount PendingTaskCount", SERVICE),
    # https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference-monitor.html
    # An asynchronous endpoint has no other metrics, such as Invocations.
    "AWS/SageMaker": with_dimensions("Invocation4XXErrors Invocation5XXErrors ModelLatency", VARIANT)
    | with_dimensions(
        "ApproximateBacklogSize ApproximateBacklogSizePerInstance HasBacklogWithoutCapacity", ("EndpointName",)
    ),
    # https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
    "/aws/sagemaker/Endpoints": with_dimensions(
        "CPUUtilization MemoryUtilization DiskUtilization GPUUtilization GPUMemoryUtilization", VARIANT
    ),
}
"""Metrics of AWS by namespace and name: the sets of dimensions that AWS documents."""


@dataclass(frozen=True)
class Reference:
    """A metric that a template names."""

    where: str
    namespace: str
    name: str
    dimensions: frozenset[str]
    unit: str | None = None


@pytest.fixture(scope="module", params=[EVERYTHING, {**EVERYTHING, **REALTIME}], ids=["async", "realtime"])
def stack(request: pytest.FixtureRequest) -> Stack:
    return Stack(request.param)


def known(stack: Stack) -> dict[tuple[str, str], set[frozenset[str]]]:
    """Return the dimension sets of all metrics: of AWS, of the code, and of metric filters."""
    found = {(namespace, name): sets for namespace, metrics in OF_AWS.items() for name, sets in metrics.items()}
    found |= {(OURS, one.name): set(map(frozenset, one.dimension_sets)) for one in METRICS.values()}
    for metric_filter in stack.of_type("AWS::Logs::MetricFilter"):
        for one in metric_filter["MetricTransformations"]:
            names = frozenset(item["Key"] for item in one.get("Dimensions", []))
            found[one["MetricNamespace"], one["MetricName"]] = {names}
    return found


def references(stack: Stack) -> list[Reference]:
    """Return the metrics of alarms, scaling policies and widgets, with those of search expressions."""
    return [
        one
        for name, resource in stack.resources.items()
        for one in (*in_properties(name, resource["Properties"], None), *in_widgets(name, resource))
    ]


def in_properties(where: str, node: Any, unit: str | None) -> Iterator[Reference]:
    if isinstance(node, dict):
        unit = node.get("Unit", unit)
        if {"Namespace", "MetricName"} <= node.keys():
            names = frozenset(item["Name"] for item in node.get("Dimensions", []))
            yield Reference(where, node["Namespace"], node["MetricName"], names, unit)
        yield from searched(where, str(node.get("Expression", "")))
        for value in node.values():
            yield from in_properties(where, value, unit)
    elif isinstance(node, list):
        for item in node:
            yield from in_properties(where, item, unit)


def in_widgets(name: str, resource: Mapping[str, Any]) -> Iterator[Reference]:
    if resource["Type"] == "AWS::CloudWatch::Dashboard":
        for title, metrics in charts(resource["Properties"]):
            for texts, options in metrics:
                where = f"{name}, {title}"
                if texts:
                    namespace, metric, *dimensions = texts
                    yield Reference(where, namespace, metric, frozenset(dimensions[::2]), options.get("unit"))
                yield from searched(where, options.get("expression", ""))


def charts(dashboard: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[list[str], dict[str, Any]]]]]:
    """Yield each metric widget's title and its rows: namespace, name and dimensions, and the options of the row."""
    for widget in json.loads(dashboard["DashboardBody"])["widgets"]:
        if widget["type"] == "metric" and "metrics" in widget["properties"]:
            rows = widget["properties"]["metrics"]
            split = [(row[:-1], row[-1]) if isinstance(row[-1], dict) else (row, {}) for row in rows]
            assert not any(text.startswith(".") for texts, _ in split for text in texts), "abbreviations are not read"
            yield widget["properties"]["title"], split


SEARCH = re.compile(r"SEARCH\('([^']*)'")
SCHEMA = re.compile(r'\{(?:"([^"]+)"|(\w+)),([\w,]+)\} MetricName="(\w+)"((?: \w+="[^"]+")*)')


def searched(where: str, expression: str) -> Iterator[Reference]:
    """Yield the metrics that search expressions find."""
    found = SEARCH.findall(expression)
    assert len(found) == expression.count("SEARCH("), f"{where}: {expression}"
    for one in found:
        match = SCHEMA.fullmatch(one)
        assert match, f"{where}: {one} has not the form {{NAMESPACE,DIMENSION}} MetricName=... DIMENSION=..."
        names = frozenset(match[3].split(","))
        assert names >= set(re.findall(r'(\w+)="', match[5])), (
            f"{where}: {one} names a dimension that is not in its schema"
        )
        yield Reference(where, match[1] or match[2], match[4], names)


def test_every_metric_in_a_template_exists_with_its_dimensions(stack: Stack) -> None:
    exists = known(stack)
    found = references(stack)
    assert len(found) > 50
    assert [one for one in found if one.dimensions not in exists.get((one.namespace, one.name), set())] == []


def test_units_in_templates_are_those_of_the_metrics(stack: Stack) -> None:
    units = {(OURS, one.name): one.unit for one in METRICS.values()}
    wrong = [one for one in references(stack) if one.unit and units.get((one.namespace, one.name)) != one.unit]
    assert wrong == []


def ids(expression: str) -> set[str]:
    """Return the IDs that an expression refers to. IDs start with a lower-case letter, functions do not."""
    return set(re.findall(r"(?<![\w.])[a-z]\w*", re.sub(r"'[^']*'", "", expression)))


def formulas(node: Any) -> Iterator[tuple[set[str], list[str]]]:
    """Yield IDs and expressions of each list of metrics in an alarm or a scaling policy."""
    if isinstance(node, dict):
        metrics = node.get("Metrics")
        if isinstance(metrics, list) and all(isinstance(one, dict) and "Id" in one for one in metrics):
            yield {one["Id"] for one in metrics}, [one["Expression"] for one in metrics if "Expression" in one]
        for value in node.values():
            yield from formulas(value)
    elif isinstance(node, list):
        for item in node:
            yield from formulas(item)


def test_expressions_are_valid_and_refer_to_metrics_beside_them(stack: Stack) -> None:
    found = list(formulas([resource["Properties"] for resource in stack.resources.values()]))
    for dashboard in stack.of_type("AWS::CloudWatch::Dashboard"):
        for _, metrics in charts(dashboard):
            options = [one for _, one in metrics]
            named = {one["id"] for one in options if "id" in one}
            found.append((named, [one["expression"] for one in options if "expression" in one]))
    assert sum(len(expressions) for _, expressions in found) > 10
    for named, expressions in found:
        for expression in expressions:
            metric_math.parse(expression)
            assert ids(expression) <= named, expression


def test_the_dashboard_shows_every_metric_of_the_code(stack: Stack) -> None:
    [(name, dashboard)] = [one for one in stack.resources.items() if one[1]["Type"] == "AWS::CloudWatch::Dashboard"]
    shown = {one.name for one in in_widgets(name, dashboard) if one.namespace == OURS}
    assert METRICS.keys() - shown == set()


# ---- Fields of saved queries

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_AnalyzeLogData-discoverable-fields.html
DISCOVERED: Final = {
    *("@timestamp", "@message", "@ingestionTime", "@logStream", "@log"),
    *("@requestId", "@duration", "@billedDuration", "@type", "@maxMemoryUsed", "@memorySize", "@xrayTraceId"),
    "@initDuration",  # https://docs.aws.amazon.com/lambda/latest/dg/snapstart-monitoring.html
}
COMMANDS: Final = {"fields", "filter", "stats", "sort", "limit", "dedup", "display"}
WORDS: Final = COMMANDS | {"as", "by", "asc", "desc", "and", "or", "not", "in", "like"}


class Context:
    """A call of a function, as Lambda describes it."""

    function_name = "refine"
    memory_limit_in_mb = 3008
    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:refine"
    aws_request_id = "52fdfc07-2182-454f-963f-5f0f9a621d72"


@pytest.fixture
def logged_fields(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the fields of the log lines of a stage that fails."""

    class Request(BaseModel):
        execution: dict[str, str]

    @stage(Request)
    def fail(request: Request) -> dict[str, Any]:
        raise EmptyImageError("No bytes", field="source.key", value="a.png", remedy="Upload it again.")

    output = io.StringIO()
    monkeypatch.setattr(logger.registered_handler, "stream", output)
    with pytest.raises(EmptyImageError):
        fail({"execution": {"name": "job"}}, Context())
    lines = [json.loads(line) for line in output.getvalue().splitlines()]
    return {field for line in lines for field in flattened(line)}


def flattened(line: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the fields of a log line as Logs Insights names them, e.g. ``failure.error``."""
    for name, value in line.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from flattened(value, f"{prefix}{name}.")


def queried_fields(query: str) -> set[str]:
    """Return the fields that a query reads: not its commands, functions, texts and the names that it gives."""
    code = re.sub(r'"[^"]*"|/(?:[^/\\]|\\.)+/|#.*', " ", query)
    given = set(re.findall(r"\bas\s+(\w+)", code))
    return set(re.findall(r"@?\b[A-Za-z_][\w.]*\b(?!\s*\()", code)) - given - WORDS


def test_saved_queries_read_fields_that_log_lines_have(stack: Stack, logged_fields: set[str]) -> None:
    [api] = stack.of_type("AWS::ApiGatewayV2::Stage")
    of_api = set(json.loads(api["AccessLogSettings"]["Format"]))
    queries = stack.of_type("AWS::Logs::QueryDefinition")
    assert queries
    for query in queries:
        ours = logged_fields if all("/aws/lambda/" in group for group in query["LogGroupNames"]) else of_api
        assert queried_fields(query["QueryString"]) - ours - DISCOVERED == set(), query["Name"]
