"""Properties of the templates that linters do not check: parameter combinations, permissions, and configuration."""

import ast
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

from client.overview import NAMESPACE
from core.segmentation.registry import BUNDLED, Model
from core.segmentation.registry import MODELS as MODELS_BY_NAME
from embedded_cloud.deploy import translate
from functions.api.config import ApiConfig
from functions.bulk.config import BulkConfig
from functions.contracts.object_keys import FOLDERS, PREFIXES_WITHOUT_EXECUTION
from functions.contracts.prices import execution_usd
from functions.metrics.config import MetricsConfig
from functions.runtime.safe_http import Policy
from functions.runtime.url_policy import UrlConfig
from functions.segment.ecs.worker import WorkerConfig
from functions.segment.sagemaker.handlers import InferenceConfig
from functions.sweep.work import BUDGET_S, LONGEST_UPLOAD
from tests.conftest import ROOT
from web.identity import LOAD_BALANCER

TEMPLATE = ROOT / "template.yaml"
REGION = "eu-west-1"
IMAGE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/pictures/background-remover"
NETWORK = {"WorkerSubnets": "subnet-1,subnet-2", "WorkerSecurityGroups": "sg-1"}
WORKERS = [
    {},
    *({"WorkerImageUri": f"{IMAGE}:1", "SegmentationCapacity": name} for name in ("FARGATE", "FARGATE_SPOT", "GPU")),
    *({"WorkerImageUri": f"{IMAGE}:1", "SegmentationCapacity": name, **NETWORK} for name in ("FARGATE", "GPU")),
    {"WorkerImageUri": f"{IMAGE}:1", "SegmentationCapacity": "GPU_SPOT"},
]
ENDPOINTS = [
    {},
    *({"SageMakerEndpointName": "theirs", "SageMakerMode": mode} for mode in ("realtime", "async")),
    *({"SageMakerImageUri": f"{IMAGE}@sha256:1", "SageMakerMode": mode} for mode in ("realtime", "async", "transform")),
]
MODELS = [
    {},
    {
        "ModelBucket": "weights",
        "EscalateOnReview": "true",
        "SegmentMemory": "8192",
        "CustomModels": "[]",
        "AlertEmail": "who@example.com",
        "MonthlyBudget": "500",
        "BudgetTag": "project$cutouts",
    },
]
WEB = {
    "WebImageUri": f"{IMAGE}:web",
    "WebDomain": "cutouts.example.com",
    "WebCertificateArn": "arn:aws:acm:eu-west-1:123456789012:certificate/1",
    "WebVpc": "vpc-1",
    "WebSubnets": "subnet-a,subnet-b",
}
SIGN_IN = {
    "WebOidcIssuer": "https://idp.example.com",
    "WebOidcAuthorizationEndpoint": "https://idp.example.com/authorize",
    "WebOidcTokenEndpoint": "https://idp.example.com/token",
    "WebOidcUserInfoEndpoint": "https://idp.example.com/user",
    "WebOidcClientId": "page",
    "WebOidcClientSecretArn": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:page-1",
}
CLOSED, OPEN = WEB, {**WEB, **SIGN_IN}
PRIVATE = {
    **OPEN,
    "WebScheme": "internal",
    "WebTaskSubnets": "subnet-c,subnet-d",
    "WebCidrs": "10.0.0.0/8,192.168.1.0/24",
    "UrlSchemes": "http,https",
}
PROTECTED = {
    "KmsKeyArn": f"arn:aws:kms:{REGION}:123456789012:key/1",
    "SourceDays": "90",
    "ResultDays": "180",
    "ArchiveDays": "30",
}
REPLICATED = {"ResultsReplicaBucketArn": "arn:aws:s3:::replica", "ApiKeysTableName": "global-keys"}
REPLICATED_WITH_KEY = {**REPLICATED, "ResultsReplicaKmsKeyArn": "arn:aws:kms:us-west-2:123456789012:key/2"}
COMBINATIONS = [{**w, **e, **m} for w, e, m in itertools.product(WORKERS, ENDPOINTS, MODELS)]
COMBINATIONS += [{"Operations": "false"}, CLOSED, OPEN, PRIVATE, {**PRIVATE, **WORKERS[1]}]
COMBINATIONS += [REPLICATED, {**PROTECTED, **REPLICATED_WITH_KEY}]
COMBINATIONS += [{**PROTECTED, **OPEN, **WORKERS[1], **one} for one in ENDPOINTS[4:]]
FARGATE, OWN_GPU, GPU_SPOT = WORKERS[1], WORKERS[3], WORKERS[-1]
REALTIME, ASYNC, TRANSFORM = ENDPOINTS[3:]

NOTHING = object()
PSEUDO = {
    "AWS::NoValue": NOTHING,
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::AccountId": "123456789012",
    "AWS::StackName": "pbr",
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::StackId": f"arn:aws:cloudformation:{REGION}:123456789012:stack/pbr/3f0a",
}


class Stack:
    """The template as CloudFormation resolves it with these parameters.

    Resources of nested stacks are merged into ``resources``. Logical IDs are unique across templates.
    """

    def __init__(
        self, parameters: Mapping[str, Any], path: Path = TEMPLATE, pseudo: Mapping[str, Any] = PSEUDO
    ) -> None:
        self._template = translated(path, pseudo["AWS::Region"])
        self._path = path
        self._pseudo = pseudo
        self._values: dict[str, Any] = {}
        for name, facts in self._template.get("Parameters", {}).items():
            value = parameters[name] if name in parameters else facts["Default"]
            self._values[name] = value.split(",") if facts["Type"] == "CommaDelimitedList" else str(value)
        if path != TEMPLATE:
            assert parameters.keys() == self._values.keys(), "a nested stack gets every parameter, and no other"
        self._made = self._those_made("Resources")
        self._nested: dict[str, Stack] = {}
        self.resources = {name: self._resolve(self._template["Resources"][name]) for name in self._made}
        for name in self._made:
            self._child(name)
        for child in self._nested.values():
            assert not self.resources.keys() & child.resources.keys()
            self.resources |= child.resources
        self.outputs = {name: self._resolve(self._template["Outputs"][name]) for name in self._those_made("Outputs")}

    def __getitem__(self, name: str) -> dict[str, Any]:
        properties: dict[str, Any] = self.resources[name]["Properties"]
        return properties

    def of_type(self, resource_type: str) -> list[dict[str, Any]]:
        return [r["Properties"] for r in self.resources.values() if r["Type"] == resource_type]

    def refusals(self) -> list[str]:
        """Return the descriptions of the rules that CloudFormation rejects these parameters for."""
        return [
            assertion["AssertDescription"]
            for rule in self._template["Rules"].values()
            if "RuleCondition" not in rule or self._resolve(rule["RuleCondition"])
            for assertion in rule["Assertions"]
            if not self._resolve(assertion["Assert"])
        ]

    def _those_made(self, section: str) -> set[str]:
        items = self._template[section].items()
        return {name for name, item in items if "Condition" not in item or self._holds(item["Condition"])}

    def _child(self, name: str) -> "Stack | None":
        """Return the nested stack of a resource; None for a resource of another type."""
        resource = self._template["Resources"][name]
        if name not in self._nested and resource["Type"] == "AWS::CloudFormation::Stack":
            properties = resource["Properties"]
            path = self._path.parent / properties["TemplateURL"]
            self._nested[name] = type(self)(self._resolve(properties["Parameters"]), path, self._pseudo)
        return self._nested.get(name)

    def _holds(self, condition: str) -> bool:
        return bool(self._resolve(self._template["Conditions"][condition]))

    def _ref(self, name: str) -> Any:
        if name in self._pseudo:
            return self._pseudo[name]
        if name in self._values:
            return self._values[name]
        assert name in self._made, f"{name} is referenced but not created"
        return f"<{name}>"

    def _attribute(self, name: str, attribute: str) -> str:
        value = f"{self._ref(name)}.{attribute}"
        child = self._child(name)
        if child and attribute.startswith("Outputs."):
            return str(child.outputs[attribute.removeprefix("Outputs.")]["Value"])
        return value

    def _substitute(self, text: str, values: dict[str, Any]) -> str:
        def value(match: re.Match[str]) -> str:
            name, _, attribute = match[1].partition(".")
            if name in values:
                return str(values[name])
            return self._attribute(name, attribute) if attribute else str(self._ref(name))

        return re.sub(r"\$\{([\w:.]+)\}", value, text)

    def _resolve(self, node: Any) -> Any:
        if isinstance(node, list):
            return [value for item in node if (value := self._resolve(item)) is not NOTHING]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            [(name, given)] = node.items()
            if name == "Ref":
                return self._ref(given)
            if name == "Condition" and isinstance(given, str):
                return self._holds(given)
            if name == "Fn::If":
                condition, yes, no = given
                return self._resolve(yes if self._holds(condition) else no)
            if name.startswith("Fn::"):
                return self._call(name, self._resolve(given))
        return {name: value for name, item in node.items() if (value := self._resolve(item)) is not NOTHING}

    def _call(self, name: str, given: Any) -> Any:
        match name, given:
            case "Fn::GetAtt", str():
                return self._attribute(*given.split(".", 1))
            case "Fn::GetAtt", [resource, attribute]:
                return self._attribute(resource, attribute)
            case "Fn::Sub", str():
                return self._substitute(given, {})
            case "Fn::Sub", [text, values]:
                return self._substitute(text, values)
            case "Fn::Join", [separator, parts]:
                return separator.join(parts)
            case "Fn::Split", [separator, text]:
                return text.split(separator)
            case "Fn::Select", [index, items]:
                return items[int(index)]
            case "Fn::GetAZs", _:
                return [f"{self._pseudo['AWS::Region']}{zone}" for zone in "ab"]
            case "Fn::Base64", text:
                return text
            case "Fn::Equals", [one, other]:
                return one == other
            case "Fn::Not", [value]:
                return not value
            case "Fn::And", values:
                return all(values)
            case "Fn::Or", values:
                return any(values)
            case "Fn::Contains", [members, value]:
                return value in map(str, members)
            case "Fn::EachMemberEquals", [members, value]:
                return all(member == value for member in members)
        raise NotImplementedError(name)


@cache
def translated(path: Path = TEMPLATE, region: str = REGION) -> dict[str, Any]:
    return translate(path, {}, region)


def named(combination: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in combination.items() if name != "CustomModels") or "defaults"


@pytest.fixture(params=COMBINATIONS, ids=named)
def stack(request: pytest.FixtureRequest) -> Stack:
    return Stack(request.param)


def leaves(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield key, value
            yield from leaves(value)
    elif isinstance(node, list):
        for item in node:
            yield from leaves(item)


def environment(container: dict[str, Any]) -> dict[str, str]:
    given = container["Environment"]
    return {item["Name"]: item["Value"] for item in given} if isinstance(given, list) else given.get("Variables", given)


def worker(stack: Stack) -> dict[str, Any]:
    [container] = stack["WorkerTaskDefinition"]["ContainerDefinitions"]
    return dict(container)


# ---- Every combination


def test_references_resolve_in_every_combination(stack: Stack) -> None:
    assert stack.outputs["StateMachineArn"]["Value"] == "<RemoveBackground>"
    assert stack.refusals() == []


@pytest.mark.parametrize("parameters", [FARGATE, {**OWN_GPU, **ASYNC, **MODELS[1]}], ids=named)
def test_the_sam_translation_does_not_depend_on_parameters(parameters: dict[str, str]) -> None:
    assert translate(TEMPLATE, parameters, REGION)["Resources"].keys() == translated()["Resources"].keys()


# ---- Rules


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ({"SegmentationHost": "ecs"}, "requires WorkerImageUri"),
        ({"SegmentationHost": "sagemaker"}, "requires SageMakerEndpointName or SageMakerImageUri"),
        ({**FARGATE, "WorkerSubnets": "subnet-1"}, "WorkerSubnets requires"),
        ({**FARGATE, "WorkerSecurityGroups": "sg-1"}, "WorkerSecurityGroups requires"),
        ({"SageMakerEndpointName": "theirs", "SageMakerImageUri": IMAGE}, "mutually exclusive"),
        ({**TRANSFORM, "SegmentationHost": "sagemaker"}, "SegmentationHost cannot be sagemaker"),
        ({"SageMakerEndpointName": "theirs", "SageMakerMode": "transform"}, "not for an existing endpoint"),
        ({"DefaultModel": "birefnet-general-lite"}, "require SegmentMemory"),
        ({"EscalateOnReview": "true", "SegmentMemory": "6144"}, "require SegmentMemory"),
        ({"Operations": "false", "AlertEmail": "who@example.com"}, "AlertEmail requires"),
        ({"Operations": "false", "MonthlyBudget": "500"}, "MonthlyBudget requires"),
        ({"BudgetTag": "project$cutouts"}, "BudgetTag requires"),
        *(({**WEB, name: ""}, f"requires {name}") for name in WEB if name != "WebImageUri"),
        *(({**OPEN, name: ""}, "all parameters WebOidc") for name in SIGN_IN),
    ],
)
def test_contradictory_parameters_are_rejected(parameters: dict[str, str], why: str) -> None:
    [refusal] = Stack(parameters).refusals()
    assert why in refusal


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {**FARGATE, "SegmentationHost": "ecs"},
        {**ASYNC, "SegmentationHost": "sagemaker"},
        {"DefaultModel": "birefnet-general-lite", "SegmentMemory": "8192"},
        {"EscalateOnReview": "true", "EscalationModel": "u2net"},
    ],
)
def test_consistent_parameters_are_accepted(parameters: dict[str, str]) -> None:
    assert Stack(parameters).refusals() == []


@pytest.mark.parametrize("memory", [3008, 4096, 6144, 8192, 10240])
@pytest.mark.parametrize("model", MODELS_BY_NAME.values(), ids=lambda model: model.name)
def test_a_default_model_is_accepted_if_it_fits_the_segment_function(model: Model, memory: int) -> None:
    refused = Stack({"DefaultModel": model.name, "SegmentMemory": str(memory)}).refusals()
    assert bool(refused) == (model.memory_bytes > memory << 20)


def test_functions_of_a_default_stack_fit_the_quota_of_a_new_account() -> None:
    assert max(int(function["MemorySize"]) for function in Stack({}).of_type("AWS::Lambda::Function")) == 3008


def test_validate_knows_the_memory_of_the_other_functions() -> None:
    stack = Stack({"SegmentMemory": "4096", "RefineMemory": "6144", "EncodeMemory": "8192"})
    variables = environment(stack["ValidateFunction"])
    for name in ("Segment", "Refine", "Encode"):
        assert variables[f"{name.upper()}_MEMORY_MB"] == stack[f"{name}Function"]["MemorySize"]


def test_the_metrics_function_prices_each_stage_by_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack({"SegmentMemory": "4096", "RefineMemory": "6144", "EncodeMemory": "8192"})
    monkeypatch.setenv("AWS_REGION", REGION)
    for name, value in environment(stack["MetricsFunction"]).items():
        monkeypatch.setenv(name, value)
    config = MetricsConfig()
    for name in ("validate", "segment", "refine", "encode"):
        memory_mb = int(stack[f"{name.title()}Function"]["MemorySize"])
        document = {"timings_s": {name: 2.0}, "model": {"host": "lambda"}, "cache": {"hit": False}}
        expected = execution_usd({name: 2.0}, {name: memory_mb}, REGION, cached=False)
        assert config.usd_of(document) == expected > execution_usd({}, {}, REGION, cached=False)


# ---- The image


@pytest.mark.parametrize(
    ("parameters", "models"),
    [
        ({"DefaultModel": "u2net"}, "u2net"),
        (
            {"DefaultModel": "u2net", "EscalateOnReview": "true", "EscalationModel": "birefnet-general"},
            "u2net birefnet-general",
        ),
    ],
)
def test_the_image_includes_the_default_and_escalation_models(parameters: dict[str, str], models: str) -> None:
    builds = [r["Metadata"] for r in Stack(parameters).resources.values() if r["Type"] == "AWS::Lambda::Function"]
    assert {build["DockerBuildArgs"]["MODELS"] for build in builds} == {models}


# ---- The hosts


def test_all_hosts_have_the_same_model_configuration(stack: Stack) -> None:
    hosts = [environment(stack["SegmentFunction"])]
    if "WorkerTaskDefinition" in stack.resources:
        hosts.append(environment(worker(stack)))
    if "SegmentationModel" in stack.resources:
        hosts.append(environment(stack["SegmentationModel"]["PrimaryContainer"]))
    for name in ("WORK_BUCKET", "PBR_MODEL_DIR", "PBR_MODEL_MIRROR", "PBR_CUSTOM_MODELS"):
        assert len({host[name] for host in hosts}) == 1


def test_all_metrics_of_a_stack_are_in_its_own_namespace() -> None:
    stack = Stack({**WORKERS[1], **REALTIME})
    containers = [worker(stack), stack["SegmentationModel"]["PrimaryContainer"]]
    variables = [environment(one) for one in (*stack.of_type("AWS::Lambda::Function"), *containers)]
    assert {one["POWERTOOLS_METRICS_NAMESPACE"] for one in variables} == {NAMESPACE.format(stack="pbr")}


LONGEST = {name: "x" * one["MaxLength"] for name, one in translated()["Parameters"].items() if "MaxLength" in one}
"""Every parameter that has a maximum length, at that length."""


def test_the_endpoint_gets_a_list_of_custom_models_that_exceeds_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"sha256": "0" * 64, "bytes": 1, "input_px": 320}
    custom = [{"name": f"m-{n}", "uri": f"s3://models/{n}.onnx", **facts} for n in range(10)]
    parameter = json.dumps(custom)
    assert 1024 < len(parameter) <= int(translated()["Parameters"]["CustomModels"]["MaxLength"])
    longest = {**LONGEST, "CustomModels": parameter}
    container = Stack({**REALTIME, **longest})["SegmentationModel"]["PrimaryContainer"]
    assert max(map(len, environment(container).values())) <= 1024, "the maximum of SageMaker"
    for name, value in environment(container).items():
        monkeypatch.setenv(name, value)
    assert InferenceConfig().pbr_custom_models == parameter


def test_weights_from_a_bucket_are_downloaded_to_a_writable_directory() -> None:
    variables = environment(Stack(MODELS[1])["SegmentFunction"])
    assert (variables["PBR_MODEL_MIRROR"], variables["PBR_MODEL_DIR"]) == ("s3://weights", "/opt/models:/tmp/models")


@pytest.mark.parametrize(("parameters", "batch"), [(FARGATE, 1), (OWN_GPU, 8), (GPU_SPOT, 8)])
def test_the_worker_configuration_is_valid(
    parameters: dict[str, str], batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = Stack(parameters)
    for name, value in environment(worker(stack)).items():
        monkeypatch.setenv(name, value)
    config = WorkerConfig()
    assert config.queue_url == "<SegmentationQueue>"
    assert config.pbr_visibility_s <= int(stack["SegmentationQueue"]["VisibilityTimeout"])
    assert config.pbr_drain_s < worker(stack)["StopTimeout"]
    assert config.pbr_batch == batch


@pytest.mark.parametrize(("instance", "device"), [("ml.c6i.2xlarge", "cpu"), ("ml.g5.xlarge", "cuda")])
def test_the_endpoint_is_configured_for_its_instance(
    instance: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = Stack({**REALTIME, "SageMakerInstanceType": instance})
    for name, value in environment(stack["SegmentationModel"]["PrimaryContainer"]).items():
        monkeypatch.setenv(name, value)
    config = InferenceConfig()
    assert (config.pbr_device, config.default_model) == (device, BUNDLED)
    [configuration] = stack.of_type("AWS::SageMaker::EndpointConfig")
    [variant] = configuration["ProductionVariants"]
    assert ("InferenceAmiVersion" in variant) == (device == "cuda"), "this AMI has the driver that the image needs"


@pytest.mark.parametrize("parameters", WORKERS[1:], ids=named)
def test_a_worker_writes_only_to_its_volume_and_has_two_minutes_to_drain(parameters: dict[str, str]) -> None:
    container = worker(Stack(parameters))
    assert container["ReadonlyRootFilesystem"]
    assert container["User"].split(":")[0] not in {"", "0", "root"}
    assert [mount["ContainerPath"] for mount in container["MountPoints"]] == ["/tmp"]
    assert "\nVOLUME /tmp\n" in (ROOT / "Dockerfile").read_text(), "otherwise only root can write to it on Fargate"
    assert container["StopTimeout"] == 120


def test_tasks_have_the_tags_of_their_service() -> None:
    """CloudFormation passes the tags of the stack to services, and not to tasks."""
    services = Stack({**FARGATE, **OPEN}).of_type("AWS::ECS::Service")
    assert [service["PropagateTags"] for service in services] == ["SERVICE", "SERVICE"]


@pytest.mark.parametrize("parameters", WORKERS[1:], ids=named)
def test_a_gpu_is_configured_and_reserved_only_on_instances(parameters: dict[str, str]) -> None:
    stack = Stack(parameters)
    container, on_instances = worker(stack), parameters["SegmentationCapacity"].startswith("GPU")
    assert stack["WorkerTaskDefinition"]["RequiresCompatibilities"] == ["EC2" if on_instances else "FARGATE"]
    assert ("ResourceRequirements" in container) is on_instances
    assert environment(container)["PBR_DEVICE"] == ("cuda" if on_instances else "cpu")
    [strategy] = stack["WorkerService"]["CapacityProviderStrategy"]
    assert strategy["CapacityProvider"] in stack["WorkerCapacity"]["CapacityProviders"]


def test_spot_instances_are_of_several_types_with_one_gpu() -> None:
    stack = Stack(GPU_SPOT)
    group, template = stack["GpuInstances"], stack["GpuLaunchTemplate"]["LaunchTemplateData"]
    distribution = group["MixedInstancesPolicy"]["InstancesDistribution"]
    assert distribution["OnDemandBaseCapacity"] == distribution["OnDemandPercentageAboveBaseCapacity"] == 0
    [override] = group["MixedInstancesPolicy"]["LaunchTemplate"]["Overrides"]
    required = override["InstanceRequirements"]
    assert required["AcceleratorCount"] == {"Min": 1, "Max": 1}
    pattern = translated()["Parameters"]["GpuInstanceType"]["AllowedPattern"]
    assert all(re.fullmatch(pattern, name.replace("*", "xlarge")) for name in required["AllowedInstanceTypes"])
    task = stack["WorkerTaskDefinition"]
    assert required["VCpuCount"]["Min"] * 1024 >= int(task["Cpu"])
    assert required["MemoryMiB"]["Min"] > int(task["Memory"])
    assert "InstanceType" not in template and "LaunchTemplate" not in group, "Auto Scaling accepts only one of them"
    assert template["ImageId"].startswith("{{resolve:ssm:"), (
        "Auto Scaling rejects a parameter with instance requirements"
    )


@pytest.mark.parametrize("parameters", [OWN_GPU, GPU_SPOT], ids=named)
def test_a_task_on_an_interrupted_instance_stops_before_its_replacement_runs(parameters: dict[str, str]) -> None:
    stack = Stack(parameters)
    spot = "MixedInstancesPolicy" in stack["GpuInstances"]
    assert (stack["WorkerService"]["DeploymentConfiguration"].get("MinimumHealthyPercent") == 0) is spot
    assert "ECS_ENABLE_SPOT_INSTANCE_DRAINING=true" in stack["GpuLaunchTemplate"]["LaunchTemplateData"]["UserData"]
    statements = [s for p in stack["GpuInstanceRole"]["Policies"] for s in p["PolicyDocument"]["Statement"]]
    assert any("ecs:UpdateContainerInstancesState" in s["Action"] for s in statements), "the agent starts the draining"


@pytest.mark.parametrize("parameters", [{**FARGATE, **OPEN}, OWN_GPU], ids=named)
def test_containers_have_no_capabilities(parameters: dict[str, str]) -> None:
    for task in Stack(parameters).of_type("AWS::ECS::TaskDefinition"):
        for container in task["ContainerDefinitions"]:
            assert container["LinuxParameters"]["Capabilities"] == {"Drop": ["ALL"]}
            assert "Privileged" not in container


def test_instances_are_encrypted_and_block_container_access_to_credentials() -> None:
    data = Stack(OWN_GPU)["GpuLaunchTemplate"]["LaunchTemplateData"]
    assert data["MetadataOptions"] == {
        "HttpEndpoint": "enabled",
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
    }
    assert [device["Ebs"]["Encrypted"] for device in data["BlockDeviceMappings"]] == [True]
    assert "ECS_AWSVPC_BLOCK_IMDS=true" in data["UserData"]


# ---- Webhooks


def statements(stack: Stack, role: str) -> list[dict[str, Any]]:
    return [s for policy in stack[role]["Policies"] for s in policy["PolicyDocument"]["Statement"]]


def allowed(stack: Stack, role: str) -> set[tuple[str, str]]:
    """Return the (action, resource) pairs that a role allows, except actions without resource-level permissions."""
    return {
        (action, resource)
        for statement in statements(stack, role)
        for action in leaves_of(statement["Action"])
        for resource in leaves_of(statement["Resource"])
        if resource != "*"
    }


def test_a_worker_may_call_only_what_it_calls_of_the_queue() -> None:
    queue = f"arn:aws:sqs:{REGION}:123456789012:<SegmentationQueue>.QueueName"
    actions = {"ReceiveMessage", "SendMessage", "DeleteMessage", "ChangeMessageVisibility"}
    granted = {pair for pair in allowed(Stack(FARGATE), "WorkerRole") if pair[0].startswith("sqs:")}
    assert granted == {(f"sqs:{action}", queue) for action in actions}


def test_webhook_delivery_has_minimal_permissions() -> None:
    stack = Stack({})
    assert allowed(stack, "WebhookFunctionRole") == {
        ("secretsmanager:GetSecretValue", "<WebhookSecret>"),
        ("s3:GetObjectVersion", "<ResultsBucket>.Arn/results/*"),
    }
    assert allowed(stack, "DeliverWebhookRole") == {
        ("lambda:InvokeFunction", "<WebhookFunction>.Arn"),
        ("lambda:InvokeFunction", "<WebhookFunction>.Arn:*"),
        ("sqs:SendMessage", "<WebhooksDeadLetterQueue>.Arn"),
    }


def test_only_the_state_machine_and_reconcile_start_webhook_deliveries() -> None:
    stack = Stack({})
    roles = [name for name, resource in stack.resources.items() if resource["Type"] == "AWS::IAM::Role"]
    starting = {role for role in roles if ("states:StartExecution", "<DeliverWebhook>") in allowed(stack, role)}
    assert starting == {"RemoveBackgroundRole", "ReconcileFunctionRole"}
    assert environment(stack["ReconcileFunction"])["DELIVERY_MACHINE_ARN"] == "<DeliverWebhookAliaslive>"
    assert stack["RemoveBackground"]["DefinitionSubstitutions"]["DeliverWebhookArn"] == "<DeliverWebhookAliaslive>"


def test_webhooks_use_the_url_policy_of_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack({"UrlSchemes": "http,https", "UrlNetworks": "10.1.0.0/16"})
    for name, value in environment(stack["WebhookFunction"]).items():
        monkeypatch.setenv(name, value)
    assert UrlConfig().outbound == Policy(("http", "https"), ("10.1.0.0/16",))


INSECURE = {"Bool": {"aws:SecureTransport": "false"}}


def test_every_queue_requires_tls(stack: Stack) -> None:
    queues = {f"<{name}>" for name, resource in stack.resources.items() if resource["Type"] == "AWS::SQS::Queue"}
    denial = {"Sid": "TlsOnly", "Effect": "Deny", "Principal": "*", "Action": "sqs:*", "Condition": INSECURE}
    guarded = {
        queue
        for policy in stack.of_type("AWS::SQS::QueuePolicy")
        for queue in policy["Queues"]
        for statement in policy["PolicyDocument"]["Statement"]
        if f"{queue}.Arn" in leaves_of(statement["Resource"])
        if statement == {**denial, "Resource": statement["Resource"]}
    }
    assert guarded == queues


def leaves_of(value: str | list[str]) -> list[str]:
    return value if isinstance(value, list) else [value]


# ---- Scaling


def evaluate(metrics: list[dict[str, Any]], **values: float | None) -> float | None:
    """Evaluate metric math on one data point per metric. None is a missing data point."""
    known: dict[str, Any] = {
        "IF": lambda condition, yes, no: yes if condition else no,
        "FILL": lambda value, other: other if value is None else value,
        "REPEAT": None,
        **values,
    }
    result = None
    for metric in [m for m in metrics if "Expression" in m]:
        known[metric["Id"]] = value = eval(metric["Expression"], {}, known)
        result = value if metric.get("ReturnData", True) else result
    return result


def backlog_metrics() -> list[dict[str, Any]]:
    policy = Stack(FARGATE)["WorkerBacklog"]["TargetTrackingScalingPolicyConfiguration"]
    return list(policy["CustomizedMetricSpecification"]["Metrics"])


@pytest.mark.parametrize(
    ("waiting", "in_flight", "running", "backlog"),
    [(40, 10, 5, 10), (0, 8, 1, 8), (0, None, 2, 0), (7, None, 0, 7)],
)
def test_the_backlog_counts_in_flight_requests_and_handles_zero_workers(
    waiting: float, in_flight: float | None, running: float, backlog: float
) -> None:
    assert evaluate(backlog_metrics(), waiting=waiting, in_flight=in_flight, running=running) == backlog


@pytest.mark.parametrize(
    ("waiting", "received", "alarm"), [(3, None, True), (3, 0, True), (3, 2, False), (0, None, False)]
)
def test_the_wake_up_alarm_fires_if_requests_wait_and_none_is_received(
    waiting: float, received: float | None, alarm: bool
) -> None:
    facts = Stack(FARGATE)["WorkerWakeUpAlarm"]
    unreceived = evaluate(facts["Metrics"], waiting=waiting, received=received)
    assert unreceived is not None
    assert (unreceived >= facts["Threshold"]) is alarm


def test_a_scale_out_from_zero_fits_into_the_heartbeat_timeout() -> None:
    states = yaml.safe_load((ROOT / "statemachine/remove_background.asl.yaml").read_text())["States"]
    alarm = Stack(FARGATE)["WorkerWakeUpAlarm"]
    [period_s] = {metric["MetricStat"]["Period"] for metric in alarm["Metrics"] if "MetricStat" in metric}
    assert states["SegmentOnEcs"]["HeartbeatSeconds"] - 2 * period_s * alarm["EvaluationPeriods"] >= 300
    alarm = Stack(ASYNC)["EndpointWakeUpAlarm"]
    waits = states["SegmentOnSageMakerAsync"]["Branches"][0]["States"]["AwaitMask"]
    assert waits["HeartbeatSeconds"] - 2 * alarm["Period"] * alarm["EvaluationPeriods"] >= 600


def test_workers_and_asynchronous_endpoints_scale_to_zero() -> None:
    assert Stack(FARGATE)["WorkerScaling"]["MinCapacity"] == "0"
    assert Stack(ASYNC)["EndpointScaling"]["MinCapacity"] == 0
    assert Stack(REALTIME)["EndpointScaling"]["MinCapacity"] == 1
    assert "EndpointWakeUpAlarm" in Stack(ASYNC).resources


# ---- State machines


@pytest.mark.parametrize(
    ("name", "path"),
    [("RemoveBackground", "remove_background"), ("DeliverWebhook", "deliver_webhook"), ("Bulk", "bulk")],
)
def test_every_variable_of_a_definition_is_substituted(name: str, path: str) -> None:
    variables = re.findall(r"\$\{(\w+)\}", (ROOT / f"statemachine/{path}.asl.yaml").read_text())
    assert Stack({})[name]["DefinitionSubstitutions"].keys() == set(variables)
    assert Stack({})[name]["DefinitionSubstitutions"]["Partition"] == "aws"


@pytest.mark.parametrize("name", ["RemoveBackground", "DeliverWebhook", "Bulk"])
def test_an_empty_value_is_an_empty_text_in_a_definition(name: str) -> None:
    """CloudFormation substitutes in the text of the file, and reads it as YAML afterwards."""
    for variable, value in Stack({})[name]["DefinitionSubstitutions"].items():
        for path in (ROOT / "statemachine").glob("*.asl.yaml"):
            if not value:
                assert re.findall(rf": *\$\{{{variable}\}}", path.read_text()) == [], path


@pytest.mark.parametrize("path", ["template.yaml", "infrastructure/*.yaml", "statemachine/*.yaml"])
def test_no_arn_names_a_partition(path: str) -> None:
    for file in ROOT.glob(path):
        assert "arn:aws" not in file.read_text(), file


# ---- The endpoint


@pytest.mark.parametrize("parameters", ENDPOINTS[1:5], ids=named)
def test_the_state_machine_invokes_the_endpoint_in_its_mode(parameters: dict[str, str]) -> None:
    stack = Stack(parameters)
    is_own = "SageMakerImageUri" in parameters
    name = stack["SegmentationEndpoint"]["EndpointName"] if is_own else "theirs"
    invoked = stack["RemoveBackground"]["DefinitionSubstitutions"]["SageMakerEndpointName"]
    assert invoked == ("<SegmentationEndpoint>.EndpointName" if is_own else name)
    [policy] = stack["RemoveBackgroundRole"]["Policies"]
    [statement] = [s for s in policy["PolicyDocument"]["Statement"] if "sagemaker" in str(s["Action"])]
    mode = parameters["SageMakerMode"]
    assert statement["Action"] == ("sagemaker:InvokeEndpointAsync" if mode == "async" else "sagemaker:InvokeEndpoint")
    assert fnmatch(f"arn:aws:sagemaker:{REGION}:123456789012:endpoint/{name}", statement["Resource"])
    assert not fnmatch(f"arn:aws:sagemaker:{REGION}:123456789012:endpoint/other-{name}", statement["Resource"])
    assert environment(stack["ValidateFunction"])["SAGEMAKER_MODE"] == mode
    assert "sagemaker" in environment(stack["ValidateFunction"])["SEGMENTATION_HOSTS"].split(",")


@pytest.mark.parametrize(
    ("instance_type", "accepted"),
    [
        *((f"ml.{name}", True) for name in ("c5.large", "c6i.2xlarge", "m5d.24xlarge", "r7i.xlarge", "t2.large")),
        *((f"ml.{name}", True) for name in ("g4dn.xlarge", "g5.12xlarge", "g6.xlarge", "g6e.xlarge")),
        *((f"ml.{name}", False) for name in ("c6g.xlarge", "c6gn.xlarge", "c7gd.xlarge", "m8g.large", "r6g.2xlarge")),
        *((name, False) for name in ("c6i.2xlarge", "ml.g5g.xlarge", "ml.inf2.xlarge")),
    ],
)
def test_the_endpoint_accepts_only_instance_types_that_run_the_image(instance_type: str, *, accepted: bool) -> None:
    pattern = translated()["Parameters"]["SageMakerInstanceType"]["AllowedPattern"]
    assert bool(re.fullmatch(pattern, instance_type)) is accepted


def test_a_change_that_an_endpoint_cannot_make_replaces_it() -> None:
    """SageMaker refuses to change the instance type of a variant that scales, or the mode of an endpoint."""
    changes: list[dict[str, str]] = [{}, {"SageMakerInstanceType": "ml.g4dn.16xlarge"}, {"SageMakerMode": "async"}]
    stacks = [Stack({**REALTIME, **change}) for change in changes]
    assert len({stack["SegmentationEndpoint"]["EndpointName"] for stack in stacks}) == len(changes)
    for stack in stacks:
        assert re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", stack["SegmentationEndpoint"]["EndpointName"])
        assert len(stack["SegmentationEndpoint"]["EndpointName"]) - len(PSEUDO["AWS::StackName"]) <= 63 - 40
    image = Stack({**REALTIME, "SageMakerImageUri": f"{IMAGE}:2"})
    assert image["SegmentationEndpoint"]["EndpointName"] == stacks[0]["SegmentationEndpoint"]["EndpointName"]


def test_the_state_machine_is_updated_after_its_endpoint() -> None:
    resources = translated()["Resources"]
    assert "EndpointStack" in str(resources["RemoveBackground"])
    assert "RemoveBackground" not in str(resources["EndpointStack"])
    assert Stack(ASYNC)["RemoveBackground"]["StateMachineName"] == PSEUDO["AWS::StackName"]
    [answered] = {value for _, value in leaves(Stack(ASYNC)["EndpointRole"]) if ":stateMachine:" in str(value)[:60]}
    assert answered == f"arn:aws:states:{REGION}:123456789012:stateMachine:{PSEUDO['AWS::StackName']}"


# ---- Bulk runs


def test_bulk_functions_may_only_read_other_buckets() -> None:
    stack = Stack({"BulkSourceBuckets": "photos,archive.2024"})
    functions = {"<PrepareBulkFunctionRole>", "<BulkFunctionRole>", "<SummarizeBulkFunctionRole>"}
    for name, action, roles in (
        ("SourceObjectsPolicy", "s3:GetObject", functions),
        ("SourceVersionsPolicy", "s3:GetObjectVersion", {"<BulkFunctionRole>"}),
        ("SourceListingsPolicy", "s3:ListBucket", {"<BulkRole>", "<PrepareBulkFunctionRole>", "<BulkFunctionRole>"}),
    ):
        [statement] = stack[name]["PolicyDocument"]["Statement"]
        assert (statement["Action"], set(stack[name]["Roles"])) == (action, roles)
        buckets = [arn.removeprefix("arn:aws:s3:::").removesuffix("/*") for arn in statement["Resource"]]
        assert buckets == ["photos", "archive.2024", "-", "-", "-"]
    assert not [name for name in Stack({}).resources if name.startswith("Source")]


def test_a_redrive_of_a_bulk_run_may_redrive_its_children_only() -> None:
    [resource] = [arn for action, arn in allowed(Stack({}), "BulkRole") if action == "states:RedriveExecution"]
    executions = f"arn:aws:states:{REGION}:123456789012:execution:{PSEUDO['AWS::StackName']}"
    assert fnmatch(f"{executions}-bulk/ForListing:a-child", resource)
    assert not fnmatch(f"{executions}:an-upload", resource)


@pytest.mark.parametrize(
    ("parameters", "hosts", "default"),
    [
        ({}, "lambda", "lambda"),
        ({**REALTIME, "SegmentationHost": "sagemaker"}, "lambda,sagemaker", "sagemaker"),
        (REALTIME, "lambda,sagemaker", "lambda"),
        ({**ASYNC, "SegmentationHost": "sagemaker"}, "lambda", "lambda"),
        ({**FARGATE, "SegmentationHost": "ecs"}, "lambda", "lambda"),
    ],
)
def test_express_children_segment_on_hosts_that_answer_at_once(
    parameters: dict[str, str], hosts: str, default: str
) -> None:
    stack = Stack(parameters)
    variables = environment(stack["BulkFunction"])
    assert (variables["SEGMENTATION_HOSTS"], variables["SEGMENTATION_HOST"]) == (hosts, default)
    may_invoke = [resource for action, resource in allowed(stack, "BulkFunctionRole") if "sagemaker" in action]
    assert bool(may_invoke) == bool(variables["SAGEMAKER_ENDPOINT_NAME"]) == ("sagemaker" in hosts)
    for resource in may_invoke:
        assert fnmatch(f"arn:aws:sagemaker:{REGION}:123456789012:endpoint/pbr-realtime-c6i-2xlarge", resource), (
            "also while the endpoint is replaced"
        )


@pytest.mark.parametrize(("bulk", "memory"), [("0", "4096"), ("10240", "10240")])
def test_the_bulk_function_has_the_memory_of_segmentation_unless_it_has_its_own(bulk: str, memory: str) -> None:
    stack = Stack({"SegmentMemory": "4096", "BulkMemory": bulk})
    assert stack["BulkFunction"]["MemorySize"] == environment(stack["BulkFunction"])["BULK_MEMORY_MB"] == memory


def test_the_configuration_of_the_bulk_function_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack({"BulkSourceBuckets": "photos", "BulkMemory": "8192"})
    for name, value in environment(stack["BulkFunction"]).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_REGION", REGION)
    config = BulkConfig()
    assert config.segment_memory_mb == config.bulk_memory_mb == int(stack["BulkFunction"]["MemorySize"]) == 8192
    assert config.bulk_budget_s < stack["BulkFunction"]["Timeout"]
    shared = ("PBR_MODEL_DIR", "PBR_MODEL_MIRROR", "PBR_CUSTOM_MODELS")
    segment = environment(stack["SegmentFunction"])
    assert {name: os.environ[name] for name in shared} == {name: segment[name] for name in shared}


def test_a_stack_for_batch_transform_has_a_model_and_no_endpoint() -> None:
    stack = Stack(TRANSFORM)
    assert "SegmentationModel" in stack.resources
    assert not stack.of_type("AWS::SageMaker::Endpoint") and "EndpointLogs" not in stack.resources
    assert not stack.of_type("AWS::ApplicationAutoScaling::ScalableTarget")
    assert environment(stack["ValidateFunction"])["SEGMENTATION_HOSTS"] == "lambda"
    assert environment(stack["PrepareBulkFunction"])["TRANSFORM_MODEL_NAME"] == "<SegmentationModel>.ModelName"


@pytest.mark.parametrize("parameters", [REALTIME, ASYNC, TRANSFORM], ids=named)
def test_bulk_runs_may_transform_with_the_model_of_the_stack_only(parameters: dict[str, str]) -> None:
    stack = Stack({**parameters, "BulkSourceBuckets": "photos", "BulkTransformInstanceType": "ml.g5.xlarge"})
    jobs = {action: resource for action, resource in allowed(stack, "BulkRole") if "Transform" in action}
    assert jobs.keys() == {f"sagemaker:{verb}TransformJob" for verb in ("Create", "Describe", "Stop")}
    assert {
        fnmatch(f"arn:aws:sagemaker:{REGION}:123456789012:transform-job/pbr-bulk-1f-0", one) for one in jobs.values()
    }
    assert environment(stack["PrepareBulkFunction"])["TRANSFORM_INSTANCE_TYPE"] == "ml.g5.xlarge"
    tagged = environment(stack["PrepareBulkFunction"])["TRANSFORM_MODEL_ARN"]
    assert {("sagemaker:ListTags", tagged)} <= allowed(stack, "PrepareBulkFunctionRole")
    read = {resource for action, resource in allowed(stack, "EndpointRole") if action == "s3:GetObject"}
    assert any(resource.endswith("<WorkBucket>/masks/*") for resource in read)
    [policy] = [one for one in stack.of_type("AWS::IAM::Policy") if one["Roles"] == ["<EndpointRole>"]]
    assert "arn:aws:s3:::photos/*" in leaves_of(policy["PolicyDocument"]["Statement"][0]["Resource"])


def test_a_stack_without_a_model_has_no_permission_to_transform() -> None:
    stack = Stack({})
    assert not [action for action, _ in allowed(stack, "BulkRole") if "sagemaker" in action]
    assert environment(stack["PrepareBulkFunction"])["TRANSFORM_MODEL_NAME"] == ""
    assert not [one for _, one in allowed(stack, "BulkFunctionRole") if one.endswith(("masks/*", "requests/*"))]


# ---- The web page

DEFAULT_PORT = 8501


def page(stack: Stack) -> dict[str, Any]:
    [container] = stack["WebTaskDefinition"]["ContainerDefinitions"]
    return dict(container)


def test_the_page_is_closed_without_an_identity_provider() -> None:
    stack = Stack(CLOSED)
    [action] = stack["WebListener"]["DefaultActions"]
    assert (action["Type"], action["FixedResponseConfig"]["StatusCode"]) == ("fixed-response", "403")
    text = action["FixedResponseConfig"]["MessageBody"]
    assert stack.outputs["WebCallbackUrl"]["Value"] in text
    assert [name for name in SIGN_IN if name not in text] == []
    assert len(text) <= 1024, "the maximum of load balancers"
    assert "WebService" not in stack.resources


@pytest.mark.parametrize("parameters", [OPEN, PRIVATE])
def test_every_request_to_the_page_passes_the_sign_in(parameters: dict[str, str]) -> None:
    stack = Stack(parameters)
    sign_in, forward = stack["WebListener"]["DefaultActions"]
    assert (sign_in["Type"], sign_in["Order"], forward["Order"]) == ("authenticate-oidc", 1, 2)
    given = sign_in["AuthenticateOidcConfig"]
    names = ("Issuer", "AuthorizationEndpoint", "TokenEndpoint", "UserInfoEndpoint", "ClientId")
    assert {name: given[name] for name in names} == {name: SIGN_IN[f"WebOidc{name}"] for name in names}
    assert given["ClientSecret"] == f"{{{{resolve:secretsmanager:{SIGN_IN['WebOidcClientSecretArn']}}}}}"
    assert given["OnUnauthenticatedRequest"] == "authenticate"
    assert not stack.of_type("AWS::ElasticLoadBalancingV2::ListenerRule"), "it could bypass the sign-in"
    assert {action["Type"] for action in stack["WebRedirectListener"]["DefaultActions"]} == {"redirect"}
    assert environment(page(stack))[LOAD_BALANCER] == "<WebLoadBalancer>", "otherwise the page accepts cookies as users"


def test_tokens_of_the_load_balancer_can_be_verified() -> None:
    """The page reads public keys and image URLs over the internet, and nothing else connects to it."""
    stack = Stack(PRIVATE)
    assert [rule["ToPort"] for rule in stack["WebSecurityGroup"]["SecurityGroupEgress"]] == [443, 80]
    assert [rule["ToPort"] for rule in Stack(OPEN)["WebSecurityGroup"]["SecurityGroupEgress"]] == [443]
    to_page = stack["WebLoadBalancerToTasks"]
    assert to_page["ToPort"] == stack["WebTargets"]["Port"] == DEFAULT_PORT
    assert page(stack)["Command"][-1] == str(DEFAULT_PORT)


@pytest.mark.parametrize(
    ("parameters", "subnets", "public"),
    [
        (OPEN, ["subnet-a", "subnet-b"], "ENABLED"),
        ({**OPEN, "WebScheme": "internal"}, ["subnet-a", "subnet-b"], "DISABLED"),
        (PRIVATE, ["subnet-c", "subnet-d"], "DISABLED"),
    ],
)
def test_tasks_of_the_page_have_public_addresses_only_in_public_subnets(
    parameters: dict[str, str], subnets: list[str], public: str
) -> None:
    network = Stack(parameters)["WebService"]["NetworkConfiguration"]["AwsvpcConfiguration"]
    assert (network["Subnets"], network["AssignPublicIp"]) == (subnets, public)


@pytest.mark.parametrize("count", range(1, 6))
def test_only_the_given_networks_may_connect_to_the_page(count: int) -> None:
    networks = [f"10.{number}.0.0/16" for number in range(count)]
    rules = Stack({**OPEN, "WebCidrs": ",".join(networks)})["WebLoadBalancerSecurityGroup"]["SecurityGroupIngress"]
    assert sorted((rule["CidrIp"], rule["FromPort"], rule["ToPort"]) for rule in rules) == sorted(
        (network, port, port) for network in networks for port in (80, 443)
    )


def test_the_page_writes_only_to_its_volume() -> None:
    container = page(Stack(OPEN))
    assert container["ReadonlyRootFilesystem"]
    assert container["User"].split(":")[0] not in {"", "0", "root"}
    assert [mount["ContainerPath"] for mount in container["MountPoints"]] == ["/tmp"]


EXECUTIONS = f"arn:aws:states:{REGION}:123456789012:execution:pbr:*"
MACHINE = "<RemoveBackground>"
REVIEWS = f"arn:aws:dynamodb:{REGION}:123456789012:table/<ReviewsTable>"
QUEUES = {"Segmentation", "SegmentationDeadLetter", "UploadsDeadLetter", "ReconcileDeadLetter", "WebhooksDeadLetter"}
OF_EXECUTIONS = ("DescribeExecution", "DescribeStateMachineForExecution", "GetExecutionHistory", "RedriveExecution")
ROLE_OF_THE_PAGE = {
    ("s3:PutObject", "arn:aws:s3:::<UploadsBucket>/web/*"),
    ("s3:PutObject", "arn:aws:s3:::<UploadsBucket>/backgrounds/*"),
    *(
        (action, f"arn:aws:s3:::{objects}")
        for action in ("s3:GetObject", "s3:GetObjectVersion")
        for objects in ("<UploadsBucket>/*", "<ResultsBucket>/results/*")
    ),
    *(("s3:GetObject", f"arn:aws:s3:::{objects}") for objects in ("<ResultsBucket>/failed/*", "<WorkBucket>/work/*")),
    *(("s3:ListBucket", f"arn:aws:s3:::<{name}Bucket>") for name in ("Uploads", "Results", "Work")),
    *((f"states:{name}", MACHINE) for name in ("StartExecution", "ListExecutions")),
    *((f"states:{name}", EXECUTIONS) for name in OF_EXECUTIONS),
    ("cloudformation:DescribeStacks", f"arn:aws:cloudformation:{REGION}:123456789012:stack/pbr/*"),
    *(("sqs:GetQueueAttributes", f"<{name}Queue>.Arn") for name in QUEUES),
    *((f"dynamodb:{name}", REVIEWS) for name in ("GetItem", "UpdateItem")),
    ("dynamodb:Query", f"{REVIEWS}/index/by_queue"),
}


def test_the_page_has_minimal_permissions() -> None:
    assert allowed(Stack(OPEN), "WebRole") == ROLE_OF_THE_PAGE


SERVICES = {"stepfunctions": "states"}
PERMISSIONS = {"s3:HeadObject": {"s3:GetObject"}, "s3:CopyObject": {"s3:GetObject", "s3:PutObject"}}
"""Permissions of a call if they have other names."""

WITHOUT_CALLS = {"client.dead_letters"}
"""Modules of which the page uses only what calls nothing."""


def calls_of_the_page() -> dict[str, str]:
    """Return the AWS calls of web/ and of the client modules that it imports, each with its module."""
    graph = grimp.build_graph("web", "client")
    pages = {"web", *graph.find_descendants("web")}
    modules = pages.union(*map(graph.find_upstream_modules, pages))
    calls = {}
    for module in sorted(modules - WITHOUT_CALLS):
        path = ROOT / module.replace(".", "/")
        source = ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())
        for call in (node for node in ast.walk(source) if isinstance(node, ast.Call)):
            found = re.search(
                r"\b(s3|stepfunctions|sqs|dynamodb|cloudwatch|cloudformation|logs)\.(\w+)$", ast.unparse(call.func)
            )
            if found:
                name = ast.literal_eval(call.args[0]) if found[2] == "get_paginator" else found[2]
                verb = name.replace("_", " ").title().replace(" ", "")
                calls[f"{SERVICES.get(found[1], found[1])}:{verb}"] = module
    return calls


def test_the_page_may_make_every_call_in_its_code() -> None:
    calls = calls_of_the_page()
    assert {"s3:PutObject", "states:ListExecutions", "cloudformation:DescribeStacks"} <= calls.keys()
    granted = {action for statement in statements(Stack(OPEN), "WebRole") for action in leaves_of(statement["Action"])}
    missing = {call: module for call, module in calls.items() if not PERMISSIONS.get(call, {call}) <= granted}
    assert missing == {}


# ---- Uploads


def test_only_objects_of_the_uploads_bucket_start_executions() -> None:
    [pattern] = [
        rule["EventPattern"]
        for rule in Stack({}).of_type("AWS::Events::Rule")
        for target in rule["Targets"]
        if target["Arn"].startswith("<RemoveBackground")
    ]
    assert (pattern["source"], pattern["detail"]["bucket"]) == (["aws.s3"], {"name": ["<UploadsBucket>"]})


# ---- Sweep


def test_the_sweep_skips_the_uploads_that_the_rule_skips() -> None:
    [pattern] = Stack({})["RemoveBackgroundUpload"]["EventPattern"]["detail"]["object"]["key"]
    skipped = [*(f"{prefix}*" for prefix in PREFIXES_WITHOUT_EXECUTION), *(f"*{end}" for end in FOLDERS)]
    assert pattern == {"anything-but": {"wildcard": skipped}}


def test_a_run_of_the_sweep_ends_before_its_function_times_out() -> None:
    function = Stack({})["SweepFunction"]
    assert function["Timeout"] > BUDGET_S + 120, "a page that has been listed is looked at to its end"


def test_the_sweep_looks_at_multipart_uploads_when_they_are_complete_or_aborted() -> None:
    rules = Stack({})["UploadsBucket"]["LifecycleConfiguration"]["Rules"]
    [rule] = [rule for rule in rules if rule["Id"] == "incomplete-uploads"]
    days = rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] + 1  # S3 rounds up to the next midnight (UTC)
    assert timedelta(days=days) == LONGEST_UPLOAD


def test_the_sweep_has_minimal_permissions() -> None:
    assert allowed(Stack({}), "SweepFunctionRole") == {
        *(("s3:ListBucketVersions", f"<{name}Bucket>.Arn") for name in ("Uploads", "Results")),
        *(("s3:ListBucket", f"<{name}Bucket>.Arn") for name in ("Results", "Work")),
        *(("s3:GetObject", f"<ResultsBucket>.Arn/{name}/*") for name in ("results", "failed")),
        *((f"s3:{name}Object", "<WorkBucket>.Arn/sweep/*") for name in ("Get", "Put")),
        *((f"states:{name}", MACHINE) for name in ("StartExecution", "ListExecutions")),
        ("states:DescribeExecution", EXECUTIONS),
        ("lambda:InvokeFunction", "<ReconcileFunctionAliaslive>"),
    }


# ---- Digest
def test_the_digest_may_only_read_reports_and_publish() -> None:
    assert allowed(Stack({}), "DigestFunctionRole") == {
        ("s3:ListBucketVersions", "<ResultsBucket>.Arn"),
        *(("s3:ListBucket", f"<{name}Bucket>.Arn") for name in ("Results", "Work")),
        ("s3:GetObject", "<ResultsBucket>.Arn/failed/*"),
        *((f"s3:{name}Object", "<WorkBucket>.Arn/digest/*") for name in ("Get", "Put")),
        ("dynamodb:Query", "<ReviewsTable>.Arn/index/by_queue"),
        ("sns:Publish", "<AlertsTopic>"),
        *((f"kms:{name}", "<AlertsKey>.Arn") for name in ("GenerateDataKey", "Decrypt")),
    }


def test_a_stack_without_operations_has_no_digest() -> None:
    assert "DigestFunction" not in Stack({"Operations": "false"}).resources


# ---- The HTTP API

PREFIXES_OF_THE_API = {"UploadsBucket": ("api/", "backgrounds/api/"), "ResultsBucket": ("results/api/", "failed/api/")}
LOGGED = {"requestTime", "requestId", "httpMethod", "path", "status", "responseLatency", "responseLength"}
LOGGED |= {"integrationErrorMessage", "identity.userArn"}


def test_the_api_configuration_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = {"CorsOrigins": "https://a.example,https://b.example", "UrlSchemes": "http,https", "ApiJobDays": "3"}
    for name, value in environment(Stack(parameters)["ApiFunction"]).items():
        monkeypatch.setenv(name, value)
    config = ApiConfig()
    assert (config.uploads_bucket, config.keys_table, config.job_days) == ("<UploadsBucket>", "<ApiKeysTable>", 3)
    assert config.cors_origins == ("https://a.example", "https://b.example")
    assert config.url_schemes == ("http", "https")
    assert config.url_networks == ()


ACCOUNT_CONCURRENCY = 1000
"""Lambda's default quota."""


def test_waiting_requests_leave_concurrency_to_the_stages() -> None:
    stack = Stack({})
    limits = stack["ApiApiGatewayDefaultStage"]["DefaultRouteSettings"]
    rate, burst = int(limits["ThrottlingRateLimit"]), int(limits["ThrottlingBurstLimit"])
    most_of_a_route = rate * stack["ApiFunction"]["Timeout"] + burst
    waiting = stack["Api"]["Body"]["paths"].keys() - {"/health"}
    assert len(waiting) * most_of_a_route <= 0.7 * ACCOUNT_CONCURRENCY


def test_callers_cannot_use_up_the_limit_of_health_checks() -> None:
    stack = Stack({"ApiRequestsPerSecond": "1"})
    assert list(stack["Api"]["Body"]["paths"]["/health"]) == ["get"]
    limits = stack["ApiApiGatewayDefaultStage"]["RouteSettings"]["GET /health"]
    assert int(limits["ThrottlingRateLimit"]) >= 10, "about 16 checkers every 30 s, from each Region that checks"


def test_domain_names_are_deleted_before_the_stage_and_made_after_the_permissions() -> None:
    depends_on = translated()["Resources"]["DomainStack"]["DependsOn"]
    needed = {name for name in translated()["Resources"] if name.startswith("ApiFunction") and "Permission" in name}
    assert set(depends_on) == needed | {"ApiApiGatewayDefaultStage"}


def test_the_api_is_throttled_as_parameters_say() -> None:
    settings = Stack({"ApiRequestsPerSecond": "100", "ApiBurst": "200"})["ApiApiGatewayDefaultStage"]
    assert settings["DefaultRouteSettings"]["ThrottlingRateLimit"] == "100"
    assert settings["DefaultRouteSettings"]["ThrottlingBurstLimit"] == "200"


def reserved(parameters: dict[str, str]) -> dict[str, str | None]:
    """Return the concurrency that each function reserves."""
    resources = Stack(parameters).resources.items()
    functions = {name: one["Properties"] for name, one in resources if one["Type"] == "AWS::Lambda::Function"}
    return {name: one.get("ReservedConcurrentExecutions") for name, one in functions.items()}


def test_every_function_that_an_upload_or_a_caller_starts_can_reserve_concurrency() -> None:
    rules = Stack({}).of_type("AWS::Events::Rule")
    targets = {target["Arn"] for rule in rules if "ScheduleExpression" in rule for target in rule["Targets"]}
    scheduled = {arn.strip("<>").removesuffix("Aliaslive") for arn in targets}
    limited = reserved({"FunctionConcurrency": "20"})
    assert {name for name, count in limited.items() if count is None} == scheduled
    assert {count for count in limited.values() if count} == {"20"}
    started = len(limited.keys() - scheduled)
    assert f", {started} with the HTTP API" in translated()["Parameters"]["FunctionConcurrency"]["Description"]


def test_functions_reserve_concurrency_only_if_configured() -> None:
    assert set(reserved({}).values()) == {None}
    api = reserved({"ApiConcurrency": "50"})
    assert {name: count for name, count in api.items() if count} == {"ApiFunction": "50"}
    assert reserved({"ApiConcurrency": "50", "FunctionConcurrency": "20"})["ApiFunction"] == "50"


def test_all_routes_invoke_the_function_and_iam_routes_require_a_signature() -> None:
    stack = Stack({})
    operations = {path: methods[next(iter(methods))] for path, methods in stack["Api"]["Body"]["paths"].items()}
    signed = {path: operation.get("security", []) for path, operation in operations.items()}
    assert signed == {"/health": [], "/{proxy+}": [], "/iam/{proxy+}": [{"AWS_IAM": []}]}
    for operation in operations.values():
        integration = operation["x-amazon-apigateway-integration"]
        assert "/functions/<ApiFunctionAliaslive>/" in integration["uri"]
        assert integration["timeoutInMillis"] == 1000 * stack["ApiFunction"]["Timeout"], "both have the same timeout"


def test_the_access_log_has_no_headers_and_no_query_strings() -> None:
    [stage] = Stack({}).of_type("AWS::ApiGatewayV2::Stage")
    logged = json.loads(stage["AccessLogSettings"]["Format"]).values()
    assert {value.removeprefix("$context.") for value in logged} == LOGGED


def test_cors_is_configured_only_for_the_given_origins() -> None:
    buckets = ("UploadsBucket", "ResultsBucket")
    assert not [name for name in buckets if "CorsConfiguration" in Stack({})[name]]
    stack = Stack({"CorsOrigins": "https://a.example,https://b.example"})
    for name in buckets:
        [rule] = stack[name]["CorsConfiguration"]["CorsRules"]
        assert rule["AllowedOrigins"] == ["https://a.example", "https://b.example"]


def test_the_api_writes_and_deletes_only_under_its_own_prefixes() -> None:
    own = {f"<{bucket}>.Arn/{prefix}*" for bucket, prefixes in PREFIXES_OF_THE_API.items() for prefix in prefixes}
    own |= {"<WorkBucket>.Arn/cache/*", "<WorkBucket>.Arn/work/*"}  # what DELETE /jobs/{id} deletes
    [policy] = Stack({})["ApiFunctionRole"]["Policies"]
    changing = [s for s in policy["PolicyDocument"]["Statement"] if re.search("s3:(Put|Delete)", str(s["Action"]))]
    assert {arn for statement in changing for arn in leaves_of(statement["Resource"])} == own


def test_api_objects_expire_with_their_jobs() -> None:
    stack = Stack({"ApiJobDays": "3"})
    for bucket, prefixes in PREFIXES_OF_THE_API.items():
        rules = [r for r in stack[bucket]["LifecycleConfiguration"]["Rules"] if r.get("Prefix") in prefixes]
        assert {rule["Prefix"] for rule in rules} == set(prefixes)
        assert {rule["ExpirationInDays"] for rule in rules} == {"3"}
