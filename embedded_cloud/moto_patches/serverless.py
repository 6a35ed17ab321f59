"""CloudFormation: templates with the transform AWS::Serverless-2016-10-31."""

import functools
import json
from copy import deepcopy
from typing import Any, Final

from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import Stack
from moto.cloudformation.responses import CloudFormationResponse
from moto.core.responses import ActionResult
from samtranslator.model.exceptions import InvalidDocumentException
from samtranslator.yaml_helper import yaml_parse

from embedded_cloud.deploy import transform
from embedded_cloud.moto_patches.around import around

TRANSFORM: Final = "AWS::Serverless-2016-10-31"

_parse = functools.lru_cache(maxsize=32)(yaml_parse)


def processed(template: str, parameters: dict[str, Any], region: str) -> dict[str, Any]:
    """Return a template as CloudFormation executes it.

    Raises:
        ValidationError: SAM does not accept the template.
    """
    source: dict[str, Any] = Stack.parse_template(template)
    if TRANSFORM not in transforms(source):
        return source
    try:
        return transform(source, parameters, region)
    except InvalidDocumentException as error:
        raise ValidationError(message=f"Transform {TRANSFORM} failed with: {error.message}") from error


def transforms(template: dict[str, Any]) -> list[str]:
    """Return the names of the transforms that a template declares."""
    declared = template.get("Transform", [])
    return declared if isinstance(declared, list) else [declared]


@around(Stack, "parse_template")
def read_short_forms(_original: Any, template: str) -> dict[str, Any]:
    """AWS reads ``!Condition Name`` as the condition; moto as a function that it does not have."""
    parsed: dict[str, Any] = deepcopy(_parse(template))
    return parsed


@around(Stack, "__init__")
def know_the_parameters_first(
    original: Any,
    self: Any,
    stack_id: str,
    name: str,
    template: Any,
    parameters: dict[str, str],
    account_id: str,
    region_name: str,
    *args: Any,
    **kwargs: Any,
) -> None:
    """AWS transforms a template with the values of its parameters; moto reads the template before them."""
    self.parameters, self.region_name = parameters, region_name
    original(self, stack_id, name, template, parameters, account_id, region_name, *args, **kwargs)


@around(Stack, "_parse_template")
def transform_template(_original: Any, self: Any) -> None:
    """AWS executes what the transform makes of a template; moto the template itself, and drops types of SAM."""
    self.template_dict = processed(self.template, self.parameters, self.region_name)


@around(CloudFormationResponse, "get_template")
def get_processed_template(_original: Any, self: Any) -> ActionResult:
    """AWS returns the submitted template, or with ``Processed`` what the transform made of it; moto the former."""
    stack = self.cloudformation_backend.get_stack(self._get_param("StackName"))
    body = json.dumps(stack.template_dict) if self._get_param("TemplateStage") == "Processed" else stack.template
    return ActionResult({"TemplateBody": body, "StagesAvailable": ["Original", "Processed"]})
