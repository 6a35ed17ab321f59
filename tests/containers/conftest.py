"""The image built by sam, and an embedded cloud that its containers can reach."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import docker
import pytest
import samcli
from docker.models.containers import Container
from docker.models.images import Image
from samtranslator.yaml_helper import yaml_parse

from client.commands.up import IMAGE_URI
from client.stack import Stack
from embedded_cloud.cloud import EmbeddedCloud
from tests import conftest
from tests.conftest import ROOT
from tests.containers import engine, network

HOST: Final = "host.docker.internal"
"""Name of this machine inside a container."""

UNKNOWN_USER: Final = "993:990"
"""A user that does not exist in the image, as on Lambda."""

READ_ONLY: Final[dict[str, Any]] = {"read_only": True, "tmpfs": {"/tmp": ""}}

PIPELINE: Final = ("Validate", "Segment", "Refine", "Encode", "Metrics", "Failure", "Api")
"""The functions, ordered so that each sample event finds the output of earlier functions."""

SAM: Final = str(Path(sys.executable).with_name("sam"))

_EMULATOR: Final = Path(str(samcli.__file__)).parent / "local/rapid/aws-lambda-rie-x86_64"
_INVOKE: Final = "/2015-03-31/functions/function/invocations"
_MEASURED: Final = pytest.StashKey[list[tuple[str, str]]]()
_START_S: Final = 120.0


@dataclass(frozen=True)
class Function:
    """A deployed function and the configuration of its container."""

    logical_id: str
    handler: str
    environment: dict[str, str]

    @property
    def sample(self) -> Path:
        """Path of the sample event."""
        return ROOT / "events" / f"{self.handler.split('.')[1]}.json"


@dataclass(frozen=True)
class Containers:
    """Runs containers that can reach the cloud."""

    client: docker.DockerClient
    image: Image

    @contextmanager
    def run(self, command: list[str], image: Image | None = None, **options: Any) -> Iterator[Container]:
        """Run a container of the image until the block ends."""
        container = self.client.containers.run(
            image or self.image, command, detach=True, extra_hosts={HOST: "host-gateway"}, **options
        )
        try:
            yield container
        finally:
            print(container.logs().decode())  # shown by pytest if a test fails
            container.remove(force=True, v=True)

    @contextmanager
    def emulated(self, function: Function) -> Iterator[Callable[[bytes], bytes]]:
        """Run a function in the Lambda runtime interface emulator and yield a function that invokes it."""
        with self.run(
            [function.handler],
            entrypoint=["/emulator", *self.image.attrs["Config"]["Entrypoint"]],
            volumes={str(_EMULATOR): {"bind": "/emulator", "mode": "ro"}},
            environment=function.environment,
            user=UNKNOWN_USER,
            ports={"8080/tcp": ("127.0.0.1", None)},
            **READ_ONLY,
        ) as container:
            url = address(container)
            yield lambda event: http(url + _INVOKE, event)[1]


@dataclass(frozen=True)
class Sam:
    """The SAM CLI with the built template, connected to the embedded cloud."""

    template: Path
    environment_file: Path

    def command(self, *arguments: str) -> list[str]:
        return [
            SAM, *arguments, "--template", str(self.template), "--env-vars", str(self.environment_file),
            "--skip-pull-image", "--add-host", f"{HOST}:host-gateway",
        ]  # fmt: skip


def sam_environment() -> dict[str, str]:
    """Return the environment for sam. It has no AWS credentials, because sam verifies them, which takes seconds."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {**kept, "AWS_DEFAULT_REGION": "eu-west-1", "SAM_CLI_TELEMETRY": "0"}


def address(container: Container, port: int = 8080) -> str:
    """Return the URL under which a port of a container is published."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        container.reload()
        if bound := container.ports.get(f"{port}/tcp"):
            return f"http://127.0.0.1:{bound[0]['HostPort']}"
        assert container.status != "exited", container.logs().decode()
        time.sleep(0.01)
    raise AssertionError("the container has no port")


def http(url: str, body: bytes | None = None, content_type: str = "application/json") -> tuple[int, bytes]:
    """Return the status and body of the response. Retry until the server accepts connections."""
    request = urllib.request.Request(url, body, {"Content-Type": content_type})
    deadline = time.monotonic() + _START_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=_START_S) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def log_line(container: Container, text: str) -> str:
    """Wait for the first log line that contains ``text`` and return it."""
    lines: list[str] = []
    for line in container.logs(stream=True, follow=True):
        lines.append(line.decode())
        if text in lines[-1]:
            return lines[-1]
    raise AssertionError(f"the container ended without {text!r}:\n{''.join(lines)}")


def put(cloud: EmbeddedCloud, bucket: str, key: str, data: bytes) -> None:
    """Create a bucket with one object."""
    s3 = conftest.client("s3", cloud.endpoint_url, cloud.region)
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": cloud.region})
    s3.put_object(Bucket=bucket, Key=key, Body=data)


@pytest.fixture(scope="session")
def measure(pytestconfig: pytest.Config) -> Callable[[str, str], None]:
    """Record a name and value for the table of measurements printed at the end."""
    rows = pytestconfig.stash.setdefault(_MEASURED, [])
    return lambda what, value: rows.append((what, value))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if rows := config.stash.get(_MEASURED, []):
        terminalreporter.section("measured")
        for what, value in rows:
            terminalreporter.write_line(f"{what:<44} {value:>12}")


@pytest.fixture(scope="session")
def docker_client(
    tmp_path_factory: pytest.TempPathFactory, measure: Callable[[str, str], None]
) -> Iterator[docker.DockerClient]:
    """Client of an engine with the base image. Tests are skipped if none is available."""
    folder = tmp_path_factory.mktemp("engine")
    try:
        with engine.engine(folder / "dockerd.log") as client:
            measure("base image", engine.have_base_image(client, folder))
            yield client
    except engine.UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def project(docker_client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, with a Dockerfile whose base image the engine has."""
    return engine.buildable_project(docker_client, tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def cloud(docker_client: docker.DockerClient) -> Iterator[EmbeddedCloud]:  # skipped without an engine
    """The project's template with all hosts, a custom model in a bucket, and no running worker."""
    parameters = {
        "ModelBucket": network.BUCKET,
        "CustomModels": network.custom_models(),
        "SageMakerImageUri": IMAGE_URI,
        "WorkerImageUri": IMAGE_URI,
        "WorkerSubnets": "subnet-embedded",
        "WorkerSecurityGroups": "sg-embedded",
    }
    with EmbeddedCloud(ROOT / "template.yaml", parameters, address="0.0.0.0") as running:
        ecs = conftest.client("ecs", running.endpoint_url, running.region)
        for cluster in ecs.list_clusters()["clusterArns"]:
            for service in ecs.list_services(cluster=cluster)["serviceArns"]:
                ecs.update_service(cluster=cluster, service=service, desiredCount=0)
        put(running, network.BUCKET, network.KEY, network.content())
        yield running


@pytest.fixture(scope="session")
def stack(cloud: EmbeddedCloud) -> Stack:
    return Stack.connect(cloud.stack_name, region=cloud.region, endpoint_url=cloud.endpoint_url)


@pytest.fixture(scope="session")
def container_environment(cloud: EmbeddedCloud) -> dict[str, str]:
    """Environment that connects the AWS SDK in a container to the cloud."""
    return {**cloud.environment, "AWS_ENDPOINT_URL": cloud.endpoint_url.replace("localhost", HOST)}


@pytest.fixture(scope="session")
def functions(cloud: EmbeddedCloud, container_environment: Mapping[str, str]) -> list[Function]:
    """The deployed functions in pipeline order, with the uploads bucket of the sample events."""

    def client(service: str) -> Any:
        return conftest.client(service, cloud.endpoint_url, cloud.region)

    def function(logical_id: str) -> Function:
        resource = client("cloudformation").describe_stack_resource(
            StackName=cloud.stack_name, LogicalResourceId=logical_id
        )["StackResourceDetail"]
        deployed = client("lambda").get_function(FunctionName=resource["PhysicalResourceId"])["Configuration"]
        variables = {**deployed["Environment"]["Variables"], "UPLOADS_BUCKET": "uploads", **container_environment}
        return Function(logical_id, deployed["ImageConfigResponse"]["ImageConfig"]["Command"][0], variables)

    return [function(f"{stage}Function") for stage in PIPELINE]


@pytest.fixture(scope="session")
def photograph() -> bytes:
    """The image of the sample events: coffee.png of scikit-image."""
    return (files("skimage") / "data" / "coffee.png").read_bytes()


@pytest.fixture(scope="session")
def sample_upload(cloud: EmbeddedCloud, photograph: bytes) -> None:
    """The source object of the sample events, in a bucket that does not start executions."""
    put(cloud, "uploads", "photos/cup.png", photograph)


@pytest.fixture(scope="session")
def built(project: Path, tmp_path_factory: pytest.TempPathFactory, measure: Callable[[str, str], None]) -> Path:
    """Path of the template built by ``sam build``, which also builds the image."""
    folder = tmp_path_factory.mktemp("sam")
    started = time.monotonic()
    done = subprocess.run(
        [SAM, "build", "--template", str(project / "template.yaml"),
         "--build-dir", str(folder / "build"), "--cache-dir", str(folder / "cache")],
        cwd=project, env=sam_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    measure("sam build", f"{time.monotonic() - started:.0f} s")
    return folder / "build" / "template.yaml"


@pytest.fixture(scope="session")
def sam(built: Path, functions: list[Function], tmp_path_factory: pytest.TempPathFactory) -> Sam:
    """The SAM CLI. It passes only variables declared in the template, so AWS_ENDPOINT_URL is added to it."""
    environment = tmp_path_factory.mktemp("invoke") / "environment.json"
    template = yaml_parse(built.read_text())
    template["Globals"]["Function"]["Environment"]["Variables"]["AWS_ENDPOINT_URL"] = ""
    changed = built.with_name("invoke.yaml")  # beside the nested templates
    changed.write_text(json.dumps(template))
    environment.write_text(json.dumps({function.logical_id: function.environment for function in functions}))
    return Sam(changed, environment)


@pytest.fixture(scope="session")
def containers(docker_client: docker.DockerClient, built: Path, measure: Callable[[str, str], None]) -> Containers:
    """The image built by sam. All functions share it."""
    template = yaml_parse(built.read_text())
    image = docker_client.images.get(template["Resources"]["SegmentFunction"]["Properties"]["ImageUri"])
    measure("image, flavor cpu", f"{image.attrs['Size'] / 1e6:.0f} MB")
    return Containers(docker_client, image)


@pytest.fixture(scope="session")
def worker(cloud: EmbeddedCloud, container_environment: Mapping[str, str]) -> dict[str, Any]:
    """Options of the worker's container, from the task definition."""
    ecs = conftest.client("ecs", cloud.endpoint_url, cloud.region)
    [name] = ecs.list_task_definitions()["taskDefinitionArns"]
    [definition] = ecs.describe_task_definition(taskDefinition=name)["taskDefinition"]["containerDefinitions"]
    assert definition["readonlyRootFilesystem"]
    variables = {variable["name"]: variable["value"] for variable in definition["environment"]}
    return {
        "entrypoint": definition["entryPoint"],
        "command": definition["command"],
        "user": definition["user"],
        "environment": {**variables, **container_environment},
        **READ_ONLY,
    }


@pytest.fixture(scope="session")
def endpoint(cloud: EmbeddedCloud, container_environment: Mapping[str, str]) -> dict[str, Any]:
    """Options of the endpoint's container: the model's environment and the command that SageMaker runs."""
    sagemaker = conftest.client("sagemaker", cloud.endpoint_url, cloud.region)
    [model] = sagemaker.list_models()["Models"]
    container = sagemaker.describe_model(ModelName=model["ModelName"])["PrimaryContainer"]
    variables = {**container["Environment"], **container_environment}
    return {"command": ["serve"], "environment": variables, "ports": {"8080/tcp": ("127.0.0.1", None)}, **READ_ONLY}
