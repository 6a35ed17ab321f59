"""Updates, rollbacks and deletions of stacks follow CloudFormation."""

import json
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from embedded_cloud.cloud import EmbeddedCloud
from tests.integration.embedded_cloud.services.testbed import client

pytestmark = pytest.mark.slow

BROKEN = {"Type": "AWS::CloudFormation::Stack", "Properties": {"TemplateURL": "/missing.yaml"}}


def topic(name: str | None = None, **resource: Any) -> dict[str, Any]:
    return {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": name} if name else {}, **resource}


def queue(timeout_s: Any = 30, **resource: Any) -> dict[str, Any]:
    return {"Type": "AWS::SQS::Queue", "Properties": {"VisibilityTimeout": timeout_s}, **resource}


class Stack:
    """A stack with a name of its own."""

    def __init__(self, cloud: EmbeddedCloud) -> None:
        self._cloud, self.name = cloud, f"stack-{uuid.uuid4().hex[:8]}"
        self.api = client(cloud, "cloudformation")

    def create(self, resources: dict[str, Any], **more: Any) -> str:
        self.api.create_stack(StackName=self.name, **self._request(resources, more))
        return self.status

    def update(self, resources: dict[str, Any], **more: Any) -> str:
        self.api.update_stack(StackName=self.name, **self._request(resources, more))
        return self.status

    def delete(self) -> None:
        self.api.delete_stack(StackName=self.name)

    @property
    def status(self) -> str:
        [described] = self.api.describe_stacks(StackName=self.name)["Stacks"]
        return str(described["StackStatus"])

    @property
    def outputs(self) -> dict[str, str]:
        [described] = self.api.describe_stacks(StackName=self.name)["Stacks"]
        return {one["OutputKey"]: one["OutputValue"] for one in described.get("Outputs", [])}

    @property
    def physical(self) -> dict[str, str]:
        resources = self.api.describe_stack_resources(StackName=self.name)["StackResources"]
        return {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in resources}

    def events(self) -> list[tuple[str, str]]:
        """Return logical ID and status of all events, oldest first."""
        events = self.api.describe_stack_events(StackName=self.name)["StackEvents"]
        return [(one["LogicalResourceId"], one["ResourceStatus"]) for one in reversed(events)]

    def topics(self) -> list[str]:
        """Return the names of topics that begin with that of the stack."""
        listed = client(self._cloud, "sns").list_topics()["Topics"]
        names = [one["TopicArn"].rpartition(":")[2] for one in listed]
        return sorted(name for name in names if name.startswith(self.name))

    def timeout_s(self, logical_id: str = "Queue") -> int:
        """Return the visibility timeout of a queue."""
        url, wanted = self.physical[logical_id], ["VisibilityTimeout"]
        found = client(self._cloud, "sqs").get_queue_attributes(QueueUrl=url, AttributeNames=wanted)
        return int(found["Attributes"]["VisibilityTimeout"])

    def _request(self, resources: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
        values = more.pop("values", {})
        parameters = [{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()]
        body = json.dumps({"Resources": resources, **more})
        return {"TemplateBody": body, "Parameters": parameters, "Capabilities": ["CAPABILITY_NAMED_IAM"]}


@pytest.fixture
def stack(cloud: EmbeddedCloud) -> Stack:
    return Stack(cloud)


def test_only_changed_resources_are_updated_and_references_follow(stack: Stack) -> None:
    outputs = {"Name": {"Value": {"Fn::GetAtt": ["Topic", "TopicName"]}}}
    before = {"Queue": queue(), "Other": queue(), "Topic": topic(f"{stack.name}-a")}
    assert stack.create(before, Outputs=outputs) == "CREATE_COMPLETE"
    names = stack.physical
    after = {"Topic": topic(f"{stack.name}-b"), "Queue": queue(60), "Other": queue()}
    assert stack.update(after, Outputs=outputs) == "UPDATE_COMPLETE"

    assert stack.outputs["Name"] == f"{stack.name}-b"
    assert stack.topics() == [f"{stack.name}-b"], "a topic with another name replaces the first one, which is deleted"
    assert stack.timeout_s() == 60 and stack.physical["Queue"] == names["Queue"]
    events = stack.events()
    assert ("Queue", "UPDATE_COMPLETE") in events and ("Topic", "CREATE_COMPLETE") in events[
        events.index((stack.name, "UPDATE_IN_PROGRESS")) :
    ]
    assert ("Other", "UPDATE_COMPLETE") not in events
    assert [status for name, status in events if name == stack.name][-3:] == [
        "UPDATE_IN_PROGRESS",
        "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS",
        "UPDATE_COMPLETE",
    ]


def test_a_resource_is_updated_after_those_that_it_refers_to(stack: Stack) -> None:
    def resources(name: str) -> dict[str, Any]:
        reader = {
            "Type": "AWS::SSM::Parameter",
            "Properties": {"Type": "String", "Value": {"Ref": "Topic"}, "Name": f"/{stack.name}"},
        }
        return {"Reader": reader, "Topic": topic(name)}

    stack.create(resources(f"{stack.name}-a"))
    stack.update(resources(f"{stack.name}-b"))
    value = client(stack._cloud, "ssm").get_parameter(Name=f"/{stack.name}")["Parameter"]["Value"]
    assert value.endswith(f":{stack.name}-b")


def test_a_failed_update_leaves_everything_as_it_was(stack: Stack) -> None:
    before = {"Queue": queue(), "Topic": topic(f"{stack.name}-a"), "Kept": topic(f"{stack.name}-k")}
    stack.create(before, Outputs={"Topic": {"Value": {"Ref": "Topic"}}})
    names, outputs = stack.physical, stack.outputs
    after = {"Queue": queue(60), "Topic": topic(f"{stack.name}-b"), "New": topic(f"{stack.name}-n"), "Broken": BROKEN}

    assert stack.update(after) == "UPDATE_ROLLBACK_COMPLETE"

    assert (stack.timeout_s(), stack.physical, stack.outputs) == (30, names, outputs)
    assert stack.topics() == [f"{stack.name}-a", f"{stack.name}-k"]
    [reason] = [
        one["ResourceStatusReason"]
        for one in stack.api.describe_stack_events(StackName=stack.name)["StackEvents"]
        if one["ResourceStatus"] == "UPDATE_ROLLBACK_IN_PROGRESS"
    ]
    assert reason == "Nested stack Broken failed: Template not found: /missing.yaml"
    assert "Broken" not in json.dumps(stack.api.get_template(StackName=stack.name)["TemplateBody"])
    assert stack.update({**before, "Queue": queue(45)}) == "UPDATE_COMPLETE"
    assert stack.timeout_s() == 45


def test_an_invalid_template_changes_nothing(stack: Stack) -> None:
    stack.create({"Queue": queue()})
    with pytest.raises(ClientError, match="Missing"):
        stack.update({"Queue": queue({"Ref": "Missing"})}, Parameters={"Missing": {"Type": "String"}})
    assert stack.status == "CREATE_COMPLETE" and stack.timeout_s() == 30


def test_a_custom_name_prevents_a_replacement(stack: Stack) -> None:
    def table(**properties: Any) -> dict[str, Any]:
        key = {"KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}], "BillingMode": "PAY_PER_REQUEST"}
        attributes = {"AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}]}
        return {"Type": "AWS::DynamoDB::Table", "Properties": {**key, **attributes, **properties}}

    source = {"ImportSourceSpecification": {"InputFormat": "CSV", "S3BucketSource": {"S3Bucket": "b"}}}
    stack.create({"Table": table(TableName=stack.name)})
    assert stack.update({"Table": table(TableName=stack.name, **source)}) == "UPDATE_ROLLBACK_COMPLETE"
    assert stack.physical["Table"] == stack.name


def test_a_failed_creation_is_rolled_back_and_keeps_only_what_is_always_retained(stack: Stack) -> None:
    resources = {
        "Plain": topic(f"{stack.name}-plain"),
        "OnCreate": topic(f"{stack.name}-on-create", DeletionPolicy="RetainExceptOnCreate"),
        "Always": topic(f"{stack.name}-always", DeletionPolicy="Retain"),
        "Broken": BROKEN,
    }
    assert stack.create(resources) == "ROLLBACK_COMPLETE"
    assert stack.topics() == [f"{stack.name}-always"]
    assert stack.physical == {} and stack.outputs == {}


def test_policies_decide_what_a_deletion_and_a_replacement_keep(stack: Stack) -> None:
    def resources(suffix: str) -> dict[str, Any]:
        return {
            "Replaced": topic(f"{stack.name}-r{suffix}", UpdateReplacePolicy="Retain"),
            "OnCreate": topic(f"{stack.name}-on-create", DeletionPolicy="RetainExceptOnCreate"),
            "Plain": topic(f"{stack.name}-plain"),
        }

    stack.create(resources("1"))
    stack.update(resources("2"))
    assert {f"{stack.name}-r1", f"{stack.name}-r2"} <= set(stack.topics())
    stack.delete()
    assert stack.topics() == [f"{stack.name}-on-create", f"{stack.name}-r1"]


def test_conditions_add_and_remove_resources(stack: Stack) -> None:
    template = {
        "Parameters": {"Wanted": {"Type": "String"}},
        "Conditions": {"IsWanted": {"Fn::Equals": [{"Ref": "Wanted"}, "yes"]}},
    }
    resources = {"Queue": queue(), "Topic": topic(f"{stack.name}-t", Condition="IsWanted")}
    stack.create(resources, values={"Wanted": "no"}, **template)
    assert stack.topics() == []
    stack.update(resources, values={"Wanted": "yes"}, **template)
    assert stack.topics() == [f"{stack.name}-t"]
    stack.update(resources, values={"Wanted": "no"}, **template)
    assert stack.topics() == [] and list(stack.physical) == ["Queue"]


def test_what_cannot_be_deleted_is_reported(stack: Stack, cloud: EmbeddedCloud) -> None:
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": stack.name}}
    stack.create({"Bucket": bucket, "Queue": queue()})
    client(cloud, "s3").put_object(Bucket=stack.name, Key="a", Body=b"")
    stack.delete()
    assert stack.status == "DELETE_FAILED"
    assert ("Bucket", "DELETE_FAILED") in stack.events()
    client(cloud, "s3").delete_object(Bucket=stack.name, Key="a")
    stack.delete()
    assert stack.name not in [one["StackName"] for one in stack.api.describe_stacks()["Stacks"]]


def test_the_failure_of_a_nested_stack_rolls_all_stacks_back(stack: Stack, tmp_path: Any) -> None:
    child = tmp_path / "child.json"

    def resources(suffix: str, **more: Any) -> dict[str, Any]:
        nested = {"TemplateURL": str(child), "Parameters": {"Name": f"{stack.name}-{suffix}"}}
        return {"Child": {"Type": "AWS::CloudFormation::Stack", "Properties": nested}, **more}

    parameters = {"Name": {"Type": "String"}}
    child.write_text(json.dumps({"Parameters": parameters, "Resources": {"Topic": topic({"Ref": "Name"})}}))
    stack.create(resources("a"))
    nested = stack.physical["Child"]
    assert stack.topics() == [f"{stack.name}-a"]

    assert stack.update(resources("b", Broken={**BROKEN, "DependsOn": "Child"})) == "UPDATE_ROLLBACK_COMPLETE"
    assert stack.topics() == [f"{stack.name}-a"], "the replaced topic of the nested stack was still there"
    [described] = stack.api.describe_stacks(StackName=nested)["Stacks"]
    assert described["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"

    assert stack.update(resources("c")) == "UPDATE_COMPLETE"
    assert stack.topics() == [f"{stack.name}-c"] and stack.physical["Child"] == nested


def test_a_new_version_of_a_function_runs_new_calls(stack: Stack, cloud: EmbeddedCloud) -> None:
    role = {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": {}}}

    def resources(greeting: str, number: int) -> dict[str, Any]:
        function = {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "Code": {"ImageUri": "image"},
                "PackageType": "Image",
                "ImageConfig": {"Command": ["handlers.echo"]},
                "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                "Environment": {"Variables": {"GREETING": greeting}},
            },
        }
        version = {
            "Type": "AWS::Lambda::Version",
            "DeletionPolicy": "Retain",
            "UpdateReplacePolicy": "Retain",
            "Properties": {"FunctionName": {"Ref": "Function"}, "Description": str(number)},
        }
        alias = {
            "Type": "AWS::Lambda::Alias",
            "Properties": {
                "FunctionName": {"Ref": "Function"},
                "FunctionVersion": {"Fn::GetAtt": ["Version", "Version"]},
                "Name": "live",
            },
        }
        return {"Alias": alias, "Version": version, "Function": function, "Role": role}

    def greeting(qualifier: str) -> str:
        name = stack.physical["Function"]
        answer = client(cloud, "lambda").invoke(FunctionName=name, Qualifier=qualifier, Payload=b"{}")
        return str(json.load(answer["Payload"])["environment"]["GREETING"])

    stack.create(resources("first", 1))
    assert greeting("live") == "first"
    assert stack.update(resources("second", 2)) == "UPDATE_COMPLETE"
    assert (greeting("live"), greeting("1"), greeting("2")) == ("second", "first", "second")
    assert stack.update({**resources("third", 3), "Broken": BROKEN}) == "UPDATE_ROLLBACK_COMPLETE"
    assert greeting("live") == "second"
