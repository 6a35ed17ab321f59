"""Bulk runs whose ECS workers are interrupted, with notice as on Spot capacity, and without."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from core.segmentation.registry import BUNDLED
from tests.conftest import client, disc
from tests.integration.deployment import Deployed, until
from tests.integration.state_machine.test_bulk import Run, listed

pytestmark = pytest.mark.slow

IMAGES = 16
OPTIONS = {"precision_level": "draft", "model": BUNDLED, "segmentation_host": "ecs"}
# Shorter than the deployed 120 s and 30 s, so that the jobs of a killed worker return soon.
HURRY = {"PBR_VISIBILITY_S": "8", "PBR_HEARTBEAT_S": "1"}


class Workers:
    """The tasks of the stack's worker."""

    def __init__(self, stack: Deployed) -> None:
        self._stack, self._ecs = stack, client("ecs", stack.cloud.endpoint_url, stack.cloud.region)
        [self._cluster] = self._ecs.list_clusters()["clusterArns"]
        [self._service] = self._ecs.list_services(cluster=self._cluster)["serviceArns"]

    @property
    def definition(self) -> str:
        [described] = self._ecs.describe_services(cluster=self._cluster, services=[self._service])["services"]
        return str(described["taskDefinition"])

    def use(self, definition: str) -> None:
        self._ecs.update_service(cluster=self._cluster, service=self._service, taskDefinition=definition)

    def hurry(self) -> None:
        """Deploy the worker with short timeouts."""
        former = self._ecs.describe_task_definition(taskDefinition=self.definition)["taskDefinition"]
        [container] = former["containerDefinitions"]
        container["environment"] += [{"name": name, "value": value} for name, value in HURRY.items()]
        container.setdefault("memory", 1024)  # moto forgets that of the task
        made = self._ecs.register_task_definition(
            family=former["family"], taskRoleArn=former["taskRoleArn"], containerDefinitions=[container]
        )
        self.use(made["taskDefinition"]["taskDefinitionArn"])

    def stop(self) -> None:
        """Interrupt each task with notice: SIGTERM, and SIGKILL after the stop timeout."""
        for task in self._ecs.list_tasks(cluster=self._cluster)["taskArns"]:
            self._ecs.stop_task(cluster=self._cluster, task=task, reason="Your Spot Task was interrupted.")

    def kill(self) -> None:
        """End each task without notice."""
        self._stack.cloud.kill_tasks()

    @property
    def stopped(self) -> list[dict[str, Any]]:
        names = {"cluster": self._cluster}
        arns = self._ecs.list_tasks(**names, desiredStatus="STOPPED")["taskArns"]
        return list(self._ecs.describe_tasks(**names, tasks=arns)["tasks"]) if arns else []

    def logged(self, text: str) -> list[dict[str, Any]]:
        """Return the log entries of all tasks that contain a text."""
        logs = client("logs", self._stack.cloud.endpoint_url, self._stack.cloud.region)
        group = f"/aws/lambda/{self._stack.cloud.stack_name}-segment"
        pages = logs.get_paginator("filter_log_events").paginate(
            logGroupName=group, logStreamNamePrefix="worker/", filterPattern=f'"{text}"'
        )
        return [json.loads(event["message"]) for page in pages for event in page["events"]]


@pytest.fixture
def workers(stack: Deployed) -> Iterator[Workers]:
    tasks = Workers(stack)
    former = tasks.definition
    tasks.hurry()
    yield tasks
    tasks.use(former)


def start(stack: Deployed, prefix: str) -> str:
    """Upload the images and start a bulk run of them with standard children; return its ARN."""
    for number in range(IMAGES):
        stack.upload(f"{prefix}{number:02}.png", disc(seed=7000 + number))
    source = {"source": listed(stack, prefix), "options": OPTIONS, "child": "standard", "max_concurrency": 12}
    machine = stack.outputs["BulkMachineArn"]
    return str(stack.sfn.start_execution(stateMachineArn=machine, input=json.dumps(source))["executionArn"])


def sidecars(stack: Deployed, prefix: str) -> list[dict[str, Any]]:
    found = stack.s3.list_objects_v2(Bucket=stack.outputs["ResultsBucket"], Prefix=f"results/{prefix}")
    keys = [item["Key"] for item in found.get("Contents", [])]
    return [json.loads(stack.result(key)) for key in keys if key.endswith(".json")]


def messages(stack: Deployed) -> dict[str, int]:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    counts = stack.sqs.get_queue_attributes(QueueUrl=stack.outputs["QueueUrl"], AttributeNames=names)["Attributes"]
    return {name: int(count) for name, count in counts.items()}


def forget(stack: Deployed, prefix: str) -> None:
    """Delete what the images of a prefix left in the cache, so that they are computed again."""
    for document in sidecars(stack, prefix):
        key = {"cache_key": {"S": document["cache"]["key"]}}
        stack.dynamodb.delete_item(TableName=stack.outputs["CacheTable"], Key=key)


def wait_for_work(stack: Deployed, prefix: str, done: int) -> None:
    """Wait until ``done`` images have results, and a worker has others in progress."""
    until(lambda: len(sidecars(stack, prefix)) >= done)
    until(lambda: messages(stack)["ApproximateNumberOfMessagesNotVisible"] > 0)


def interrupted(stack: Deployed, workers: Workers, prefix: str) -> Run:
    """Run the images while the worker is interrupted with and without notice, each time in the middle of its work."""
    arn = start(stack, prefix)
    for done, interrupt in ((1, workers.stop), (4, workers.kill), (7, workers.stop), (10, workers.stop)):
        wait_for_work(stack, prefix, done)
        interrupt()
    return Run(stack, arn, timeout_s=150)


def test_a_bulk_run_loses_nothing_when_its_workers_are_interrupted(stack: Deployed, workers: Workers) -> None:
    steady = Run(stack, start(stack, "bulk/steady/"))
    assert steady.summary.done == IMAGES
    forget(stack, "bulk/steady/")
    returned, received = (len(workers.logged(text)) for text in ("jobs returned to the queue", "job received"))

    shaky = interrupted(stack, workers, "bulk/shaky/")
    assert shaky.status == "SUCCEEDED", shaky.cause
    summary = shaky.summary
    assert (summary.items, summary.done, summary.failed, summary.not_done) == (IMAGES, IMAGES, 0, 0)
    for number in range(IMAGES):
        name = f"{number:02}.png.png"
        assert stack.result(f"results/bulk/shaky/{name}") == stack.result(f"results/bulk/steady/{name}")
    assert {(doc["model"]["host"], doc["degraded"]) for doc in sidecars(stack, "bulk/shaky/")} == {("ecs", False)}

    reasons = [task["stopCode"] for task in workers.stopped]
    assert reasons.count("UserInitiated") == 3 and reasons.count("EssentialContainerExited") == 1
    assert workers.logged("jobs returned to the queue")[returned:], "a worker was stopped in the middle of its work"
    again = [entry["received"] for entry in workers.logged("job received")[received:]]
    assert max(again) >= 2, "a worker was killed in the middle of its work"
    until(lambda: set(messages(stack).values()) == {0})
