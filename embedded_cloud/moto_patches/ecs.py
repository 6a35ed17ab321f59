"""ECS: services run their containers as local processes."""

from collections.abc import Iterator
from typing import Any

from moto.ecs.exceptions import InvalidParameterException
from moto.ecs.models import Cluster, EC2ContainerServiceBackend, TaskDefinition, ecs_backends
from moto.ecs.models import Service as MotoService

from embedded_cloud.moto_patches.around import around
from embedded_cloud.moto_patches.host import running
from embedded_cloud.processes import Container, Log, Service, Task

STOP_TIMEOUT_S = 30  # default of ECS


@around(TaskDefinition, "create_from_cloudformation_json")
def keep_the_task_role(original: Any, cls: Any, name: str, resource: Any, *args: Any, **kwargs: Any) -> Any:
    """AWS runs the containers with the task role; moto drops it."""
    definition = original(cls, name, resource, *args, **kwargs)
    definition.task_role_arn = resource["Properties"].get("TaskRoleArn")
    return definition


@around(TaskDefinition, "update_from_cloudformation_json")
def keep_the_task_role_in_updates(original: Any, cls: Any, **given: Any) -> Any:
    """AWS runs the containers with the task role; moto drops it."""
    definition = original(cls, **given)
    definition.task_role_arn = given["cloudformation_json"]["Properties"].get("TaskRoleArn")
    return definition


@around(MotoService, "create_from_cloudformation_json")
def start_with_one(original: Any, cls: Any, name: str, resource: Any, *args: Any, **kwargs: Any) -> Any:
    """AWS starts one task if the template has no DesiredCount; moto starts none, and drops load balancers."""
    properties = resource["Properties"]
    desired, balancers = int(properties.get("DesiredCount", 1)), properties.get("LoadBalancers", [])
    properties["DesiredCount"] = 0 if balancers else desired
    service = original(cls, name, resource, *args, **kwargs)
    service.desired_count = desired
    service.load_balancers = [{key[0].lower() + key[1:]: one[key] for key in one} for one in balancers]
    return service


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


@around(EC2ContainerServiceBackend, "delete_service")
def end_all_tasks(original: Any, self: Any, cluster_name: str, service_name: str, force: bool) -> Any:
    """AWS stops the tasks of a deleted service; moto has none."""
    service = original(self, cluster_name, service_name, force)
    if deleted := running().services.pop(service.arn, None):
        deleted.close()
    return service


def delete_service_of_a_stack(self: Any, account_id: str, region_name: str) -> None:
    """AWS deletes a service with its stack; moto leaves it."""
    ecs_backends[account_id][region_name].delete_service(self.cluster_name, self.name, force=True)


def delete_cluster_of_a_stack(self: Any, account_id: str, region_name: str) -> None:
    """AWS deletes a cluster with its stack; moto leaves it."""
    ecs_backends[account_id][region_name].delete_cluster(self.name)


def deregister_definition_of_a_stack(self: Any, account_id: str, region_name: str) -> None:
    """AWS deregisters a task definition with its stack; moto leaves it."""
    ecs_backends[account_id][region_name].deregister_task_definition(self.arn)


MotoService.delete = delete_service_of_a_stack
Cluster.delete = delete_cluster_of_a_stack
TaskDefinition.delete = deregister_definition_of_a_stack


@around(EC2ContainerServiceBackend, "list_tasks")
def list_tasks_of_services(
    original: Any,
    self: Any,
    cluster_str: str,
    container_instance: str | None = None,
    family: str | None = None,
    started_by: str | None = None,
    service_name: str | None = None,
    desiredStatus: str | None = None,  # noqa: N803
) -> Any:
    """AWS lists the tasks of services, running ones by default; moto has no such tasks."""
    listed = original(self, cluster_str, container_instance, family, started_by, service_name, desiredStatus)
    if container_instance or started_by:
        return listed
    return listed + [
        _Described(service, task)
        for service, task in _tasks(self, cluster_str)
        if task.desired_status == (desiredStatus or "RUNNING")
        and (not service_name or service_name in (service.name, service.arn))
        and (not family or f"/{family}:" in service.task_definition)
    ]


@around(EC2ContainerServiceBackend, "describe_tasks")
def describe_tasks_of_services(original: Any, self: Any, cluster_str: str, tasks: list[str]) -> Any:
    """AWS describes the tasks of services; moto has no such tasks."""
    ids = {task.rpartition("/")[2] for task in tasks}
    described = [_Described(service, task) for service, task in _tasks(self, cluster_str) if task.id in ids]
    return original(self, cluster_str, tasks) + described


@around(EC2ContainerServiceBackend, "stop_task")
def stop_a_task(_original: Any, self: Any, cluster_str: str, task_str: str, reason: str | None) -> Any:
    """AWS sends SIGTERM to the containers, kills them after their stop timeout, and the service replaces the task.

    moto has no tasks of services.
    """
    for service, task in _tasks(self, cluster_str):
        if task.id == task_str.rpartition("/")[2]:
            running().services[service.arn].stop(task, reason or "Task stopped by user")
            return _Described(service, task)
    raise InvalidParameterException("The referenced task was not found.")


def _tasks(backend: Any, cluster: str) -> Iterator[tuple[Any, Task]]:
    """Yield the tasks of a cluster's services, each with its service in moto."""
    name = backend._get_cluster(cluster).name
    for service in list(backend.services.values()):
        if service.cluster_name == name and (found := running().services.get(service.arn)):
            yield from ((service, task) for task in found.tasks)


class _Described(dict[str, Any]):
    """A task as DescribeTasks returns it."""

    def __init__(self, service: Any, task: Task) -> None:
        self.task_arn = f"{service.arn.replace(':service/', ':task/').rpartition('/')[0]}/{task.id}"
        facts = {
            "taskArn": self.task_arn,
            "clusterArn": service.cluster_arn,
            "taskDefinitionArn": service.task_definition,
            "group": f"service:{service.name}",
            "launchType": service.launch_type,
            "desiredStatus": task.desired_status,
            "lastStatus": task.last_status,
            "createdAt": task.created_at,
            "startedAt": task.created_at,
            "stoppingAt": task.stopping_at,
            "stoppedAt": task.stopped_at,
            "stopCode": task.stop_code or None,
            "stoppedReason": task.stopped_reason or None,
            "containers": [
                {
                    "name": container.name,
                    "taskArn": self.task_arn,
                    "lastStatus": "STOPPED" if container.name in task.exit_codes else "RUNNING",
                    "exitCode": task.exit_codes.get(container.name),
                }
                for container in task.children
            ],
        }
        super().__init__({name: fact for name, fact in facts.items() if fact is not None})


def _scale(backend: Any, service: Any) -> Any:
    if service.load_balancers:  # none runs that could pass requests on
        service.running_count = service.pending_count = 0
        return service
    host = running()
    if service.arn not in host.services:
        definition = backend.describe_task_definition(service.task_definition)
        containers = [_container(facts) for facts in definition.container_definitions]
        environment = host.environment_of(getattr(definition, "task_role_arn", None) or "")  # it is optional
        host.services[service.arn] = Service(containers, environment, host.code)
    host.services[service.arn].scale(service.desired_count)
    service.running_count, service.pending_count = service.desired_count, 0
    return service


def _container(facts: dict[str, Any]) -> Container:
    command = [*facts.get("entryPoint", []), *facts.get("command", [])]
    if command[:2] != ["python", "-m"]:
        raise ValueError(f"Unsupported container command: {command}. The embedded cloud runs only python -m MODULE.")
    options = facts.get("logConfiguration", {}).get("options", {})
    group = options.get("awslogs-group", f"/ecs/{facts['name']}")
    prefix, open_log = f"{options.get('awslogs-stream-prefix', 'ecs')}/{facts['name']}", running().open_log

    def log_of(task_id: str) -> Log:
        return open_log(group, f"{prefix}/{task_id}")

    return Container(
        name=facts["name"],
        command=tuple(command[2:]),
        environment={item["name"]: str(item["value"]) for item in facts.get("environment", [])},
        stop_timeout_s=float(facts.get("stopTimeout", STOP_TIMEOUT_S)),
        open_log=log_of,
    )
