"""ECS: services run their containers as local processes."""

import uuid
from typing import Any

from moto.ecs.models import EC2ContainerServiceBackend
from moto.ecs.models import Service as MotoService

from embedded_cloud.moto_patches.around import around
from embedded_cloud.moto_patches.host import running
from embedded_cloud.processes import Container, Service

STOP_TIMEOUT_S = 30  # default of ECS


@around(MotoService, "create_from_cloudformation_json")
def start_with_one(original: Any, cls: Any, name: str, resource: Any, *args: Any, **kwargs: Any) -> Any:
    """AWS starts one task if the template has no DesiredCount; moto starts none."""
    resource["Properties"].setdefault("DesiredCount", 1)
    return original(cls, name, resource, *args, **kwargs)


@around(EC2ContainerServiceBackend, "create_service")
def start_tasks(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    """AWS runs the service's containers; moto only counts them."""
    return _scale(self, original(self, *args, **kwargs))


@around(EC2ContainerServiceBackend, "update_service")
def start_or_stop_tasks(original: Any, self: Any, properties: Any) -> Any:
    """AWS applies the desired count and the task definition; moto only stores them."""
    new_definition = properties.get("task_definition")
    service = original(self, properties)
    if new_definition and (former := running().services.pop(service.arn, None)):
        former.scale(0)
    return _scale(self, service)


def _scale(backend: Any, service: Any) -> Any:
    host = running()
    if service.arn not in host.services:
        definition = backend.describe_task_definition(service.task_definition)
        containers = [_container(facts) for facts in definition.container_definitions]
        host.services[service.arn] = Service(containers, host.environment, host.code)
    host.services[service.arn].scale(service.desired_count)
    service.running_count, service.pending_count = service.desired_count, 0
    return service


def _container(facts: dict[str, Any]) -> Container:
    command = [*facts.get("entryPoint", []), *facts.get("command", [])]
    if command[:2] != ["python", "-m"]:
        raise ValueError(f"Unsupported container command: {command}. The embedded cloud runs only python -m MODULE.")
    options = facts.get("logConfiguration", {}).get("options", {})
    group = options.get("awslogs-group", f"/ecs/{facts['name']}")
    return Container(
        command=tuple(command[2:]),
        environment={item["name"]: str(item["value"]) for item in facts.get("environment", [])},
        stop_timeout_s=float(facts.get("stopTimeout", STOP_TIMEOUT_S)),
        log=running().open_log(
            group, f"{options.get('awslogs-stream-prefix', 'ecs')}/{facts['name']}/{uuid.uuid4().hex}"
        ),
    )
