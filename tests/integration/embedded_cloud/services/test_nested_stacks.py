"""Nested stacks are deployed as stacks of their own, with their processes."""

import json
import time
from typing import Any

import pytest

from embedded_cloud.cloud import EmbeddedCloud
from embedded_cloud.deploy import StackError, create_stack, translate
from tests.integration.embedded_cloud.services.testbed import STACK, client

pytestmark = pytest.mark.slow  # the deployed template's own nested stacks run in the fast tests


PARENT = STACK / "nested_parent.yaml"
NAME = "parent"


@pytest.fixture(scope="module")
def outputs(cloud: EmbeddedCloud) -> dict[str, str]:
    """Outputs of the parent stack."""
    return create_stack(client(cloud, "cloudformation"), NAME, translate(PARENT, {}, cloud.region), {})


def stacks(cloud: EmbeddedCloud) -> dict[str, Any]:
    return {stack["StackName"]: stack for stack in client(cloud, "cloudformation").describe_stacks()["Stacks"]}


def test_each_nested_stack_is_listed_below_its_parent(cloud: EmbeddedCloud, outputs: dict[str, str]) -> None:
    found = {name: stack for name, stack in stacks(cloud).items() if name.startswith(NAME)}
    root = found[NAME]
    assert len(found) == 4
    assert {stack["StackStatus"] for stack in found.values()} == {"CREATE_COMPLETE"}
    worker, plain = (
        next(stack for name, stack in found.items() if name.startswith(f"{NAME}-{logical_id}-"))
        for logical_id in ("Worker", "Plain")
    )
    (topics,) = (stack for name, stack in found.items() if name.startswith(f"{plain['StackName']}-Topics-"))
    assert {worker["ParentId"], worker["RootId"], plain["ParentId"], topics["RootId"]} == {root["StackId"]}
    assert topics["ParentId"] == plain["StackId"]
    summaries = client(cloud, "cloudformation").list_stacks()["StackSummaries"]
    assert {name for summary in summaries if (name := summary["StackName"]).startswith(NAME)} == found.keys()
    parameters = {item["ParameterKey"]: item["ParameterValue"] for item in worker["Parameters"]}
    assert (parameters["Subnets"], parameters["WithEndpoint"]) == ("subnet-1,subnet-2", "true")
    # A Ref returns the ARN.
    assert outputs["WorkerStack"] == worker["StackId"]
    resources = client(cloud, "cloudformation").describe_stack_resources(StackName=NAME)["StackResources"]
    physical = {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources}
    assert physical["Worker"] == worker["StackId"]
    assert "Second" not in physical


def test_outputs_and_lists_pass_between_stacks(cloud: EmbeddedCloud, outputs: dict[str, str]) -> None:
    assert outputs["Subnets"] == "subnet-1 subnet-2"
    assert outputs["LastSubnet"] == "subnet-2"
    topics = [topic["TopicArn"] for topic in client(cloud, "sns").list_topics()["Topics"]]
    assert [topic for topic in topics if "-Plain-" in topic] == [outputs["DeepTopic"]]
    summary = client(cloud, "ssm").get_parameter(Name=outputs["Summary"])["Parameter"]["Value"]
    assert summary == f"service={outputs['Service']}, topic={outputs['DeepTopic']}"


@pytest.mark.parametrize(("output", "greeting"), [("Echo", "subnet-1 subnet-2"), ("NestedEcho", None)])
def test_functions_run_in_every_stack(
    cloud: EmbeddedCloud, outputs: dict[str, str], output: str, greeting: str | None
) -> None:
    answer = json.load(client(cloud, "lambda").invoke(FunctionName=outputs[output], Payload='{"key": "a"}')["Payload"])
    assert answer["event"] == {"key": "a"}
    assert answer["environment"].get("GREETING") == greeting
    assert len(outputs[output]) <= 64


def test_the_worker_of_a_nested_stack_runs(cloud: EmbeddedCloud, outputs: dict[str, str]) -> None:
    described = client(cloud, "ecs").describe_services(cluster=outputs["Cluster"], services=[outputs["Service"]])
    assert described["services"][0]["runningCount"] == 1
    s3, deadline = client(cloud, "s3"), time.monotonic() + 10
    while not s3.list_objects_v2(Bucket=outputs["Bucket"], Prefix="worker/").get("Contents"):
        assert time.monotonic() < deadline, "the worker did not start"
        time.sleep(0.05)


def test_the_endpoint_of_a_nested_stack_answers(cloud: EmbeddedCloud, outputs: dict[str, str]) -> None:
    assert outputs["Endpoint"] == "nested-endpoint"
    answer = client(cloud, "sagemaker-runtime").invoke_endpoint(
        EndpointName="nested-endpoint", ContentType="application/json", Body=b'{"key": "a"}'
    )
    assert json.load(answer["Body"])["greeting"] == "nested"


def test_ignored_resources_of_nested_stacks_are_reported(cloud: EmbeddedCloud, outputs: dict[str, str]) -> None:
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
    api.update_stack(
        StackName="conditions",
        TemplateBody=json.dumps(updated),
        Parameters=values,
        Capabilities=["CAPABILITY_IAM"],
    )
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
        ({"TemplateURL": str(STACK / "nested/missing.yaml")}, "Nested stack Child failed: Template not found"),
        ({"TemplateURL": str(STACK / "nested/worker.yaml")}, "Nested stack Child failed: Missing parameter Bucket"),
        (
            {"TemplateURL": str(STACK / "nested/plain.yaml"), "Parameters": {"Subnets": ["a", "b"]}},
            "Parameter Subnets of nested stack Child must be a string",
        ),
    ],
)
def test_a_failed_nested_stack_fails_its_parent(
    cloud: EmbeddedCloud, properties: dict[str, Any], message: str, request: pytest.FixtureRequest
) -> None:
    template = {"Resources": {"Child": {"Type": "AWS::CloudFormation::Stack", "Properties": properties}}}
    name = f"failing-{abs(hash(request.node.name))}"
    with pytest.raises(StackError, match=message):
        create_stack(client(cloud, "cloudformation"), name, template, {})
    assert stacks(cloud)[name]["StackStatus"] == "ROLLBACK_COMPLETE"
