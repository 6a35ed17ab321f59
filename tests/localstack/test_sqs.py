"""What the worker relies on SQS and task tokens for: its queue, and the state that sends to it."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from core.errors import UnknownForegroundError
from functions.segment.ecs.queue import JobQueue, Message
from functions.segment.task_tokens import TaskTokens
from tests.integration.embedded_cloud.services.testbed import until
from tests.localstack.conftest import Account
from tests.state_machine import DEFINITION

JOB = {"execution": {"name": "one"}, "source": {"bucket": "b", "key": "ü.jpg"}}
ROLE = "arn:aws:iam::000000000000:role/tests"


@pytest.fixture
def queue_url(aws: Account) -> Iterator[str]:
    """A queue with the attributes of the worker's queue; its messages are visible again at once."""
    sqs, name = aws.client("sqs"), uuid.uuid4().hex
    attributes = sqs.get_queue_attributes(QueueUrl=aws.ids["SegmentationQueue"], AttributeNames=["RedrivePolicy"])
    dead = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    redrive = json.loads(attributes["Attributes"]["RedrivePolicy"])
    redrive["deadLetterTargetArn"] = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"][
        "QueueArn"
    ]
    yield sqs.create_queue(QueueName=name, Attributes={"RedrivePolicy": json.dumps(redrive)})["QueueUrl"]


@pytest.fixture
def jobs(aws: Account, queue_url: str) -> JobQueue:
    return queue_of(aws, queue_url)


def queue_of(aws: Account, queue_url: str) -> JobQueue:
    tokens = TaskTokens(aws.client("stepfunctions"))
    return JobQueue(aws.client("sqs"), tokens, queue_url=queue_url, most=10, heartbeat_s=30, visibility_s=30)


def send(aws: Account, queue_url: str, count: int = 1) -> None:
    entries = [
        {"Id": str(number), "MessageBody": json.dumps({"token": str(number), "job": JOB})} for number in range(count)
    ]
    aws.client("sqs").send_message_batch(QueueUrl=queue_url, Entries=entries)


def taken(jobs: JobQueue, count: int) -> list[Message]:
    messages: list[Message] = []
    while len(messages) < count:
        messages += jobs.take() or []
    return messages


def counts(aws: Account, queue_url: str) -> tuple[int, int]:
    """Return the numbers of visible and invisible messages."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = aws.client("sqs").get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)["Attributes"]
    return int(attributes[names[0]]), int(attributes[names[1]])


def test_messages_in_progress_are_hidden_and_returned_ones_are_received_anew(
    aws: Account, queue_url: str, jobs: JobQueue
) -> None:
    send(aws, queue_url, 3)
    messages = taken(jobs, 3)
    assert {message.token for message in messages} == {"0", "1", "2"}
    assert {message.job["source"]["key"] for message in messages} == {"ü.jpg"}
    assert counts(aws, queue_url) == (0, 3)
    jobs.close()
    again = taken(queue_of(aws, queue_url), 3)
    assert [message.received for message in again] == [1, 1, 1]
    assert counts(aws, queue_url) == (0, 3)


def test_the_receives_of_a_crashed_worker_count(aws: Account, queue_url: str) -> None:
    send(aws, queue_url)
    received = []
    for _ in range(3):
        jobs = queue_of(aws, queue_url)
        (message,) = taken(jobs, 1)
        received.append(message.received)
        jobs.close(crashed=True)
    assert received == [1, 2, 3]


def test_a_message_that_is_received_too_often_goes_to_the_dead_letter_queue(aws: Account, queue_url: str) -> None:
    sqs = aws.client("sqs")
    send(aws, queue_url)
    redrive = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["RedrivePolicy"])["Attributes"]
    receives = int(json.loads(redrive["RedrivePolicy"])["maxReceiveCount"])
    for _ in range(receives):
        assert "Messages" in sqs.receive_message(QueueUrl=queue_url, VisibilityTimeout=0)
    assert "Messages" not in sqs.receive_message(QueueUrl=queue_url, VisibilityTimeout=0)
    (dead,) = sqs.receive_message(QueueUrl=f"{queue_url}-dead", WaitTimeSeconds=5)["Messages"]
    assert json.loads(dead["Body"])["job"] == JOB


def test_an_invalid_receipt_handle_fails_alone(aws: Account, queue_url: str) -> None:
    sqs = aws.client("sqs")
    send(aws, queue_url)
    (message,) = sqs.receive_message(QueueUrl=queue_url)["Messages"]
    entries = [{"Id": "0", "ReceiptHandle": message["ReceiptHandle"]}, {"Id": "1", "ReceiptHandle": "unknown"}]
    deleted = sqs.delete_message_batch(QueueUrl=queue_url, Entries=entries)
    assert [one["Id"] for one in deleted["Successful"]] == ["0"]
    assert [one["Id"] for one in deleted["Failed"]] == ["1"]


def execution_of(aws: Account, queue_url: str) -> str:
    """Start an execution of SegmentOnEcs alone, and return its ARN."""
    sfn, state = aws.client("stepfunctions"), DEFINITION["States"]["SegmentOnEcs"]
    alone = {name: value for name, value in state.items() if name not in ("Catch", "Next")}
    text = json.dumps({"StartAt": "SegmentOnEcs", "States": {"SegmentOnEcs": {**alone, "End": True}}})
    definition = text.replace("${Partition}", "aws").replace("${SegmentationQueueUrl}", queue_url)
    machine = sfn.create_state_machine(name=uuid.uuid4().hex, definition=definition, roleArn=ROLE)
    started = sfn.start_execution(stateMachineArn=machine["stateMachineArn"], input=json.dumps(JOB))
    return started["executionArn"]


def ended(aws: Account, execution: str) -> dict[str, Any]:
    sfn = aws.client("stepfunctions")
    until(lambda: sfn.describe_execution(executionArn=execution)["status"] != "RUNNING")
    return sfn.describe_execution(executionArn=execution)


def test_a_worker_completes_the_task(aws: Account, queue_url: str, jobs: JobQueue) -> None:
    execution = execution_of(aws, queue_url)
    (message,) = taken(jobs, 1)
    assert message.job == JOB
    assert jobs.alive(message)
    jobs.complete(message, {"model": "u2netp"})
    described = ended(aws, execution)
    assert described["status"] == "SUCCEEDED"
    assert json.loads(described["output"]) == {**JOB, "segment": {"mask": {"model": "u2netp"}}}
    assert counts(aws, queue_url) == (0, 0)


def test_a_worker_fails_the_task_by_the_class_of_its_error(aws: Account, queue_url: str, jobs: JobQueue) -> None:
    execution = execution_of(aws, queue_url)
    (message,) = taken(jobs, 1)
    error = UnknownForegroundError("no subject", field="source", value="ü.jpg", remedy="Crop the image.")
    jobs.complete(message, error)
    described = ended(aws, execution)
    assert (described["status"], described["error"]) == ("FAILED", "UnknownForegroundError")
    assert json.loads(described["cause"]) == error.facts()
    assert counts(aws, queue_url) == (0, 0)


def test_the_message_of_a_stopped_execution_is_deleted(aws: Account, queue_url: str, jobs: JobQueue) -> None:
    execution = execution_of(aws, queue_url)
    (message,) = taken(jobs, 1)
    aws.client("stepfunctions").stop_execution(executionArn=execution)
    until(lambda: not jobs.alive(message), timeout_s=10)
    assert counts(aws, queue_url) == (0, 0)
