"""Versions and aliases of functions and state machines."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from embedded_cloud.cloud import EmbeddedCloud
from tests.integration.embedded_cloud.services.test_apigateway import ask
from tests.integration.embedded_cloud.services.testbed import ROLE, Machines, client, receive_token, until

pytestmark = pytest.mark.slow  # the state machine's tests run on these services


@pytest.fixture
def redeployed(cloud: EmbeddedCloud, machines: Machines) -> Iterator[dict[str, str]]:
    """A second version of the function, with another greeting, and of the state machine that calls it."""
    functions, name = client(cloud, "lambda"), cloud.outputs["Versioned"]
    machine = machines.api.describe_state_machine(stateMachineArn=cloud.outputs["VersionedMachine"])
    [first] = machines.api.list_state_machine_versions(stateMachineArn=machine["stateMachineArn"])[
        "stateMachineVersions"
    ]
    functions.update_function_configuration(FunctionName=name, Environment={"Variables": {"GREETING": "good night"}})
    published = functions.publish_version(FunctionName=name)
    definition = machine["definition"].replace(f":{name}:1", f":{name}:{published['Version']}")
    assert definition != machine["definition"]
    machines.api.update_state_machine(stateMachineArn=machine["stateMachineArn"], definition=definition)
    second = machines.api.publish_state_machine_version(stateMachineArn=machine["stateMachineArn"])
    arns = {"first": first["stateMachineVersionArn"], "second": second["stateMachineVersionArn"]}
    yield arns
    route(machines, cloud, {arns["first"]: 100})
    machines.api.update_state_machine(stateMachineArn=machine["stateMachineArn"], definition=machine["definition"])
    machines.api.delete_state_machine_version(stateMachineVersionArn=arns["second"])


def route(machines: Machines, cloud: EmbeddedCloud, weights: dict[str, int]) -> None:
    machines.api.update_state_machine_alias(
        stateMachineAliasArn=cloud.outputs["VersionedMachineAlias"],
        routingConfiguration=[{"stateMachineVersionArn": arn, "weight": weight} for arn, weight in weights.items()],
    )


def finish(cloud: EmbeddedCloud, machines: Machines, execution: str) -> Any:
    machines.api.send_task_success(taskToken=receive_token(cloud), output="{}")
    return json.loads(machines.end(execution)["output"])["greeting"]


def test_an_execution_ends_on_the_versions_that_it_began_with(
    cloud: EmbeddedCloud, machines: Machines, request: pytest.FixtureRequest
) -> None:
    alias = cloud.outputs["VersionedMachineAlias"]
    held = machines.start(alias)
    token = receive_token(cloud)
    versions = request.getfixturevalue("redeployed")
    route(machines, cloud, {versions["second"]: 100})
    machines.api.send_task_success(taskToken=token, output="{}")
    greeting = json.loads(machines.end(held)["output"])["greeting"]
    assert (greeting["says"], greeting["version"]) == ("good day", "1")
    assert greeting["arn"].endswith(f":{cloud.outputs['Versioned']}:1")

    later = machines.start(alias)
    greeting = finish(cloud, machines, later)
    assert (greeting["says"], greeting["version"]) == ("good night", "2")

    for execution, version in ((held, versions["first"]), (later, versions["second"])):
        described = machines.api.describe_execution(executionArn=execution)
        assert described["stateMachineArn"] == cloud.outputs["VersionedMachine"]
        assert (described["stateMachineVersionArn"], described["stateMachineAliasArn"]) == (version, alias)
        running = machines.api.describe_state_machine_for_execution(executionArn=execution)["definition"]
        assert f":{cloud.outputs['Versioned']}:{version[-1]}" in running
        listed = machines.api.list_executions(stateMachineArn=version)["executions"]
        assert execution in {one["executionArn"] for one in listed}
    everything = machines.api.list_executions(stateMachineArn=cloud.outputs["VersionedMachine"])["executions"]
    assert {held, later} <= {one["executionArn"] for one in everything}
    assert machines.api.list_executions(stateMachineArn=alias, statusFilter="RUNNING")["executions"] == []


def test_an_alias_routes_by_weight(cloud: EmbeddedCloud, machines: Machines, redeployed: dict[str, str]) -> None:
    route(machines, cloud, {redeployed["first"]: 50, redeployed["second"]: 50})
    started = [machines.start(cloud.outputs["VersionedMachineAlias"]) for _ in range(20)]
    described = [machines.api.describe_execution(executionArn=arn) for arn in started]
    for arn in started:
        machines.api.stop_execution(executionArn=arn)
        receive_token(cloud)
    assert Counter(one["stateMachineVersionArn"] for one in described).keys() == set(redeployed.values())


def test_a_version_in_use_cannot_be_deleted(
    cloud: EmbeddedCloud, machines: Machines, redeployed: dict[str, str]
) -> None:
    with pytest.raises(ClientError, match="ConflictException"):
        machines.api.delete_state_machine_version(stateMachineVersionArn=redeployed["first"])
    with pytest.raises(ClientError, match="StateMachineDoesNotExist"):
        machines.start(f"{cloud.outputs['VersionedMachine']}:absent")


def test_a_version_is_published_once_per_revision(cloud: EmbeddedCloud, machines: Machines) -> None:
    machine = machines.create({"A": {"Type": "Pass", "End": True}})
    first, again = (machines.api.publish_state_machine_version(stateMachineArn=machine) for _ in range(2))
    assert first["stateMachineVersionArn"] == again["stateMachineVersionArn"] == f"{machine}:1"
    machines.api.update_state_machine(stateMachineArn=machine, roleArn=f"{ROLE}2")
    assert machines.api.publish_state_machine_version(stateMachineArn=machine)["stateMachineVersionArn"][-2:] == ":2"
    with pytest.raises(ClientError, match="ConflictException"):
        machines.api.publish_state_machine_version(stateMachineArn=machine, revisionId="an earlier one")


def test_rules_and_apis_use_the_alias(cloud: EmbeddedCloud, machines: Machines) -> None:
    status, greeting = ask(cloud, "/versioned")
    assert (status, greeting["version"]) == (200, "1")
    event = {"Source": "tests", "DetailType": "start", "Detail": "{}"}
    client(cloud, "events").put_events(Entries=[event])
    alias = cloud.outputs["VersionedMachineAlias"]
    [started] = until(lambda: machines.api.list_executions(stateMachineArn=alias, statusFilter="RUNNING")["executions"])
    assert finish(cloud, machines, started["executionArn"])["version"] == "1"
