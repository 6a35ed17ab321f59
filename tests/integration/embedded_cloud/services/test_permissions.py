"""Calls with a role are denied unless its policies allow them, with the errors of AWS."""

import json
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.cloudformation.models import Stack

from embedded_cloud.callers import access_key
from embedded_cloud.cloud import EmbeddedCloud
from embedded_cloud.moto_patches.iam import names_in, write_used_grants
from tests.integration.embedded_cloud.services.testbed import Machines, client

ACCOUNT = "123456789012"
TRUST = json.dumps({"Version": "2012-10-17", "Statement": []})


class Role:
    """A role with one policy.

    Args:
        cloud: the cloud.
        statements: action and resource of each.
    """

    def __init__(self, cloud: EmbeddedCloud, *statements: tuple[str, str]) -> None:
        self._cloud, self.name = cloud, f"role-{uuid.uuid4().hex[:8]}"
        iam = client(cloud, "iam")
        self.arn = iam.create_role(RoleName=self.name, AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
        document = [{"Effect": "Allow", "Action": action, "Resource": resource} for action, resource in statements]
        policy = json.dumps({"Version": "2012-10-17", "Statement": document})
        iam.put_role_policy(RoleName=self.name, PolicyName="policy", PolicyDocument=policy)

    def client(self, service: str) -> Any:
        """Return a client that acts with the role."""
        return acting_as(self._cloud, self.name, service)


def acting_as(cloud: EmbeddedCloud, role: str, service: str) -> Any:
    """Return a client that acts with a role."""
    return boto3.client(
        service,
        endpoint_url=cloud.endpoint_url,
        region_name=cloud.region,
        aws_access_key_id=access_key(role),
        aws_secret_access_key="local",
        config=Config(signature_version="s3v4") if service == "s3" else None,
    )


@pytest.fixture
def bucket(cloud: EmbeddedCloud) -> str:
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    location = {"LocationConstraint": cloud.region}
    client(cloud, "s3").create_bucket(Bucket=name, CreateBucketConfiguration=location)
    client(cloud, "s3").put_object(Bucket=name, Key="a/1", Body=b"one")
    return name


DENIED = [
    ("dynamodb:GetItem", "dynamodb", {"TableName": "t", "Key": {}}, "AccessDeniedException"),
    ("states:StopExecution", "stepfunctions", {"executionArn": "arn:e"}, "AccessDeniedException"),
    ("sqs:SendMessage", "sqs", {"QueueUrl": f"http://localhost/{ACCOUNT}/q", "MessageBody": "b"}, "AccessDenied"),
    ("sns:Publish", "sns", {"TopicArn": "arn:t", "Message": "m"}, "AuthorizationError"),
    ("lambda:InvokeFunction", "lambda", {"FunctionName": "f"}, "AccessDeniedException"),
    ("cloudwatch:ListMetrics", "cloudwatch", {}, "AccessDenied"),
    ("sagemaker:InvokeEndpoint", "sagemaker-runtime", {"EndpointName": "e", "Body": b"b"}, "AccessDeniedException"),
    ("secretsmanager:GetSecretValue", "secretsmanager", {"SecretId": "arn:s"}, "AccessDeniedException"),
    ("s3:PutObject", "s3", {"Bucket": "b", "Key": "k", "Body": b"b"}, "AccessDenied"),
]  # fmt: skip


@pytest.mark.parametrize(("action", "service", "given", "code"), DENIED, ids=[item[0] for item in DENIED])
def test_a_call_that_no_policy_allows_is_denied(
    cloud: EmbeddedCloud, action: str, service: str, given: dict[str, Any], code: str
) -> None:
    role = Role(cloud, ("events:PutRule", "*"))
    operation = xform_name(action.partition(":")[2].removesuffix("Function"))
    with pytest.raises(ClientError) as error:
        getattr(role.client(service), operation)(**given)
    assert error.value.response["Error"]["Code"] == code
    message, user = error.value.response["Error"]["Message"], f"assumed-role/{role.name}/embedded-cloud"
    assert message.startswith(f"User: arn:aws:sts::{ACCOUNT}:{user} is not authorized to perform: {action} on resource")
    assert message.endswith(f"because no identity-based policy allows the {action} action")


def test_a_call_is_allowed_on_the_resources_of_a_statement(cloud: EmbeddedCloud, bucket: str) -> None:
    s3 = Role(cloud, ("s3:GetObject", f"arn:aws:s3:::{bucket}/a/*")).client("s3")
    assert s3.get_object(Bucket=bucket, Key="a/1")["Body"].read() == b"one"
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.get_object(Bucket=bucket, Key="b/1")


@pytest.mark.parametrize(("may_list", "status"), [(False, 403), (True, 404)])
def test_a_missing_object_is_404_only_if_the_role_may_list(
    cloud: EmbeddedCloud, bucket: str, may_list: bool, status: int
) -> None:
    listing = [("s3:ListBucket", f"arn:aws:s3:::{bucket}")] if may_list else []
    s3 = Role(cloud, ("s3:*Object", f"arn:aws:s3:::{bucket}/*"), *listing).client("s3")
    missing = [
        lambda: s3.get_object(Bucket=bucket, Key="missing"),
        lambda: s3.head_object(Bucket=bucket, Key="missing"),
        lambda: s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "missing"}),
    ]
    for call in missing:
        with pytest.raises(ClientError) as error:
            call()
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == status


def test_a_presigned_url_has_the_permissions_of_its_role(cloud: EmbeddedCloud, bucket: str) -> None:
    s3 = Role(cloud, ("s3:GetObject", f"arn:aws:s3:::{bucket}/a/*")).client("s3")
    urls = [s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": key}) for key in ("a/1", "b/1")]
    assert urllib.request.urlopen(urls[0]).read() == b"one"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(urls[1])


def test_a_state_machine_acts_with_its_role(cloud: EmbeddedCloud, machines: Machines, bucket: str) -> None:
    task = {"Type": "Task", "Resource": "arn:aws:states:::aws-sdk:s3:headObject", "End": True}
    states = {"Task": {**task, "Parameters": {"Bucket": bucket, "Key": "a/1"}}}
    definition = json.dumps({"StartAt": "Task", "States": states})
    ends = []
    for role in (Role(cloud, ("s3:GetObject", f"arn:aws:s3:::{bucket}/*")), Role(cloud, ("s3:PutObject", "*"))):
        made = machines.api.create_state_machine(name=role.name, definition=definition, roleArn=role.arn)
        ends.append(machines.end(machines.start(made["stateMachineArn"])))
    assert [ended["status"] for ended in ends] == ["SUCCEEDED", "FAILED"]
    assert "403" in ends[1]["cause"]


def test_a_changed_policy_applies_at_once(cloud: EmbeddedCloud, bucket: str) -> None:
    role = Role(cloud, ("s3:GetObject", "*"))
    role.client("s3").get_object(Bucket=bucket, Key="a/1")
    client(cloud, "iam").delete_role_policy(RoleName=role.name, PolicyName="policy")
    with pytest.raises(ClientError, match="AccessDenied"):
        role.client("s3").get_object(Bucket=bucket, Key="a/1")


def template_of(action: str) -> str:
    """Return a template with the role ``Role``, which may do this."""
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, "Resource": "*"}]}
    policies = [{"PolicyName": action.partition(":")[2], "PolicyDocument": document}]
    properties = {"AssumeRolePolicyDocument": json.loads(TRUST), "Policies": policies}
    return json.dumps({"Resources": {"Role": {"Type": "AWS::IAM::Role", "Properties": properties}}})


def test_a_stack_update_changes_the_policies_of_a_role(cloud: EmbeddedCloud) -> None:
    cloudformation, name = client(cloud, "cloudformation"), f"stack-{uuid.uuid4().hex[:8]}"
    cloudformation.create_stack(
        StackName=name, TemplateBody=template_of("s3:GetObject"), Capabilities=["CAPABILITY_IAM"]
    )
    cloudformation.update_stack(
        StackName=name, TemplateBody=template_of("s3:PutObject"), Capabilities=["CAPABILITY_IAM"]
    )
    [role] = cloudformation.describe_stack_resources(StackName=name)["StackResources"]
    listed = client(cloud, "iam").list_role_policies(RoleName=role["PhysicalResourceId"])
    assert listed["PolicyNames"] == ["PutObject"]
    cloudformation.delete_stack(StackName=name)


def test_used_grants_have_the_logical_ids_of_roles(cloud: EmbeddedCloud, bucket: str, tmp_path: Path) -> None:
    cloudformation, name, written = client(cloud, "cloudformation"), f"stack-{uuid.uuid4().hex[:8]}", tmp_path / "used"
    cloudformation.create_stack(StackName=name, TemplateBody=template_of("s3:Get*"), Capabilities=["CAPABILITY_IAM"])
    [made] = cloudformation.describe_stack_resources(StackName=name)["StackResources"]
    acting_as(cloud, made["PhysicalResourceId"], "s3").get_object(Bucket=bucket, Key="a/1")
    write_used_grants(written)
    assert ["Role", "s3:Get*", "*"] in [json.loads(line) for line in written.read_text().splitlines()]
    cloudformation.delete_stack(StackName=name)


def test_resources_of_a_stack_that_is_being_created_are_not_created_twice(cloud: EmbeddedCloud) -> None:
    stack = Stack("arn:stack", "half", template_of("s3:GetObject"), {}, ACCOUNT, cloud.region)
    assert dict(names_in(stack)) == {}
    [role] = stack.stack_resources
    assert dict(names_in(stack)) == {role.name: "Role"}


@pytest.mark.parametrize(
    ("service", "call"), [("dynamodb", "list_tables"), ("s3", "list_buckets"), ("iam", "list_users")]
)
def test_a_call_whose_permission_is_unknown_is_an_error(cloud: EmbeddedCloud, service: str, call: str) -> None:
    with pytest.raises(ClientError, match="NotImplemented"):
        getattr(Role(cloud, ("*", "*")).client(service), call)()
