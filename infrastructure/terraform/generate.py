"""Write what the Terraform module takes over from template.yaml: ``make reference``.

``variables.tf`` has a variable for each parameter, and the values that ``main.tf`` gives to the stack.
``outputs.tf`` has the outputs.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import hcl2
from samtranslator.yaml_helper import yaml_parse

FOLDER: Final = Path(__file__).parent
TEMPLATE: Final = FOLDER.parent.parent / "template.yaml"

_HEAD: Final = "# Generated from template.yaml: make reference\n\n"
_BOOLEAN: Final = {"true", "false"}
_LIST: Final = "CommaDelimitedList"


def main() -> None:
    """Update the generated files of the module."""
    for name, text in files(yaml_parse(TEMPLATE.read_text())).items():
        path = FOLDER / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"updated {path}")


def files(template: Mapping[str, Any]) -> dict[str, str]:
    """Return the generated files by name."""
    parameters, outputs = template["Parameters"], template["Outputs"]
    variables = [_block("variable", variable_name(name), _variable(name, one)) for name, one in parameters.items()]
    values = {name: f"${{{_value(name, one)}}}" for name, one in parameters.items()}
    blocks = [_block("output", variable_name(name), _output(name, one)) for name, one in outputs.items()]
    return {
        "variables.tf": _text([*variables, {"locals": [{"parameters": values, "__is_block__": True}]}]),
        "outputs.tf": _text(blocks),
    }


def variable_name(name: str) -> str:
    """Return the name of a parameter or an output in Terraform, e.g. ``sagemaker_mode`` for ``SageMakerMode``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name.replace("SageMaker", "Sagemaker")).lower()


def variable_type(parameter: Mapping[str, Any]) -> str:
    """Return the type of the variable of a parameter."""
    if parameter["Type"] == _LIST:
        return "list(string)"
    if set(parameter.get("AllowedValues", ())) == _BOOLEAN:
        return "bool"
    return "number" if parameter["Type"] == "Number" else "string"


def _variable(name: str, parameter: Mapping[str, Any]) -> dict[str, Any]:
    variable = {
        "type": f"${{{variable_type(parameter)}}}",
        "description": _quoted(parameter["Description"]),
        "default": _default(parameter),
        "nullable": False,
    }
    if checks := _checks(f"var.{variable_name(name)}", parameter):
        variable["validation"] = [
            {
                "condition": f"${{{condition}}}",
                "error_message": _quoted(f"{variable_name(name)} {message}."),
                "__is_block__": True,
            }
            for condition, message in checks
        ]
    return variable


def _checks(reference: str, parameter: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return condition and message of what CloudFormation accepts, so that ``terraform plan`` says it."""
    if variable_type(parameter) in ("bool", "list(string)"):
        return []
    checks = []
    if allowed := parameter.get("AllowedValues"):
        values = ", ".join(_literal(parameter, value) for value in allowed)
        return [(f"contains([{values}], {reference})", f"must be one of {', '.join(str(one) for one in allowed)}")]
    if "MinValue" in parameter:
        checks.append((f"{reference} >= {parameter['MinValue']}", f"must be at least {parameter['MinValue']}"))
    if "MaxValue" in parameter:
        checks.append((f"{reference} <= {parameter['MaxValue']}", f"must be at most {parameter['MaxValue']}"))
    if "MaxLength" in parameter:
        longest = parameter["MaxLength"]
        checks.append((f"length({reference}) <= {longest}", f"must have at most {longest} characters"))
    if pattern := parameter.get("AllowedPattern"):
        message = parameter.get("ConstraintDescription", f"must match {pattern}").removesuffix(".")
        checks.append((f"can(regex({_quoted(pattern)}, {reference}))", message))
    return checks


def _default(parameter: Mapping[str, Any]) -> Any:
    value = parameter["Default"]
    if parameter["Type"] == _LIST:
        return [_quoted(one) for one in value.split(",") if one]
    if variable_type(parameter) == "bool":
        return value == "true"
    return int(value) if parameter["Type"] == "Number" else _quoted(value)


def _literal(parameter: Mapping[str, Any], value: Any) -> str:
    return str(int(value)) if parameter["Type"] == "Number" else _quoted(str(value))


def _value(name: str, parameter: Mapping[str, Any]) -> str:
    reference = f"var.{variable_name(name)}"
    return f'join(",", {reference})' if parameter["Type"] == _LIST else reference


def _output(name: str, output: Mapping[str, Any]) -> dict[str, Any]:
    outputs = "aws_cloudformation_stack.this.outputs"
    conditional = "Condition" in output
    return {
        "description": _quoted(output["Description"] + (" (null if the stack has none)" if conditional else "")),
        "value": f'${{lookup({outputs}, "{name}", null)}}' if conditional else f'${{{outputs}["{name}"]}}',
    }


def _quoted(text: str) -> str:
    """Return a text as a literal of HCL."""
    return json.dumps(text, ensure_ascii=False).replace("${", "$${").replace("%{", "%%{")


def _block(kind: str, label: str, content: Mapping[str, Any]) -> dict[str, Any]:
    return {kind: [{f'"{label}"': {**content, "__is_block__": True}}]}


def _text(blocks: list[dict[str, Any]]) -> str:
    written = "\n\n".join(hcl2.dumps(block).strip() for block in blocks)
    on_one_line = re.sub(r"\[\n([^\]]*)\n *\]", lambda found: f"[{' '.join(found[1].split())}]", written)
    return _HEAD + re.sub(r" +$", "", on_one_line, flags=re.MULTILINE) + "\n"


if __name__ == "__main__":
    main()
