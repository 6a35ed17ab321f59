"""The worker's private network and the security groups of all templates: endpoints, routes, rules, and flow logs."""

from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from typing import Any

import pytest

from tests.unit.template.test_roles import ACCOUNT, EVERYTHING
from tests.unit.template.test_template import (
    FARGATE,
    GPU_SPOT,
    MODELS,
    OWN_GPU,
    REGION,
    WORKERS,
    Stack,
    leaves,
    leaves_of,
    named,
)

PRIVATE = [{**FARGATE, **MODELS[1]}, OWN_GPU, GPU_SPOT]
"""Stacks with a network of their own."""

WITHOUT_POLICY = {"ecs-agent": {"ecs:Poll"}, "ecs-telemetry": {"ecs:StartTelemetrySession"}}
"""Endpoints that support no policy, and the actions of their service that do not use the endpoint ``ecs``."""

LAYERS = ("s3:GetObject", f"arn:aws:s3:::prod-{REGION}-starport-layer-bucket/*")
"""Image layers. The principal is ECR, which has signed their URLs."""


@pytest.fixture(scope="module", params=[*EVERYTHING, OWN_GPU], ids=named)
def stack(request: pytest.FixtureRequest) -> Stack:
    return Stack(request.param)


@pytest.fixture(scope="module", params=PRIVATE, ids=named)
def private(request: pytest.FixtureRequest) -> Stack:
    return Stack(request.param)


def endpoints(stack: Stack) -> dict[str, dict[str, Any]]:
    """Return the VPC endpoints by the name of their service."""
    found = {one["ServiceName"].split(".", 3)[-1]: one for one in stack.of_type("AWS::EC2::VPCEndpoint")}
    assert len(found) == len(stack.of_type("AWS::EC2::VPCEndpoint"))
    return found


def pairs(statements: Iterable[dict[str, Any]]) -> set[tuple[str, str]]:
    """Return the actions and resources that statements allow."""
    return {
        (action, resource)
        for one in statements
        for action in leaves_of(one["Action"])
        for resource in leaves_of(one["Resource"])
    }


def granted(stack: Stack, service: str) -> set[tuple[str, str]]:
    """Return what the roles of tasks and instances allow of a service."""
    names = {"WorkerRole", "WorkerExecutionRole", "GpuInstanceRole"} & stack.resources.keys()
    roles = [stack[name] for name in names]
    statements = [one for role in roles for policy in role["Policies"] for one in policy["PolicyDocument"]["Statement"]]
    return {pair for pair in pairs(statements) if pair[0].split(":")[0] == service}


# ---- Endpoints


def test_the_private_network_has_an_endpoint_for_each_service_of_the_worker() -> None:
    used = {"s3", "sqs", "states", "ecr.api", "ecr.dkr", "logs"}
    assert endpoints(Stack(FARGATE)).keys() == used
    for gpu in (OWN_GPU, GPU_SPOT):
        assert endpoints(Stack(gpu)).keys() == used | {"ecs", "ecs-agent", "ecs-telemetry"}
    assert not endpoints(Stack(WORKERS[4]))


def test_endpoints_allow_what_the_roles_of_the_worker_allow(private: Stack) -> None:
    for name, endpoint in endpoints(private).items():
        if name in WITHOUT_POLICY:
            continue
        allowed = pairs(endpoint["PolicyDocument"]["Statement"]) - {LAYERS}
        expected = granted(private, name.split(".")[0])
        if name == "ecs":  # which does not know the cluster
            elsewhere = set().union(*WITHOUT_POLICY.values())
            assert {action for action, _ in allowed} == {action for action, _ in expected} - elsewhere
            patterns = {pattern for _, pattern in allowed} - {"*"}
            assert patterns == {f"arn:aws:ecs:{REGION}:{ACCOUNT}:*"}
            arns = {arn for _, arn in expected if arn.startswith("arn:")}
            assert all(fnmatch(arn, pattern) for arn in arns for pattern in patterns)
        else:
            assert allowed == expected, name


def test_endpoints_serve_roles_of_this_account_only(private: Stack) -> None:
    for name, endpoint in endpoints(private).items():
        assert ("PolicyDocument" in endpoint) is (name not in WITHOUT_POLICY), name
        for statement in endpoint.get("PolicyDocument", {}).get("Statement", []):
            assert (statement["Effect"], statement["Principal"]) == ("Allow", "*"), name
            if pairs([statement]) != {LAYERS}:
                assert statement["Condition"] == {"StringEquals": {"aws:PrincipalAccount": ACCOUNT}}, name


# ---- Routes and addresses


def test_no_network_has_a_route_to_the_internet(stack: Stack) -> None:
    types = {resource["Type"] for resource in stack.resources.values()}
    assert not types & {
        "AWS::EC2::EIP",
        "AWS::EC2::EgressOnlyInternetGateway",
        "AWS::EC2::InternetGateway",
        "AWS::EC2::NatGateway",
        "AWS::EC2::Route",
        "AWS::EC2::TransitGatewayAttachment",
        "AWS::EC2::VPCPeeringConnection",
    }


def test_only_the_page_in_public_subnets_has_public_addresses(stack: Stack) -> None:
    facts = list(leaves({name: one for name, one in stack.resources.items() if name != "WebService"}))
    assert {value for key, value in facts if key == "AssignPublicIp"} <= {"DISABLED"}
    assert {value for key, value in facts if key in {"AssociatePublicIpAddress", "MapPublicIpOnLaunch"}} <= {False}


def test_every_vpc_logs_its_traffic(private: Stack) -> None:
    vpcs = {f"<{name}>" for name, one in private.resources.items() if one["Type"] == "AWS::EC2::VPC"}
    logs = private.of_type("AWS::EC2::FlowLog")
    assert {log["ResourceId"] for log in logs if log["ResourceType"] == "VPC"} == vpcs
    for log in logs:
        assert (log["TrafficType"], log["DeliverLogsPermissionArn"]) == ("ALL", "<FlowLogRole>.Arn")
        assert private[log["LogGroupName"].strip("<>")]["RetentionInDays"] == "30"


# ---- Security groups


Rule = frozenset[tuple[str, Any]]
NO_TRAFFIC: Rule = frozenset({("IpProtocol", "-1"), ("CidrIp", "127.0.0.1/32")})


def traffic(stack: Stack, direction: str) -> Iterator[tuple[str, Rule]]:
    """Yield what each rule allows, with its security group: rules in a group, and those that are resources."""
    kind = f"SecurityGroup{direction}"
    for name, one in stack.resources.items():
        properties = one["Properties"]
        if one["Type"] == "AWS::EC2::SecurityGroup":
            rules = [(name, rule) for rule in properties.get(kind, [])]
        else:
            rules = [(properties["GroupId"].strip("<>"), properties)] if one["Type"] == f"AWS::EC2::{kind}" else []
        for group, rule in rules:
            yield group, frozenset((key, value) for key, value in rule.items() if key not in {"Description", "GroupId"})


def tcp(port: int, key: str, value: str) -> Rule:
    return frozenset({("IpProtocol", "tcp"), ("FromPort", port), ("ToPort", port), (key, value)})


def test_only_the_load_balancer_of_the_page_accepts_connections_from_networks(stack: Stack) -> None:
    accepted = {
        ("EndpointsSecurityGroup", tcp(443, "SourceSecurityGroupId", "<WorkerSecurityGroup>")),
        ("WebSecurityGroup", tcp(8501, "SourceSecurityGroupId", "<WebLoadBalancerSecurityGroup>")),
        *(("WebLoadBalancerSecurityGroup", tcp(port, "CidrIp", "0.0.0.0/0")) for port in (80, 443)),
    }
    assert set(traffic(stack, "Ingress")) == {rule for rule in accepted if rule[0] in stack.resources}


def test_security_groups_allow_outbound_traffic_only_to_ports_that_are_used(stack: Stack) -> None:
    allowed = {
        ("EndpointsSecurityGroup", NO_TRAFFIC),  # without a rule, AWS allows all traffic
        ("WebLoadBalancerSecurityGroup", tcp(8501, "DestinationSecurityGroupId", "<WebSecurityGroup>")),
        *((f"{name}SecurityGroup", tcp(443, "CidrIp", "0.0.0.0/0")) for name in ("Worker", "Web", "WebLoadBalancer")),
    }
    assert set(traffic(stack, "Egress")) == {rule for rule in allowed if rule[0] in stack.resources}
    groups = {name for name, one in stack.resources.items() if one["Type"] == "AWS::EC2::SecurityGroup"}
    assert {name for name, _ in traffic(stack, "Egress")} == groups


def test_nothing_uses_the_default_security_group(stack: Stack) -> None:
    for name, one in stack.resources.items():
        groups = {
            "AWS::EC2::VPCEndpoint": "SecurityGroupIds",
            "AWS::EC2::LaunchTemplate": "Groups",
            "AWS::ECS::Service": "SecurityGroups",
            "AWS::ElasticLoadBalancingV2::LoadBalancer": "SecurityGroups",
        }
        key = groups.get(one["Type"])
        if key and one["Properties"].get("VpcEndpointType") != "Gateway":
            assert [value for found, value in leaves(one) if found == key and value], name
