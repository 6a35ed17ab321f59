"""CloudFormation: change sets, and the capabilities that a caller must acknowledge."""

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, Final

from moto.cloudformation import parsing
from moto.cloudformation.exceptions import AlreadyExistsException, CloudFormationError, ValidationError
from moto.cloudformation.models import ChangeSet, CloudFormationBackend, Stack
from moto.cloudformation.parsing import ResourceMap
from moto.cloudformation.responses import CloudFormationResponse
from moto.cloudformation.utils import generate_changeset_id, generate_stack_id, validate_create_change_set
from moto.core.responses import ActionResult, EmptyResult

from embedded_cloud.moto_patches.around import around
from embedded_cloud.moto_patches.create_only import CREATE_ONLY
from embedded_cloud.moto_patches.serverless import TRANSFORM, processed, transforms

REVIEW: Final = "REVIEW_IN_PROGRESS"
NO_CHANGES: Final = (
    "The submitted information didn't contain changes. Submit different information to create a change set."
)
_IAM_NAMES: Final = ("GroupName", "InstanceProfileName", "ManagedPolicyName", "RoleName", "UserName")


class InsufficientCapabilitiesError(CloudFormationError):  # type: ignore[misc]
    """The template needs a capability that the request does not acknowledge."""

    code = "InsufficientCapabilitiesException"


class ChangeSetNotFoundError(CloudFormationError):  # type: ignore[misc]
    """There is no such change set."""

    code = "ChangeSetNotFound"


class InvalidChangeSetStatusError(CloudFormationError):  # type: ignore[misc]
    """The change set cannot be executed."""

    code = "InvalidChangeSetStatus"


# ---- Capabilities


@around(CloudFormationResponse, "create_stack")
@around(CloudFormationResponse, "update_stack")
def require_capabilities(original: Any, self: Any) -> Any:
    """AWS requires capabilities for IAM resources and macros; moto ignores them."""
    if body := _body(self):
        _require_capabilities(self, body, is_reviewed=False)
    return original(self)


def _body(response: Any) -> str | None:
    """Return the template of a request; None if it has none."""
    url = response._get_param("TemplateURL")
    body: str | None = response._get_stack_from_s3_url(url) if url else response._get_param("TemplateBody")
    return body


def _require_capabilities(response: Any, body: str, *, is_reviewed: bool) -> None:
    """Raise an error unless the request acknowledges what its template does.

    Args:
        response: the request.
        body: its template.
        is_reviewed: whether it is reviewed as a change set before it is executed.
    """
    template = Stack.parse_template(body)
    resources = list(template.get("Resources", {}).values())
    iam = [one for one in resources if one["Type"].startswith("AWS::IAM::")]
    given = set(response._get_param("Capabilities", []))
    needed = []
    if any(name in one.get("Properties", {}) for one in iam for name in _IAM_NAMES):
        needed.append("CAPABILITY_NAMED_IAM")
    elif iam or any(one["Type"] in ("AWS::Serverless::Function", "AWS::Serverless::StateMachine") for one in resources):
        needed += [] if "CAPABILITY_NAMED_IAM" in given else ["CAPABILITY_IAM"]
    is_nested = any(one["Type"] == "AWS::Serverless::Application" for one in resources)
    if is_nested or (TRANSFORM in transforms(template) and not is_reviewed):
        needed.append("CAPABILITY_AUTO_EXPAND")
    if missing := [name for name in needed if name not in given]:
        raise InsufficientCapabilitiesError(f"Requires capabilities : [{', '.join(missing)}]")


# ---- Change sets


@around(CloudFormationResponse, "create_change_set")
def create_change_set(_original: Any, self: Any) -> ActionResult:
    """AWS creates a failed change set if nothing changes, and updates by default; moto raises, and creates."""
    backend, name, kind = self.cloudformation_backend, self._get_param("StackName"), self._get_param("ChangeSetType")
    stack = backend.get_stack(name) if kind != "CREATE" else None
    body = stack.template if stack and self._get_bool_param("UsePreviousTemplate", False) else _body(self)
    if not body:
        raise ValidationError(message="Either Template URL or Template Body must be specified.")
    _require_capabilities(self, body, is_reviewed=True)
    change_set_id, stack_id = backend.create_change_set(
        stack_name=name,
        change_set_name=self._get_param("ChangeSetName"),
        template=body,
        parameters=self._get_param_values(self._get_param("Parameters", []), _values(stack) if stack else {}),
        description=self._get_param("Description"),
        change_set_type=kind or "UPDATE",
        notification_arns=self._get_param("NotificationARNs", []),
        tags={item["Key"]: item["Value"] for item in self._get_param("Tags", [])},
        role_arn=self._get_param("RoleARN"),
    )
    return ActionResult({"Id": change_set_id, "StackId": stack_id})


def _values(stack: Any) -> dict[str, str]:
    """Return the values of a stack's parameters as text."""
    declared = stack.template_dict.get("Parameters", {})
    defaults = {name: str(facts["Default"]) for name, facts in declared.items() if "Default" in facts}
    return {**defaults, **stack.parameters}


@around(CloudFormationBackend, "create_change_set")
def plan_changes(
    _original: Any, self: Any, *, stack_name: str, change_set_name: str, change_set_type: str, **given: Any
) -> tuple[str, str]:
    """AWS compares resources with the values of parameters and conditions; moto only the texts of templates."""
    validate_create_change_set(change_set_name)
    is_update = change_set_type == "UPDATE"
    stack = self.get_stack(stack_name) if is_update else _new_stack(self, stack_name, given["tags"])
    change_set_id = generate_changeset_id(change_set_name, self.region_name, self.account_id)
    change_set = ChangeSet(
        change_set_type=change_set_type,
        change_set_id=change_set_id,
        change_set_name=change_set_name,
        stack=stack,
        **given,
    )
    if change_set.changes or not is_update or not _is_same(change_set):
        change_set.status, change_set.execution_status = "CREATE_COMPLETE", "AVAILABLE"
    else:
        change_set.status, change_set.execution_status = "FAILED", "UNAVAILABLE"
        change_set.status_reason = NO_CHANGES
    self.change_sets[change_set_id] = change_set
    return change_set_id, stack.stack_id


def _new_stack(backend: Any, name: str, tags: dict[str, str]) -> Any:
    """Return the stack of a change set that creates one. It has no resources yet."""
    stack = next((one for one in backend.stacks.values() if one.name == name), None)
    if stack is None:
        stack_id = generate_stack_id(name, backend.region_name, backend.account_id)
        stack = Stack(
            stack_id=stack_id,
            name=name,
            template={},
            parameters={},
            account_id=backend.account_id,
            region_name=backend.region_name,
            tags=tags,
            cross_stack_resources=backend.exports,
        )
        backend.stacks[stack_id] = stack
        stack.status = REVIEW
        stack._add_stack_event(REVIEW, resource_status_reason="User Initiated")
    elif stack.status != REVIEW:
        raise AlreadyExistsException(f"Stack [{name}] already exists and cannot be created again")
    return stack


def _is_same(change_set: Any) -> bool:
    """Return whether outputs and tags are those of the stack."""
    before = change_set.stack.template_dict.get("Outputs")
    tags = change_set.tags or change_set.stack.tags
    return bool(before == change_set.template_dict.get("Outputs") and tags == change_set.stack.tags)


@around(ChangeSet, "_parse_template")
def transform_template_of_change_set(_original: Any, self: Any) -> None:
    """AWS reviews what the transform makes of a template; moto the template itself."""
    self.template_dict = processed(self.template, self.parameters, self.stack.region_name)


@around(ChangeSet, "diff")
def describe_changes(_original: Any, self: Any) -> list[dict[str, Any]]:
    """AWS says which properties change, and whether they replace the resource; moto neither."""
    stack = self.stack
    before = _Plan(stack, stack.template_dict, stack.parameters)
    after = _Plan(stack, self.template_dict, self.parameters)
    return list(_changes(before, after))


class _Plan(Mapping[str, Any]):
    """Resources of a stack with a template and parameters, and what references in them resolve to.

    Those to existing resources have their values, and others a text that no resource has.
    """

    def __init__(self, stack: Any, template: dict[str, Any], parameters: dict[str, Any]) -> None:
        self._existing = stack.resource_map._parsed_resources
        loaded = ResourceMap(
            stack_id=stack.stack_id,
            stack_name=stack.name,
            parameters=parameters,
            tags={},
            region_name=stack.region_name,
            account_id=stack.account_id,
            template=deepcopy(template),
            cross_stack_resources=stack.cross_stack_resources,
        )
        loaded.load()
        self._values = loaded._parsed_resources
        self.lazy_condition_map = loaded.lazy_condition_map
        self.cross_stack_resources = loaded.cross_stack_resources
        self.resources = {
            name: resource
            for name, resource in loaded._resource_json_map.items()
            if "Condition" not in resource or self.lazy_condition_map[resource["Condition"]]
        }

    def __getitem__(self, name: str) -> Any:
        if name in self._values:
            return self._values[name]
        if name not in self.resources:
            raise KeyError(name)
        return self._existing.get(name) or _Unknown(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.resources)

    def __len__(self) -> int:
        return len(self.resources)

    def physical_id(self, name: str) -> str | None:
        """Return the physical ID of an existing resource; None if it has none."""
        return getattr(self._existing.get(name), "physical_resource_id", None)

    def properties(self, name: str) -> dict[str, Any]:
        """Return the properties of a resource; as the template has them if they depend on new resources."""
        properties: dict[str, Any] = self.resources[name].get("Properties", {})
        try:
            cleaned: dict[str, Any] = parsing.clean_json(properties, self)
        except (IndexError, KeyError, AttributeError):
            return properties
        return cleaned


class _Unknown:
    """A resource that does not exist yet."""

    def __init__(self, name: str) -> None:
        self.physical_resource_id = f"<new {name}>"

    def get_cfn_attribute(self, attribute: str) -> str:
        return f"{self.physical_resource_id}.{attribute}"


def _changes(before: _Plan, after: _Plan) -> Iterator[dict[str, Any]]:
    for name in after:
        kind = after.resources[name]["Type"]
        change = {"LogicalResourceId": name, "ResourceType": kind, "Scope": [], "Details": []}
        if name not in before:
            yield {**change, "Action": "Add"}
        elif changed := _changed(before.properties(name), after.properties(name)):
            fixed = set(CREATE_ONLY.get(kind, ())) & set(changed)
            details = [_detail(one, replaces=one in fixed) for one in changed]
            yield {
                **change,
                "Action": "Modify",
                "PhysicalResourceId": before.physical_id(name),
                "Replacement": "True" if fixed else "False",
                "Scope": ["Properties"],
                "Details": details,
            }
    for name in before:
        if name not in after:
            kind, physical_id = before.resources[name]["Type"], before.physical_id(name)
            yield {
                "LogicalResourceId": name,
                "ResourceType": kind,
                "Action": "Remove",
                "PhysicalResourceId": physical_id,
            }


def _changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    names = dict.fromkeys([*before, *after])
    return [name for name in names if json.dumps(before.get(name)) != json.dumps(after.get(name))]


def _detail(name: str, *, replaces: bool) -> dict[str, Any]:
    recreation = "Always" if replaces else "Never"
    target = {"Attribute": "Properties", "Name": name, "RequiresRecreation": recreation}
    return {"Target": target, "Evaluation": "Static", "ChangeSource": "DirectModification"}


def _find(backend: Any, name: str, stack_name: str | None) -> Any:
    """Return a change set by its ARN, or by its name and that of its stack.

    Raises:
        ChangeSetNotFoundError: there is none.
    """
    for change_set in backend.change_sets.values():
        is_of_stack = stack_name in (None, change_set.stack_name, change_set.stack_id)
        if name == change_set.change_set_id or (name == change_set.change_set_name and is_of_stack):
            return change_set
    raise ChangeSetNotFoundError(f"ChangeSet [{name}] does not exist")


@around(CloudFormationResponse, "describe_change_set")
def describe_change_set(_original: Any, self: Any) -> ActionResult:
    """AWS finds a change set by its name and that of its stack; moto the latest of any stack with the name."""
    change_set = _find(self.cloudformation_backend, self._get_param("ChangeSetName"), self._get_param("StackName"))
    return ActionResult(change_set)


@around(CloudFormationResponse, "delete_change_set")
def delete_change_set(_original: Any, self: Any) -> EmptyResult:
    """AWS finds a change set by its name and that of its stack; moto the first of any stack with the name."""
    backend = self.cloudformation_backend
    change_set = _find(backend, self._get_param("ChangeSetName"), self._get_param("StackName"))
    del backend.change_sets[change_set.change_set_id]
    return EmptyResult()


@around(CloudFormationResponse, "list_change_sets")
def list_change_sets(_original: Any, self: Any) -> ActionResult:
    """AWS lists the change sets of a stack; moto those of all stacks."""
    backend = self.cloudformation_backend
    stack_id = backend.get_stack(self._get_param("StackName")).stack_id
    return ActionResult({"Summaries": [one for one in backend.change_sets.values() if one.stack_id == stack_id]})


@around(CloudFormationResponse, "execute_change_set")
def execute_change_set(_original: Any, self: Any) -> EmptyResult:
    """AWS executes an available change set, and reports failures in the status of the stack; moto any, and raises."""
    backend = self.cloudformation_backend
    change_set = _find(backend, self._get_param("ChangeSetName"), self._get_param("StackName"))
    if change_set.execution_status != "AVAILABLE":
        raise InvalidChangeSetStatusError(
            f"ChangeSet [{change_set.change_set_id}] cannot be executed in its current status of "
            f"[{change_set.execution_status}]"
        )
    if change_set.change_set_type == "CREATE":
        _create(backend, change_set)
    else:
        values = [{"ParameterKey": key, "ParameterValue": value} for key, value in change_set.parameters.items()]
        stack, tags = change_set.stack, change_set.tags or None
        backend.update_stack(stack.name, change_set.template, change_set.role_arn, values, tags)
    has_failed = "ROLLBACK" in change_set.stack.status
    change_set.execution_status = "EXECUTE_FAILED" if has_failed else "EXECUTE_COMPLETE"
    return EmptyResult()


def _create(backend: Any, change_set: Any) -> None:
    """Create the resources of a stack that a change set has announced."""
    stack = change_set.stack
    stack.template, stack.parameters, stack.role_arn = change_set.template, change_set.parameters, change_set.role_arn
    stack.notification_arns = change_set.notification_arns
    stack._parse_template()
    stack.resource_map, stack.tags = stack._create_resource_map(), change_set.tags
    stack.output_map = stack._create_output_map()
    backend._validate_export_uniqueness(stack)
    stack._add_stack_event("CREATE_IN_PROGRESS", resource_status_reason="User Initiated")
    stack.create_resources()
    for export in stack.exports:
        backend.exports[export.name] = export
