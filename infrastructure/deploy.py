"""Build all images of one commit and deploy stacks with them: ``make deploy``, ``make deploy-all``.

Functions, worker, endpoint and web page get images of the same Dockerfile and commit in the same ``sam deploy``: no
part of a stack runs other code than the rest. Each stack has its images in the repository of
``infrastructure/repository.yaml``; further stacks get copies.

``sam build`` is not used: ``sam deploy`` would push the image of the functions once for each of them, under a tag that
may not change.
"""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from infrastructure.deployment import templates
from infrastructure.deployment.images import FLAVORS, PARTS, Images, Repository, build_of_checkout, image_tag, needed
from infrastructure.deployment.settings import DeployError, check, defaults, overrides, parse, parse_tags, read_settings
from infrastructure.deployment.shell import Shell
from infrastructure.deployment.stack import Deployment

REGIONS: Final = ("us-east-1", "us-west-2", "eu-west-1", "ap-southeast-1")
"""Environments that ``make deploy-all`` deploys, in this order."""

_BUILD: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_IMAGES: Final = "out/images.json"
_PACKAGED: Final = "out/template.yaml"


def deploy(environments: Sequence[str], arguments: argparse.Namespace) -> None:
    """Deploy one stack."""
    [one] = _deployments(environments, arguments)
    one.run(_images(one, arguments))


def deploy_all(environments: Sequence[str], arguments: argparse.Namespace) -> None:
    """Deploy stacks one after the other, and stop at the first that fails or has a problem.

    Images that no repository has are built for the first stack, and copied for the others.
    """
    sources: list[Repository] = []
    for number, (environment, one) in enumerate(zip(environments, _deployments(environments, arguments), strict=True)):
        print(f"\n== {environment}: {one.settings.stack} in {one.settings.region}", flush=True)
        images = _images(one, arguments)
        if not arguments.images:
            images = replace(images, sources=sources)
        try:
            uri = one.run(images, skip_current=True)
            one.examine()
        except DeployError as error:
            done, rest = ", ".join(environments[:number]) or "none", ", ".join(environments[number + 1 :]) or "none"
            raise DeployError(
                f"{environment}: {error}\nDeployed before: {done}. Not deployed: {rest}. Then run the same command "
                "again: it skips what is deployed."
            ) from error
        sources.append(Repository(uri, one.aws))


def push_images(environments: Sequence[str], arguments: argparse.Namespace) -> None:
    """Build images of environments, push those that the repository lacks, and list all in a file."""
    if not arguments.images:
        raise DeployError("Name the repository, e.g. IMAGES=123456789012.dkr.ecr.eu-west-1.amazonaws.com/images.")
    flavors = arguments.flavors.split()
    if unknown := [flavor for flavor in flavors if flavor not in FLAVORS]:
        raise DeployError(f"Unknown flavor {unknown[0]!r}. Use {', '.join(FLAVORS)}.")
    listed: dict[str, dict[str, str]] = {}  # by tag: environments with the same models share images
    for one in _deployments(environments, arguments):
        values = {**defaults(one.project), **one.explicit}
        wanted = flavors or dict.fromkeys(["cpu", *needed(values, one.explicit, one.add).values()])
        repository = Repository.at(arguments.images, one.shell, one.settings.profile)
        missing = [flavor for flavor in wanted if image_tag(flavor, one.build, values) not in listed]
        for flavor, (digest, _) in Images(one.shell, one.build).provide(repository, missing, values).items():
            image = f"{repository.uri}@{digest}"
            listed[image_tag(flavor, one.build, values)] = {"flavor": flavor, "image": image}
            print(f"{flavor} {image}", flush=True)
    if not arguments.dry_run:
        written = arguments.project / _IMAGES
        written.parent.mkdir(exist_ok=True)
        written.write_text(json.dumps(list(listed.values()), indent=2) + "\n")


def package(environments: Sequence[str], arguments: argparse.Namespace) -> None:
    """Write the templates to a bucket, and print what CloudFormation needs to create the stack."""
    if not arguments.bucket:
        raise DeployError("Name a bucket in the Region of the stack, e.g. BUCKET=templates.")
    [one] = _deployments(environments, arguments)
    uri, parameters = one.prepare(_images(one, arguments), {})
    prefix = f"{one.settings.stack}/{one.build}"
    place = ["--region", one.settings.region, *(["--profile", one.settings.profile] if one.settings.profile else [])]
    one.shell.run(
        "sam", "package", "--template-file", f"{templates.WRITTEN}/template.yaml", "--s3-bucket", arguments.bucket,
        "--s3-prefix", prefix, "--image-repository", uri, "--output-template-file", _PACKAGED, *place,
    )  # fmt: skip
    one.aws.run("s3", "cp", _PACKAGED, f"s3://{arguments.bucket}/{prefix}/template.yaml")
    host = f"s3.{one.settings.region}.amazonaws.com{'.cn' if one.settings.region.startswith('cn-') else ''}"
    print(f"Template: https://{arguments.bucket}.{host}/{prefix}/template.yaml")
    print(f"Parameters: {' '.join(overrides(parameters))}")


_ACTIONS: Final = {"deploy": deploy, "all": deploy_all, "images": push_images, "package": package}


def _deployments(environments: Sequence[str], arguments: argparse.Namespace) -> list[Deployment]:
    """Return what to deploy, after a check of all that the command and samconfig.toml say."""
    project = arguments.project
    build = arguments.build or build_of_checkout(project)
    if not _BUILD.fullmatch(build):
        raise DeployError(f"Invalid build {build!r}. Use letters, digits, '.', '_' and '-', at most 80.")
    add = arguments.add.replace(",", " ").split()
    if unknown := [part for part in add if part not in PARTS]:
        raise DeployError(f"Unknown part {unknown[0]!r}. Use one of {', '.join(PARTS)}.")
    tags = parse_tags(shlex.split(arguments.tags))
    given = parse(shlex.split(arguments.parameters), defaults(project))
    shell = Shell(project, arguments.dry_run)
    found = []
    for environment in environments:
        settings = read_settings(environment, project, arguments.region)
        if arguments.role:
            settings = replace(settings, role_arn=arguments.role)
        check({**settings.parameters, **given}, project)
        found.append(Deployment(project, shell, environment, settings, given, tags, add, build, arguments.yes))
    return found


def _images(one: Deployment, arguments: argparse.Namespace) -> Images:
    if not arguments.images:
        if arguments.listed:
            raise DeployError("LISTED requires IMAGES: an image that is built is not listed.")
        return Images(one.shell, one.build)
    source = Repository.at(arguments.images, one.shell, one.settings.profile)
    listed = None
    if arguments.listed:
        listed = frozenset(image["image"].rpartition("@")[2] for image in json.loads(arguments.listed.read_text()))
    return Images(one.shell, one.build, [source], may_build=False, listed=listed)


def main(words: Sequence[str] | None = None) -> None:
    """Deploy as the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m infrastructure.deploy", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("action", nargs="?", default="deploy", choices=_ACTIONS, help="Default: deploy.")
    parser.add_argument("--config-env", default="default", help="Environment of samconfig.toml, e.g. prod.")
    parser.add_argument(
        "--environments",
        help="Environments for the actions all and images, in order. Default: the Regions; for images, staging, too.",
    )
    parser.add_argument("--region", help="Region of the stack. Default: that of the environment.")
    parser.add_argument("--parameters", default="", help="Template parameters, e.g. 'SegmentationHost=ecs'.")
    parser.add_argument(
        "--tags", default="", help="Tags of the stack, e.g. 'team=photo', besides those of samconfig.toml."
    )
    parser.add_argument("--add", default="", help=f"Parts to add to the stack: {', '.join(PARTS)}.")
    parser.add_argument("--build", help="Version and commit. Default: those of this checkout.")
    parser.add_argument(
        "--images", help="URI of a repository in ECR that has the images of the build. None is built then."
    )
    parser.add_argument(
        "--listed", type=Path, help=f"File as {_IMAGES}, which the action images writes. Other images are not deployed."
    )
    parser.add_argument("--flavors", default="", help=f"Flavors for the action images: {', '.join(FLAVORS)}.")
    parser.add_argument("--bucket", help="Bucket for the action package.")
    parser.add_argument("--role", help="ARN of the role for CloudFormation. Default: role_arn of samconfig.toml.")
    parser.add_argument("--yes", action="store_true", help="Deploy without asking for confirmation.")
    parser.add_argument("--dry-run", action="store_true", help="Print the commands, and run none.")
    parser.add_argument("--project", type=Path, default=Path(), help="Directory of template.yaml and samconfig.toml.")
    arguments = parser.parse_args(words)
    try:
        if arguments.action == "all":
            environments = (arguments.environments or " ".join(REGIONS)).split()
        elif arguments.action == "images":
            environments = (arguments.environments or " ".join(["staging", *REGIONS])).split()
        else:
            environments = [arguments.config_env]
        if arguments.action == "all" and arguments.region:
            raise DeployError("REGION is for one stack. Name the environments of several Regions, e.g. ENVS='a b'.")
        _ACTIONS[arguments.action](environments, arguments)
    except (DeployError, OSError) as error:
        sys.exit(f"deploy: {error}")


if __name__ == "__main__":
    main()
