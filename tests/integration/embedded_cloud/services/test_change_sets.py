"""Change sets and the transform of SAM follow CloudFormation."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from embedded_cloud.cloud import EmbeddedCloud
from tests.integration.embedded_cloud.services.testbed import client

pytestmark = pytest.mark.slow

MACHINE = {
    "StartAt": "Say",
    "States": {"Say": {"Type": "Pass", "Result": "${Word}", "End": True}},
}


class ChangeSets:
    """Change sets of a stack with a name of its own."""

    def __init__(self, cloud: EmbeddedCloud) -> None:
        self.api, self.stack = client(cloud, "cloudformation"), f"changes-{uuid.uuid4().hex[:8]}"

    def create(self, template: dict[str, Any], kind: str = "CREATE", **values: str) -> dict[str, Any]:
        """Create a change set, and return its description."""
        name = f"n{uuid.uuid4().hex}"
        made = self.api.create_change_set(
            StackName=self.stack,
            ChangeSetName=name,
            ChangeSetType=kind,
            TemplateBody=json.dumps(template),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()],
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        )
        return dict(self.api.describe_change_set(ChangeSetName=made["Id"]))

    def execute(self, template: dict[str, Any], kind: str = "CREATE", **values: str) -> str:
        """Create and execute a change set, and return the status of the stack."""
        self.api.execute_change_set(ChangeSetName=self.create(template, kind, **values)["ChangeSetId"])
        return str(self.described["StackStatus"])

    @property
    def described(self) -> dict[str, Any]:
        [stack] = self.api.describe_stacks(StackName=self.stack)["Stacks"]
        return dict(stack)


@pytest.fixture
def sets(cloud: EmbeddedCloud) -> ChangeSets:
    return ChangeSets(cloud)


@pytest.fixture
def bucket(cloud: EmbeddedCloud) -> Iterator[str]:
    """A bucket with what ``sam package`` uploads: a nested template and a definition."""
    s3, name = client(cloud, "s3"), f"packaged-{uuid.uuid4().hex}"
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": cloud.region})
    child = {
        "Transform": "AWS::Serverless-2016-10-31",
        "Resources": {"Table": {"Type": "AWS::Serverless::SimpleTable"}},
        "Outputs": {"Name": {"Value": {"Ref": "Table"}}},
    }
    s3.put_object(Bucket=name, Key="child.template", Body=json.dumps(child))
    s3.put_object(Bucket=name, Key="machine.json", Body=json.dumps(MACHINE))
    yield name


def packaged(cloud: EmbeddedCloud, bucket: str) -> dict[str, Any]:
    """Return a template as ``sam package`` writes it."""
    return {
        "Transform": "AWS::Serverless-2016-10-31",
        "Parameters": {"Word": {"Type": "String", "Default": "one"}},
        "Resources": {
            "Child": {
                "Type": "AWS::Serverless::Application",
                "Properties": {"Location": f"{cloud.endpoint_url}/{bucket}/child.template"},
            },
            "Machine": {
                "Type": "AWS::Serverless::StateMachine",
                "Properties": {
                    "DefinitionUri": {"Bucket": bucket, "Key": "machine.json"},
                    "DefinitionSubstitutions": {"Word": {"Ref": "Word"}},
                },
            },
        },
        "Outputs": {
            "Table": {"Value": {"Fn::GetAtt": ["Child", "Outputs.Name"]}},
            "Machine": {"Value": {"Ref": "Machine"}},
        },
    }


def topics(name: str = "a", timeout: str = "30", **more: Any) -> dict[str, Any]:
    queue = {"Type": "AWS::SQS::Queue", "Properties": {"VisibilityTimeout": timeout}}
    return {
        "Parameters": {"Name": {"Type": "String", "Default": "a"}},
        "Resources": {
            "Topic": {
                "Type": "AWS::SNS::Topic",
                "Properties": {"TopicName": {"Fn::Sub": f"${{AWS::StackName}}-{name}"}},
            },
            "Queue": queue,
            **more,
        },
    }


def changes(change_set: dict[str, Any]) -> dict[str, tuple[str, str | None]]:
    """Return action and replacement by logical ID."""
    found = [one["ResourceChange"] for one in change_set["Changes"]]
    return {one["LogicalResourceId"]: (one["Action"], one.get("Replacement")) for one in found}


def test_a_packaged_template_is_transformed_and_deployed(cloud: EmbeddedCloud, sets: ChangeSets, bucket: str) -> None:
    template = packaged(cloud, bucket)
    created = sets.create(template)
    assert sets.described["StackStatus"] == "REVIEW_IN_PROGRESS"
    assert {one["ResourceChange"]["ResourceType"] for one in created["Changes"]} == {
        "AWS::CloudFormation::Stack",
        "AWS::IAM::Role",
        "AWS::StepFunctions::StateMachine",
    }
    sets.api.execute_change_set(ChangeSetName=created["ChangeSetId"])
    assert sets.described["StackStatus"] == "CREATE_COMPLETE"
    outputs = {one["OutputKey"]: one["OutputValue"] for one in sets.described["Outputs"]}
    assert outputs["Table"] in client(cloud, "dynamodb").list_tables()["TableNames"]

    def definition() -> Any:
        machine = client(cloud, "stepfunctions").describe_state_machine(stateMachineArn=outputs["Machine"])
        return json.loads(machine["definition"])["States"]["Say"]["Result"]

    assert definition() == "one"
    assert changes(sets.create(template, "UPDATE", Word="two")) == {"Machine": ("Modify", "False")}
    assert sets.execute(template, "UPDATE", Word="two") == "UPDATE_COMPLETE"
    assert definition() == "two"
    original = sets.api.get_template(StackName=sets.stack)["TemplateBody"]
    assert original["Resources"]["Machine"]["Type"] == "AWS::Serverless::StateMachine"
    processed = sets.api.get_template(StackName=sets.stack, TemplateStage="Processed")["TemplateBody"]
    assert processed["Resources"]["Machine"]["Type"] == "AWS::StepFunctions::StateMachine"


def test_changes_say_what_is_replaced(sets: ChangeSets) -> None:
    assert sets.execute(topics()) == "CREATE_COMPLETE"
    update = topics("b", "60", New={"Type": "AWS::SNS::Topic", "Condition": "Always"})
    update["Conditions"] = {"Always": {"Fn::Equals": [{"Ref": "Name"}, "a"]}}
    assert changes(sets.create(update, "UPDATE")) == {
        "Topic": ("Modify", "True"),
        "Queue": ("Modify", "False"),
        "New": ("Add", None),
    }
    assert "New" not in changes(sets.create(update, "UPDATE", Name="b"))
    del update["Resources"]["Queue"]
    removed = sets.create(update, "UPDATE")
    assert changes(removed)["Queue"] == ("Remove", None)


def test_a_change_set_without_changes_fails_and_cannot_be_executed(sets: ChangeSets) -> None:
    sets.execute(topics())
    same = sets.create(topics(), "UPDATE")
    assert (same["Status"], same["ExecutionStatus"]) == ("FAILED", "UNAVAILABLE")
    assert same["StatusReason"].startswith("The submitted information didn't contain changes.")
    with pytest.raises(ClientError, match="InvalidChangeSetStatus"):
        sets.api.execute_change_set(ChangeSetName=same["ChangeSetId"])


def test_a_failed_execution_is_reported_in_the_status_of_the_stack(sets: ChangeSets) -> None:
    broken = {"Type": "AWS::CloudFormation::Stack", "Properties": {"TemplateURL": "/missing.yaml"}}
    assert sets.execute(topics(Broken=broken)) == "ROLLBACK_COMPLETE"
    events = sets.api.describe_stack_events(StackName=sets.stack)["StackEvents"]
    [failed] = [one for one in events if one["ResourceStatus"] == "CREATE_FAILED"]
    assert failed["LogicalResourceId"] == "Broken" and "Template not found" in failed["ResourceStatusReason"]


def test_change_sets_belong_to_their_stack(cloud: EmbeddedCloud, sets: ChangeSets) -> None:
    others = ChangeSets(cloud)
    made, other = sets.create(topics()), others.create(topics())
    listed = sets.api.list_change_sets(StackName=sets.stack)["Summaries"]
    assert [one["ChangeSetId"] for one in listed] == [made["ChangeSetId"]]
    sets.api.delete_change_set(ChangeSetName=made["ChangeSetName"], StackName=sets.stack)
    with pytest.raises(ClientError, match="ChangeSetNotFound"):
        sets.api.describe_change_set(ChangeSetName=made["ChangeSetName"], StackName=sets.stack)
    assert others.api.describe_change_set(ChangeSetName=other["ChangeSetId"])["Status"] == "CREATE_COMPLETE"


@pytest.mark.parametrize(
    ("template", "needed"),
    [
        ({"Resources": {"R": {"Type": "AWS::IAM::Role"}}}, "CAPABILITY_IAM"),
        ({"Resources": {"R": {"Type": "AWS::IAM::Role", "Properties": {"RoleName": "r"}}}}, "CAPABILITY_NAMED_IAM"),
        (
            {
                "Transform": "AWS::Serverless-2016-10-31",
                "Resources": {"T": {"Type": "AWS::Serverless::SimpleTable"}},
            },
            "CAPABILITY_AUTO_EXPAND",
        ),
    ],
)
def test_capabilities_must_be_acknowledged(cloud: EmbeddedCloud, template: dict[str, Any], needed: str) -> None:
    with pytest.raises(ClientError, match=needed) as error:
        client(cloud, "cloudformation").create_stack(StackName="unacknowledged", TemplateBody=json.dumps(template))
    assert error.value.response["Error"]["Code"] == "InsufficientCapabilitiesException"
