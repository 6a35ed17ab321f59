"""Environments of samconfig.toml, and parameters, tags and the stack's name as AWS and sam accept them."""

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import click
from samcli.cli.types import CfnParameterOverridesType, CfnTags
from samtranslator.yaml_helper import yaml_parse

TEMPLATE: Final = "template.yaml"
_TAG: Final = re.compile(r"(?!(?i:aws:))(?P<key>[\w .:/+@-]{1,128})=(?P<value>[\w .:/=+@-]{0,256})", re.ASCII)


class DeployError(Exception):
    """The deployment cannot start or has failed; the message has the remedy."""


@dataclass(frozen=True)
class Settings:
    """An environment of samconfig.toml.

    Attributes:
        stack: name of the stack.
        region: its Region.
        parameters: template parameters that the file sets.
        tags: tags of the stack that the file sets.
        profile: profile of the AWS CLI; None for that of the environment.
        role_arn: role that CloudFormation uses; None for the permissions of the caller.
        s3_bucket: bucket for templates; None for that of sam.
    """

    stack: str
    region: str
    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    profile: str | None = None
    role_arn: str | None = None
    s3_bucket: str | None = None


def read_settings(config_env: str, project: Path, region: str | None = None, template: str = TEMPLATE) -> Settings:
    """Return an environment of samconfig.toml, in another Region if one is given.

    Raises:
        DeployError: the file has no such environment, or it is of another template, lacks the stack's name or Region,
            or has an unknown parameter.
    """
    tables = tomllib.loads((project / "samconfig.toml").read_text())
    if config_env not in tables:
        known = ", ".join(name for name, table in tables.items() if isinstance(table, dict))
        raise DeployError(f"samconfig.toml has no environment {config_env!r}. Use one of {known}, or add it.")
    values: dict[str, Any] = {}
    for command in ("global", "deploy"):
        values |= tables[config_env].get(command, {}).get("parameters", {})
    if (other := values.get("template_file", TEMPLATE)) != template:
        raise DeployError(f"Environment {config_env!r} of samconfig.toml is of {other}, not of {template}.")
    if region:
        values["region"] = region
    if missing := [name for name in ("stack_name", "region") if not values.get(name)]:
        raise DeployError(f"Environment {config_env!r} of samconfig.toml lacks {' and '.join(missing)}. Add it.")
    try:  # as sam reads them
        given = CfnParameterOverridesType().convert(values.get("parameter_overrides") or ("",), None, None)
        tags = CfnTags().convert(values.get("tags") or ("",), None, None)
    except click.ClickException as error:
        raise DeployError(f"parameter_overrides or tags of samconfig.toml: {error.format_message()}") from error
    if unknown := given.keys() - defaults(project, template).keys():
        raise DeployError(f"samconfig.toml sets {sorted(unknown)[0]}, which is no parameter of {template}.")
    others = (values.get(name) for name in ("profile", "role_arn", "s3_bucket"))
    return Settings(values["stack_name"], values["region"], given, tags, *others)


def parse(pairs: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
    """Return parameters from texts ``NAME=VALUE``, or as sam writes them, ``ParameterKey=NAME,ParameterValue=VALUE``.

    Raises:
        DeployError: a text has another form or no value, or the template has no such parameter.
    """
    values: dict[str, str] = {}
    for text in pairs:
        long = re.fullmatch(r"ParameterKey=(\w+),ParameterValue=(.*)", text, flags=re.DOTALL)
        name, is_pair, value = (long[1], "=", long[2]) if long else text.partition("=")
        if not is_pair and name in known:
            raise DeployError(f"{name} has no value. Use {name}=VALUE.")
        if not is_pair or name not in known:
            raise DeployError(f"{text!r} names no parameter of template.yaml. Use NAME=VALUE, see its Parameters.")
        values[name] = value
    return values


def parse_tags(pairs: Sequence[str]) -> dict[str, str]:
    """Return tags from texts ``KEY=VALUE``.

    Raises:
        DeployError: AWS does not accept a text as a tag.
    """
    tags: dict[str, str] = {}
    for text in pairs:
        if not (found := _TAG.fullmatch(text)):
            raise DeployError(
                f"{text!r} is no tag. Use KEY=VALUE with letters, digits, spaces and _ . : / = + - @. A key has at "
                "most 128 characters and does not begin with aws:, and a value has at most 256."
            )
        tags[found["key"]] = found["value"]
    return tags


def defaults(project: Path, template: str = TEMPLATE) -> dict[str, str]:
    """Return the defaults of a template's parameters."""
    return {name: str(found.get("Default", "")) for name, found in _declared(project, template).items()}


def check(values: Mapping[str, str], project: Path, template: str = TEMPLATE) -> None:
    """Compare parameters with what a template allows, as CloudFormation does only after the images are built.

    Raises:
        DeployError: a value is not allowed.
    """
    declared = _declared(project, template)
    for name, value in values.items():
        if why := _refusal(value, declared[name]):
            raise DeployError(f"{name}={value} is not allowed: {why}.")


def _refusal(value: str, declared: Mapping[str, Any]) -> str:
    """Return what a parameter's value must be; empty if it is that. Lists are left to CloudFormation."""
    if declared["Type"] not in ("String", "Number"):
        return ""
    if allowed := [str(one) for one in declared.get("AllowedValues", [])]:
        return "" if value in allowed else f"it must be one of {', '.join(allowed)}"
    if declared["Type"] == "Number":
        least, most = declared.get("MinValue", -math.inf), declared.get("MaxValue", math.inf)
        try:
            fits = least <= float(value) <= most
        except ValueError:
            return "it must be a number"
        if fits:
            return ""
        return f"it must be at least {least}" if most == math.inf else f"it must be from {least} to {most}"
    if len(value) > declared.get("MaxLength", math.inf):
        return f"it must have at most {declared['MaxLength']} characters"
    pattern = declared.get("AllowedPattern", ".*")
    if re.fullmatch(pattern, value, flags=re.DOTALL):
        return ""
    return f"it {declared.get('ConstraintDescription', f'must match {pattern}').removesuffix('.')}"


def _declared(project: Path, template: str) -> Mapping[str, Any]:
    return _parameters((project / template).read_text())


@cache
def _parameters(template: str) -> Mapping[str, Any]:
    declared: Mapping[str, Any] = yaml_parse(template)["Parameters"]
    return declared


def longest_name(values: Mapping[str, str], *, has_endpoint: bool) -> int:
    """Return how many characters the name of the stack may have: AWS limits the names that begin with it."""
    longest = (
        64 - len("-digest") if values["Operations"] == "true" else 80 - len("-webhooks")
    )  # function, state machine
    if has_endpoint and values["SageMakerMode"] != "transform":
        _, family, size = values["SageMakerInstanceType"].split(".")
        longest = min(longest, 63 - len(f"-{values['SageMakerMode']}-{family}-{size}"))
    return longest


def overrides(values: Mapping[str, str]) -> list[str]:
    """Return parameters as arguments of ``sam --parameter-overrides``.

    Raises:
        DeployError: sam cannot read the value of a parameter, however it is quoted.
    """
    return [_override(name, value) for name, value in values.items()]


def _override(name: str, value: str) -> str:
    if re.fullmatch(r"[\w.:/@-]+", value, flags=re.ASCII):
        return f"{name}={value}"
    # sam takes a backslash away only before a space or a quotation mark.
    escaped = re.sub(r"""\\(?=[ "'])""", r"\\\\", value)
    for quote in ('"', "'"):
        text = f"{name}={quote}" + escaped.replace(quote, f"\\{quote}") + quote
        try:
            read = CfnParameterOverridesType().convert((text,), None, None)
        except click.ClickException:
            continue
        if read == {name: value}:
            return text
    raise DeployError(
        f"sam cannot read the value of {name}: {value!r}. Leave out backslashes at the end and before quotation marks "
        "and line breaks. In JSON, write quotation marks as \\u0022 and \\u0027."
    )
