"""Images of one build: which a stack needs, how they are built, and how they are copied.

An image is built and pushed once per build and build arguments: its tag names all that it depends on. Another
repository gets a copy with the same digest. Docker is used here only.
"""

import hashlib
import re
import subprocess
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infrastructure.deployment.settings import DeployError
from infrastructure.deployment.shell import Aws, Shell

IMAGE_PATHS: Final = (
    "Dockerfile", ".dockerignore", "entrypoint.sh", "LICENSE", "NOTICE", "licenses", "requirements",
    "core", "functions", "client", "web",
)  # fmt: skip
"""What the images are made of."""

PARTS: Final = {"worker": "WorkerImageUri", "endpoint": "SageMakerImageUri", "web": "WebImageUri"}
"""Parts of a stack with an image of their own, and the parameter with its URI."""

FLAVORS: Final = ("cpu", "gpu", "web")
"""Targets of the Dockerfile."""

_REPOSITORY: Final = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[\w-]+)\.amazonaws\.com(\.cn)?/(?P<name>[^:@]+)"
)
FOR_SAGEMAKER: Final = "application/vnd.docker.distribution.manifest.v2+json"
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


@dataclass(frozen=True)
class Repository:
    """A repository in ECR.

    Attributes:
        uri: its address, e.g. ``123456789012.dkr.ecr.eu-west-1.amazonaws.com/images``.
        aws: the AWS CLI in its Region.
    """

    uri: str
    aws: Aws

    @classmethod
    def at(cls, uri: str, shell: Shell, profile: str | None) -> "Repository":
        """Return the repository of a URI.

        Raises:
            DeployError: the URI is not that of a repository in ECR.
        """
        if not (found := _REPOSITORY.fullmatch(uri)):
            raise DeployError(
                f"{uri!r} is no repository in ECR. Use e.g. 123456789012.dkr.ecr.eu-west-1.amazonaws.com/images."
            )
        return cls(uri, Aws(shell, found["region"], profile))

    def find(self, tag: str) -> tuple[str, str] | None:
        """Return digest and media type of an image; None if it does not exist, and in a dry run."""
        registry, _, name = self.uri.partition("/")
        text = self.aws.read(
            "ecr", "describe-images", "--registry-id", registry.partition(".")[0], "--repository-name", name,
            "--image-ids", f"imageTag={tag}",
            "--query", "imageDetails[0].[imageDigest,imageManifestMediaType]", "--output", "text",
        )  # fmt: skip
        if text is None:
            return None
        digest, media_type = text.split()
        return digest, media_type

    def log_in(self) -> None:
        """Log Docker in at the registry."""
        password = self.aws.read("ecr", "get-login-password")
        registry = self.uri.partition("/")[0]
        self.aws.shell.run("docker", "login", "--username", "AWS", "--password-stdin", registry, stdin=password)


@dataclass(frozen=True)
class Images:
    """Provides the images of a build in a repository.

    Attributes:
        shell: runs Docker.
        build: version and commit.
        sources: repositories to copy from.
        may_build: whether to build an image that no source has.
        listed: digests of the only images to provide; None for any.
    """

    shell: Shell
    build: str
    sources: Sequence[Repository] = ()
    may_build: bool = True
    listed: frozenset[str] | None = None

    def provide(
        self, repository: Repository, flavors: Iterable[str], values: Mapping[str, str]
    ) -> dict[str, tuple[str, str]]:
        """Return digest and media type of the image of each flavor, and copy or build those that are missing.

        Raises:
            DeployError: an image is missing and may not be built, the copy is another image, or it is not listed.
        """
        provided = {flavor: self._provided(repository, flavor, values) for flavor in flavors}
        for flavor, (digest, _) in provided.items():
            if self.listed is not None and digest not in self.listed and not self.shell.dry_run:
                raise DeployError(
                    f"{repository.uri}:{image_tag(flavor, self.build, values)} is {digest}, which LISTED lacks. "
                    "If make images has read other parameters, set these in samconfig.toml. Otherwise, this is another "
                    "image with the same tag: delete it from the repository."
                )
        return provided

    def _provided(self, repository: Repository, flavor: str, values: Mapping[str, str]) -> tuple[str, str]:
        tag = image_tag(flavor, self.build, values)
        if found := repository.find(tag):
            return found
        self._check_buildx()
        would_be = ("sha256:<digest>", FOR_SAGEMAKER) if self.shell.dry_run else None
        for source in self.sources:
            if image := source.find(tag) or would_be:
                self._copy(source, image[0], repository, tag)
                return image
        if not self.may_build:
            where = ", ".join(source.uri for source in self.sources)
            raise DeployError(
                f"{where} has no image {tag}. The tag names flavor, build and a hash of the models: check BUILD, or "
                f"push the image with make images IMAGES={where}."
            )
        repository.log_in()
        uri = f"{repository.uri}:{tag}"
        arguments = [word for pair in build_arguments(flavor, self.build, values) for word in ("--build-arg", pair)]
        self.shell.run("docker", "buildx", "build", "--target", flavor, *arguments, *_FORMAT, "--tag", uri, ".")
        if not (image := repository.find(tag) or would_be):
            raise DeployError(f"{uri} was pushed, but ECR does not have it. Run the same command again.")
        return image

    def _copy(self, source: Repository, digest: str, repository: Repository, tag: str) -> None:
        source.log_in()
        repository.log_in()
        self.shell.run(
            # Otherwise buildx wraps the image in an index, which Lambda rejects.
            "docker", "buildx", "imagetools", "create", "--prefer-index=false",
            "--tag", f"{repository.uri}:{tag}", f"{source.uri}@{digest}",
        )  # fmt: skip
        copied = repository.find(tag)
        if not self.shell.dry_run and (not copied or copied[0] != digest):
            raise DeployError(
                f"{repository.uri}:{tag} is not {digest} of {source.uri}, but {copied and copied[0]}. Update Docker "
                "Buildx to a version whose imagetools create has the option --prefer-index."
            )

    def _check_buildx(self) -> None:
        try:
            self.shell.read("docker", "buildx", "version")
        except DeployError as error:
            remedy = "Install Docker Buildx, see https://docs.docker.com/build/install-buildx/."
            raise DeployError(f"Images need docker buildx: {error} {remedy}") from error


def needed(values: Mapping[str, str], explicit: Mapping[str, str], add: Sequence[str]) -> dict[str, str]:
    """Return the flavor of the image of each part that gets one from this deployment.

    A part that the stack has gets a new image. An image URI in ``explicit`` is the caller's decision: it stays, and an
    empty one removes the part.
    """
    on_sagemaker = values["SegmentationHost"] == "sagemaker" or values["SageMakerMode"] == "transform"
    required = {
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
        if parameter not in explicit and (required[part] or values[parameter] or part in add)
    }


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
