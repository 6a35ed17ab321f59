"""The topic of failure reports: what the functions publish arrives at a subscriber."""

import json
import uuid
from typing import Any

from functions.contracts.outcome import ObjectVersion
from functions.runtime.failure_reports import headline
from tests.integration.embedded_cloud.services.testbed import until
from tests.localstack.conftest import Account

LONG = "photos/" + "ü" * 200 + ".jpg"


def test_a_report_arrives_with_its_subject(aws: Account) -> None:
    sns, sqs, topic = aws.client("sns"), aws.client("sqs"), aws.ids["FailuresTopic"]
    url = sqs.create_queue(QueueName=uuid.uuid4().hex)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    subject = headline(ObjectVersion(bucket="uploads", key=LONG, version_id=None), "Validate")
    sns.publish(TopicArn=topic, Subject=subject, Message=json.dumps({"source": {"key": LONG}}))
    (notification,) = until(lambda: [one for one in received(sqs, url) if one["Subject"] == subject])
    assert notification["TopicArn"] == topic
    assert json.loads(notification["Message"])["source"]["key"] == LONG


def received(sqs: Any, url: str) -> list[dict[str, Any]]:
    """Return the next notifications, among which may be reports of other tests' uploads."""
    return [json.loads(message["Body"]) for message in sqs.receive_message(QueueUrl=url).get("Messages", [])]
