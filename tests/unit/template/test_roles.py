"""Roles and resource policies of all templates: who may assume or use them, what they allow, and their boundary."""

import re
from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.unit.template.test_template import (
    ASYNC,
    FARGATE,
    GPU_SPOT,
    MODELS,
    OPEN,
    PSEUDO,
    REALTIME,
    REGION,
    REPLICATED_WITH_KEY,
    Stack,
    leaves_of,
    named,
    translated,
)

ACCOUNT = PSEUDO["AWS::AccountId"]
BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/team"
KEY = {"KmsKeyArn": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1"}
SOURCES = {"BulkSourceBuckets": "photos,archive.2024"}
EVERYTHING = [
    {},
    {**FARGATE, **REALTIME, **OPEN, **SOURCES, "BulkTransformInstanceType": "ml.g5.xlarge"},
    {**GPU_SPOT, **ASYNC, **MODELS[1], **KEY, **REPLICATED_WITH_KEY},
]
"""Stacks that together have every role and every statement."""

WITHOUT_RESOURCES = {  # actions without resource-level permissions
    "cloudwatch:DescribeAlarms",  # of composite alarms
    "cloudwatch:GetMetricData",
    "cloudwatch:GetMetricStatistics",
    "cloudwatch:ListMetrics",
    "cloudwatch:PutMetricData",
    "ecr:GetAuthorizationToken",
    "ecs:DiscoverPollEndpoint",
    "logs:CreateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:DescribeLogGroups",
    "logs:DescribeResourcePolicies",
    "logs:GetLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:UpdateLogDelivery",
    "xray:GetSamplingRules",
    "xray:GetSamplingTargets",
    "xray:PutTelemetryRecords",
    "xray:PutTraceSegments",
}
WITHOUT_SOURCE_ACCOUNT = {"ec2.amazonaws.com", "s3.amazonaws.com", "sagemaker.amazonaws.com"}
"""Services that send no ``aws:SourceAccount`` when they assume a role: instances get the credentials of a profile, S3
documents no condition for replication, and SageMaker documents ``aws:SourceArn``, which has the account."""

SOURCES_OF_ROLES = {
    "states.amazonaws.com": f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:pbr",
    "ecs-tasks.amazonaws.com": f"arn:aws:ecs:{REGION}:{ACCOUNT}:",
    "vpc-flow-logs.amazonaws.com": f"arn:aws:ec2:{REGION}:{ACCOUNT}:vpc-flow-log/",
}
"""How ``aws:SourceArn`` begins where the role is needed before its user, but the user's ARN is known in part."""

PATH_WITH_ACCOUNT = "logdelivery.elasticloadbalancing.amazonaws.com"
"""Service that writes only to a path with the account of the load balancer."""

WILDCARDS = {
    f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/pbr/*",  # its ID
    f"arn:aws:ecs:{REGION}:{ACCOUNT}:container-instance/<WorkerCluster>/*",
    f"arn:aws:ecs:{REGION}:{ACCOUNT}:task/<WorkerCluster>/*",
    f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/sagemaker/TransformJobs:*",
    f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:<SegmentLogs>:*",
    f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/pbr-async-*",
    f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/pbr-realtime-*",
    f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:transform-job/*",  # Step Functions requires it
    f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:transform-job/pbr-bulk-*",
    f"arn:aws:states:{REGION}:{ACCOUNT}:execution:pbr-bulk/*",
    f"arn:aws:states:{REGION}:{ACCOUNT}:execution:pbr:*",
}
"""Resources with wildcards besides objects of a bucket, and what belongs to a resource of this stack."""

POLICIES_OF_SAM = {"AWSLambdaBasicExecutionRole", "AWSXrayWriteOnlyAccess"}
"""Managed policies that SAM attaches to the role of every function."""


@pytest.fixture(scope="module", params=EVERYTHING, ids=named)
def stack(request: pytest.FixtureRequest) -> Stack:
    return Stack(request.param)


def roles(stack: Stack) -> dict[str, dict[str, Any]]:
    return {name: one["Properties"] for name, one in stack.resources.items() if one["Type"] == "AWS::IAM::Role"}


def statements_of_identities(stack: Stack) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each statement of a role or of a policy that is attached to roles, with the name of the resource."""
    for name, role in roles(stack).items():
        for policy in role.get("Policies", []):
            yield from ((name, statement) for statement in policy["PolicyDocument"]["Statement"])
    for name, one in stack.resources.items():
        if one["Type"] == "AWS::IAM::Policy":
            yield from ((name, statement) for statement in one["Properties"]["PolicyDocument"]["Statement"])


def statements_of_resources(stack: Stack) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each statement of a resource policy, except those of VPC endpoints, with the name of the resource."""
    for name, one in stack.resources.items():
        if one["Type"] in {"AWS::IAM::Policy", "AWS::EC2::VPCEndpoint"}:
            continue
        for key in ("PolicyDocument", "KeyPolicy", "RepositoryPolicyText", "ResourcePolicy"):
            document = one.get("Properties", {}).get(key)
            yield from ((name, statement) for statement in (document or {}).get("Statement", []))


def test_the_stacks_of_these_tests_have_every_role_and_policy() -> None:
    """Those of delivery.yaml are for people and GitHub: test_delivery.py."""
    written = {
        name: one["Type"]
        for path in (ROOT / "template.yaml", *(ROOT / "infrastructure").glob("*.yaml"))
        if path.name != "delivery.yaml"
        for name, one in translated(path)["Resources"].items()
        if one["Type"].startswith("AWS::IAM::")
    }
    assert set(written.values()) == {"AWS::IAM::Role", "AWS::IAM::Policy", "AWS::IAM::InstanceProfile"}, (
        "these tests read no others"
    )
    assert written.keys() <= {name for given in EVERYTHING for name in Stack(given).resources}


# ---- Who may assume a role


def test_a_service_assumes_a_role_only_for_this_account(stack: Stack) -> None:
    for name, role in roles(stack).items():
        [statement] = role["AssumeRolePolicyDocument"]["Statement"]
        service = statement["Principal"]["Service"]
        assert (statement["Action"], statement["Principal"]) == ("sts:AssumeRole", {"Service": service}), name
        condition = statement.get("Condition", {})
        has_account = condition.get("StringEquals") == {"aws:SourceAccount": ACCOUNT}
        assert has_account is (service not in WITHOUT_SOURCE_ACCOUNT), name
        if service == "sagemaker.amazonaws.com":
            assert condition == {"ArnLike": {"aws:SourceArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:*"}}
        source = condition.get("ArnLike", {}).get("aws:SourceArn", "")
        assert source.startswith(SOURCES_OF_ROLES.get(service, "")), name


def test_a_state_machine_and_its_children_can_assume_its_role(stack: Stack) -> None:
    machines = stack.of_type("AWS::StepFunctions::StateMachine")
    assert len(machines) == 3
    for machine in machines:
        role = roles(stack)[machine["RoleArn"].removeprefix("<").removesuffix(">.Arn")]
        [statement] = role["AssumeRolePolicyDocument"]["Statement"]
        pattern = statement["Condition"]["ArnLike"]["aws:SourceArn"]
        arn = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:{machine['StateMachineName']}"
        assert fnmatch(arn, pattern) and fnmatch(f"{arn}/ForListing", pattern)


@pytest.mark.parametrize("parameters", EVERYTHING, ids=named)
def test_every_role_has_the_permissions_boundary(parameters: dict[str, str]) -> None:
    with_boundary = Stack({**parameters, "PermissionsBoundaryArn": BOUNDARY})
    assert {role.get("PermissionsBoundary") for role in roles(with_boundary).values()} == {BOUNDARY}
    assert not [name for name, role in roles(Stack(parameters)).items() if "PermissionsBoundary" in role]


# ---- What roles allow


def test_no_role_has_wildcard_actions_or_managed_policies(stack: Stack) -> None:
    for name, statement in statements_of_identities(stack):
        assert not [action for action in leaves_of(statement["Action"]) if "*" in action], name
        assert not statement.keys() & {"NotAction", "NotResource"}, name
    for name, role in roles(stack).items():
        managed = {arn.rsplit("/", 1)[1] for arn in role.get("ManagedPolicyArns", [])}
        assert managed <= (POLICIES_OF_SAM if name.endswith("FunctionRole") else set()), name


def test_wildcard_resources_are_those_of_actions_without_resource_level_permissions() -> None:
    found = {
        action
        for parameters in EVERYTHING
        for _, statement in statements_of_identities(Stack(parameters))
        if "*" in leaves_of(statement["Resource"])
        for action in leaves_of(statement["Action"])
    }
    assert found == WITHOUT_RESOURCES


def test_wildcards_are_only_in_names_of_resources() -> None:
    part_of_a_resource, objects = r"<\w+>\.Arn[:/].+", r"arn:aws:s3:::[^*?/]+/.+"
    arns = {
        arn
        for parameters in EVERYTHING
        for _, statement in statements_of_identities(Stack(parameters))
        for arn in leaves_of(statement["Resource"])
        if re.search(r"[*?]", arn)
    }
    assert {arn for arn in arns if not re.fullmatch(rf"{part_of_a_resource}|{objects}", arn)} == {"*", *WILDCARDS}


def test_no_role_may_pass_assume_or_change_roles(stack: Stack) -> None:
    for name, statement in statements_of_identities(stack):
        assert not [action for action in leaves_of(statement["Action"]) if re.match("iam:|sts:", action)], name


def test_only_the_worker_and_an_asynchronous_endpoint_may_send_task_results() -> None:
    """A task token is a credential: with one and this permission, a caller can answer for a task."""
    machine = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:pbr"
    worker, endpoint = {("WorkerRole", "<RemoveBackground>")}, {("EndpointRole", machine)}
    for parameters, expected in (({}, set()), (FARGATE, worker), (REALTIME, set()), (ASYNC, endpoint)):
        found = {
            (name, arn)
            for name, statement in statements_of_identities(Stack({**OPEN, **SOURCES, **parameters}))
            if any(action.startswith("states:SendTask") for action in leaves_of(statement["Action"]))
            for arn in leaves_of(statement["Resource"])
        }
        assert found == expected, named(parameters)


def test_an_execution_role_can_pull_only_its_own_image() -> None:
    stack = Stack({**FARGATE, **REALTIME, **OPEN})
    for role in ("WorkerExecutionRole", "EndpointRole", "WebExecutionRole"):
        [pulled] = [
            statement["Resource"]
            for name, statement in statements_of_identities(stack)
            if name == role and "ecr:BatchGetImage" in statement["Action"]
        ]
        assert pulled == f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/pictures/background-remover"


# ---- Who may use queues, topics, keys, buckets and functions


def test_a_resource_policy_allows_a_service_only_for_this_account(stack: Stack) -> None:
    allowing = [(name, one) for name, one in statements_of_resources(stack) if one["Effect"] == "Allow"]
    assert allowing
    for name, statement in allowing:
        if statement["Principal"] == {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}:
            continue  # IAM decides
        assert statement["Principal"].keys() == {"Service"}, name
        if statement["Principal"]["Service"] == PATH_WITH_ACCOUNT:
            assert f"/AWSLogs/{ACCOUNT}/" in statement["Resource"], name
            continue
        condition = statement["Condition"]
        sources = leaves_of(condition.get("ArnEquals", {}).get("aws:SourceArn", []))
        of_this_stack = bool(sources) and all(arn.startswith("<") for arn in sources)
        # A resource of this stack is one of this account. EventBridge documents the ARN of the rule only.
        assert of_this_stack or condition["StringEquals"]["aws:SourceAccount"] == ACCOUNT, name


def test_only_functions_of_this_account_may_pull_images() -> None:
    [(_, statement)] = statements_of_resources(Stack({}, ROOT / "infrastructure" / "repository.yaml"))
    assert (statement["Effect"], statement["Principal"]) == ("Allow", {"Service": "lambda.amazonaws.com"})
    assert set(statement["Action"]) == {"ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"}
    functions = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:*"
    assert statement["Condition"] == {"ArnLike": {"aws:SourceArn": functions}}


def test_a_function_is_invoked_only_by_rules_and_apis_of_this_stack(stack: Stack) -> None:
    for permission in stack.of_type("AWS::Lambda::Permission"):
        source = permission["SourceArn"].removeprefix(f"arn:aws:execute-api:{REGION}:{ACCOUNT}:")
        assert source.startswith("<")
