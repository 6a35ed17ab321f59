"""Build all images of one commit and deploy the stack with them: ``make deploy``.

``sam build`` builds the image of the functions. The worker, the endpoint and the web page get images of the same
Dockerfile and commit in the same ``sam deploy``: no part of a stack runs other code than the rest. The repository of
``infrastructure/repository.yaml`` has them all.

An image is pushed once per build and build arguments, so a second run without changes changes nothing. ``sam deploy``
pushes none: it would push the image of the functions once for each of them, under a tag that may not change.
"""

import argparse
import hashlib
import json
import math
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import click
from samcli.cli.types import CfnParameterOverridesType, CfnTags
from samcli.yamlhelper import yaml_dump
from samtranslator.yaml_helper import yaml_parse

IMAGE_PATHS: Final = (
    "Dockerfile", ".dockerignore", "entrypoint.sh", "LICENSE", "NOTICE", "licenses", "requirements",
    "core", "functions", "client", "web",
)  # fmt: skip
"""What the images are made of."""

PARTS: Final = {"worker": "WorkerImageUri", "endpoint": "SageMakerImageUri", "web": "WebImageUri"}
"""Parts of a stack with an image of their own, and the parameter with its URI."""

_BUILD: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_TAG: Final = re.compile(r"(?!(?i:aws:))(?P<key>[\w .:/+@-]{1,128})=(?P<value>[\w .:/=+@-]{0,256})", re.ASCII)
_CONTAINERD: Final = "io.containerd.snapshotter"  # https://docs.docker.com/engine/storage/containerd/
_FOR_SAGEMAKER: Final = "application/vnd.docker.distribution.manifest.v2+json"
"""CreateModel rejects manifests of OCI, see https://github.com/aws/amazon-sagemaker-feedback/issues/180."""
_FORMAT: Final = (
    "--platform",
    "linux/amd64",
    "--provenance=false",
    "--sbom=false",
    "--output",
    "type=registry,oci-mediatypes=false",
)
"""Options of docker buildx build: push such a manifest, also from Apple silicon. An attestation would need OCI."""
_MISSING: Final = ("ImageNotFoundException", "does not exist")
_REPOSITORY: Final = "infrastructure/repository.yaml"
_BUILT: Final = ".aws-sam/build"


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
    """

    stack: str
    region: str
    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    profile: str | None = None


@dataclass
class Shell:
    """Runs commands, and prints those that change something.

    Attributes:
        folder: that they run in.
        dry_run: print them only, and read nothing from AWS.
    """

    folder: Path
    dry_run: bool

    def run(self, *command: str, stdin: str | None = None) -> None:
        """Run a command.

        Raises:
            DeployError: it failed. Its output is on the terminal.
        """
        print(f"$ {shlex.join(command)}", flush=True)
        if not self.dry_run:
            done = subprocess.run(command, cwd=self.folder, input=stdin, text=True, check=False)  # noqa: S603  trusted
            if done.returncode:
                raise DeployError(f"{command[0]} {command[1]} failed with exit status {done.returncode}, see above.")

    def read(self, *command: str) -> str | None:
        """Return the output of a command; None if what it describes does not exist, and in a dry run.

        Raises:
            DeployError: it failed for another reason.
        """
        if self.dry_run:
            return None
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)  # noqa: S603  trusted
        if done.returncode and any(text in done.stderr for text in _MISSING):
            return None
        if done.returncode:
            raise DeployError(f"{shlex.join(command)} failed: {done.stderr.strip()}")
        return done.stdout.strip()


@dataclass(frozen=True)
class Deployment:
    """A stack, and the code to deploy.

    Attributes:
        project: folder of the template.
        shell: runs the commands.
        config_env: environment of samconfig.toml.
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

    def run(self) -> None:
        """Build, push and deploy."""
        values = {**defaults(self.project), **self._current(), **self.explicit}
        for part, parameter in PARTS.items():
            if self.explicit.get(parameter):
                print(f"{parameter} is given, so the {part} keeps that image: {self.explicit[parameter]}")
        flavors = images(values, self.explicit, self.add)
        longest = longest_name(values, has_endpoint="endpoint" in flavors or bool(values["SageMakerImageUri"]))
        if len(self.settings.stack) > longest:
            raise DeployError(
                f"stack_name={self.settings.stack} is not allowed: with these parameters, it must have at most "
                f"{longest} characters, see docs/how-to/choose-a-host.md."
            )
        repository = self._repository()
        self.shell.run(
            "sam", "build", "--config-env", self.config_env, "--parameter-overrides", *overrides(build_values(values))
        )
        digests = self._pushed(repository, flavors, values)
        if not self.shell.dry_run:
            set_image(self.project / _BUILT, f"{repository}:{image_tag('cpu', self.build, values)}")
        uris = {PARTS[part]: f"{repository}@{digests[flavor]}" for part, flavor in flavors.items()}
        confirm = ["--no-confirm-changeset"] if self.confirmed else []
        tags = [f'"{key}"="{value}"' for key, value in self.all_tags.items()]
        self.shell.run(
            "sam", "deploy", "--config-env", self.config_env, "--no-fail-on-empty-changeset", *confirm,
            "--image-repository", repository, *(["--tags", *tags] if tags else []),
            "--parameter-overrides", *overrides({**self.explicit, **uris}),
        )  # fmt: skip

    def _current(self) -> dict[str, str]:
        """Return the parameters of the deployed stack; none if there is no stack, and in a dry run."""
        return self._described(self.settings.stack, "Parameters")

    def _described(self, stack: str, section: str) -> dict[str, str]:
        """Return the ``Parameters`` or ``Outputs`` of a stack; none if there is no stack, and in a dry run."""
        text = self._aws(
            "cloudformation", "describe-stacks", "--stack-name", stack,
            "--query", f"Stacks[0].{section}", "--output", "json",
        )  # fmt: skip
        kind = section.removesuffix("s")
        return {one[f"{kind}Key"]: one[f"{kind}Value"] for one in json.loads(text or "null") or ()}

    def _repository(self) -> str:
        """Deploy the stack of the repository, and return the repository's URI."""
        stack = f"{self.settings.stack}-images"
        tags = [f"{key}={value}" for key, value in self.all_tags.items()]
        self.shell.run(
            *self._command("cloudformation", "deploy", "--stack-name", stack, "--template-file", _REPOSITORY),
            "--no-fail-on-empty-changeset", *(["--tags", *tags] if tags else []),
        )  # fmt: skip
        return "<registry>/<repository>" if self.shell.dry_run else self._described(stack, "Outputs")["RepositoryUri"]

    def _pushed(self, repository: str, flavors: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
        """Return the digest of the image of each flavor, and push those that the repository lacks."""
        digests: dict[str, str] = {}
        for flavor in dict.fromkeys(["cpu", *flavors.values()]):
            uri = f"{repository}:{image_tag(flavor, self.build, values)}"
            if (image := self._image(uri)) is None:
                self._push(flavor, uri, values)
                image = self._image(uri) or ("sha256:<digest>", _FOR_SAGEMAKER)
            digests[flavor], media_type = image
            if flavor == flavors.get("endpoint") and media_type != _FOR_SAGEMAKER:
                raise DeployError(
                    f"SageMaker does not accept the manifest of {uri}, which is {media_type}. Push the image "
                    f"again under another name of the build, e.g. BUILD={self.build}-2."
                )
        return digests

    def _push(self, flavor: str, uri: str, values: Mapping[str, str]) -> None:
        registry = uri.partition("/")[0]
        password = self._aws("ecr", "get-login-password")
        self.shell.run("docker", "login", "--username", "AWS", "--password-stdin", registry, stdin=password)
        if flavor == "cpu" and not self._stores_oci():  # that of the functions
            self.shell.run("docker", "tag", functions_image(self.project, dry_run=self.shell.dry_run), uri)
            self.shell.run("docker", "push", uri)
            return
        try:
            self.shell.read("docker", "buildx", "version")
        except DeployError as error:
            remedy = "Install Docker Buildx, see https://docs.docker.com/build/install-buildx/."
            raise DeployError(f"The image {flavor} needs docker buildx: {error} {remedy}") from error
        arguments = [word for pair in build_arguments(flavor, self.build, values) for word in ("--build-arg", pair)]
        self.shell.run(
            "docker", "buildx", "build", "--target", flavor, *arguments, *_FORMAT, "--tag", uri, "."
        )  # fmt: skip

    def _stores_oci(self) -> bool:
        """Return whether Docker keeps images in containerd's store, and so pushes manifests of OCI."""
        status = self.shell.read("docker", "info", "--format", "{{json .DriverStatus}}")
        return _CONTAINERD in (status or "")

    def _image(self, uri: str) -> tuple[str, str] | None:
        """Return digest and media type of an image; None if it does not exist."""
        repository, _, tag = uri.partition("/")[2].partition(":")
        text = self._aws(
            "ecr", "describe-images", "--repository-name", repository, "--image-ids", f"imageTag={tag}",
            "--query", "imageDetails[0].[imageDigest,imageManifestMediaType]", "--output", "text",
        )  # fmt: skip
        if text is None:
            return None
        digest, media_type = text.split()
        return digest, media_type

    def _aws(self, *words: str) -> str | None:
        return self.shell.read(*self._command(*words))

    def _command(self, *words: str) -> list[str]:
        profile = ["--profile", self.settings.profile] if self.settings.profile else []
        return ["aws", *words, "--region", self.settings.region, *profile]


def read_settings(config_env: str, project: Path) -> Settings:
    """Return an environment of samconfig.toml.

    Raises:
        DeployError: the file has no such environment, or it lacks the stack's name or Region, or it has an unknown
            parameter.
    """
    tables = tomllib.loads((project / "samconfig.toml").read_text())
    if config_env not in tables:
        known = ", ".join(name for name, table in tables.items() if isinstance(table, dict))
        raise DeployError(f"samconfig.toml has no environment {config_env!r}. Use one of {known}, or add it.")
    values: dict[str, Any] = {}
    for command in ("global", "deploy"):
        values |= tables[config_env].get(command, {}).get("parameters", {})
    if missing := [name for name in ("stack_name", "region") if not values.get(name)]:
        raise DeployError(f"Environment {config_env!r} of samconfig.toml lacks {' and '.join(missing)}. Add it.")
    try:  # as sam reads them
        given = CfnParameterOverridesType().convert(values.get("parameter_overrides") or ("",), None, None)
        tags = CfnTags().convert(values.get("tags") or ("",), None, None)
    except click.ClickException as error:
        raise DeployError(f"parameter_overrides or tags of samconfig.toml: {error.format_message()}") from error
    if unknown := given.keys() - defaults(project).keys():
        raise DeployError(f"samconfig.toml sets {sorted(unknown)[0]}, which is no parameter of template.yaml.")
    return Settings(values["stack_name"], values["region"], given, tags, values.get("profile"))


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


def defaults(project: Path) -> dict[str, str]:
    """Return the defaults of the template's parameters."""
    return {name: str(found.get("Default", "")) for name, found in _declared(project).items()}


def check(values: Mapping[str, str], project: Path) -> None:
    """Compare parameters with what the template allows, as CloudFormation does only after the images are built.

    Raises:
        DeployError: a value is not allowed.
    """
    declared = _declared(project)
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


def _declared(project: Path) -> Mapping[str, Any]:
    return _parameters((project / "template.yaml").read_text())


@cache
def _parameters(template: str) -> Mapping[str, Any]:
    declared: Mapping[str, Any] = yaml_parse(template)["Parameters"]
    return declared


def images(values: Mapping[str, str], explicit: Mapping[str, str], add: Sequence[str]) -> dict[str, str]:
    """Return the flavor of the image of each part that gets one from this deployment.

    A part that the stack has gets a new image. An image URI in ``explicit`` is the caller's decision: it stays, and an
    empty one removes the part.
    """
    on_sagemaker = values["SegmentationHost"] == "sagemaker" or values["SageMakerMode"] == "transform"
    needed = {
        "worker": values["SegmentationHost"] == "ecs",
        "endpoint": on_sagemaker and not values["SageMakerEndpointName"],
        "web": bool(values["WebDomain"]),
    }
    gpu_worker = values["SegmentationCapacity"].startswith("GPU")
    types = [values["SageMakerInstanceType"], values["BulkTransformInstanceType"]]
    gpu_endpoint = any(name.startswith("ml.g") for name in types)
    flavors = {"worker": "gpu" if gpu_worker else "cpu", "endpoint": "gpu" if gpu_endpoint else "cpu", "web": "web"}
    return {
        part: flavors[part]
        for part, parameter in PARTS.items()
        if parameter not in explicit and (needed[part] or values[parameter] or part in add)
    }


def longest_name(values: Mapping[str, str], *, has_endpoint: bool) -> int:
    """Return how many characters the name of the stack may have: AWS limits the names that begin with it."""
    longest = (
        64 - len("-digest") if values["Operations"] == "true" else 80 - len("-webhooks")
    )  # function, state machine
    if has_endpoint and values["SageMakerMode"] != "transform":
        _, family, size = values["SageMakerInstanceType"].split(".")
        longest = min(longest, 63 - len(f"-{values['SageMakerMode']}-{family}-{size}"))
    return longest


def build_values(values: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters that the build arguments of the functions' image depend on."""
    names = ("Build", "DefaultModel", "EscalateOnReview", "EscalationModel", "CustomModels", "ModelMirror")
    return {name: values[name] for name in names}


def build_arguments(flavor: str, build: str, values: Mapping[str, str]) -> list[str]:
    """Return the build arguments of a flavor, those of the template's functions for ``cpu`` and ``gpu``."""
    if flavor == "web":
        return [f"PBR_BUILD={build}"]
    models = [values["DefaultModel"], *([values["EscalationModel"]] if values["EscalateOnReview"] == "true" else [])]
    return [
        f"MODELS={' '.join(models)}",
        f"CUSTOM_MODELS={values['CustomModels']}",
        f"MODEL_MIRROR={values['ModelMirror']}",
        f"PBR_BUILD={build}",
    ]


def image_tag(flavor: str, build: str, values: Mapping[str, str]) -> str:
    """Return the tag of an image: it names all that the image depends on."""
    arguments = "\n".join(build_arguments(flavor, build, values))
    return f"{flavor}-{build}-{hashlib.sha256(arguments.encode()).hexdigest()[:8]}"


def functions_image(project: Path, *, dry_run: bool) -> str:
    """Return the local name of the functions' image, as ``sam build`` has written it."""
    if dry_run:
        return "segmentfunction:cpu"
    built = yaml_parse((project / _BUILT / "template.yaml").read_text())
    return str(built["Resources"]["SegmentFunction"]["Properties"]["ImageUri"])


def set_image(built: Path, uri: str) -> None:
    """Make all functions of the built templates, nested ones included, run an image of the registry."""
    for path in built.rglob("template.yaml"):
        template = yaml_parse(path.read_text())
        for resource in template["Resources"].values():
            if "ImageUri" in resource.get("Properties", {}):
                resource["Properties"]["ImageUri"] = uri
        path.write_text(yaml_dump(template))


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


def build_of_checkout(project: Path) -> str:
    """Return version and commit, and a hash of the changes to what the images are made of, if there are any.

    Raises:
        DeployError: this is no git checkout.
    """
    version = tomllib.loads((project / "pyproject.toml").read_text())["project"]["version"]

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=project, capture_output=True, text=True, check=False)  # noqa: S603, S607
        if done.returncode:
            raise DeployError(f"The commit is unknown: {done.stderr.strip()}. Name the build, e.g. BUILD=1.4.0.")
        return done.stdout

    build = f"{version}-{git('rev-parse', '--short=12', 'HEAD').strip()}"
    changes = git("diff", "--binary", "HEAD", "--", *IMAGE_PATHS)
    for name in git("ls-files", "--others", "--exclude-standard", "--", *IMAGE_PATHS).splitlines():
        changes += name + hashlib.sha256((project / name).read_bytes()).hexdigest()
    return f"{build}-{hashlib.sha256(changes.encode()).hexdigest()[:8]}" if changes else build


def main(words: Sequence[str] | None = None) -> None:
    """Deploy as the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m infrastructure.deploy", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--config-env", default="default", help="Environment of samconfig.toml, e.g. prod.")
    parser.add_argument("--parameters", default="", help="Template parameters, e.g. 'SegmentationHost=ecs'.")
    parser.add_argument(
        "--tags", default="", help="Tags of the stack, e.g. 'team=photo', besides those of samconfig.toml."
    )
    parser.add_argument("--add", default="", help=f"Parts to add to the stack: {', '.join(PARTS)}.")
    parser.add_argument("--build", help="Version and commit. Default: those of this checkout.")
    parser.add_argument("--yes", action="store_true", help="Deploy without asking for confirmation.")
    parser.add_argument("--dry-run", action="store_true", help="Print the commands, and run none.")
    parser.add_argument("--project", type=Path, default=Path(), help="Directory of template.yaml and samconfig.toml.")
    arguments = parser.parse_args(words)
    project = arguments.project
    try:
        build = arguments.build or build_of_checkout(project)
        if not _BUILD.fullmatch(build):
            raise DeployError(f"Invalid build {build!r}. Use letters, digits, '.', '_' and '-', at most 80.")
        add = arguments.add.replace(",", " ").split()
        if unknown := [part for part in add if part not in PARTS]:
            raise DeployError(f"Unknown part {unknown[0]!r}. Use one of {', '.join(PARTS)}.")
        settings = read_settings(arguments.config_env, project)
        given = parse(shlex.split(arguments.parameters), defaults(project))
        check({**settings.parameters, **given}, project)
        tags = parse_tags(shlex.split(arguments.tags))
        shell = Shell(project, arguments.dry_run)
        Deployment(project, shell, arguments.config_env, settings, given, tags, add, build, arguments.yes).run()
    except (DeployError, OSError) as error:
        sys.exit(f"deploy: {error}")


if __name__ == "__main__":
    main()
