"""Alarms, and the metrics that AWS's services publish about themselves."""

import json
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from embedded_cloud.cloud import EmbeddedCloud
from tests.integration.embedded_cloud.services.testbed import Machines, client, invoke_directly

pytestmark = pytest.mark.slow  # the alarms of the project's template are tested, too

SOON = timedelta(minutes=1)  # until the current minute is over


@pytest.fixture
def messages(cloud: EmbeddedCloud) -> Iterator[str]:
    """A queue that gets the messages of the stack's topic."""
    sqs, sns = client(cloud, "sqs"), client(cloud, "sns")
    url = sqs.create_queue(QueueName=uuid.uuid4().hex)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    subscription = sns.subscribe(TopicArn=cloud.outputs["TopicArn"], Protocol="sqs", Endpoint=arn)["SubscriptionArn"]
    yield url
    sns.unsubscribe(SubscriptionArn=subscription)
    sqs.delete_queue(QueueUrl=url)


def received(cloud: EmbeddedCloud, url: str) -> list[dict[str, Any]]:
    found = client(cloud, "sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
    return [json.loads(message["Body"]) for message in found]


def values(cloud: EmbeddedCloud, namespace: str, name: str, stat: str, **dimensions: str) -> list[float]:
    pairs = [{"Name": key, "Value": value} for key, value in dimensions.items()]
    metric = {"Namespace": namespace, "MetricName": name, "Dimensions": pairs}
    query = {"Id": "a", "MetricStat": {"Metric": metric, "Period": 3600, "Stat": stat}}
    now = datetime.now(UTC)
    response = client(cloud, "cloudwatch").get_metric_data(
        MetricDataQueries=[query], StartTime=now - timedelta(minutes=30), EndTime=now + timedelta(minutes=1)
    )
    return list(response["MetricDataResults"][0]["Values"])


def test_a_message_in_a_queue_sets_off_its_alarm(cloud: EmbeddedCloud, messages: str) -> None:
    now = datetime.now(UTC)
    assert cloud.evaluate_alarms(now)["dead-letters"] == "OK"
    received(cloud, messages)
    sqs, url = client(cloud, "sqs"), cloud.outputs["AlarmQueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="lost")
    states = cloud.evaluate_alarms(datetime.now(UTC) + SOON)
    assert (states["dead-letters"], states["anything"]) == ("ALARM", "ALARM")
    [notice] = received(cloud, messages)
    assert notice["Subject"] == 'ALARM: "anything" in Europe (Ireland)'
    message = json.loads(notice["Message"])
    assert (message["OldStateValue"], message["NewStateValue"]) == ("OK", "ALARM")
    assert "alarm:dead-letters transitioned to ALARM" in message["NewStateReason"]
    assert [child["Arn"].rpartition(":")[2] for child in message["TriggeringChildren"]] == ["dead-letters"]
    [alarm] = client(cloud, "cloudwatch").describe_alarms(StateValue="ALARM")["MetricAlarms"]
    assert alarm["StateReason"].startswith("Threshold Crossed: 1 out of the last 1 datapoint [1 (")
    assert alarm["StateReason"].endswith(" was greater than or equal to the threshold (1).")

    sqs.purge_queue(QueueUrl=url)
    assert cloud.evaluate_alarms(datetime.now(UTC) + 5 * SOON)["anything"] == "OK"
    [notice] = received(cloud, messages)
    assert notice["Subject"].startswith("OK: ")


def test_failed_executions_set_off_an_alarm_with_metric_math(cloud: EmbeddedCloud, machines: Machines) -> None:
    alarm, machine = cloud.outputs["FailuresAlarm"], cloud.outputs["MachineArn"]
    assert machines.end(machines.start(machine, {"call": "refuse me"}))["status"] == "FAILED"
    [started] = values(cloud, "AWS/States", "ExecutionsStarted", "Sum", StateMachineArn=machine)
    [ended] = values(cloud, "AWS/States", "ExecutionTime", "SampleCount", StateMachineArn=machine)
    assert started >= ended >= 1
    assert cloud.evaluate_alarms(datetime.now(UTC) + SOON)[alarm] == "ALARM"


def test_services_measure_themselves(cloud: EmbeddedCloud) -> None:
    name = cloud.outputs["Raise"]
    assert invoke_directly(cloud, "Raise")[1]
    assert values(cloud, "AWS/Lambda", "Errors", "Sum", FunctionName=name)[0] >= 1
    assert values(cloud, "AWS/Lambda", "Duration", "Maximum", FunctionName=name)[0] > 0
    assert values(cloud, "AWS/Lambda", "ConcurrentExecutions", "Maximum", FunctionName=name)[0] >= 1
    [api] = client(cloud, "apigatewayv2").get_apis()["Items"]
    before = values(cloud, "AWS/ApiGateway", "5xx", "Sum", ApiId=api["ApiId"]) or [0]
    with pytest.raises(urllib.error.HTTPError, match="500"):
        urllib.request.urlopen(f"{cloud.outputs['ApiUrl']}/fail")
    assert values(cloud, "AWS/ApiGateway", "5xx", "Sum", ApiId=api["ApiId"]) == [before[0] + 1]
    assert values(cloud, "AWS/ApiGateway", "Latency", "p50", ApiId=api["ApiId"])[0] > 0


def test_a_set_state_is_announced_and_evaluated_again(cloud: EmbeddedCloud, messages: str) -> None:
    cloudwatch = client(cloud, "cloudwatch")
    for state in ("OK", "INSUFFICIENT_DATA"):
        cloudwatch.set_alarm_state(AlarmName="anything", StateValue=state, StateReason="preparation")
    received(cloud, messages)
    cloudwatch.set_alarm_state(AlarmName="anything", StateValue="ALARM", StateReason="a drill")
    [notice] = received(cloud, messages)
    assert json.loads(notice["Message"])["NewStateReason"] == "a drill"
    assert cloud.evaluate_alarms(datetime.now(UTC) + 30 * SOON)["anything"] == "OK"


def test_an_alarm_is_created_without_data_and_keeps_its_state(cloud: EmbeddedCloud) -> None:
    cloudwatch, name = client(cloud, "cloudwatch"), uuid.uuid4().hex
    alarm = {
        "AlarmName": name,
        "Namespace": name,
        "MetricName": "m",
        "Statistic": "Sum",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 1,
        "ComparisonOperator": "GreaterThanThreshold",
    }
    cloudwatch.put_metric_alarm(**alarm)
    assert cloud.evaluate_alarms()[name] == "INSUFFICIENT_DATA"
    cloudwatch.put_metric_data(Namespace=name, MetricData=[{"MetricName": "m", "Value": 2}])
    assert cloud.evaluate_alarms(datetime.now(UTC) + SOON)[name] == "ALARM"
    cloudwatch.put_metric_alarm(**alarm)
    [described] = cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"]
    assert described["StateValue"] == "ALARM"
    cloudwatch.delete_alarms(AlarmNames=[name])


@pytest.mark.parametrize(
    ("conditions", "names"),
    [
        ({}, {"dead-letters"}),
        ({"AlarmTypes": ["CompositeAlarm"]}, {"anything"}),
        ({"AlarmTypes": ["CompositeAlarm", "MetricAlarm"], "StateValue": "OK"}, {"dead-letters", "anything"}),
        ({"AlarmTypes": ["CompositeAlarm", "MetricAlarm"], "AlarmNamePrefix": "dead"}, {"dead-letters"}),
        ({"AlarmNames": ["dead-letters"], "StateValue": "ALARM"}, set()),
        ({"AlarmTypes": ["CompositeAlarm"], "ActionPrefix": "arn:aws:sns:"}, {"anything"}),
    ],
)
def test_alarms_are_listed_that_meet_all_conditions(
    cloud: EmbeddedCloud, conditions: dict[str, Any], names: set[str]
) -> None:
    cloud.evaluate_alarms(datetime.now(UTC) + 60 * SOON)
    found = client(cloud, "cloudwatch").describe_alarms(**conditions)
    listed = {alarm["AlarmName"] for alarm in found["MetricAlarms"] + found["CompositeAlarms"]}
    assert listed - {cloud.outputs["FailuresAlarm"]} == names


def test_an_anomaly_is_outside_of_the_band_of_earlier_values(cloud: EmbeddedCloud) -> None:
    cloudwatch, name, now = client(cloud, "cloudwatch"), uuid.uuid4().hex, datetime.now(UTC)
    stat = {"Metric": {"Namespace": name, "MetricName": "m"}, "Period": 60, "Stat": "Average"}
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        ThresholdMetricId="band",
        ComparisonOperator="GreaterThanUpperThreshold",
        EvaluationPeriods=1,
        Metrics=[
            {"Id": "band", "Expression": "ANOMALY_DETECTION_BAND(m, 2)"},
            {"Id": "m", "MetricStat": stat, "ReturnData": True},
        ],
    )

    def put(value: float, minutes: int) -> None:
        data = [{"MetricName": "m", "Value": value, "Timestamp": now + timedelta(minutes=minutes)}]
        cloudwatch.put_metric_data(Namespace=name, MetricData=data)

    for minutes in range(10):
        put(10 + minutes % 2, minutes - 20)
    put(11, 0)
    assert cloud.evaluate_alarms(now + SOON)[name] == "OK"
    put(20, 1)
    assert cloud.evaluate_alarms(now + 2 * SOON)[name] == "ALARM"
    cloudwatch.delete_alarms(AlarmNames=[name])


@pytest.mark.parametrize(
    ("metrics", "problem"),
    [
        ([{"Id": "a", "Expression": "SEARCH('{N}', 'Sum', 60)"}], "SEARCH is not supported on Metric Alarms"),
        ([{"Id": "a", "Expression": "m1 +"}], "Error in expression 'a': expected an operand"),
        ([{"Id": "a", "Expression": "1"}, {"Id": "b", "Expression": "2"}], "Exactly one element"),
    ],
)
def test_invalid_metrics_of_an_alarm_are_rejected(
    cloud: EmbeddedCloud, metrics: list[dict[str, Any]], problem: str
) -> None:
    with pytest.raises(ClientError, match=problem):
        client(cloud, "cloudwatch").put_metric_alarm(
            AlarmName="x", Metrics=metrics, EvaluationPeriods=1, Threshold=1, ComparisonOperator="LessThanThreshold"
        )


@pytest.mark.parametrize(
    ("rule", "problem"), [("ALARM(nosuch)", r"alarms \[nosuch\] in the alarm rule do not exist"), ("RED", "AlarmRule")]
)
def test_invalid_rules_are_rejected(cloud: EmbeddedCloud, rule: str, problem: str) -> None:
    with pytest.raises(ClientError, match=problem):
        client(cloud, "cloudwatch").put_composite_alarm(AlarmName="x", AlarmRule=rule)


def test_metric_filters_publish_metrics(cloud: EmbeddedCloud) -> None:
    logs, name = client(cloud, "logs"), uuid.uuid4().hex
    logs.create_log_group(logGroupName=name)
    logs.create_log_stream(logGroupName=name, logStreamName="s")
    metric = {"metricName": "Slow", "metricNamespace": name, "metricValue": "$.ms", "dimensions": {"Stage": "$.stage"}}
    for _ in range(2):  # the second call replaces the filter
        logs.put_metric_filter(
            logGroupName=name, filterName="slow", filterPattern="{ $.ms > 10 }", metricTransformations=[metric]
        )
    events = [{"ms": 20, "stage": "refine"}, {"ms": 30, "stage": "refine"}, {"ms": 5, "stage": "refine"}]
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    logs.put_log_events(
        logGroupName=name,
        logStreamName="s",
        logEvents=[{"timestamp": now_ms, "message": json.dumps(event)} for event in events],
    )
    assert values(cloud, name, "Slow", "Sum", Stage="refine") == [50]
    metric["metricValue"] = "ms"
    with pytest.raises(ClientError, match="Invalid metric value 'ms'"):
        logs.put_metric_filter(logGroupName=name, filterName="a", filterPattern="", metricTransformations=[metric])
