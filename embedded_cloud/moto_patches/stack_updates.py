"""CloudFormation: updates in the order of dependencies, rollbacks and deletion policies, which moto lacks.

moto creates the resources of a stack lazily: reading one creates those that it refers to. An update does the same with
a second map of resources. There, each resource takes over that of the first map as it is, updated or replaced. What it
replaces or lacks is deleted at the end. A rollback is an update to the former template.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from moto.cloudformation import parsing
from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import CloudFormationBackend, Event, OutputMap, Stack

from embedded_cloud.moto_patches.around import around
from embedded_cloud.moto_patches.create_only import CREATE_ONLY
from embedded_cloud.moto_patches.host import running

_NESTED: Final = "AWS::CloudFormation::Stack"
_KEPT: Final = ("Retain", "RetainExceptOnCreate")
_REVISIONS: Final = ("AWS::ECS::TaskDefinition",)
"""Types whose name may be that of the resource that they replace."""
_DELETED_WITH_ANOTHER: Final = ("AWS::Lambda::Permission", "AWS::Lambda::Version")
NOT_UPDATED: Final = "updates of its properties change nothing"
NOT_DELETED: Final = "exists after its stack is deleted"


class Made(NamedTuple):
    """A resource of a stack.

    Attributes:
        resource: what moto stores.
        declared: the resource in the template.
        properties: its properties, with references resolved; None if an update of them failed.
    """

    resource: Any
    declared: dict[str, Any]
    properties: Any


@dataclass
class Changes:
    """The resources of a stack, and what the operation that makes them has changed.

    Attributes:
        before: resources before the operation, by logical ID.
        made: resources that there are now, those that others refer to first.
        new: logical IDs of created resources, also of those that replace another.
        updated: logical IDs of resources that were updated in place.
        nested: updated nested stacks.
        failed: logical ID, physical ID and type of the resource that ended the operation, and the status of that.
    """

    before: Mapping[str, Made] = field(default_factory=dict)
    made: dict[str, Made] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    nested: dict[str, Any] = field(default_factory=dict)
    failed: tuple[str, str, str, str] | None = None

    def replaced(self) -> list[tuple[str, Made]]:
        """Return the former resources that others have replaced."""
        return [(name, self.before[name]) for name in self.new if name in self.before]

    def removed(self) -> list[tuple[str, Made]]:
        """Return the former resources that the stack has no longer."""
        return [(name, one) for name, one in self.before.items() if name not in self.made]


def _changes(resources: Any) -> Changes:
    found: Changes = vars(resources).setdefault("changes", Changes())
    return found


@around(parsing, "parse_and_create_resource")
def take_over_the_former_resource(
    original: Any, logical_id: str, declared: Any, resources: Any, account_id: str, region_name: str
) -> Any:
    """AWS keeps, updates or replaces resources, after those that they refer to; moto follows the template's order."""
    changes, condition = _changes(resources), declared.get("Condition")
    if condition and not resources.lazy_condition_map[condition]:
        return None
    properties = parsing.clean_json(declared.get("Properties", {}), resources)
    before = changes.before.get(logical_id)
    try:
        if before and before.declared["Type"] == declared["Type"] and not _replaces(before, declared, properties):
            resource = before.resource
            if before.properties != properties:
                changes.updated.append(logical_id)
                changes.made[logical_id] = Made(resource, declared, None)
                resource = _update(before, logical_id, declared, properties, (account_id, region_name), changes)
        else:
            resource = original(logical_id, declared, resources, account_id, region_name)
            changes.new.append(logical_id)
    except Exception:
        if changes.failed is None:
            status = "UPDATE_FAILED" if before else "CREATE_FAILED"
            changes.failed = (logical_id, _name(before.resource) if before else "", declared["Type"], status)
        raise
    resource.cf_resource_type, resource.logical_resource_id = declared["Type"], logical_id
    changes.made.pop(logical_id, None)
    changes.made[logical_id] = Made(resource, declared, properties)
    return resource


def _replaces(before: Made, declared: Any, properties: Any) -> bool:
    """Return whether these properties need another resource.

    Raises:
        ValidationError: it would have the same name.
    """
    kind, former = declared["Type"], before.properties
    if former is None or not any(former.get(name) != properties.get(name) for name in CREATE_ONLY.get(kind, ())):
        return False
    name = parsing.resource_name_property_from_type(kind)
    if name and name in properties and former.get(name) == properties[name] and kind not in _REVISIONS:
        raise ValidationError(
            message="CloudFormation cannot update a stack when a custom-named resource requires replacing. "
            f"Rename {properties[name]} and update the stack again."
        )
    return True


def _update(
    before: Made, logical_id: str, declared: Any, properties: Any, place: tuple[str, str], changes: Changes
) -> Any:
    """Update a resource in place, and return it."""
    kind, resource = declared["Type"], before.resource
    model = parsing.resource_class_from_type(kind)
    if hasattr(model.update_from_cloudformation_json, "__isabstractmethod__"):
        _skip(logical_id, kind, NOT_UPDATED)
        return resource
    if kind == _NESTED:
        changes.nested[logical_id] = resource
    account_id, region_name = place
    return model.update_from_cloudformation_json(
        original_resource=resource,
        new_resource_name=_name(resource),
        cloudformation_json={**declared, "Properties": properties},
        account_id=account_id,
        region_name=region_name,
    )


def _skip(logical_id: str, kind: str, why: str) -> None:
    skipped = (logical_id, kind, why)
    if skipped not in running().skipped:
        running().skipped.append(skipped)


class _Former(NamedTuple):
    """What a stack was before an update."""

    template: Any
    template_dict: Any
    parameters: Any
    tags: Any
    role_arn: Any
    description: Any
    resource_map: Any
    output_map: Any


def update(
    self: Any,
    template: str,
    role_arn: str | None = None,
    parameters: dict[str, Any] | None = None,
    tags: dict[str, str] | None = None,
) -> None:
    """AWS rolls a failed update back, and returns before it ends; moto leaves the stack half updated, and fails."""
    try:
        begin(self, template, parameters, role_arn, tags)
    except UpdateError:
        return
    finish(self)


class UpdateError(Exception):
    """An update failed and was rolled back."""


def begin(stack: Any, template: str, parameters: Any, role_arn: Any = None, tags: Any = None) -> None:
    """Update a stack, without deleting what it no longer needs.

    Raises:
        ValidationError: the template is invalid. Nothing has changed.
        UpdateError: a resource cannot be updated. The stack is rolled back.
    """
    former = _Former(*(getattr(stack, name) for name in _Former._fields))
    stack.template = template
    stack.parameters = stack.parameters if parameters is None else parameters
    stack.tags = stack.tags if tags is None else tags
    stack.role_arn = role_arn
    try:
        stack._parse_template()  # with the parameters: SAM transforms it
        stack.description = stack.template_dict.get("Description")
        resources = stack._create_resource_map()
    except Exception:
        _restore(stack, former)
        raise
    resources.changes = changes = Changes(dict(_changes(former.resource_map).made))
    stack.former = former
    _set_status(stack, "UPDATE_IN_PROGRESS", "User Initiated")
    try:
        resources.create(stack.template_dict)
        stack.resource_map, stack.output_map = resources, OutputMap(resources, stack.template_dict, stack.stack_id)
        list(stack.output_map.values())
    except Exception as error:
        reason = str(getattr(error, "message", error))
        _report_failure(stack, changes, reason)
        roll_back(stack, changes, reason)
        raise UpdateError(reason) from error
    _report(stack, changes)


def finish(stack: Any) -> None:
    """Delete what an update has replaced or removed. Failures are events: the update has succeeded."""
    changes = _changes(stack.resource_map)
    for nested in changes.nested.values():
        finish(nested)
    _set_status(stack, "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
    for policy, unused in (("UpdateReplacePolicy", changes.replaced()), ("DeletionPolicy", changes.removed())):
        for logical_id, made in reversed(unused):
            if made.declared.get(policy, "Delete") not in _KEPT:
                _delete(stack, logical_id, made)
    _set_status(stack, "UPDATE_COMPLETE")


def roll_back(stack: Any, changes: Changes, reason: str) -> None:
    """Make a stack what it was before an update."""
    former: _Former = stack.former
    _set_status(stack, "UPDATE_ROLLBACK_IN_PROGRESS", reason)
    for nested in changes.nested.values():
        if nested.status != "UPDATE_ROLLBACK_COMPLETE":
            roll_back(nested, _changes(nested.resource_map), reason)
    as_before = {
        name: changes.made[name] if name in changes.updated and name not in changes.nested else one
        for name, one in changes.before.items()
    }
    _restore(stack, former)
    resources = stack._create_resource_map()
    resources.changes = Changes(as_before)
    try:
        resources.create(stack.template_dict)
    except Exception as error:
        _set_status(stack, "UPDATE_ROLLBACK_FAILED", str(getattr(error, "message", error)))
        return
    stack.resource_map, stack.output_map = resources, OutputMap(resources, stack.template_dict, stack.stack_id)
    _delete_new(stack, changes)
    _set_status(stack, "UPDATE_ROLLBACK_COMPLETE")


def _restore(stack: Any, former: _Former) -> None:
    for name, value in former._asdict().items():
        setattr(stack, name, value)


def _delete_new(stack: Any, changes: Changes) -> None:
    """Delete what a failed operation has created."""
    for logical_id in reversed(changes.new):
        made = changes.made[logical_id]
        if made.declared.get("DeletionPolicy") != "Retain":
            _delete(stack, logical_id, made)


def _delete(stack: Any, logical_id: str, made: Made) -> str:
    """Delete a resource, and return why that failed; empty if it did not."""
    try:
        kind = made.declared["Type"]
        if not (hasattr(made.resource, "delete") or _can_delete(kind) or kind in _DELETED_WITH_ANOTHER):
            _skip(logical_id, kind, NOT_DELETED)
        stack.resource_map._delete_resource(made.resource, made.declared)
    except Exception as error:
        reason = str(getattr(error, "message", error)) or type(error).__name__
        _add_event(stack, logical_id, made, "DELETE_FAILED", reason)
        return reason
    _add_event(stack, logical_id, made, "DELETE_COMPLETE")
    return ""


def _can_delete(kind: str) -> bool:
    model = parsing.resource_class_from_type(kind)
    return not hasattr(model.delete_from_cloudformation_json, "__isabstractmethod__")


def _report(stack: Any, changes: Changes) -> None:
    """Add the events of created and updated resources."""
    for word, names in (("CREATE", changes.new), ("UPDATE", changes.updated)):
        for logical_id in names:
            _add_event(stack, logical_id, changes.made[logical_id], f"{word}_COMPLETE")


def _report_failure(stack: Any, changes: Changes, reason: str) -> None:
    """Add the event of the resource that could not be created or updated, if it was one that failed."""
    if changes.failed:
        logical_id, name, kind, status = changes.failed
        stack.events.append(Event(stack.stack_id, stack.name, logical_id, name, kind, status, reason, None))


def _add_event(stack: Any, logical_id: str, made: Made, status: str, reason: str | None = None) -> None:
    name, kind = _name(made.resource), made.declared["Type"]
    stack.events.append(Event(stack.stack_id, stack.name, logical_id, name, kind, status, reason, None))


def _name(resource: Any) -> str:
    """Return the physical ID of a resource; empty if moto has none."""
    return str(getattr(resource, "physical_resource_id", ""))


def failure(stack: Any) -> str:
    """Return why the latest operation failed."""
    return next(
        event.resource_status_reason or ""
        for event in reversed(stack.events)
        if event.resource_status in ("ROLLBACK_IN_PROGRESS", "UPDATE_ROLLBACK_IN_PROGRESS")
    )


def _set_status(stack: Any, status: str, reason: str | None = None) -> None:
    stack.status = status
    stack._add_stack_event(status, resource_status_reason=reason)


@around(Stack, "create_resources")
def roll_back_a_failed_creation(original: Any, self: Any) -> None:
    """AWS deletes what a failed creation has made, and returns before it ends; moto leaves it, and fails."""
    try:
        original(self)
        list(self.output_map.values())
    except Exception as error:
        reason = str(getattr(error, "message", error))
        _report_failure(self, _changes(self.resource_map), reason)
        _set_status(self, "ROLLBACK_IN_PROGRESS", reason)
        _delete_new(self, _changes(self.resource_map))
        self.resource_map._resource_json_map, self.resource_map.changes = {}, Changes()
        self.output_map = OutputMap(self.resource_map, {"Resources": {}}, self.stack_id)
        _set_status(self, "ROLLBACK_COMPLETE")
        return
    _report(self, _changes(self.resource_map))


@around(CloudFormationBackend, "delete_stack")
def delete_in_reverse(_original: Any, self: Any, name_or_stack_id: str) -> None:
    """AWS deletes resources before those that they refer to, and obeys DeletionPolicy; moto knows only Retain."""
    found = [one for one in self.stacks.values() if name_or_stack_id in (one.stack_id, one.name)]
    for stack in found:
        _set_status(stack, "DELETE_IN_PROGRESS", "User Initiated")
        failed = []
        for logical_id, made in reversed(list(_changes(stack.resource_map).made.items())):
            if made.declared.get("DeletionPolicy") in _KEPT:
                _add_event(stack, logical_id, made, "DELETE_SKIPPED")
            elif _delete(stack, logical_id, made):
                failed.append(logical_id)
            else:
                del _changes(stack.resource_map).made[logical_id]
        if failed:
            reason = f"The following resource(s) failed to delete: [{', '.join(failed)}]."
            _set_status(stack, "DELETE_FAILED", reason)
            if stack.parent_id:
                raise ValidationError(message=reason)
            continue
        exports: Iterable[str] = [export.name for export in stack.exports]
        _set_status(stack, "DELETE_COMPLETE")
        for export in exports:
            self.exports.pop(export)
        self.deleted_stacks[stack.stack_id] = self.stacks.pop(stack.stack_id)


Stack.update = update
Stack.former = None
