"""Changed parameters replace only resources that can be replaced: none with a fixed name, none with data."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple

import pytest
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER  # type: ignore[import-untyped]

from tests.unit.template.physical import NAME_PROPERTIES
from tests.unit.template.test_template import (
    ASYNC,
    FARGATE,
    MODELS,
    OPEN,
    OWN_GPU,
    PROTECTED,
    REALTIME,
    REGION,
    translated,
)
from tests.unit.template.test_versions import Identified, others

BASES: Final = ({**FARGATE, **REALTIME, **MODELS[1], **OPEN, **PROTECTED}, {**OWN_GPU, **ASYNC})
"""Stacks with all parts, on hosts of each kind."""

REVISIONS: Final = {
    "AWS::AppConfig::HostedConfigurationVersion",
    "AWS::ECS::TaskDefinition",
    "AWS::Lambda::Version",
    "AWS::SageMaker::EndpointConfig",
    "AWS::SageMaker::Model",
}
"""Types that every change replaces: each is a revision, has a name of its own, and is deleted when nothing uses it."""


@cache
def fixed_properties(resource_type: str) -> tuple[tuple[str, ...], ...]:
    """Return the paths of the properties whose change replaces a resource, from CloudFormation's schemas."""
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, resource_type).schema
    return tuple(tuple(path.split("/")[2:]) for path in schema.get("createOnlyProperties", []))


def value_at(path: tuple[str, ...], properties: Any) -> Any:
    for name in path:
        properties = properties.get(name) if isinstance(properties, dict) else None
    return properties


def replacements(before: Identified, after: Identified) -> dict[str, list[str]]:
    """Return the properties that replace a resource, by logical ID."""
    found = {}
    for name in before.resources.keys() & after.resources.keys():
        old, new = (stack.resources[name].get("Properties", {}) for stack in (before, after))
        paths = fixed_properties(before.resources[name]["Type"])
        if changed := [".".join(path) for path in paths if value_at(path, old) != value_at(path, new)]:
            found[name] = changed
    return found


NEW_ENDPOINT: Final = (
    "the name says mode and type, so that the new endpoint exists beside the old one until the update ends"
)
ONE_LOAD_BALANCER: Final = "the parameter's description says to remove the page first: AWS accepts no update"
EXPLAINED: Final = {
    ("AlertEmail", "AlertsSubscription"): "the new address confirms its subscription",
    ("SageMakerInstanceType", "EndpointBacklog"): NEW_ENDPOINT,
    ("SageMakerInstanceType", "EndpointLoad"): NEW_ENDPOINT,
    ("SageMakerInstanceType", "EndpointLogs"): NEW_ENDPOINT,
    ("SageMakerInstanceType", "EndpointScaling"): NEW_ENDPOINT,
    ("SageMakerInstanceType", "EndpointWakeUp"): NEW_ENDPOINT,
    ("SageMakerInstanceType", "SegmentationEndpoint"): NEW_ENDPOINT,
    ("SageMakerMode", "EndpointLogs"): NEW_ENDPOINT,
    ("SageMakerMode", "EndpointScaling"): NEW_ENDPOINT,
    ("SageMakerMode", "SegmentationEndpoint"): NEW_ENDPOINT,
    (
        "SegmentationQueueName",
        "SegmentationQueue",
    ): "the task of a lost request times out, and Lambda segments the image",
    # A load balancer stays in its VPC, and a target group belongs to one load balancer.
    ("WebScheme", "WebListener"): ONE_LOAD_BALANCER,
    ("WebScheme", "WebLoadBalancer"): ONE_LOAD_BALANCER,
    ("WebScheme", "WebRedirectListener"): ONE_LOAD_BALANCER,
    ("WebVpc", "WebLoadBalancerSecurityGroup"): ONE_LOAD_BALANCER,
    ("WebVpc", "WebLoadBalancerToTasks"): ONE_LOAD_BALANCER,
    ("WebVpc", "WebSecurityGroup"): ONE_LOAD_BALANCER,
    ("WebVpc", "WebTargets"): ONE_LOAD_BALANCER,
}
"""Replacements by parameter and logical ID, and why an update may make them."""


class Replacement(NamedTuple):
    """A resource that a parameter replaces: its type, and its properties before and after."""

    kind: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]


@pytest.fixture(scope="module")
def replaced() -> dict[tuple[str, str], Replacement]:
    """Return the resources that each parameter replaces, by parameter and logical ID."""
    found = {}
    for base in BASES:
        before = Identified(base)
        for parameter, facts in translated()["Parameters"].items():
            for value in others(parameter, facts, base.get(parameter, str(facts.get("Default"))))[:1]:
                after = Identified({**base, parameter: value})
                for name in replacements(before, after):
                    old, new = before.resources[name], after.resources[name]
                    found[parameter, name] = Replacement(old["Type"], old["Properties"], new["Properties"])
    return found


def test_every_replacement_is_explained(replaced: dict[tuple[str, str], Replacement]) -> None:
    assert {key for key, one in replaced.items() if one.kind not in REVISIONS} == EXPLAINED.keys()


def test_a_replacement_has_another_name(replaced: dict[tuple[str, str], Replacement]) -> None:
    """CloudFormation creates it before it deletes the old resource."""
    named = [(key, one, NAME_PROPERTIES[one.kind]) for key, one in replaced.items() if one.kind in NAME_PROPERTIES]
    assert [key for key, one, name in named if name in one.before and one.before[name] == one.after[name]] == []


def test_parameters_that_no_update_can_change_say_so() -> None:
    for name in {parameter for (parameter, _), why in EXPLAINED.items() if why == ONE_LOAD_BALANCER}:
        assert "remove the page first" in translated()["Parameters"][name]["Description"]
