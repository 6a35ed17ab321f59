"""Each moto patch is still needed: plain moto in a subprocess shows the difference from AWS that the patch corrects."""

import ast
import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow  # changes only with the version of moto

PATCHES = ROOT / "embedded_cloud" / "moto_patches"
OTHER_PATCHES = {  # assigned instead of decorated
    "alarms.put_composite_alarm",
    "applicationautoscaling.describe_scaling_activities",
    "cloudformation.configure_table_anew",
    "cloudformation.existing_resources",
    "cloudformation.set_retention",
    "ec2.association_id",
    "ec2.delete_with",
    "ec2.disassociate",
    "ecs.delete_cluster_of_a_stack",
    "ecs.delete_service_of_a_stack",
    "ecs.deregister_definition_of_a_stack",
    "logs.EventMessageFilter",
    "nested_stacks.parameters_as_text",
    "nested_stacks.root_stack",
    "nested_stacks.stack_arn",
    "nested_stacks.stack_attribute",
    "route53.delete_health_check",
    "s3.send_events_after_the_response",
    "sagemaker.use_raw_body",
    "server.get_backend_for_host",
    "server.list_of_moto_modules",
    "stack_updates.update",
    "state_machines.AWSError.TYPE",
    "state_machines.start_sync_execution",
    "state_machines.test_state",
    "state_machines.validate_state_machine_definition",
    "stepfunctions.redrive_execution",
    "stepfunctions.stepfunctions_backends",
    "tasks.client_of_the_cloud",
    "transform.stop_transform_job",
    "versions.delete_state_machine_version",
    "versions.function_version_attribute",
    "versions.list_state_machine_versions",
    "versions.publish_state_machine_version",
}


def decorated_patches() -> set[str]:
    return {
        f"{path.stem}.{node.name}"
        for path in PATCHES.glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(decorator).startswith("around(") for decorator in node.decorator_list)
    }


@pytest.fixture(scope="module")
def results() -> dict[str, str]:
    """The reason why each reproduction fails on plain moto, empty if it does not."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.unit.embedded_cloud.plain_moto"]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
    parsed: dict[str, str] = json.loads(output.splitlines()[-1])
    return parsed


@pytest.mark.parametrize("patch", sorted(decorated_patches() | OTHER_PATCHES))
def test_moto_still_needs_the_patch(results: dict[str, str], patch: str) -> None:
    assert results[patch] == "", f"moto has changed: check whether {patch} can be removed"


def test_every_reproduction_belongs_to_a_patch(results: dict[str, str]) -> None:
    added_types = {name for name in results if name.startswith("cloudformation.ADDED_TYPES ")}
    assert {name: results[name] for name in added_types if results[name]} == {}
    assert results.keys() == decorated_patches() | OTHER_PATCHES | added_types
