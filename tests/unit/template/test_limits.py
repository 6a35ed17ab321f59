"""Limits that only AWS enforces: resource schemas, service models, and quotas that neither of them has.

The stacks are resolved with the longest names and values that their parameters allow.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import botocore.session
import pytest
import regex  # type: ignore[import-untyped]
from cfnlint.api import lint  # type: ignore[import-untyped]
from cfnlint.config import ManualArgs  # type: ignore[import-untyped]

from infrastructure.deployment.settings import check, defaults, longest_name
from tests.conftest import ROOT
from tests.unit.template.physical import Physical
from tests.unit.template.test_template import (
    ASYNC,
    CLOSED,
    FARGATE,
    GPU_SPOT,
    PRIVATE,
    PROTECTED,
    PSEUDO,
    REALTIME,
    REPLICATED_WITH_KEY,
    translated,
)

TEMPLATES: Final = (ROOT / "template.yaml", *sorted((ROOT / "infrastructure").glob("*.yaml")))

REGION: Final = "ap-southeast-1"  # one of the longest names

# ---- Parameters


def filled(item: Callable[[int], str], separator: str, length: int, start: str = "", end: str = "") -> str:
    """Return a text of exactly this length: items, separated, and spaces."""
    text = start + item(0)
    while len(longer := f"{text}{separator}{item(text.count(separator) + 1)}") <= length - len(end):
        text = longer
    return (text + end).ljust(length)


def custom_model(number: int) -> str:
    facts = {"name": f"m{number}", "uri": f"s3://m/{number}", "sha256": "0" * 64, "bytes": 1, "input_px": 320}
    return json.dumps(facts, separators=(",", ":"))


LONGEST: Final[Mapping[str, Callable[[int], str]]] = {
    "ApiDomain": lambda length: f"{'a' * (length - 12)}.example.com",
    "Build": lambda length: "b" * length,
    "BulkSourceBuckets": lambda length: ",".join(str(number) * 63 for number in range(5))[:length],
    "CorsOrigins": lambda length: f"https://{'o' * (length - 12)}.com",
    "CustomModels": lambda length: filled(custom_model, ",", length, "[", "]"),
    "DefaultModel": lambda length: "d" * length,
    "EdgeDomain": lambda length: f"{'e' * (length - 12)}.example.com",
    "EdgeSecretArn": lambda length: (
        f"{'arn:aws:secretsmanager:us-east-1:123456789012:secret:'.ljust(length - 7, 's')}-a1B2c3"
    ),
    "EscalationModel": lambda length: "e" * length,
    "ModelDirectory": lambda length: "/".ljust(length, "d"),
    "ModelMirror": lambda length: "https://".ljust(length, "m"),
    "Presets": lambda length: filled(lambda number: f'"p{number}":{{"crop":"true"}}', ",", length, "{", "}"),
    "Republish": lambda length: "r" * length,
    "RunbookUrl": lambda length: "https://".ljust(length, "r"),
    "SageMakerEndpointName": lambda _: "",  # the stack creates one
    "SegmentationQueueName": lambda length: "q" * length,
    "UrlNetworks": lambda length: ",".join(["10.100.100.0/24"] * (length // 16)),
}
"""The longest values of the parameters that have a maximum length."""


def longest_values() -> dict[str, str]:
    """Return the largest number, and the longest text, of each parameter that has a limit."""
    values = {}
    for name, facts in translated()["Parameters"].items():
        if "MaxLength" in facts:
            values[name] = LONGEST[name](facts["MaxLength"])
        elif "MaxValue" in facts:
            values[name] = str(facts["MaxValue"])
    return values


NETWORK: Final = {
    "WebVpc": "vpc-0123456789abcdef0",
    "WebSubnets": "subnet-0123456789abcdef0,subnet-0123456789abcdef1",
    "WebTaskSubnets": "subnet-0123456789abcdef2,subnet-0123456789abcdef3",
    "WebCidrs": "10.0.0.0/8,172.16.0.0/12,192.168.100.0/24,192.168.101.0/24,192.168.102.0/24",
}
EVERYTHING: Final = {
    **longest_values(),
    **GPU_SPOT,
    **ASYNC,
    **PRIVATE,
    **PROTECTED,
    **REPLICATED_WITH_KEY,
    **NETWORK,
    "KmsKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef",
    "AlertEmail": "who@example.com",
    "ApiConcurrency": "50",
    "ApiHostedZoneId": "Z0123456789ABCDEFGHIJ",
    "EdgeDistributionId": "E0123456789ABC",
    "ApiJobDays": "30",
    "BudgetTag": "project$cutouts",
    "DeploymentType": "CANARY",
    "EscalateOnReview": "true",
    "ModelBucket": "m" * 63,
    "MonthlyBudget": "500",
    "SegmentMemory": "8192",
}
"""All parts of the stack, and all parameters at their limits."""

WITHOUT_ENDPOINT: Final = {**EVERYTHING, "SageMakerImageUri": "", "ModelBucket": ""}
NO_OPERATIONS: Final = {"Operations": "false", "AlertEmail": "", "BudgetTag": "", "MonthlyBudget": "0"}
LONGEST_ENDPOINT: Final = {**REALTIME, "SageMakerInstanceType": "ml.c6in.24xlarge"}
"""The endpoint with the longest name, which ends with mode and type."""


class Case(NamedTuple):
    """A stack at the limits.

    Attributes:
        parameters: of the stack.
        name_length: longest name that a stack with these parameters can have, see docs/how-to/choose-a-host.md.
    """

    parameters: Mapping[str, str]
    name_length: int

    def stack(self, longer: int = 0) -> Physical:
        """Return the stack with a name of the maximum length, or with a longer one."""
        pseudo = {**PSEUDO, "AWS::Region": REGION, "AWS::StackName": "n" * (self.name_length + longer)}
        return Physical(self.parameters, TEMPLATES[0], pseudo)


CASES: Final = {
    "endpoint": Case({**EVERYTHING, **LONGEST_ENDPOINT}, 40),
    "asynchronous": Case(EVERYTHING, 40),
    "worker": Case(WITHOUT_ENDPOINT, 57),
    "defaults": Case({}, 57),
    "without operations": Case({**WITHOUT_ENDPOINT, **NO_OPERATIONS}, 71),
}


@pytest.fixture(params=CASES.values(), ids=list(CASES), scope="module")
def stack(request: pytest.FixtureRequest) -> Physical:
    case: Case = request.param
    return case.stack()


def test_the_parameters_are_legal(stack: Physical) -> None:
    assert stack.refusals() == []
    for case in CASES.values():
        check(case.parameters, ROOT)


def service_models() -> Any:
    return botocore.session.get_session()


def test_the_longest_endpoint_type_is_one_of_the_longest_that_sagemaker_has() -> None:
    shape = service_models().get_service_model("sagemaker").shape_for("ProductionVariantInstanceType")
    pattern = translated()["Parameters"]["SageMakerInstanceType"]["AllowedPattern"]
    accepted = [name for name in shape.metadata["enum"] if regex.fullmatch(pattern, name)]
    assert max(map(len, accepted)) == len(LONGEST_ENDPOINT["SageMakerInstanceType"])


# ---- Resource schemas of CloudFormation

IGNORED: Final = {
    "E3019",  # stacks with other parameters have the same names
    "E3601",  # knows no OutputPath of Succeed; make lint checks the definitions
}


def findings(stacks: list[Physical], region: str) -> list[str]:
    """Return what cfn-lint says of the resources of stacks. Equal resources are checked once."""
    resources: dict[str, Mapping[str, Any]] = {}
    for number, one in enumerate(stacks):
        for name, resource in one.resources.items():
            if resource["Type"] == "AWS::CloudFormation::Stack":
                continue
            kept = {key: resource[key] for key in ("Type", "Properties") if key in resource}
            if kept not in resources.values():
                resources[f"{name}{number}"] = kept
    template = {"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources}
    matches = lint(json.dumps(template), config=ManualArgs(regions=[region]))
    return [
        f"{match.path[1]}: {match.message} ({match.rule.id})"
        for match in matches
        if match.rule.id.startswith("E") and match.rule.id not in IGNORED
    ]


def test_resolved_resources_conform_to_their_schemas() -> None:
    stacks = [Case(one, 40).stack() for one in (EVERYTHING, LONGEST_ENDPOINT, FARGATE, CLOSED | NETWORK, {})]
    assert findings(stacks, REGION) == []


# ---- Service models

# The operations that create a resource of each type. Its properties have the names of their parameters.
OPERATIONS: Final = {
    "AWS::ApiGatewayV2::Api": "apigatewayv2.CreateApi",
    "AWS::ApiGatewayV2::Stage": "apigatewayv2.CreateStage",
    "AWS::AppConfig::Application": "appconfig.CreateApplication",
    "AWS::AppConfig::ConfigurationProfile": "appconfig.CreateConfigurationProfile",
    "AWS::AppConfig::HostedConfigurationVersion": "appconfig.CreateHostedConfigurationVersion",
    "AWS::ApplicationAutoScaling::ScalableTarget": "application-autoscaling.RegisterScalableTarget",
    "AWS::ApplicationAutoScaling::ScalingPolicy": "application-autoscaling.PutScalingPolicy",
    "AWS::AutoScaling::AutoScalingGroup": "autoscaling.CreateAutoScalingGroup",
    "AWS::Budgets::Budget": "budgets.CreateBudget",
    "AWS::CloudWatch::Alarm": "cloudwatch.PutMetricAlarm",
    "AWS::CloudWatch::CompositeAlarm": "cloudwatch.PutCompositeAlarm",
    "AWS::CloudWatch::Dashboard": "cloudwatch.PutDashboard",
    "AWS::DynamoDB::Table": "dynamodb.CreateTable dynamodb.UpdateTimeToLive dynamodb.UpdateContinuousBackups",
    "AWS::EC2::LaunchTemplate": "ec2.CreateLaunchTemplate",
    "AWS::EC2::VPCEndpoint": "ec2.CreateVpcEndpoint",
    "AWS::ECS::CapacityProvider": "ecs.CreateCapacityProvider",
    "AWS::ECS::Cluster": "ecs.CreateCluster",
    "AWS::ECS::Service": "ecs.CreateService",
    "AWS::ECS::TaskDefinition": "ecs.RegisterTaskDefinition",
    "AWS::ElasticLoadBalancingV2::Listener": "elbv2.CreateListener",
    "AWS::ElasticLoadBalancingV2::LoadBalancer": "elbv2.CreateLoadBalancer",
    "AWS::ElasticLoadBalancingV2::TargetGroup": "elbv2.CreateTargetGroup",
    "AWS::Events::Rule": "events.PutRule events.PutTargets",
    "AWS::IAM::Role": "iam.CreateRole",
    "AWS::KMS::Key": "kms.CreateKey kms.ScheduleKeyDeletion",
    "AWS::Lambda::Alias": "lambda.CreateAlias",
    "AWS::Lambda::EventInvokeConfig": "lambda.PutFunctionEventInvokeConfig",
    "AWS::Lambda::Function": "lambda.CreateFunction lambda.PutFunctionConcurrency",
    "AWS::Lambda::Permission": "lambda.AddPermission",
    "AWS::Lambda::Version": "lambda.PublishVersion",
    "AWS::Logs::LogGroup": "logs.CreateLogGroup logs.PutRetentionPolicy",
    "AWS::Logs::MetricFilter": "logs.PutMetricFilter",
    "AWS::Logs::QueryDefinition": "logs.PutQueryDefinition",
    "AWS::SageMaker::Endpoint": "sagemaker.CreateEndpoint",
    "AWS::SageMaker::EndpointConfig": "sagemaker.CreateEndpointConfig",
    "AWS::SageMaker::Model": "sagemaker.CreateModel",
    "AWS::SecretsManager::Secret": "secretsmanager.CreateSecret",
    "AWS::SNS::Subscription": "sns.Subscribe",
    "AWS::StepFunctions::StateMachine": "stepfunctions.CreateStateMachine",
}
RENAMED: Final = {"DefinitionString": "definition", "StateMachineName": "name", "StateMachineType": "type"}


@cache
def members(operations: str) -> Mapping[str, Any]:
    """Return the parameters of operations by name, in lower case."""
    found: dict[str, Any] = {}
    for one in operations.split():
        service, _, operation = one.partition(".")
        shape = service_models().get_service_model(service).operation_model(operation).input_shape
        found = {name.lower(): member for name, member in shape.members.items()} | found
    return found


def breaches(where: str, value: Any, shape: Any) -> Iterator[str]:
    """Yield the constraints of a service model that a value breaks. Unknown members are left to the schemas."""
    if shape.type_name == "string":  # also documents, and numbers, which CloudFormation converts
        value = value if isinstance(value, str) else compact(value)
    limits = shape.metadata
    is_number = shape.type_name in {"integer", "long", "float", "double"}
    size = float(value) if is_number else len(value) if isinstance(value, str | list | dict) else 0
    if not limits.get("min", size) <= size <= limits.get("max", size):
        yield f"{where}: {size} is not from {limits.get('min')} to {limits.get('max')}"
    if value not in limits.get("enum", [value]):
        yield f"{where}: {value} is not one of {', '.join(limits['enum'])}"
    if shape.type_name == "string" and not regex.fullmatch(python_pattern(limits.get("pattern", ".*")), value):
        yield f"{where}: {value} does not match {limits['pattern']}"
    for name, item, member in items(value, shape):
        yield from breaches(f"{where}.{name}", item, member)


@cache
def python_pattern(java: str) -> Any:
    """Return a pattern of a service model, in which a pair of surrogates is a character above U+FFFF."""
    return regex.compile(java.replace(r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF"), regex.DOTALL)


def items(value: Any, shape: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the members of a structure, a list or a map with their shapes."""
    if shape.type_name == "structure" and isinstance(value, dict):
        known = {name.lower(): member for name, member in shape.members.items()}
        yield from ((name, one, known[name.lower()]) for name, one in value.items() if name.lower() in known)
    elif shape.type_name == "list" and isinstance(value, list):
        yield from ((str(index), one, shape.member) for index, one in enumerate(value))
    elif shape.type_name == "map" and isinstance(value, dict):
        yield from ((f"{name} (name)", name, shape.key) for name in value)
        yield from ((name, one, shape.value) for name, one in value.items())


def breaches_of(stack: Physical) -> list[str]:
    """Return the constraints of service models that the resources of a stack break."""
    return [
        breach
        for name, resource in stack.resources.items()
        for key, value in resource.get("Properties", {}).items()
        if (shape := members(OPERATIONS.get(resource["Type"], "")).get(RENAMED.get(key, key).lower()))
        for breach in breaches(f"{name}.{key}", value, shape)
    ]


def test_properties_keep_the_constraints_of_the_apis(stack: Physical) -> None:
    assert breaches_of(stack) == []


# ---- Quotas that neither schemas nor models have


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def environment_bytes(function: Mapping[str, Any]) -> int:
    """Return the size of the variables as Lambda measures it: in JSON, with escaped quotation marks."""
    variables = {name: str(value) for name, value in function["Environment"]["Variables"].items()}
    return len(compact(variables).encode())


def inline_policies(stack: Physical) -> dict[str, int]:
    """Return the size of all inline policies of each role, which IAM counts without spaces."""
    documents: dict[str, list[Any]] = {}
    for name, role in stack.resources.items():
        if role["Type"] == "AWS::IAM::Role":
            documents[stack.names[name]] = [one["PolicyDocument"] for one in role["Properties"].get("Policies", [])]
    for policy in stack.of_type("AWS::IAM::Policy"):
        for role_name in policy["Roles"]:
            documents[role_name].append(policy["PolicyDocument"])
    return {name: sum(len(compact(one)) for one in found) for name, found in documents.items()}


def searches(dashboard: Mapping[str, Any]) -> list[int]:
    """Return the lengths of the search expressions of a dashboard."""
    return [len(text) for text in re.findall(r"SEARCH\('[^']*'", dashboard["DashboardBody"])]


class Quota(NamedTuple):
    """A quota on a part of a resource.

    Attributes:
        kind: type of the resource.
        maximum: of the measure.
        measure: returns the size of the part, or the sizes of several parts.
        source: page of docs.aws.amazon.com.
    """

    kind: str
    maximum: int
    measure: Callable[[Mapping[str, Any]], int | list[int]]
    source: str


QUOTAS: Final = (
    Quota(
        "AWS::Lambda::Function", 4096, environment_bytes, "lambda/latest/dg/gettingstarted-limits.html"
    ),  # its error message shows what it measures: "exceeded the 4KB limit. String measured: {...}"
    Quota(
        "AWS::Lambda::Function",
        64,  # the model allows an ARN
        lambda one: len(one.get("FunctionName", "")),
        "lambda/latest/api/API_CreateFunction.html",
    ),
    Quota(
        "AWS::StepFunctions::StateMachine",
        80,  # the model counts it only if the property has the name of the parameter
        lambda one: len(one["StateMachineName"]),
        "step-functions/latest/apireference/API_CreateStateMachine.html",
    ),
    Quota(
        "AWS::IAM::Role",
        2048,
        lambda one: len(compact(one["AssumeRolePolicyDocument"])),
        "IAM/latest/UserGuide/reference_iam-quotas.html",
    ),
    Quota(
        "AWS::IAM::Role",
        10,
        lambda one: len(one.get("ManagedPolicyArns", [])),
        "IAM/latest/UserGuide/reference_iam-quotas.html",
    ),
    Quota(
        "AWS::S3::BucketPolicy",
        20 << 10,
        lambda one: len(compact(one["PolicyDocument"])),
        "AmazonS3/latest/userguide/add-bucket-policy.html",
    ),
    Quota(
        "AWS::SQS::QueuePolicy",
        8192,
        lambda one: len(compact(one["PolicyDocument"])),
        "AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-policies.html",
    ),
    Quota(
        "AWS::KMS::Key",
        32 << 10,
        lambda one: len(compact(one["KeyPolicy"])),
        "kms/latest/developerguide/resource-limits.html",
    ),
    Quota(
        "AWS::EC2::VPCEndpoint",
        20480,
        lambda one: len(compact(one.get("PolicyDocument", ""))),
        "vpc/latest/privatelink/vpc-limits-endpoints.html",
    ),
    Quota(
        "AWS::Events::Rule",
        2048,
        lambda one: len(compact(one.get("EventPattern", ""))),
        "eventbridge/latest/userguide/eb-quota.html",
    ),
    Quota("AWS::Events::Rule", 5, lambda one: len(one["Targets"]), "eventbridge/latest/userguide/eb-quota.html"),
    Quota(
        "AWS::ECS::TaskDefinition",
        64 << 10,
        lambda one: len(compact(one)),
        "AmazonECS/latest/developerguide/service-quotas.html",
    ),
    Quota(
        "AWS::AppConfig::HostedConfigurationVersion",
        64 << 10,
        lambda one: len(one["Content"].encode()),
        "AWSCloudFormation/latest/UserGuide/aws-resource-appconfig-hostedconfigurationversion.html",
    ),
    Quota(
        "AWS::CloudFormation::Stack",
        4096,
        lambda one: [len(str(value).encode()) for value in one["Parameters"].values()],
        "AWSCloudFormation/latest/UserGuide/cloudformation-limits.html",
    ),
    Quota(
        "AWS::CloudWatch::Dashboard",
        1024,
        searches,
        "AmazonCloudWatch/latest/monitoring/search-expression-syntax.html",
    ),
)


def excesses_of(stack: Physical) -> list[str]:
    """Return the quotas that the resources of a stack exceed."""
    return [
        f"{name}: {size} is more than {quota.maximum} ({quota.source})"
        for quota in QUOTAS
        for name, resource in stack.resources.items()
        if resource["Type"] == quota.kind
        for size in as_list(quota.measure(resource["Properties"]))
        if size > quota.maximum
    ]


def test_resources_keep_quotas(stack: Physical) -> None:
    assert excesses_of(stack) == []


def test_every_quota_is_measured() -> None:
    stacks = [
        CASES[name].stack() for name in ("asynchronous", "defaults")
    ]  # the key of alerts, unless KmsKeyArn is set
    kinds = {resource["Type"] for one in stacks for resource in one.resources.values()}
    assert {quota.kind for quota in QUOTAS} | OPERATIONS.keys() <= kinds


def test_inline_policies_of_a_role_keep_the_quota(stack: Physical) -> None:
    assert max(inline_policies(stack).values()) <= 10240, "IAM/latest/UserGuide/reference_iam-quotas.html"


@pytest.mark.parametrize("case", [CASES["endpoint"], CASES["worker"], CASES["without operations"]])
def test_the_documented_length_of_a_stack_name_is_the_longest_that_works(case: Case) -> None:
    longer = case.stack(longer=1)
    assert breaches_of(longer) + excesses_of(longer) != []
    assert f"{case.name_length}" in (ROOT / "docs/how-to/choose-a-host.md").read_text()
    values = {**defaults(ROOT), **case.parameters}
    assert longest_name(values, has_endpoint=bool(values["SageMakerImageUri"])) == case.name_length


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_templates_keep_the_quotas_of_cloudformation(template: Path) -> None:
    """AWSCloudFormation/latest/UserGuide/cloudformation-limits.html. sam deploy uploads templates to S3."""
    document = translated(template)
    assert len(compact(document).encode()) <= 1 << 20
    assert len(document["Resources"]) <= 500
    assert len(parameters := document.get("Parameters", {})) <= 200
    assert len(document["Outputs"]) <= 200
    assert len(document["Description"].encode()) <= 1024
    assert [name for name, facts in parameters.items() if len(facts["Description"]) > 4000] == []
