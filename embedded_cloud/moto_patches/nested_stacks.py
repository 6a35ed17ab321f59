"""CloudFormation: nested stacks, whose template is in S3 or a file on this machine."""

import json
from pathlib import Path
from typing import Any

from moto.cloudformation import parsing
from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import Stack, cloudformation_backends
from moto.cloudformation.utils import get_stack_from_s3_url
from moto.core import DEFAULT_ACCOUNT_ID
from moto.utilities.utils import get_partition

from embedded_cloud.deploy import translate
from embedded_cloud.moto_patches.around import around
from embedded_cloud.moto_patches.stack_updates import UpdateError, begin, failure

RESOURCE_NAME_CHARACTERS = 64  # the limit of Lambda functions, roles and rules


@around(Stack, "create_from_cloudformation_json")
def create_nested_stack(
    _original: Any, _cls: Any, name: str, resource: Any, account_id: str, region: str, **context: Any
) -> Any:
    """AWS deploys a template in S3, and knows its parent; moto forgets that. This also deploys a file."""
    properties, logical_id = resource["Properties"], context["LogicalId"]
    backend = cloudformation_backends[account_id][region]
    parameters = _parameters(logical_id, properties)
    try:
        template = _template(properties, parameters, region)
        stack = backend.create_stack(name=name, template=template, parameters=parameters)
    except Exception as error:
        reason = getattr(error, "message", error)
        raise ValidationError(message=f"Nested stack {logical_id} failed: {reason}") from error
    if stack.status == "ROLLBACK_COMPLETE":
        raise ValidationError(message=f"Nested stack {logical_id} failed: {failure(stack)}")
    stack.parent_id = context["StackId"]
    return stack


@around(Stack, "update_from_cloudformation_json")
def update_nested_stack(
    _original: Any,
    _cls: Any,
    original_resource: Any,
    new_resource_name: str,
    cloudformation_json: Any,
    account_id: str,
    region_name: str,
) -> Any:
    """AWS updates a nested stack in place; moto deletes it and creates another."""
    properties = cloudformation_json["Properties"]
    parameters = _parameters(original_resource.logical_resource_id, properties)
    logical_id = original_resource.logical_resource_id
    try:
        begin(original_resource, _template(properties, parameters, region_name), parameters)
    except UpdateError as error:
        raise ValidationError(message=f"Nested stack {logical_id} failed: {error}") from error
    return original_resource


def _template(properties: dict[str, Any], parameters: dict[str, str], region: str) -> str:
    if properties["TemplateURL"].startswith(("http://", "https://")):
        body: str = get_stack_from_s3_url(properties["TemplateURL"], DEFAULT_ACCOUNT_ID, get_partition(region))
        return body
    template = Path(properties["TemplateURL"])
    if not template.is_file():
        raise ValidationError(message=f"Template not found: {template}")
    return json.dumps(translate(template, parameters, region))


def _parameters(logical_id: str, properties: dict[str, Any]) -> dict[str, str]:
    """Return the values as text. AWS accepts no lists here either."""
    values = properties.get("Parameters", {})
    for name, value in values.items():
        if isinstance(value, list | dict):
            raise ValidationError(
                message=f"Parameter {name} of nested stack {logical_id} must be a string. Join lists with !Join."
            )
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()}


def stack_attribute(self: Any, attribute: str) -> Any:
    """AWS resolves ``Outputs.Name`` of a nested stack; moto has no attributes of stacks."""
    name = attribute.removeprefix("Outputs.")
    if attribute == name or (output := self.output_map.get(name)) is None:
        raise ValidationError(message=f"Nested stack {self.name} has no attribute {attribute}")
    return output.value


def stack_arn(self: Any) -> str:
    """AWS returns a nested stack's ARN for a Ref; moto its name."""
    arn: str = self.stack_id
    return arn


def root_stack(self: Any) -> str | None:
    """AWS describes a nested stack with the ARN of its outermost parent."""
    if self.parent_id is None:
        return None
    parent = cloudformation_backends[self.account_id][self.region_name].get_stack(self.parent_id)
    root: str = parent.root_id or parent.stack_id
    return root


def parameters_as_text(self: Any, original: Any = Stack.parameter_list.fget) -> list[dict[str, Any]]:
    """AWS describes a list as comma-separated text; moto as Python."""
    return [
        {**item, "ParameterValue": ",".join(map(str, value)) if isinstance(value, list) else value}
        for item in original(self)
        for value in [item["ParameterValue"]]
    ]


Stack.parent_id = None
Stack.parameter_list = property(parameters_as_text)
Stack.root_id = property(root_stack)
Stack.get_cfn_attribute = stack_attribute
Stack.physical_resource_id = property(stack_arn)


@around(parsing, "clean_json")
def join_attribute_names(original: Any, value: Any, resources: Any) -> Any:
    """AWS accepts ``${Nested.Outputs.Name}``; moto drops what follows the second dot."""
    if isinstance(value, dict) and len(path := value.get("Fn::GetAtt", ())) > 2 and isinstance(path, list):
        value = {"Fn::GetAtt": [path[0], ".".join(path[1:])]}
    return original(value, resources)


@around(parsing.ResourceMap, "load_parameters")
def split_list_defaults(original: Any, self: Any) -> None:
    """AWS splits lists at commas; moto only those that the caller passes, not the defaults."""
    original(self)
    for name, parameter in self._template.get("Parameters", {}).items():
        value = self.resolved_parameters[name]
        if isinstance(value, str) and parameter["Type"].startswith(("CommaDelimitedList", "List<")):
            self.resolved_parameters[name] = self._parsed_resources[name] = value.split(",")


@around(parsing, "generate_resource_name")
def shorten_resource_name(original: Any, resource_type: str, stack_name: str, logical_id: str) -> str:
    """AWS shortens generated names to the service's limit, and writes those of repositories in lower case.

    moto does neither: names of nested stacks reach the limit, and ECR rejects the name.
    """
    name: str = original(resource_type, stack_name, logical_id)
    if resource_type == "AWS::ECR::Repository":
        name = name.lower()
    excess = len(name) - RESOURCE_NAME_CHARACTERS
    if excess <= 0 or resource_type == "AWS::CloudFormation::Stack":
        return name
    stem, _, suffix = name.rpartition("-")
    return f"{stem[:-excess]}-{suffix}"
