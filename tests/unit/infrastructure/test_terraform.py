"""The Terraform module has the parameters and outputs of template.yaml. It is parsed here, not applied."""

import re
from typing import Any

import hcl2
import pytest
from samtranslator.yaml_helper import yaml_parse

from infrastructure.terraform import generate
from tests.conftest import ROOT

TEMPLATE = yaml_parse((ROOT / "template.yaml").read_text())
PARAMETERS: dict[str, dict[str, Any]] = TEMPLATE["Parameters"]
STACK = "aws_cloudformation_stack.this"


def parsed(name: str) -> dict[str, Any]:
    """Return a file of the module, with plain texts for literals."""
    return unquoted(hcl2.loads((generate.FOLDER / name).read_text()))


def unquoted(value: Any) -> Any:
    if isinstance(value, dict):
        return {unquoted(key): unquoted(one) for key, one in value.items()}
    if isinstance(value, list):
        return [unquoted(one) for one in value]
    return literal(value) if isinstance(value, str) and value.startswith('"') else value


def literal(text: str) -> str:
    """Return the text of a literal of HCL, which escapes as JSON does, and ``${`` by doubling the ``$``."""
    return re.sub(r"\\(.)", r"\1", text[1:-1]).replace("$${", "${").replace("%%{", "%{")


def labelled(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: block for one in blocks for name, block in one.items()}


def given(value: Any) -> str:
    """Return the text that CloudFormation gets for a value of Terraform."""
    if isinstance(value, list):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


VARIABLES = labelled(parsed("variables.tf")["variable"])


def test_generated_files_are_up_to_date():
    for name, text in generate.files(TEMPLATE).items():
        assert (generate.FOLDER / name).read_text() == text, f"{name}: run make reference"


def test_each_parameter_has_a_variable_and_the_stack_gets_its_value():
    [values] = [block["parameters"] for block in parsed("variables.tf")["locals"]]

    assert list(values) == list(PARAMETERS)
    used = {name: re.findall(r"\bvar\.(\w+)", value) for name, value in values.items()}
    assert [one for names in used.values() for one in names] == list(VARIABLES)
    assert all(re.sub("_", "", names[0]) == name.lower() for name, names in used.items())
    stack = parsed("main.tf")["resource"][0]["aws_cloudformation_stack"]["this"]
    assert stack["parameters"] == "${local.parameters}"


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_variable_accepts_what_its_parameter_accepts(name):
    parameter, variable = PARAMETERS[name], VARIABLES[generate.variable_name(name)]
    conditions = " && ".join(check["condition"] for check in variable.get("validation", []))

    assert variable["description"] == parameter["Description"]
    assert given(variable["default"]) == str(parameter["Default"])
    if variable["type"] == "bool":
        assert sorted(parameter["AllowedValues"]) == ["false", "true"]
        return
    accepted = re.findall(r"contains\(\[(.*?)\]", conditions)
    assert [one.strip(' "') for text in accepted for one in re.split(r',\s*(?=["\d])', text)] == [
        str(value) for value in parameter.get("AllowedValues", [])
    ]
    bounds = {">=": parameter.get("MinValue"), "<=": parameter.get("MaxValue", parameter.get("MaxLength"))}
    for sign, bound in bounds.items():
        found = re.findall(rf"{sign} (\d+)", conditions)
        assert found == ([] if bound is None else [str(bound)])
    patterns = [literal(found) for found in re.findall(r'regex\(("(?:[^"\\]|\\.)*")', conditions)]
    assert patterns == ([parameter["AllowedPattern"]] if "AllowedPattern" in parameter else [])


def test_each_output_of_the_stack_is_an_output_and_null_if_the_stack_may_lack_it():
    outputs = labelled(parsed("outputs.tf")["output"])

    expected = {
        generate.variable_name(name): f'${{lookup({STACK}.outputs, "{name}", null)}}'
        if "Condition" in one
        else f'${{{STACK}.outputs["{name}"]}}'
        for name, one in TEMPLATE["Outputs"].items()
    }
    assert {name: one["value"] for name, one in outputs.items()} == expected


def test_the_stack_gets_the_capabilities_that_the_template_needs():
    stack = parsed("main.tf")["resource"][0]["aws_cloudformation_stack"]["this"]

    assert stack["capabilities"] == ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]


def test_variables_of_the_module_have_names_of_their_own():
    own = labelled(parsed("main.tf")["variable"])

    assert not own.keys() & VARIABLES.keys()
    assert not (own.keys() | VARIABLES.keys()) & {"source", "version", "providers", "count", "for_each", "depends_on"}


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("SageMakerMaxCount", "sagemaker_max_count"),
        ("KmsKeyArn", "kms_key_arn"),
        ("DeploymentType", "deployment_type"),
    ],
)
def test_names_are_in_snake_case(name, variable):
    assert generate.variable_name(name) == variable


def test_interpolation_in_a_description_is_a_text():
    template = {
        "Parameters": {"Name": {"Type": "String", "Default": "a\\b", "Description": 'Uses ${x} and "y".'}},
        "Outputs": {},
    }

    variables = unquoted(hcl2.loads(generate.files(template)["variables.tf"]))["variable"]

    assert labelled(variables)["name"]["default"] == "a\\b"
    assert labelled(variables)["name"]["description"] == 'Uses ${x} and "y".'
