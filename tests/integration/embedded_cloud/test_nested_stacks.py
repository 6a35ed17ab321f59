"""Nested stacks are deployed as stacks of their own, with their processes."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from embedded_cloud.cloud import EmbeddedCloud
from embedded_cloud.deploy import create_stack, translate
from tests import conftest

TEMPLATES = Path(__file__).parents[1] / "embedded"
PARENT = TEMPLATES / "nested_parent.yaml"


@pytest.fixture(scope="module")
def cloud() -> Iterator[EmbeddedCloud]:
    with EmbeddedCloud(PARENT) as running:
        yield running


def client(cloud: EmbeddedCloud, service: str) -> Any:
    return conftest.client(service, cloud.endpoint_url, cloud.region)


def stacks(cloud: EmbeddedCloud) -> dict[str, Any]:
    return {stack["StackName"]: stack for stack in client(cloud, "cloudformation").describe_stacks()["Stacks"]}


def test_each_nested_stack_is_listed_below_its_parent(cloud: EmbeddedCloud) -> None:
    found = stacks(cloud)
    root = found[cloud.stack_name]
    assert len(found) == 4
    assert {stack["StackStatus"] for stack in found.values()} == {"CREATE_COMPLETE"}
    worker, plain = (
        next(stack for name, stack in found.items() if name.startswith(f"{cloud.stack_name}-{logical_id}-"))
        for logical_id in ("Worker", "Plain")
    )
    (topics,) = (stack for name, stack in found.items() if name.startswith(f"{plain['StackName']}-Topics-"))
    assert {worker["ParentId"], worker["RootId"], plain["ParentId"], topics["RootId"]} == {root["StackId"]}
    assert topics["ParentId"] == plain["StackId"]
    summaries = client(cloud, "cloudformation").list_stacks()["StackSummaries"]
    assert {summary["StackName"] for summary in summaries} == found.keys()
    parameters = {item["ParameterKey"]: item["ParameterValue"] for item in worker["Parameters"]}
    assert (parameters["Subnets"], parameters["WithEndpoint"]) == ("subnet-1,subnet-2", "true")
    # A Ref returns the ARN.
    assert cloud.outputs["WorkerStack"] == worker["StackId"]
    resources = client(cloud, "cloudformation").describe_stack_resources(StackName=cloud.stack_name)["StackResources"]
    physical = {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources}
    assert physical["Worker"] == worker["StackId"]
    assert "Second" not in physical


def test_outputs_and_lists_pass_between_stacks(cloud: EmbeddedCloud) -> None:
    assert cloud.outputs["Subnets"] == "subnet-1 subnet-2"
    assert cloud.outputs["LastSubnet"] == "subnet-2"
    topics = [topic["TopicArn"] for topic in client(cloud, "sns").list_topics()["Topics"]]
    assert topics == [cloud.outputs["DeepTopic"]]
    summary = client(cloud, "ssm").get_parameter(Name=cloud.outputs["Summary"])["Parameter"]["Value"]
    assert summary == f"service={cloud.outputs['Service']}, topic={topics[0]}"


@pytest.mark.parametrize(("output", "greeting"), [("Echo", "subnet-1 subnet-2"), ("NestedEcho", None)])
def test_functions_run_in_every_stack(cloud: EmbeddedCloud, output: str, greeting: str | None) -> None:
    answer = json.load(
        client(cloud, "lambda").invoke(FunctionName=cloud.outputs[output], Payload='{"key": "a"}')["Payload"]
    )
    assert answer["event"] == {"key": "a"}
    assert answer["environment"].get("GREETING") == greeting
    assert len(cloud.outputs[output]) <= 64


def test_the_worker_of_a_nested_stack_runs(cloud: EmbeddedCloud) -> None:
    described = client(cloud, "ecs").describe_services(
        cluster=cloud.outputs["Cluster"], services=[cloud.outputs["Service"]]
    )
    assert described["services"][0]["runningCount"] == 1
    s3, deadline = client(cloud, "s3"), time.monotonic() + 10
    while not s3.list_objects_v2(Bucket=cloud.outputs["Bucket"], Prefix="worker/").get("Contents"):
        assert time.monotonic() < deadline, "the worker did not start"
        time.sleep(0.05)


def test_the_endpoint_of_a_nested_stack_answers(cloud: EmbeddedCloud) -> None:
    assert cloud.outputs["Endpoint"] == "nested-endpoint"
    answer = client(cloud, "sagemaker-runtime").invoke_endpoint(
        EndpointName="nested-endpoint", ContentType="application/json", Body=b'{"key": "a"}'
    )
    assert json.load(answer["Body"])["greeting"] == "nested"


def test_ignored_resources_of_nested_stacks_are_reported(cloud: EmbeddedCloud) -> None:
    assert ("WebAcl", "AWS::WAFv2::WebACL", "moto has no such type") in cloud.skipped


def test_conditions_create_and_omit_nested_resources(cloud: EmbeddedCloud) -> None:
    parameters = {"WithEndpoint": "false", "WithSecond": "true", "Count": "0"}
    outputs = create_stack(
        client(cloud, "cloudformation"), "conditions", translate(PARENT, parameters, cloud.region), parameters
    )
    found = [name for name in stacks(cloud) if name.startswith("conditions-")]
    assert any(name.startswith("conditions-Second-") for name in found)
    worker = next(name for name in found if name.startswith("conditions-Worker-"))
    resources = client(cloud, "cloudformation").describe_stack_resources(StackName=worker)["StackResources"]
    assert "Model" not in {resource["LogicalResourceId"] for resource in resources}
    assert outputs["Endpoint"] == ""

    # An update of the parent updates its nested stacks in place; deleting it deletes them.
    api = client(cloud, "cloudformation")
    updated = {**translate(PARENT, parameters, cloud.region)}
    updated["Resources"]["Worker"]["Properties"]["Parameters"]["Subnets"] = "subnet-9,subnet-8"
    values = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
    api.update_stack(StackName="conditions", TemplateBody=json.dumps(updated), Parameters=values)
    described = {
        output["OutputKey"]: output["OutputValue"]
        for output in api.describe_stacks(StackName=worker)["Stacks"][0]["Outputs"]
    }
    assert described["LastSubnet"] == "subnet-8"
    api.delete_stack(StackName="conditions")
    assert not [name for name in stacks(cloud) if name.startswith("conditions")]


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"TemplateURL": str(TEMPLATES / "nested/missing.yaml")}, "Nested stack Child failed: Template not found"),
        ({"TemplateURL": str(TEMPLATES / "nested/worker.yaml")}, "Nested stack Child failed: Missing parameter Bucket"),
        (
            {"TemplateURL": str(TEMPLATES / "nested/plain.yaml"), "Parameters": {"Subnets": ["a", "b"]}},
            "Parameter Subnets of nested stack Child must be a string",
        ),
    ],
)
def test_a_failed_nested_stack_fails_its_parent(
    cloud: EmbeddedCloud, properties: dict[str, Any], message: str, request: pytest.FixtureRequest
) -> None:
    template = {"Resources": {"Child": {"Type": "AWS::CloudFormation::Stack", "Properties": properties}}}
    name = f"failing-{abs(hash(request.node.name))}"
    with pytest.raises(ClientError, match=message):
        create_stack(client(cloud, "cloudformation"), name, template, {})
    assert stacks(cloud)[name]["StackStatus"] != "CREATE_COMPLETE"
