"""Versions and aliases: those of state machines start executions, and CloudFormation creates those of functions."""

import hashlib
import random
import threading
from dataclasses import dataclass
from typing import Any

from moto.awslambda.models import LambdaVersion, lambda_backends
from moto.cloudformation.exceptions import ValidationError
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.responses import ActionResult, EmptyResult
from moto.stepfunctions.exceptions import StateMachineDoesNotExist
from moto.stepfunctions.models import StateMachine
from moto.stepfunctions.parser.api import ConflictException
from moto.stepfunctions.parser.backend.execution import Execution
from moto.stepfunctions.parser.models import StepFunctionsParserBackend, stepfunctions_parser_backends
from moto.stepfunctions.responses import StepFunctionResponse

from embedded_cloud.moto_patches.around import around
from embedded_cloud.moto_patches.host import running

_PAGE = 100


@dataclass(frozen=True)
class StartedWith:
    """What an execution was started with.

    Attributes:
        version: version of the state machine; None for an unqualified ARN.
        alias_arn: ARN of the alias that chose the version; None if there was none.
    """

    version: Any = None
    alias_arn: str | None = None

    @property
    def arns(self) -> dict[str, str]:
        """The fields by which DescribeExecution, ListExecutions and events name the version and the alias."""
        named = {
            "stateMachineVersionArn": self.version and self.version.arn,
            "stateMachineAliasArn": self.alias_arn,
        }
        return {name: arn for name, arn in named.items() if arn}


NOTHING = StartedWith()

_starting = threading.local()


def machine_arn_of(arn: str) -> str:
    """Return the ARN of the state machine of a version or an alias, or the ARN itself."""
    return ":".join(arn.split(":")[:7])


def revision_id(machine: Any) -> str:
    """Return the ID of the current revision: it changes with the definition and with the role."""
    return hashlib.sha256(f"{machine.definition}\n{machine.roleArn}".encode()).hexdigest()[:36]


def _machine(backend: Any, arn: str) -> Any:
    return backend.describe_state_machine(machine_arn_of(arn))


def _resolve(backend: Any, arn: str) -> StartedWith:
    """Return the version that an ARN names, or that its alias chooses by weight."""
    qualifier = arn[len(machine_arn_of(arn)) + 1 :]
    if not qualifier:
        return StartedWith()
    if qualifier.isnumeric():
        return StartedWith(backend.describe_state_machine(arn))
    alias = _machine(backend, arn).aliases.get(qualifier)
    if alias is None:
        raise StateMachineDoesNotExist(f"State Machine Alias Does Not Exist: '{arn}'")
    routes = alias.routing_configuration
    [route] = random.choices(routes, [item["weight"] for item in routes])  # noqa: S311
    return StartedWith(backend.describe_state_machine(route["stateMachineVersionArn"]), arn)


def publish_machine(arn: str) -> str:
    """Publish the current revision of a state machine for CloudFormation, and return the version's ARN."""
    return str(_publish(_machine(_machines(), arn)).arn)


def point_machine_alias(name: str, version_arn: str) -> str:
    """Point an alias to a version for CloudFormation, and return its ARN."""
    routes = [{"stateMachineVersionArn": version_arn, "weight": 100}]
    aliases = _machine(_machines(), version_arn).aliases
    if name in aliases:
        aliases[name].routing_configuration = routes
    else:
        _machines().create_state_machine_alias(name, routes, None)
    return str(_machine(_machines(), version_arn).aliases[name].arn)


def delete_machine_alias(arn: str) -> None:
    """Delete an alias of a state machine."""
    _machine(_machines(), arn).aliases.pop(arn.rpartition(":")[2], None)


def _machines() -> Any:
    return stepfunctions_parser_backends[DEFAULT_ACCOUNT_ID][running().sdk["AWS_REGION"]]


@around(StepFunctionsParserBackend, "start_execution")
def start_a_version(original: Any, self: Any, machine_arn: str, *args: Any) -> Any:
    """AWS starts the version that an ARN names or that its alias chooses; moto cannot start either."""
    _starting.started_with = _resolve(self, machine_arn)
    try:
        return original(self, machine_arn_of(machine_arn), *args)
    finally:
        del _starting.started_with


@around(Execution, "__init__")
def run_the_version(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    """AWS runs an execution on the definition of its version, whatever is deployed later."""
    started_with = getattr(_starting, "started_with", NOTHING)
    if (version := started_with.version) is not None:
        machine = kwargs["state_machine"]  # moto's copy for this execution
        machine.definition, machine.roleArn = version.definition, version.roleArn
        kwargs["role_arn"] = version.roleArn
    original(self, *args, **kwargs)
    self.started_with = started_with


@around(StepFunctionResponse, "describe_execution")
def describe_the_version(original: Any, self: Any) -> Any:
    """AWS returns the version and the alias that an execution was started with; moto has no such fields."""
    response = original(self)
    execution = self.stepfunction_backend.describe_execution(self._get_param("executionArn"))
    response.result.update(execution.started_with.arns)
    return response


@around(StepFunctionResponse, "list_executions")
def list_executions_of_a_version(original: Any, self: Any) -> Any:
    """AWS lists the executions of a version or an alias, and says which these are; moto does neither."""
    arn = self._get_param("stateMachineArn")
    backend = self.stepfunction_backend
    if arn and arn != machine_arn_of(arn):
        return ActionResult(_page(self, "executions", _executions_of(backend, arn, self._get_param("statusFilter"))))
    response = original(self)
    for listed in response.result["executions"]:
        listed.update(backend.describe_execution(listed["executionArn"]).started_with.arns)
    return response


def _executions_of(backend: Any, arn: str, status: str | None) -> list[dict[str, Any]]:
    found = [
        execution
        for execution in _machine(backend, arn).executions
        if arn in execution.started_with.arns.values() and status in (None, execution.status)
    ]
    return [_listed(execution) for execution in sorted(found, key=lambda one: one.start_date, reverse=True)]


def _listed(execution: Any) -> dict[str, Any]:
    listed = {
        "executionArn": execution.execution_arn,
        "stateMachineArn": execution.state_machine_arn,
        "name": execution.name,
        "status": execution.status,
        "startDate": execution.start_date,
        **execution.started_with.arns,
    }
    return listed | ({"stopDate": execution.stop_date} if execution.stop_date else {})


def _page(response: Any, name: str, items: list[Any]) -> dict[str, Any]:
    first, size = int(response._get_param("nextToken") or 0), int(response._get_param("maxResults") or _PAGE)
    more = {"nextToken": str(first + size)} if first + size < len(items) else {}
    return {name: items[first : first + size], **more}


@around(StepFunctionResponse, "describe_state_machine_for_execution")
def describe_the_definition_that_runs(original: Any, self: Any) -> Any:
    """AWS returns the definition that the execution runs; moto the newest one."""
    response = original(self)
    execution = self.stepfunction_backend.describe_execution(self._get_param("executionArn"))
    response.result["definition"] = execution.state_machine.definition
    return response


def publish_state_machine_version(self: Any) -> ActionResult:
    """AWS publishes the current revision, once; moto does not implement the call."""
    machine = _machine(self.stepfunction_backend, self._get_param("stateMachineArn"))
    expected = self._get_param("revisionId")
    if expected and expected != revision_id(machine):
        raise ConflictException(f"The current revision is {revision_id(machine)}")
    version = _publish(machine, self._get_param("description"))
    return ActionResult({"creationDate": version.creation_date, "stateMachineVersionArn": version.arn})


def _publish(machine: Any, description: str | None = None) -> Any:
    latest = machine.latest_version
    if latest not in machine.versions.values() or revision_id(latest) != revision_id(machine):
        machine.publish(description)
    return machine.latest_version


def list_state_machine_versions(self: Any) -> ActionResult:
    """AWS lists the versions of a state machine, newest first; moto does not implement the call."""
    machine = _machine(self.stepfunction_backend, self._get_param("stateMachineArn"))
    versions = sorted(machine.versions.values(), key=lambda version: -version.version)
    listed = [{"stateMachineVersionArn": one.arn, "creationDate": one.creation_date} for one in versions]
    return ActionResult(_page(self, "stateMachineVersions", listed))


def delete_state_machine_version(self: Any) -> EmptyResult:
    """AWS deletes a version unless an alias points to it; moto does not implement the call."""
    arn = self._get_param("stateMachineVersionArn")
    machine = _machine(self.stepfunction_backend, arn)
    routes = (route for alias in machine.aliases.values() for route in alias.routing_configuration)
    if any(route["stateMachineVersionArn"] == arn for route in routes):
        raise ConflictException("Version to be deleted must not be referenced by an alias.")
    machine.versions.pop(int(arn.rpartition(":")[2]), None)
    return EmptyResult()


StepFunctionResponse.publish_state_machine_version = publish_state_machine_version
StepFunctionResponse.list_state_machine_versions = list_state_machine_versions
StepFunctionResponse.delete_state_machine_version = delete_state_machine_version


@around(StateMachine, "has_cfn_attr")
def has_arn_and_revision(original: Any, cls: Any, attribute: str) -> bool:
    """AWS supports GetAtt Arn and StateMachineRevisionId of a state machine; moto neither."""
    return attribute in ("Arn", "StateMachineRevisionId") or bool(original(cls, attribute))


@around(StateMachine, "get_cfn_attribute")
def get_arn_or_revision(original: Any, self: Any, attribute: str) -> Any:
    """AWS supports GetAtt Arn and StateMachineRevisionId of a state machine; moto neither."""
    if attribute == "StateMachineRevisionId":
        return revision_id(self)
    return self.arn if attribute == "Arn" else original(self, attribute)


# ---- Functions


def point_function_alias(function: str, name: str, version: str) -> str:
    """Point an alias to a function's version for CloudFormation, and return its ARN."""
    existing = [one for one in _functions().list_aliases(function) if one.name == name]
    point = _functions().update_alias if existing else _functions().create_alias
    return str(point(name, function, version, "", "").arn)


def served(name: str) -> Any:
    """Return the version of a function that its first alias points to; the function itself if it has no alias."""
    alias = next(iter(_functions().list_aliases(name)), None)
    return _functions().get_function(name, alias.function_version if alias else None)


def _functions() -> Any:
    return lambda_backends[DEFAULT_ACCOUNT_ID][running().sdk["AWS_REGION"]]


@around(LambdaVersion, "create_from_cloudformation_json")
def publish_function_version(_original: Any, cls: Any, _name: str, resource: Any, *_args: Any, **_kwargs: Any) -> Any:
    """AWS returns a version's ARN for a Ref, and its number for GetAtt Version; moto neither."""
    properties = resource["Properties"]
    function = _functions().publish_version(properties["FunctionName"], properties.get("Description", ""))
    made = cls({"Version": str(function.version)})
    made.physical_resource_id = function.function_arn
    return made


def function_version_attribute(self: Any, attribute: str) -> str:
    """AWS supports GetAtt Version and FunctionArn of a function's version; moto neither."""
    attributes = {"Version": self.version, "FunctionArn": self.physical_resource_id}
    if attribute not in attributes:
        raise ValidationError(message=f"A version has no attribute {attribute}")
    return str(attributes[attribute])


LambdaVersion.get_cfn_attribute = function_version_attribute
LambdaVersion.has_cfn_attr = staticmethod(lambda attribute: attribute in ("Version", "FunctionArn"))
