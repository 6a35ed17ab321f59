"""Translate a SAM template to CloudFormation and create its stack."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

# Types of nested stacks, with the property that holds the template's location.
NESTED_STACK_TYPES = {"AWS::Serverless::Application": "Location", "AWS::CloudFormation::Stack": "TemplateURL"}


class StackError(Exception):
    """A stack cannot be created; the message has the reason."""


def parameter_names(template: Path) -> list[str]:
    """Return the parameter names of a SAM template."""
    from samtranslator.yaml_helper import yaml_parse

    return list(yaml_parse(template.read_text())["Parameters"])


def translate(template: Path, parameters: Mapping[str, str], region: str) -> dict[str, Any]:
    """Return the template as plain CloudFormation, without building or packaging anything.

    Args:
        template: SAM template.
        parameters: parameters that differ from their defaults.
        region: AWS region of the stack.

    Returns:
        CloudFormation template with inlined state machine definitions and absolute paths of nested templates.
    """
    from samtranslator.yaml_helper import yaml_parse

    source: dict[str, Any] = yaml_parse(template.read_text())
    for logical_id, resource in source["Resources"].items():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::Serverless::StateMachine" and "DefinitionUri" in properties:
            definition = template.parent / properties.pop("DefinitionUri")
            properties["Definition"] = yaml.load(definition.read_text(), Loader=yaml.CSafeLoader)
        if resource["Type"] == "AWS::Serverless::Function" and properties.get("PackageType") == "Image":
            properties.setdefault("ImageUri", f"{logical_id.lower()}:working-tree")  # never pulled
        _resolve_nested_template(resource["Type"], properties, template.parent)
    return transform(source, parameters, region)


def transform(template: dict[str, Any], parameters: Mapping[str, str], region: str) -> dict[str, Any]:
    """Return what the transform AWS::Serverless-2016-10-31 makes of a packaged template, which it modifies.

    Args:
        template: SAM template. Files that it names are in S3.
        parameters: parameters that differ from their defaults.
        region: AWS region of the stack.

    Raises:
        InvalidDocumentException: of samtranslator; the template is invalid.
    """
    import boto3
    from samtranslator.parser.parser import Parser
    from samtranslator.translator.translator import Translator

    translator = Translator(None, Parser(), boto_session=boto3.session.Session(region_name=region))
    translated: dict[str, Any] = translator.translate(template, dict(parameters), get_managed_policy_map=dict)
    translator.metrics.publish()  # to nowhere; otherwise it prints a warning when it is deleted
    return translated


def _resolve_nested_template(resource_type: str, properties: dict[str, Any], folder: Path) -> None:
    """Make the path of a nested stack's template absolute. SAM and CloudFormation read it relative to the parent's."""
    name = NESTED_STACK_TYPES.get(resource_type)
    location = properties.get(name) if name else None
    if name and isinstance(location, str) and "://" not in location:
        properties[name] = str((folder / location).resolve())


def create_stack(client: Any, name: str, template: Mapping[str, Any], parameters: Mapping[str, str]) -> dict[str, str]:
    """Create a stack and return its outputs.

    Args:
        client: boto3 CloudFormation client.
        name: stack name.
        template: CloudFormation template.
        parameters: template parameters by name.

    Raises:
        StackError: a resource cannot be created.
    """
    values = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
    client.create_stack(
        StackName=name, TemplateBody=json.dumps(template), Parameters=values, Capabilities=["CAPABILITY_NAMED_IAM"]
    )
    stack = client.describe_stacks(StackName=name)["Stacks"][0]
    if stack["StackStatus"] != "CREATE_COMPLETE":
        events = client.describe_stack_events(StackName=name)["StackEvents"]
        reason = next(one["ResourceStatusReason"] for one in events if one["ResourceStatus"] == "ROLLBACK_IN_PROGRESS")
        raise StackError(f"The stack {name} was rolled back: {reason}")
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
