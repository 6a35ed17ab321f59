"""Metrics that AWS's services publish about themselves: moto has none but those of S3.

Sources:
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
    https://docs.aws.amazon.com/step-functions/latest/dg/procedure-cw-metrics.html
    https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
    https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-metrics.html
"""

import time
from collections.abc import Mapping
from typing import Any

from moto.cloudwatch.models import MetricDatum, cloudwatch_backends
from moto.core import DEFAULT_ACCOUNT_ID
from moto.sqs.models import Queue, SQSBackend, sqs_backends

from embedded_cloud.moto_patches.around import around
from embedded_cloud.moto_patches.host import running

Measurements = Mapping[str, tuple[float, str]]
"""Values and units by metric name."""


def record(namespace: str, dimensions: Mapping[str, str], measurements: Measurements) -> None:
    """Record a value of each metric, with these dimensions, now."""
    try:
        region = running().sdk["AWS_REGION"]
    except RuntimeError:  # the cloud was closed during the call
        return
    backend = cloudwatch_backends[DEFAULT_ACCOUNT_ID][region]
    pairs = [{"Name": name, "Value": value} for name, value in dimensions.items()]
    for name, (value, unit) in measurements.items():
        backend.service_data.append(MetricDatum(namespace, name, value, pairs, None, unit))


def count(namespace: str, name: str, value: float = 1, **dimensions: str) -> None:
    """Record a value of a metric that counts."""
    record(namespace, dimensions, {name: (value, "Count")})


@around(SQSBackend, "send_message")
def count_sent(original: Any, self: Any, queue_name: str, *args: Any, **kwargs: Any) -> Any:
    """AWS counts sent messages in CloudWatch; moto does not."""
    message = original(self, queue_name, *args, **kwargs)
    count("AWS/SQS", "NumberOfMessagesSent", QueueName=queue_name)
    return message


@around(SQSBackend, "receive_message")
def count_received(original: Any, self: Any, queue_name: str, *args: Any, **kwargs: Any) -> Any:
    """AWS counts received messages in CloudWatch; moto does not."""
    messages = original(self, queue_name, *args, **kwargs)
    if messages:
        count("AWS/SQS", "NumberOfMessagesReceived", len(messages), QueueName=queue_name)
    return messages


@around(Queue, "delete_message")
def count_deleted(original: Any, self: Any, receipt_handle: str) -> None:
    """AWS counts deleted messages in CloudWatch; moto does not."""
    original(self, receipt_handle)
    count("AWS/SQS", "NumberOfMessagesDeleted", QueueName=self.name)


class QueueSampler:
    """Records how many messages wait in each queue. AWS does that once a minute.

    An empty queue is recorded once a minute, another one with each sample, so that a short backlog is seen, too.
    """

    def __init__(self) -> None:
        self._minute = 0

    def sample(self) -> None:
        """Record the length of each queue."""
        now = time.time()
        first, self._minute = int(now // 60) != self._minute, int(now // 60)
        for queue in list(sqs_backends[DEFAULT_ACCOUNT_ID][running().sdk["AWS_REGION"]].queues.values()):
            messages = list(queue._messages)
            if messages or first:
                oldest = min((message.sent_timestamp for message in messages), default=1000 * now)
                sizes = {
                    "ApproximateNumberOfMessagesVisible": (queue.approximate_number_of_messages, "Count"),
                    "ApproximateNumberOfMessagesNotVisible": (
                        queue.approximate_number_of_messages_not_visible,
                        "Count",
                    ),
                    "ApproximateAgeOfOldestMessage": (max(0.0, now - oldest / 1000), "Seconds"),
                }
                record("AWS/SQS", {"QueueName": queue.name}, sizes)
