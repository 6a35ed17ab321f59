"""The roles and the repository of infrastructure/delivery.yaml: who may use them, and for what."""

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from string import Formatter
from typing import Any, Final

import pytest

from client.doctor.examination import CHECKS
from infrastructure.deployment.settings import read_settings
from tests.conftest import ROOT
from tests.unit.template.physical import REFERENCES, Physical
from tests.unit.template.test_limits import EVERYTHING
from tests.unit.template.test_template import PSEUDO, REGION, TEMPLATE, Stack, leaves_of, translated

PATH: Final = ROOT / "infrastructure/delivery.yaml"
PARAMETERS: Final = translated(PATH)["Parameters"]
ACCOUNT: Final = PSEUDO["AWS::AccountId"]
BOUNDARY: Final = f"arn:aws:iam::{ACCOUNT}:policy/boundary"
PREFIX: Final = "precision-background-remover-prod"
DEFAULTS: Final = {name: facts["Default"] for name, facts in PARAMETERS.items() if "Default" in facts}
GIVEN: Final = {
    **DEFAULTS,
    "GitHubRepository": "octo/remover",
    "GitHubEnvironment": "production",
    "StackPrefix": PREFIX,
}
FURTHER: Final = {
    **GIVEN,
    "OidcProviderArn": f"arn:aws:iam::{ACCOUNT}:oidc-provider/token.actions.githubusercontent.com",
    "ImagesRepositoryArn": f"arn:aws:ecr:us-east-1:{ACCOUNT}:repository/images",
    "PermissionsBoundaryArn": BOUNDARY,
    "ArtifactBucketPrefix": f"{PREFIX}-artifacts-",
}
"""A stack for another environment, with the provider and the repository of the first, and buckets of its own."""

SERVICES: Final = {
    "ApiGatewayV2": "apigateway",
    "ApplicationAutoScaling": "application-autoscaling",
    "CertificateManager": "acm",
    "ElasticLoadBalancingV2": "elasticloadbalancing",
    "StepFunctions": "states",
}
"""Prefix of a service's actions, if it is not the service's name in resource types in lower case."""

LARGEST_ROLE: Final = 10_240  # characters of all inline policies of a role, without white space


@pytest.fixture(params=[GIVEN, FURTHER], ids=["first environment", "further environment"])
def stack(request: pytest.FixtureRequest) -> Stack:
    return Stack(request.param, PATH)


def statements(stack: Stack, role: str) -> list[dict[str, Any]]:
    policies = stack.resources[role]["Properties"]["Policies"]
    return [statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]]


def allowed(stack: Stack, role: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield each allowed action with each of its resources, and the condition."""
    for statement in statements(stack, role):
        if statement["Effect"] == "Allow":
            for action in leaves_of(statement["Action"]):
                for resource in leaves_of(statement["Resource"]):
                    yield action, resource, statement.get("Condition", {})


def trust(stack: Stack, role: str) -> dict[str, Any]:
    [statement] = stack.resources[role]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    return dict(statement)


# ---- Who may use the roles


@pytest.mark.parametrize("repository", ["octo/remover", "octo@123/remover@456"])
def test_only_jobs_of_the_environment_deploy_and_only_those_of_the_branch_push(repository: str) -> None:
    stack = Stack({**GIVEN, "GitHubRepository": repository}, PATH)
    further = {"token.actions.githubusercontent.com:ref": "refs/heads/main"}
    trusted: dict[str, tuple[str, dict[str, str]]] = {
        "BuildRole": ("ref:refs/heads/main", {}),
        "DeployRole": ("environment:production", further),  # any branch can name the environment in a workflow
    }
    for role, (subject, others) in trusted.items():
        statement = trust(stack, role)
        assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
        assert statement["Principal"] == {"Federated": "<GitHub>"}
        assert statement["Condition"] == {
            "StringEquals": {
                "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
                "token.actions.githubusercontent.com:sub": f"repo:{repository}:{subject}",
                **others,
            }
        }


@pytest.mark.parametrize(
    "name",
    ["octo/*", "octo/remover:ref:refs/heads/x", "*/remover", "octo", "octo/remover:*"],
)
def test_the_name_of_the_repository_cannot_widen_the_trust(name: str) -> None:
    pattern = PARAMETERS["GitHubRepository"]["AllowedPattern"]
    assert not re.fullmatch(pattern, name)
    assert re.fullmatch(pattern, "octo-org/remover.x") and re.fullmatch(pattern, "octo@1/remover@2")


def test_only_cloudformation_of_this_account_uses_the_execution_role(stack: Stack) -> None:
    statement = trust(stack, "ExecutionRole")
    assert statement["Principal"] == {"Service": "cloudformation.amazonaws.com"}
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}


# ---- Images


def test_images_cannot_be_replaced_and_are_scanned_and_retained() -> None:
    images = Stack(GIVEN, PATH).resources["Images"]
    assert images["Properties"]["ImageTagMutability"] == "IMMUTABLE"
    assert images["Properties"]["ImageScanningConfiguration"] == {"ScanOnPush": True}
    assert images["DeletionPolicy"] == images["UpdateReplacePolicy"] == "Retain"


def test_the_role_that_builds_can_only_push_to_the_repository() -> None:
    stack = Stack(GIVEN, PATH)
    granted = {(action, resource) for action, resource, _ in allowed(stack, "BuildRole")}
    assert {action for action, resource in granted if resource == "*"} == {"ecr:GetAuthorizationToken"}
    assert {resource for _, resource in granted} == {"*", "<Images>.Arn"}
    assert {action.split(":")[0] for action, _ in granted} == {"ecr"}
    assert not [action for action, _ in granted if re.search(r"Delete|Set|\*", action)]


def test_other_accounts_can_only_pull() -> None:
    assert "RepositoryPolicyText" not in Stack(GIVEN, PATH).resources["Images"]["Properties"]
    given = {**GIVEN, "ReaderAccounts": "210987654321"}
    [statement] = Stack(given, PATH).resources["Images"]["Properties"]["RepositoryPolicyText"]["Statement"]
    assert statement["Principal"] == {"AWS": ["210987654321"]}
    assert not [
        action for action in statement["Action"] if not re.match(r"ecr:(Batch(Check|Get)|Describe|Get)", action)
    ]


def test_a_further_environment_creates_neither_provider_nor_repository_nor_build_role() -> None:
    resources = Stack(FURTHER, PATH).resources
    assert resources.keys() == {"DeployRole", "ExecutionRole"}
    pulled = {resource for action, resource, _ in allowed(Stack(FURTHER, PATH), "DeployRole") if "ecr:" in action}
    assert FURTHER["ImagesRepositoryArn"] in pulled


# ---- Deploying


def test_stacks_change_only_by_the_execution_role_and_under_their_prefix(stack: Stack) -> None:
    names = f"arn:aws:cloudformation:*:{ACCOUNT}:stack/{PREFIX}*/*"
    changing = [
        (resource, condition)
        for action, resource, condition in allowed(stack, "DeployRole")
        if action == "cloudformation:CreateChangeSet"
    ]
    assert (names, {"StringEquals": {"cloudformation:RoleArn": "<ExecutionRole>.Arn"}}) in changing
    assert {resource.split(":")[-1] for resource, _ in changing} <= {
        names.split(":")[-1],
        "transform/Serverless-2016-10-31",
        "stack/aws-sam-cli-managed-default/*",
    }
    others = {"cloudformation:CreateStack", "cloudformation:UpdateStack", "cloudformation:DeleteStack"}
    assert not others & {action for action, _, _ in allowed(stack, "DeployRole")}


def test_the_role_that_deploys_has_no_other_permissions_for_roles(stack: Stack) -> None:
    granted = [one for one in allowed(stack, "DeployRole") if one[0].startswith(("iam:", "sts:"))]
    passed, read = sorted(granted, key=lambda one: one[0] != "iam:PassRole")
    condition = {"StringEquals": {"iam:PassedToService": "cloudformation.amazonaws.com"}}
    assert passed == ("iam:PassRole", "<ExecutionRole>.Arn", condition)
    assert read[:2] == ("iam:GetRole", f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/*")


def test_the_role_that_deploys_may_do_what_the_doctor_reads(stack: Stack) -> None:
    granted = {action for action, _, _ in allowed(stack, "DeployRole")}
    needed = {action for check in CHECKS for action in check.permissions}
    assert {action for action in needed if not any(fnmatchcase(action, pattern) for pattern in granted)} == set()


def test_an_environment_with_buckets_of_its_own_reaches_the_templates_of_no_other() -> None:
    stack = Stack(FURTHER, PATH)
    every = [resource for role in ("DeployRole", "ExecutionRole") for _, resource, _ in allowed(stack, role)]
    assert not [resource for resource in every if "aws-sam-cli" in resource]
    bucket = f"arn:aws:s3:::{FURTHER['ArtifactBucketPrefix']}*"
    assert {action for action, resource, _ in allowed(stack, "DeployRole") if resource.startswith(bucket)} == {
        *("s3:GetBucketLocation", "s3:ListBucket"),
        *("s3:GetObject", "s3:PutObject"),
    }


def test_the_environments_of_the_documentation_cover_their_own_stacks_only() -> None:
    page = (ROOT / "docs/how-to/deliver.md").read_text()
    covered = dict(zip(("staging", "prod"), re.findall(r"StackPrefix=(\S+) QueuePrefix=(\S+)", page), strict=True))
    for environment in covered:
        settings = read_settings(environment, ROOT)
        names = settings.stack, settings.parameters["SegmentationQueueName"]
        for other, prefixes in covered.items():
            begins = [name.startswith(prefix) for name, prefix in zip(names, prefixes, strict=True)]
            assert begins == [other == environment] * 2, (environment, other)


def test_the_check_reaches_the_shared_table_and_the_replica_that_the_documentation_creates() -> None:
    _, prefix = re.findall(r"StackPrefix=(\S+)", (ROOT / "docs/how-to/deliver.md").read_text())
    granted = list(allowed(Stack({**GIVEN, "StackPrefix": prefix}, PATH), "DeployRole"))
    pages = (ROOT / "docs/how-to/regions.md").read_text()
    created = re.findall(r"--stack-name (\S+) \\\n +--template-file infrastructure/([\w-]+)\.yaml", pages)
    names = {template: name for name, template in created}
    path = ROOT / "infrastructure/replica.yaml"
    defaults = {name: facts["Default"] for name, facts in translated(path)["Parameters"].items()}
    replica = Physical(defaults, path, {**PSEUDO, "AWS::StackName": names["replica"]})
    needed = [
        ("dynamodb:PutItem", f"arn:aws:dynamodb:eu-west-1:{ACCOUNT}:table/{names['global-keys']}-Keys-1A2B3C4D5E6F7"),
        ("s3:ListBucketVersions", f"arn:aws:s3:::{replica.names['ReplicaBucket']}"),
        ("s3:DeleteObjectVersion", f"arn:aws:s3:::{replica.names['ReplicaBucket']}/results/smoke/x/disc.png.png"),
    ]
    for action, arn in needed:
        assert any(action == one and fnmatchcase(arn, pattern) for one, pattern, _ in granted), (action, arn)


# ---- The execution role


def deployed_templates(path: Path = TEMPLATE) -> Iterator[Path]:
    """Yield what ``make deploy`` deploys: the template, nested ones, and that of the repository."""
    yield path
    for resource in translated(path)["Resources"].values():
        if resource["Type"] == "AWS::CloudFormation::Stack":
            yield from deployed_templates(path.parent / resource["Properties"]["TemplateURL"])


def test_the_execution_role_has_the_services_of_all_resource_types(stack: Stack) -> None:
    creating = re.compile(r"([\w-]+):(\*|Create|Modify|POST|Put|Register|Request).*")
    matches = [creating.fullmatch(action) for action, _, _ in allowed(stack, "ExecutionRole")]
    granted = {match[1] for match in matches if match}
    paths = [*deployed_templates(), ROOT / "infrastructure/repository.yaml"]
    types = {resource["Type"] for path in paths for resource in translated(path)["Resources"].values()}
    assert len(types) > 50
    needed = {kind: SERVICES.get(service := kind.split("::")[1], service.lower()) for kind in types}
    assert {kind: prefix for kind, prefix in needed.items() if prefix not in granted} == {}


def test_the_execution_role_may_change_resources_by_the_names_that_they_get(stack: Stack) -> None:
    given = {**EVERYTHING, "SegmentationQueueName": f"{PARAMETERS['QueuePrefix']['Default']}-prod"}
    deployed = Physical(given, TEMPLATE, {**PSEUDO, "AWS::StackName": PREFIX})
    values = {"arn": "arn:aws", "region": REGION, "account": ACCOUNT}
    patterns = {resource for _, resource, _ in allowed(stack, "ExecutionRole")} - {"*"}
    services = {pattern.split(":")[2] for pattern in patterns}
    checked, refused = set(), []
    for name, resource in deployed.resources.items():
        for text in REFERENCES.get(resource["Type"], {}).values():
            fields = {field for _, field, _, _ in Formatter().parse(text) if field}
            if not text.startswith("{arn}") or not fields <= {*values, "name", "logical"}:
                continue
            arn = text.format(**values, name=deployed.names[name], logical=name)
            if (service := arn.split(":")[2]) in services:
                checked.add(service)
                if not any(fnmatchcase(arn, pattern) for pattern in patterns):
                    refused.append(arn)
    assert {"dynamodb", "lambda", "states", "s3", "sqs", "iam", "logs", "cloudwatch"} <= checked
    assert refused == []


def test_the_execution_role_is_no_administrator(stack: Stack) -> None:
    for action, resource, _ in allowed(stack, "ExecutionRole"):
        assert action != "*" and not action.startswith("*")
        if action.startswith("iam:"):
            assert "*" not in action
            names = (f"role/{PREFIX}*", f"instance-profile/{PREFIX}*", "role/aws-service-role/*")
            assert resource.startswith("arn:aws:iam::") and resource.endswith(names), (action, resource)


def test_the_execution_role_reads_no_data(stack: Stack) -> None:
    templates = {f"arn:aws:s3:::{given['ArtifactBucketPrefix']}*/*" for given in (GIVEN, FURTHER)}
    patterns = {action for action, resource, _ in allowed(stack, "ExecutionRole") if resource not in templates}
    data = {
        *("s3:GetObject", "s3:PutObject", "s3:DeleteObject"),
        *("dynamodb:GetItem", "dynamodb:Scan", "dynamodb:Query", "dynamodb:PutItem"),
        *("sqs:ReceiveMessage", "sqs:SendMessage", "secretsmanager:GetSecretValue"),
    }
    assert {action for action in data if any(fnmatchcase(action, pattern) for pattern in patterns)} == set()


def test_the_execution_role_changes_secrets_of_its_stacks_only(stack: Stack) -> None:
    secrets = [one for one in allowed(stack, "ExecutionRole") if one[0].startswith("secretsmanager:") and one[1] != "*"]
    own = {"StringLike": {"aws:ResourceTag/aws:cloudformation:stack-name": f"{PREFIX}*"}}
    assert {action.partition(":")[2] for action, _, condition in secrets if condition != own} == {
        *(
            "CreateSecret",
            "DescribeSecret",
            "TagResource",
        ),  # a new secret has no tags, and only AWS sets those that begin with aws:
    }


def test_the_execution_role_passes_roles_to_services_of_the_templates_only(stack: Stack) -> None:
    [condition] = [one for action, _, one in allowed(stack, "ExecutionRole") if action == "iam:PassRole"]
    passed = set(condition["StringEquals"]["iam:PassedToService"])
    roles = [
        resource["Properties"]
        for path in deployed_templates()
        for resource in translated(path)["Resources"].values()
        if resource["Type"] == "AWS::IAM::Role"
    ]
    trusted = [role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]["Service"] for role in roles]
    services = {one for service in trusted for one in leaves_of(service) if isinstance(one, str)}
    assert len(services) > 5
    assert {one for one in services if one.endswith(".amazonaws.com")} <= passed


def test_the_execution_role_attaches_only_policies_that_the_templates_have(stack: Stack) -> None:
    [condition] = [one for action, _, one in allowed(stack, "ExecutionRole") if action == "iam:AttachRolePolicy"]
    attached = {
        arn.rpartition("/")[2]
        for name, resource in Stack({}).resources.items()
        if resource["Type"] == "AWS::IAM::Role"
        for arn in resource["Properties"].get("ManagedPolicyArns", [])
    }
    assert {arn.rpartition("/")[2] for arn in condition["ArnLike"]["iam:PolicyARN"]} == attached


GRANTING: Final = {
    "iam:CreateRole",
    "iam:PutRolePolicy",
    "iam:AttachRolePolicy",
    "iam:DetachRolePolicy",
    "iam:DeleteRolePolicy",
    "iam:PutRolePermissionsBoundary",
}


def test_with_a_boundary_the_execution_role_grants_permissions_to_bounded_roles_only() -> None:
    stack = Stack(FURTHER, PATH)
    granting = [one for one in allowed(stack, "ExecutionRole") if one[0] in GRANTING]
    assert {action for action, _, _ in granting} == GRANTING
    for action, _, condition in granting:
        assert condition["StringEquals"]["iam:PermissionsBoundary"] == BOUNDARY, action
    assert "iam:DeleteRolePermissionsBoundary" not in {action for action, _, _ in allowed(stack, "ExecutionRole")}


def test_the_roles_of_delivery_have_no_boundary_which_would_have_to_allow_iam(stack: Stack) -> None:
    assert not [name for name, one in stack.resources.items() if "PermissionsBoundary" in one["Properties"]]


def test_the_execution_role_cannot_change_the_roles_of_its_own_stack(stack: Stack) -> None:
    [denied] = [one for one in statements(stack, "ExecutionRole") if one["Effect"] == "Deny"]
    assert denied["Action"] == "iam:*" and "Condition" not in denied
    assert denied["Resource"] == f"arn:aws:iam::{ACCOUNT}:role/{PSEUDO['AWS::StackName']}-*"


# ---- Limits


def test_policies_of_a_role_are_not_too_large_with_the_longest_values() -> None:
    longest = {**FURTHER, "StackPrefix": "p" * 40, "QueuePrefix": "q" * 80}
    stack = Stack(longest, PATH, {**PSEUDO, "AWS::StackName": "n" * 100, "AWS::Partition": "aws-us-gov"})
    for role in ("DeployRole", "ExecutionRole"):
        policies = stack.resources[role]["Properties"]["Policies"]
        size = sum(len(json.dumps(policy["PolicyDocument"], separators=(",", ":"))) for policy in policies)
        assert size <= LARGEST_ROLE, role


def test_default_queue_names_are_covered() -> None:
    name = translated()["Parameters"]["SegmentationQueueName"]["Default"]
    assert name.startswith(PARAMETERS["QueuePrefix"]["Default"])
