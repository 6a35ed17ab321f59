"""A changed parameter publishes new versions of exactly those functions that Lambda can publish."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
import yaml
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER  # type: ignore[import-untyped]

from embedded_cloud.deploy import translate
from tests.conftest import ROOT
from tests.unit.template.test_template import (
    FARGATE,
    IMAGE,
    MODELS,
    REALTIME,
    REGION,
    TEMPLATE,
    Stack,
    translated,
)

VALUES = {  # of parameters without allowed values; the others take each allowed value
    "ModelBucket": "other-weights",
    "WorkerImageUri": f"{IMAGE}:2",
    "SageMakerImageUri": f"{IMAGE}:2",
    "SageMakerInstanceType": "ml.g5.xlarge",
    "BulkTransformInstanceType": "ml.g5.xlarge",
    "BulkSourceBuckets": "other-photos",
    "SegmentationQueueName": "other-queue",
    "WebImageUri": "",
    "Republish": "2",
    "ResultsReplicaBucketArn": "arn:aws:s3:::replica",
}
BASES = {
    "defaults": {},
    "hosts": {**FARGATE, **REALTIME, **MODELS[1], "ApiConcurrency": "5"},
}
UNVERSIONED = {"ReservedConcurrentExecutions", "Tags", "RecursiveLoop"}
"""Properties of a function that are no part of its versions."""


class Identified(Stack):
    """The template, in which a reference to a resource also names the properties whose change would replace it."""

    def _ref(self, name: str) -> Any:
        value = super()._ref(name)
        if name not in self._template["Resources"]:
            return value
        resource = self._template["Resources"][name]
        fixed = create_only(resource["Type"])
        properties = {key: item for key, item in resource.get("Properties", {}).items() if key in fixed}
        kept = self._resolve(properties) if properties else {}
        return f"<{name} {json.dumps(kept, sort_keys=True)}>" if kept else value


@cache
def create_only(resource_type: str) -> frozenset[str]:
    """Return the properties whose change replaces a resource, from CloudFormation's schemas."""
    if resource_type.startswith("Custom::"):
        return frozenset()
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, resource_type).schema
    return frozenset(path.split("/")[2] for path in schema.get("createOnlyProperties", []))


def state(parameters: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the configuration of each function, and what CloudFormation names its version after."""
    stack = Identified(parameters)
    configurations, versions = {}, {}
    for name, resource in stack.resources.items():
        if resource["Type"] == "AWS::Lambda::Function":
            configuration = {key: item for key, item in resource["Properties"].items() if key not in UNVERSIONED}
            configurations[name] = json.dumps(configuration, sort_keys=True)
        if resource["Type"] == "AWS::Lambda::Version":
            function = resource["Properties"]["FunctionName"].strip("<>").split(" ")[0]
            versions[function] = name + resource["Properties"]["Description"]
    return configurations, versions


def others(name: str, facts: Mapping[str, Any], current: str) -> list[str]:
    """Return values to change a parameter to."""
    allowed = [str(value) for value in facts.get("AllowedValues", ())] or [VALUES.get(name, "7")]
    return [value for value in allowed if value != current]


CHANGES = [
    pytest.param(BASES[base], {name: value}, id=f"{base}: {name}={value}")
    for base in BASES
    for name, facts in translated()["Parameters"].items()
    if not name.startswith("Web")
    for value in others(name, facts, str({**{name: facts.get("Default")}, **BASES[base]}[name]))[:1]
]


@cache
def states(base: str) -> tuple[dict[str, str], dict[str, str]]:
    return state(json.loads(base))


@pytest.mark.parametrize(("base", "change"), CHANGES)
def test_a_version_is_published_if_and_only_if_the_configuration_changes(
    base: dict[str, str], change: dict[str, str]
) -> None:
    before, versions = states(json.dumps(base))
    after, new_versions = state({**base, **change})
    assert (before.keys(), after.keys()) == (versions.keys(), new_versions.keys())
    kept = before.keys() & after.keys()  # the digest is conditional
    stale = {name for name in kept if before[name] != after[name] and versions[name] == new_versions[name]}
    assert not stale, f"the value of {[*change]} is missing in ConfigurationVersion, so versions keep the former one"
    refused = {name for name in kept if before[name] == after[name] and versions[name] != new_versions[name]}
    assert not refused, "Lambda publishes no version of an unchanged function, and the update would fail"


def test_the_translation_ignores_parameters_so_that_the_configuration_has_to_be_numbered() -> None:
    given = {"RefineMemory": "4096", "ModelBucket": "weights"}
    versions = [
        {name for name, one in template["Resources"].items() if one["Type"] == "AWS::Lambda::Version"}
        for template in (translated(), translate(TEMPLATE, given, REGION))
    ]
    assert versions[0] == versions[1]


def test_replaced_versions_are_retained() -> None:
    for path in (TEMPLATE, ROOT / "infrastructure" / "bulk.yaml"):
        resources = translated(path)["Resources"]
        versioned = {"AWS::Lambda::Version", "AWS::StepFunctions::StateMachineVersion"}
        found = {name: one for name, one in resources.items() if one["Type"] in versioned}
        functions = [one for one in resources.values() if one["Type"] == "AWS::Lambda::Function"]
        assert sum(one["Type"] == "AWS::Lambda::Version" for one in found.values()) == len(functions)
        for name, version in found.items():
            assert (version["UpdateReplacePolicy"], version["DeletionPolicy"]) == ("Retain", "Retain"), name


@pytest.mark.parametrize("name", ["remove_background", "deliver_webhook", "bulk"])
def test_definitions_name_versions_of_functions_and_aliases_of_state_machines(name: str) -> None:
    stack = Stack({})
    machine = {"remove_background": "RemoveBackground", "deliver_webhook": "DeliverWebhook", "bulk": "Bulk"}[name]
    values = stack[machine]["DefinitionSubstitutions"]
    used = {
        values[text.removeprefix("${").removesuffix("}")]
        for key, text in leaves_of_definition(name)
        if key in {"FunctionName", "StateMachineArn"}
    }
    assert used
    for arn in used:
        assert stack.resources[arn.strip("<>")]["Type"] in {
            "AWS::Lambda::Version",
            "AWS::StepFunctions::StateMachineAlias",
        }


def leaves_of_definition(name: str) -> list[tuple[str, Any]]:
    definition = yaml.safe_load((ROOT / "statemachine" / f"{name}.asl.yaml").read_text())
    found: list[tuple[str, Any]] = []

    def visit(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in items:
            found.append((str(key), value))
            visit(value)

    visit(definition)
    return found


def test_a_gradual_deployment_stops_at_the_alarms() -> None:
    preference = Stack({"DeploymentType": "CANARY"})["RemoveBackgroundAliaslive"]["DeploymentPreference"]
    assert preference == {
        "Type": "CANARY",
        "Percentage": "10",
        "Interval": "10",
        "Alarms": ["pbr-failure-rate", "pbr-slow"],
        "StateMachineVersionArn": "<RemoveBackgroundVersion>",
    }
    assert Stack({})["RemoveBackgroundAliaslive"]["DeploymentPreference"].keys() == {"Type", "StateMachineVersionArn"}
