"""Injected faults look to callers like those of AWS."""

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib import request as http

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from embedded_cloud.cloud import EmbeddedCloud
from embedded_cloud.faults import FaultEffect
from tests.integration.embedded_cloud.services.testbed import REFUSALS

pytestmark = pytest.mark.slow  # the chaos run injects faults, too


def client(cloud: EmbeddedCloud, service: str) -> Any:
    session: Any = boto3.session.Session("local", "local", region_name=cloud.region)
    return session.client(service, endpoint_url=cloud.endpoint_url, config=Config(retries={"total_max_attempts": 1}))


def keys(cloud: EmbeddedCloud) -> set[str]:
    listed = client(cloud, "s3").list_objects_v2(Bucket=cloud.outputs["Bucket"])
    return {entry["Key"] for entry in listed.get("Contents", [])}


@pytest.mark.parametrize(("service", "call", "request_", "status"), [
    ("s3", "put_object", {"Bucket": "Bucket", "Key": "refuse me", "Body": b"1"}, 503),
    ("dynamodb", "get_item", {"TableName": "Table", "Key": {"id": {"S": "refuse me"}}}, 400),
    ("lambda", "invoke", {"FunctionName": "Echo", "Payload": '"refuse me"'}, 429),
])  # fmt: skip
def test_an_injected_error_has_the_code_and_status_of_the_service(
    cloud: EmbeddedCloud, service: str, call: str, request_: dict[str, Any], status: int
) -> None:
    named = {
        name: cloud.outputs.get(value, value) if isinstance(value, str) else value for name, value in request_.items()
    }
    with pytest.raises(ClientError) as refused:
        getattr(client(cloud, service), call)(**named)
    assert refused.value.response["Error"]["Code"] == REFUSALS[service].code
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert "refuse me" not in keys(cloud)


def test_a_chunked_body_is_complete(cloud: EmbeddedCloud) -> None:
    s3, where = client(cloud, "s3"), {"Bucket": cloud.outputs["Bucket"], "Key": "in chunks"}
    url = s3.generate_presigned_url("put_object", where)
    with http.urlopen(
        http.Request(url, iter([b"one, ", b"two, ", b"three"]), {"Content-Type": "text/plain"}, method="PUT")
    ):
        assert s3.get_object(**where)["Body"].read() == b"one, two, three"


@pytest.mark.parametrize("ending", list(FaultEffect))
@pytest.mark.parametrize("answered", [False, True])
def test_a_killed_function_returns_lambdas_error_and_is_restarted(
    cloud: EmbeddedCloud, ending: FaultEffect, answered: bool
) -> None:
    lambdas, echo = client(cloud, "lambda"), cloud.outputs["Echo"]
    before = json.loads(lambdas.invoke(FunctionName=echo, Payload="{}")["Payload"].read())
    wish = json.dumps({"end": {"as": ending, "answered": answered}})
    killed = lambdas.invoke(FunctionName=echo, Payload=wish)
    assert killed["FunctionError"]
    assert json.loads(killed["Payload"].read())["errorType"] == ending
    after = json.loads(lambdas.invoke(FunctionName=echo, Payload="{}")["Payload"].read())
    assert after["process"] != before["process"] and after["calls"] == 1


def started(cloud: EmbeddedCloud) -> set[str]:
    return {key for key in keys(cloud) if key.endswith("/started")}


def grown(cloud: EmbeddedCloud, former: set[str]) -> set[str]:
    deadline = time.monotonic() + 30
    while not (new := started(cloud) - former):
        assert time.monotonic() < deadline, "no task was started"
        time.sleep(0.1)
    return new


def drained(cloud: EmbeddedCloud) -> set[str]:
    return {key for key in keys(cloud) if key.endswith("/drained")}


@pytest.fixture(scope="module")
def service(cloud: EmbeddedCloud) -> Iterator[dict[str, str]]:
    """The template's ECS service with one running task."""
    names, ecs = {"cluster": cloud.outputs["Cluster"], "service": cloud.outputs["Service"]}, client(cloud, "ecs")
    ecs.update_service(**names, desiredCount=0)
    former = started(cloud)
    ecs.update_service(**names, desiredCount=1)
    grown(cloud, former)
    yield names
    ecs.update_service(**names, desiredCount=0)


@pytest.mark.slow
def test_a_killed_task_restarts_without_draining(cloud: EmbeddedCloud, service: dict[str, str]) -> None:
    former, drained_before = started(cloud), drained(cloud)
    cloud.kill_tasks()
    grown(cloud, former)
    assert drained(cloud) == drained_before


@pytest.mark.slow
def test_a_service_update_replaces_tasks_by_those_of_the_new_definition(
    cloud: EmbeddedCloud, service: dict[str, str]
) -> None:
    ecs, former, drained_before = client(cloud, "ecs"), started(cloud), drained(cloud)
    [described] = ecs.describe_services(cluster=service["cluster"], services=[service["service"]])["services"]
    definition = ecs.describe_task_definition(taskDefinition=described["taskDefinition"])["taskDefinition"]
    [container] = definition["containerDefinitions"]
    container["environment"].append({"name": "GREETING", "value": "hello again"})
    container.setdefault("memory", 512)
    made = ecs.register_task_definition(family=definition["family"], containerDefinitions=[container])
    ecs.update_service(**service, taskDefinition=made["taskDefinition"]["taskDefinitionArn"])
    grown(cloud, former)
    assert drained(cloud) > drained_before
