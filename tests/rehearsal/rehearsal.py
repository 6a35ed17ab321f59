"""Deploys everything to an empty embedded cloud, with the commands that deploy it to AWS."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from botocore.exceptions import WaiterError
from samtranslator.yaml_helper import yaml_parse

from embedded_cloud.cloud import EmbeddedCloud
from tests.conftest import ROOT, client, disc
from tests.rehearsal import docker
from tests.rehearsal.services import NOT_MADE, QUESTIONS, description
from tests.unit.template.test_template import MODELS, OPEN, PSEUDO, Stack

REGION: Final = "us-east-1"  # the edge can be in no other
MAIN: Final = "precision-background-remover-prod"
"""Stack of the environment us-east-1 in samconfig.toml."""

PARAMETERS: Final[Mapping[str, str]] = {
    **{name: value for name, value in OPEN.items() if name != "WebImageUri"},
    **{name: MODELS[1][name] for name in ("AlertEmail", "MonthlyBudget", "BudgetTag")},
    "SourceDays": "90",
    "ResultDays": "180",
    "ApiDomain": "origin.example.com",
    "ApiHostedZoneId": "{zone}",
    "KmsKeyArn": "{rehearsal-key.KeyArn}",
}
"""Parameters of the main stack with all of its parts."""

STAND_ALONE: Final[Mapping[str, Mapping[str, str]]] = {
    "delivery": {
        "GitHubRepository": "octo-org/remover",
        "GitHubEnvironment": "production",
        "StackPrefix": MAIN,
    },
    "edge": {"EdgeDomain": "images.example.com", "HostedZoneId": "{zone}"},
    "global-keys": {"Region2": "us-west-2"},
    "key": {},
    "replica": {},
    "repository": {},
}
"""Parameters of the stacks that are not nested, by the name of their template.

``{name}`` is a fact of the rehearsal, or an output of a stack, e.g. ``{rehearsal-key.KeyArn}``.
"""


class RehearsalError(Exception):
    """Something is not as it must be after a deployment."""


@dataclass(frozen=True, eq=False)
class Resource:
    """A resource that must exist.

    Attributes:
        stack: name of its stack.
        logical_id: of its stack's template.
        type: in CloudFormation.
        values: properties, the physical ID as ``id``, and the end of that as ``name``.
        is_kept: whether it remains when the stack is deleted.
    """

    stack: str
    logical_id: str
    type: str
    values: Mapping[str, Any]
    is_kept: bool


def stand_alone_templates() -> list[str]:
    """Return the names of the templates in infrastructure/ that are deployed as stacks of their own."""
    resources = yaml_parse((ROOT / "template.yaml").read_text())["Resources"].values()
    nested = {Path(one["Properties"]["Location"]).stem for one in resources if "Location" in one.get("Properties", {})}
    return sorted({path.stem for path in (ROOT / "infrastructure").glob("*.yaml")} - nested)


class Deployed(Stack):
    """A deployed stack as CloudFormation must have resolved its template; references are physical IDs."""

    def __init__(
        self, template: dict[str, Any], parameters: Mapping[str, str], name: str, physical_ids: Mapping[str, str]
    ) -> None:
        self._template, self._nested = template, {}
        self._pseudo = {**PSEUDO, "AWS::Region": REGION, "AWS::StackName": name}
        self._physical_ids = physical_ids
        self._values = {
            key: parameters[key].split(",") if facts["Type"] == "CommaDelimitedList" else parameters[key]
            for key, facts in template.get("Parameters", {}).items()
        }
        self._made = self._those_made("Resources")
        if missing := self._made - physical_ids.keys():
            raise RehearsalError(f"Stack {name} lacks {', '.join(sorted(missing))}.")
        if surplus := physical_ids.keys() - self._made:
            raise RehearsalError(f"Stack {name} should not have {', '.join(sorted(surplus))}.")
        self.resources = {name: self._resolve(template["Resources"][name]) for name in self._made}

    def _child(self, _name: str) -> None:
        """Nested stacks are deployed stacks of their own."""

    def _ref(self, name: str) -> Any:
        return self._physical_ids.get(name) or super()._ref(name)


@dataclass
class Rehearsal:
    """An embedded cloud, and a copy of the templates that are deployed there.

    Attributes:
        cloud: it starts empty.
        project: folder with the templates.
        environment: of the commands.
        facts: values of ``{name}`` in parameters.
    """

    cloud: EmbeddedCloud
    project: Path
    environment: Mapping[str, str]
    facts: dict[str, str] = field(default_factory=dict)

    def client(self, service: str) -> Any:
        """Return the boto3 client of a service."""
        return client(service, self.cloud.endpoint_url, REGION)

    def run(self, *command: str, fails: bool = False) -> str:
        """Run a command, and return its output.

        Raises:
            RehearsalError: it failed, or it did not fail although it should.
        """
        print(f"$ {' '.join(command)}", flush=True)
        done = subprocess.run(
            command, cwd=self.project, env=self.environment, capture_output=True, text=True, check=False
        )
        if bool(done.returncode) is not fails:
            raise RehearsalError(f"{done.stdout}{done.stderr}\nThe exit status was {done.returncode}.")
        return done.stdout + done.stderr

    def deploy(self, build: str, parameters: Mapping[str, str], *, fails: bool = False) -> str:
        """Deploy the main stack as ``make deploy`` does, and return the output."""
        given = " ".join(self._filled(parameters))
        return self.run(
            "python", "-m", "infrastructure.deploy", "--project", str(self.project), "--config-env", REGION,
            "--build", build, "--parameters", given, "--add", "worker endpoint web", "--yes", fails=fails,
        )  # fmt: skip

    def deploy_alone(self, name: str) -> None:
        """Deploy a template that is not nested."""
        if name not in STAND_ALONE:
            raise RehearsalError(
                f"The rehearsal has no parameters for infrastructure/{name}.yaml. Add it to STAND_ALONE."
            )
        values = self._filled(STAND_ALONE[name])
        if name == "edge":  # it has a tool of its own, which collects most parameters
            self.run(
                "python", "-m", "infrastructure.edge", "--project", str(self.project), "--envs", REGION,
                "--parameters", " ".join(values), "--yes",
            )  # fmt: skip
            return
        self.run(
            "aws", "cloudformation", "deploy", "--stack-name", f"rehearsal-{name}",
            "--template-file", f"infrastructure/{name}.yaml", "--capabilities", "CAPABILITY_NAMED_IAM",
            *(["--parameter-overrides", *values] if values else []),
        )  # fmt: skip

    def _filled(self, parameters: Mapping[str, str]) -> list[str]:
        """Return parameters as arguments, with the values of facts and outputs."""
        facts = dict(self.facts)
        for stack in self.stacks():
            facts |= {f"{stack['StackName']}.{name}": value for name, value in _outputs(stack).items()}
        return [
            f"{name}={re.sub(r'{([^}]+)}', lambda match: facts[match[1]], value)}" for name, value in parameters.items()
        ]

    def status(self, name: str) -> str:
        """Return the status of a stack."""
        [stack] = self.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
        return str(stack["StackStatus"])

    def stacks(self) -> list[dict[str, Any]]:
        """Return the descriptions of all stacks, nested ones included, except that of sam."""
        pages = self.client("cloudformation").get_paginator("describe_stacks").paginate()
        return [one for page in pages for one in page["Stacks"] if one["StackName"] != "aws-sam-cli-managed-default"]

    def failed_deletions(self) -> str:
        """Return the resources that could not be deleted, and why; empty if there are none."""
        stacks = self.client("cloudformation")
        events = [
            event
            for one in self.stacks()
            for event in stacks.describe_stack_events(StackName=one["StackId"])["StackEvents"]
        ]
        failed = [event for event in events if event["ResourceStatus"] == "DELETE_FAILED"]
        return "\n".join(f"{one['LogicalResourceId']}: {one['ResourceStatusReason']}" for one in failed)

    def resources(self) -> Iterator[Resource]:
        """Yield all resources that the templates of the deployed stacks create."""
        cloudformation = self.client("cloudformation")
        for stack in self.stacks():
            name = stack["StackName"]
            template = cloudformation.get_template(StackName=name, TemplateStage="Processed")["TemplateBody"]
            listed = cloudformation.list_stack_resources(StackName=name)["StackResourceSummaries"]
            parameters = {one["ParameterKey"]: one["ParameterValue"] for one in stack.get("Parameters", [])}
            physical_ids = {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in listed}
            for logical_id, found in Deployed(template, parameters, name, physical_ids).resources.items():
                physical_id = physical_ids[logical_id]
                values = {**found.get("Properties", {}), "id": physical_id, "name": physical_id.rpartition("/")[2]}
                is_kept = found.get("DeletionPolicy", "Delete") != "Delete"
                yield Resource(name, logical_id, found["Type"], values, is_kept)

    def describe(self, resources: Iterable[Resource]) -> dict[Resource, Any]:
        """Return what the services say about resources; those that the embedded cloud cannot make are left out.

        Raises:
            RehearsalError: the rehearsal cannot ask for a type.
        """
        asked = [one for one in resources if one.type not in NOT_MADE]
        if unknown := {one.type for one in asked} - QUESTIONS.keys():
            raise RehearsalError(f"Add {', '.join(sorted(unknown))} to QUESTIONS or NOT_MADE.")
        return {one: description(self.client, one.type, one.values) for one in asked}

    def process_image(self, seed: int) -> None:
        """Upload an image, and wait for its result."""
        [stack] = self.client("cloudformation").describe_stacks(StackName=MAIN)["Stacks"]
        outputs, s3, key = _outputs(stack), self.client("s3"), f"rehearsal-{seed}.png"
        s3.put_object(Bucket=outputs["UploadsBucket"], Key=key, Body=disc(seed=seed))
        result = f"results/{key}.png"
        try:
            s3.get_waiter("object_exists").wait(
                Bucket=outputs["ResultsBucket"], Key=result, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
            )
        except WaiterError as error:
            raise RehearsalError(f"The image has no result {result} after a minute.") from error


def _outputs(stack: Mapping[str, Any]) -> dict[str, str]:
    return {one["OutputKey"]: one["OutputValue"] for one in stack.get("Outputs", [])}


@contextmanager
def rehearsal() -> Iterator[Rehearsal]:
    """Start an empty cloud, with stand-ins for the commands that need Docker."""
    os.environ["AWS_DEFAULT_REGION"] = REGION
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedCloud(ROOT / "template.yaml", alarm_interval_s=None, is_empty=True) as cloud,
    ):
        project, tools = Path(folder, "project"), Path(folder, "bin")
        for name in ("infrastructure", "statemachine"):
            shutil.copytree(ROOT / name, project / name)
        for name in ("template.yaml", "samconfig.toml", "pyproject.toml"):
            shutil.copy(ROOT / name, project)
        tools.mkdir()
        docker.install(tools)
        environment = {
            **os.environ,
            **cloud.environment,
            "PATH": os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT),
            "SAM_CLI_TELEMETRY": "0",
            "SAM_CLI_POLL_DELAY": "1",  # seconds between its calls
        }
        yield Rehearsal(cloud, project, environment)
