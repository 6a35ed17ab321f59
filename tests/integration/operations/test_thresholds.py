"""Each alarm of the template goes off on bad data, and only then."""

import itertools
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from embedded_cloud.alarm_rules import alarms_in
from embedded_cloud.cloud import EmbeddedCloud
from tests.conftest import ROOT, client

TEMPLATE = ROOT / "infrastructure" / "operations.yaml"
MAIN = "pbr"
EVERYTHING = {"WorkerCapacity": "GPU", "WorkerMaxCount": "8", "EndpointMode": "async", "MonthlyBudget": "0"}
"""What has alarms of its own. Names of resources are those of their parameters."""

Values = Mapping[str, float]
"""Value of each metric in each period. A metric that is not listed has none."""

WAITING = "ApproximateNumberOfMessagesVisible"
CASES: dict[str, tuple[Values, Values]] = {  # bad values, good values
    "failure-rate": (
        {"ExecutionsFailed": 4, "ExecutionsSucceeded": 36},
        {"ExecutionsFailed": 4, "ExecutionsSucceeded": 37},
    ),
    "slow": (
        {"ExecutionTime": 121_000, "ExecutionsSucceeded": 10},
        {"ExecutionTime": 121_000, "ExecutionsSucceeded": 9},
    ),
    "timed-out-or-aborted": ({"ExecutionsTimedOut": 1}, {"ExecutionsAborted": 4}),
    "dead-letters-segmentation": ({WAITING: 1}, {WAITING: 0}),
    "dead-letters-uploads": ({WAITING: 1}, {WAITING: 0}),
    "dead-letters-reconcile": ({WAITING: 1}, {WAITING: 0}),
    "dead-letters-webhooks": ({WAITING: 1}, {WAITING: 0}),
    "oldest-request": ({"ApproximateAgeOfOldestMessage": 601}, {"ApproximateAgeOfOldestMessage": 600}),
    "no-scale-out": ({WAITING: 301, "RunningTaskCount": 1}, {WAITING: 301, "RunningTaskCount": 2}),
    "endpoint-no-scale-out": ({"HasBacklogWithoutCapacity": 1}, {"HasBacklogWithoutCapacity": 0}),
    "gpu-unavailable": ({"GpuUnavailable": 1}, {}),
    "throttled": ({"Throttles": 3}, {"Throttles": 2}),  # of each of nine functions
    "bulk-throttled": ({"Throttles": 7}, {"Throttles": 6}),  # of each of three
    "api-errors": ({"5xx": 5, "Count": 100}, {"5xx": 5, "Count": 101}),
    "bulk-failed": ({"ExecutionsTimedOut": 1}, {"ExecutionsFailed": 0}),
    "lost-uploads": ({"LostUploads": 1}, {"LostUploads": 0}),
    "sweep-failed": ({"Invocations": 1, "Errors": 1}, {"Invocations": 2, "Errors": 1}),
    "digest-failed": ({"Invocations": 3, "Errors": 3}, {"Invocations": 3, "Errors": 2}),
    "cost-anomaly": ({"EstimatedCost": 0.0012}, {"EstimatedCost": 0.001}),
}
PAST: dict[str, Values] = {"cost-anomaly": {"EstimatedCost": 0.001}}
"""Values of the day before the evaluated time."""

_times = (datetime(2030, 1, 1, tzinfo=UTC) + day * timedelta(days=2) for day in itertools.count())


@pytest.fixture(scope="module")
def cloud() -> Iterator[EmbeddedCloud]:
    """The stack of alarms alone, with the default thresholds."""
    thresholds = yaml_parse((ROOT / "template.yaml").read_text())["Parameters"]
    parameters = {
        name: str(thresholds[f"Alarm{name}"]["Default"]) if f"Alarm{name}" in thresholds else name
        for name in yaml_parse(TEMPLATE.read_text())["Parameters"]
    }
    given = {**parameters, **EVERYTHING, "MainStackName": MAIN, "AlertEmail": ""}
    with EmbeddedCloud(TEMPLATE, given, alarm_interval_s=None) as running:
        yield running


def in_alarm(cloud: EmbeddedCloud, now: datetime) -> set[str]:
    """Evaluate the alarms, and return those that are in ALARM, without the stack's name."""
    return {name.removeprefix(f"{MAIN}-") for name, state in cloud.evaluate_alarms(now).items() if state == "ALARM"}


def publish(cloud: EmbeddedCloud, alarm: str, values: Values, end: datetime) -> None:
    """Publish a value of each metric of an alarm in each evaluated period, and before that the past ones."""
    cloudwatch = client("cloudwatch", cloud.endpoint_url, cloud.region)
    [described] = cloudwatch.describe_alarms(AlarmNames=[f"{MAIN}-{alarm}"])["MetricAlarms"]
    periods = described["EvaluationPeriods"]
    given = {**dict.fromkeys(range(periods), values), **dict.fromkeys(range(periods, 24), PAST.get(alarm, {}))}
    for metric, period_s in metrics(described):
        name = metric["MetricName"]
        data = [
            {
                "MetricName": name,
                "Dimensions": metric.get("Dimensions", []),
                "Timestamp": end - (number + 0.5) * timedelta(seconds=period_s),
                "Value": one[name],
            }
            for number, one in given.items()
            if name in one
        ]
        if data:
            cloudwatch.put_metric_data(Namespace=metric["Namespace"], MetricData=data)


def metrics(alarm: dict[str, Any]) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield each metric that an alarm reads, and its period in seconds."""
    if "MetricName" in alarm:
        yield alarm, alarm["Period"]
    for query in alarm.get("Metrics", ()):
        if "MetricStat" in query:
            yield query["MetricStat"]["Metric"], query["MetricStat"]["Period"]


def severities(cloud: EmbeddedCloud) -> dict[str, str]:
    """Return the composite alarm of each alarm."""
    cloudwatch = client("cloudwatch", cloud.endpoint_url, cloud.region)
    composites = cloudwatch.describe_alarms(AlarmTypes=["CompositeAlarm"])["CompositeAlarms"]
    return {
        name.removeprefix(f"{MAIN}-"): one["AlarmName"].removeprefix(f"{MAIN}-")
        for one in composites
        for name in alarms_in(one["AlarmRule"])
    }


def test_a_dead_letter_sends_one_message_for_all_alarms_of_its_severity(cloud: EmbeddedCloud) -> None:
    sqs, sns = (client(service, cloud.endpoint_url, cloud.region) for service in ("sqs", "sns"))
    mailbox = sqs.create_queue(QueueName="mailbox")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=mailbox, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=cloud.outputs["AlertsTopicArn"], Protocol="sqs", Endpoint=arn)
    assert in_alarm(cloud, datetime.now(UTC)) == set()
    sqs.purge_queue(QueueUrl=mailbox)  # messages that the new alarms are OK
    queue = sqs.create_queue(QueueName="WebhooksDeadLetterQueue")["QueueUrl"]
    sqs.send_message(QueueUrl=queue, MessageBody="{}")

    assert in_alarm(cloud, datetime.now(UTC) + timedelta(minutes=1)) == {"dead-letters-webhooks", "warning"}
    [notice] = sqs.receive_message(QueueUrl=mailbox, MaxNumberOfMessages=10)["Messages"]
    message = json.loads(json.loads(notice["Body"])["Message"])
    assert (message["AlarmName"], message["NewStateValue"]) == (f"{MAIN}-warning", "ALARM")
    assert [child["Arn"].rpartition(":")[2] for child in message["TriggeringChildren"]] == [
        f"{MAIN}-dead-letters-webhooks"
    ]
    sns.unsubscribe(SubscriptionArn=sns.list_subscriptions()["Subscriptions"][0]["SubscriptionArn"])
    sqs.delete_queue(QueueUrl=queue)
    publish(cloud, "dead-letters-webhooks", {WAITING: 0}, now := next(_times))  # else the alarm keeps its state
    assert in_alarm(cloud, now) == set()


def test_there_is_a_case_for_each_alarm(cloud: EmbeddedCloud) -> None:
    assert CASES.keys() == severities(cloud).keys()


@pytest.mark.parametrize("alarm", CASES)
def test_an_alarm_goes_off_on_bad_data_and_not_on_good_data(cloud: EmbeddedCloud, alarm: str) -> None:
    bad, good = CASES[alarm]
    for values, expected in ((bad, {alarm, severities(cloud)[alarm]}), (good, set())):
        now = next(_times)
        publish(cloud, alarm, values, now)
        assert in_alarm(cloud, now) == expected


def test_a_sweep_that_does_not_run_sets_off_its_alarm_until_it_runs_again(cloud: EmbeddedCloud) -> None:
    begin, hour = next(_times), timedelta(hours=1)
    cloudwatch = client("cloudwatch", cloud.endpoint_url, cloud.region)

    def run(number: int) -> None:
        """Publish what Lambda does about a call in an hour, counted from ``begin``."""
        where = {"Dimensions": [{"Name": "FunctionName", "Value": "SweepFunction"}], "Timestamp": begin + number * hour}
        metrics = [{"MetricName": name, "Value": value, **where} for name, value in (("Invocations", 1), ("Errors", 0))]
        cloudwatch.put_metric_data(Namespace="AWS/Lambda", MetricData=metrics)

    def alarms(number: int) -> bool:
        """Return whether the alarm is active at the end of an hour."""
        return "sweep-failed" in in_alarm(cloud, begin + (number + 1) * hour)

    assert not alarms(-1)
    run(0)
    run(1)
    assert [alarms(number) for number in (0, 1, 2, 3)] == [False] * 4
    assert [alarms(number) for number in (4, 5, 24)] == [True] * 3
    run(25)
    run(26)
    assert not alarms(26)


def test_one_waiting_request_without_a_worker_sets_off_no_scale_out(cloud: EmbeddedCloud) -> None:
    now = next(_times)
    publish(cloud, "no-scale-out", {WAITING: 1}, now)
    assert in_alarm(cloud, now) == {"no-scale-out", "warning"}
    publish(cloud, "no-scale-out", {WAITING: 0}, now := next(_times))
    assert in_alarm(cloud, now) == set()
