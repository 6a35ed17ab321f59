"""Deploy one stack: its repository, its images, and the stack itself."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from infrastructure.deployment import templates
from infrastructure.deployment.images import FOR_SAGEMAKER, PARTS, Images, Repository, image_tag, needed
from infrastructure.deployment.settings import DeployError, Settings, defaults, longest_name, overrides
from infrastructure.deployment.shell import Aws, Shell

_REPOSITORY: Final = "infrastructure/repository.yaml"
_CAPABILITIES: Final = ("CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND")
_COMPLETE: Final = ("CREATE_COMPLETE", "UPDATE_COMPLETE")
_FIRST_FAILED: Final = ("CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED")
_MOST_EVENTS: Final = "500"


@dataclass(frozen=True)
class Deployment:
    """A stack, and the code to deploy.

    Attributes:
        project: folder of the template.
        shell: runs the commands.
        config_env: environment of samconfig.toml, from which sam reads further options.
        settings: what it says.
        given: parameters of this call, which take precedence.
        tags: tags of this call, which take precedence.
        add: parts to add to the stack.
        build: version and commit.
        confirmed: whether to deploy without a question.
    """

    project: Path
    shell: Shell
    config_env: str
    settings: Settings
    given: Mapping[str, str]
    tags: Mapping[str, str]
    add: Sequence[str]
    build: str
    confirmed: bool

    @property
    def explicit(self) -> dict[str, str]:
        """Parameters that this deployment sets, besides image URIs."""
        return {**self.settings.parameters, **self.given, "Build": self.build}

    @property
    def all_tags(self) -> dict[str, str]:
        """Tags of this call and of samconfig.toml."""
        return {**self.settings.tags, **self.tags}

    @property
    def aws(self) -> Aws:
        """The AWS CLI in the Region of the stack."""
        return Aws(self.shell, self.settings.region, self.settings.profile)

    def run(self, images: Images, *, skip_current: bool = False) -> str:
        """Provide the images, deploy the stack, and return the URI of its repository.

        Args:
            images: provides the images.
            skip_current: leave a stack that already has this build, these parameters, tags and templates.
        """
        stack = self._described(self.settings.stack)
        self._check_state(stack)
        uri, parameters = self.prepare(images, parameters_of(stack))
        if skip_current and self._is_current(stack, parameters):
            print(f"{self.settings.stack} in {self.settings.region} has build {self.build}: nothing to do.", flush=True)
            return uri
        settings = self.settings
        tags = [f'"{key}"="{value}"' for key, value in self.all_tags.items()]
        try:
            self.shell.run(
                "sam", "deploy", "--template-file", f"{templates.WRITTEN}/template.yaml",
                "--config-file", str(self.project.resolve() / "samconfig.toml"), "--config-env", self.config_env,
                "--stack-name", settings.stack, "--region", settings.region,
                *(["--profile", settings.profile] if settings.profile else []),
                *(["--role-arn", settings.role_arn] if settings.role_arn else []),
                *(["--s3-bucket", settings.s3_bucket] if settings.s3_bucket else ["--resolve-s3"]),
                "--capabilities", *_CAPABILITIES, "--no-fail-on-empty-changeset",
                "--no-confirm-changeset" if self.confirmed else "--confirm-changeset",
                "--image-repository", uri, *(["--tags", *tags] if tags else []),
                "--parameter-overrides", *overrides(parameters),
            )  # fmt: skip
        except DeployError as error:
            raise DeployError(f"{error}{self._failure(stack)}") from error
        return uri

    def prepare(self, images: Images, deployed: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """Provide the images and write the templates; return the repository's URI and the parameters to deploy."""
        values = {**defaults(self.project), **deployed, **self.explicit}
        for part, parameter in PARTS.items():
            if self.explicit.get(parameter):
                print(f"{parameter} is given, so the {part} keeps that image: {self.explicit[parameter]}")
        flavors = needed(values, self.explicit, self.add)
        self._check_name(values, has_endpoint="endpoint" in flavors or bool(values["SageMakerImageUri"]))
        repository = Repository(self._repository(), self.aws)
        provided = images.provide(repository, dict.fromkeys(["cpu", *flavors.values()]), values)
        if "endpoint" in flavors and (media_type := provided[flavors["endpoint"]][1]) != FOR_SAGEMAKER:
            raise DeployError(
                f"SageMaker does not accept the manifest of the image {flavors['endpoint']} of {self.build}, which is "
                f"{media_type}. Push the image again under another name of the build, e.g. BUILD={self.build}-2."
            )
        if not self.shell.dry_run:
            templates.write(self.project, f"{repository.uri}:{image_tag('cpu', self.build, values)}")
        uris = {PARTS[part]: f"{repository.uri}@{provided[flavor][0]}" for part, flavor in flavors.items()}
        return repository.uri, {**self.explicit, **uris}

    def examine(self) -> None:
        """Check that the stack runs this build, and examine it with pbr doctor.

        Raises:
            DeployError: it runs another one, because its change set was declined, or pbr doctor found a problem.
        """
        runs = parameters_of(self._described(self.settings.stack)).get("Build")
        if runs != self.build and not self.shell.dry_run:
            raise DeployError(f"{self.settings.stack} was not deployed: its change set was not executed.")
        profile = ["env", f"AWS_PROFILE={self.settings.profile}"] if self.settings.profile else []
        try:
            self.shell.run(*profile, "pbr", "doctor", "--stack", self.settings.stack, "--region", self.settings.region)
        except DeployError as error:
            raise DeployError(
                f"{self.settings.stack} is deployed, but pbr doctor found a problem, see above."
            ) from error

    def _check_name(self, values: Mapping[str, str], *, has_endpoint: bool) -> None:
        longest = longest_name(values, has_endpoint=has_endpoint)
        if len(self.settings.stack) > longest:
            raise DeployError(
                f"stack_name={self.settings.stack} is not allowed: with these parameters, it must have at most "
                f"{longest} characters, see docs/how-to/choose-a-host.md."
            )

    def _check_state(self, stack: Mapping[str, Any]) -> None:
        state = stack.get("StackStatus", "")
        blocked = state in _FIRST_FAILED or state.endswith(("_IN_PROGRESS", "_FAILED"))
        if blocked and state != "REVIEW_IN_PROGRESS":  # a change set of a stack to create
            raise DeployError(f"{self.settings.stack} is {state}. {self._remedy(state)}")

    def _is_current(self, stack: Mapping[str, Any], parameters: Mapping[str, str]) -> bool:
        if stack.get("StackStatus") not in _COMPLETE:
            return False
        deployed = parameters_of(stack)
        tags = {one["Key"]: one["Value"] for one in stack.get("Tags", ())}
        if tags != self.all_tags or any(deployed.get(name) != value for name, value in parameters.items()):
            return False
        metadata = self.aws.read(
            "cloudformation", "get-template-summary", "--stack-name", self.settings.stack,
            "--query", "Metadata", "--output", "text",
        )  # fmt: skip
        return templates.digest(self.project) in (metadata or "")

    def _described(self, stack: str) -> dict[str, Any]:
        """Return a stack as CloudFormation describes it; empty if there is none, and in a dry run."""
        text = self.aws.read(
            "cloudformation", "describe-stacks", "--stack-name", stack, "--query", "Stacks[0]", "--output", "json"
        )
        found: dict[str, Any] = json.loads(text or "{}")
        return found

    def _repository(self) -> str:
        """Deploy the stack of the repository, and return the repository's URI."""
        stack = f"{self.settings.stack}-images"
        tags = [f"{key}={value}" for key, value in self.all_tags.items()]
        role = ["--role-arn", self.settings.role_arn] if self.settings.role_arn else []
        self.aws.run(
            "cloudformation", "deploy", "--stack-name", stack, "--template-file", _REPOSITORY, *role,
            "--no-fail-on-empty-changeset", *(["--tags", *tags] if tags else []),
        )  # fmt: skip
        if self.shell.dry_run:
            return "<registry>/<repository>"
        return outputs_of(self._described(stack))["RepositoryUri"]

    def _failure(self, before: Mapping[str, Any]) -> str:
        """Return what failed in the update of a stack, its state, and the remedy; empty if nothing was updated."""
        now = self._described(self.settings.stack)
        state = now.get("StackStatus", "")
        if (
            not state
            or state == "REVIEW_IN_PROGRESS"
            or all(now.get(name) == before.get(name) for name in ("StackId", "StackStatus", "LastUpdatedTime"))
        ):
            return ""
        failed = "".join(f"\n  {line}" for line in self._failed_resources(now["StackId"]))
        return f"{failed}\n{self.settings.stack} is {state}. {self._remedy(state)}"

    def _failed_resources(self, stack: str) -> Iterator[str]:
        """Yield the resources that failed in the newest operation on a stack, and why; nested stacks included."""
        text = self.aws.read(
            "cloudformation", "describe-stack-events", "--stack-name", stack, "--max-items", _MOST_EVENTS,
            "--query", "StackEvents", "--output", "json",
        )  # fmt: skip
        for event in json.loads(text or "[]"):  # the newest is first
            state, reason = event["ResourceStatus"], event.get("ResourceStatusReason", "")
            if event["PhysicalResourceId"] == event["StackId"]:
                if state in ("CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS"):
                    return
                continue
            if not state.endswith("_FAILED") or "cancelled" in reason:
                continue
            nested = event["ResourceType"] == "AWS::CloudFormation::Stack" and event.get("PhysicalResourceId")
            own = f"{event['LogicalResourceId']} ({event['ResourceType']}) {state}: {reason}"
            yield from (list(self._failed_resources(nested)) if nested else []) or [own]

    def _remedy(self, state: str) -> str:
        command = f"--stack-name {self.settings.stack} --region {self.settings.region}"
        if state.endswith("_IN_PROGRESS"):
            return "Wait until this has ended, then deploy again."
        if state in _FIRST_FAILED:
            return (
                f"It never worked and cannot be updated. Delete it with aws cloudformation delete-stack {command}, "
                "delete the buckets and tables that remain, see docs/how-to/remove.md, and deploy again."
            )
        if state == "DELETE_FAILED":
            return f"Remove the cause, and delete it with aws cloudformation delete-stack {command}."
        if state.endswith("_FAILED"):
            verb = "rollback-stack" if state == "UPDATE_FAILED" else "continue-update-rollback"
            return f"Remove the cause, run aws cloudformation {verb} {command}, and deploy again."
        return "It runs as before the update. Remove the cause, and deploy again."


def parameters_of(stack: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters of a stack that CloudFormation describes, by name."""
    return {one["ParameterKey"]: one["ParameterValue"] for one in stack.get("Parameters", ())}


def outputs_of(stack: Mapping[str, Any]) -> dict[str, str]:
    """Return the outputs of a stack that CloudFormation describes, by name."""
    return {one["OutputKey"]: one["OutputValue"] for one in stack.get("Outputs", ())}
