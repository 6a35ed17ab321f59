"""The image of the web page, run as ECS runs it and by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import docker
import httpx
import pytest
from samtranslator.yaml_helper import yaml_parse

from tests.conftest import ROOT
from tests.containers.conftest import READ_ONLY, UNKNOWN_USER, Containers, address, http
from web.identity import HEALTH_PATH, LOAD_BALANCER

PORT: Final = 8501
PUBLISHED: Final[dict[str, Any]] = {"ports": {f"{PORT}/tcp": ("127.0.0.1", None)}, **READ_ONLY}
ARN: Final = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/page/50dc6c495c0c9188"

UPGRADE: Final = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    "cookie": f"AWSELBAuthSessionCookie-0={'x' * 15_000}",
}
"""A new WebSocket with the cookie of a user who is in many groups."""


@pytest.fixture(scope="module")
def containers(docker_client: docker.DockerClient, project: Path, measure: Callable[[str, str], None]) -> Containers:
    """The page's image."""
    image, _ = docker_client.images.build(path=str(project), target="web", tag="precision-background-remover:web")
    measure("image, web page", f"{image.attrs['Size'] / 1e6:.0f} MB")
    return Containers(docker_client, image)


@pytest.fixture
def task() -> dict[str, Any]:
    """Options of the container in the task definition."""
    resources = yaml_parse((ROOT / "infrastructure/web.yaml").read_text())["Resources"]
    [container] = resources["WebTaskDefinition"]["Properties"]["ContainerDefinitions"]
    assert container["ReadonlyRootFilesystem"]
    return {
        "command": container["Command"],
        "entrypoint": container["EntryPoint"],
        "user": container["User"],
        "environment": {LOAD_BALANCER: ARN, "AWS_DEFAULT_REGION": "eu-west-1"},
        "cap_drop": ["ALL"],
        **PUBLISHED,
    }


def test_the_task_answers_the_health_check_and_requires_sign_in(containers: Containers, task: dict[str, Any]) -> None:
    with containers.run(**task) as container:
        url = address(container, PORT)
        assert http(url + HEALTH_PATH) == (200, b"ok")
        assert http(f"{url}/")[0] == 403
        assert httpx.get(f"{url}/_stcore/stream", headers=UPGRADE).status_code == 403, "a long cookie is no error"
        top = container.top()
    assert {process[top["Titles"].index("UID")] for process in top["Processes"]} == {"10001"}


def test_the_image_serves_any_user_on_a_read_only_disk_but_not_without_sign_in(containers: Containers) -> None:
    signed_in = {LOAD_BALANCER: ARN, "AWS_DEFAULT_REGION": "eu-west-1"}
    with containers.run(["web"], user=UNKNOWN_USER, environment=signed_in, **PUBLISHED) as container:
        assert http(address(container, PORT) + HEALTH_PATH)[0] == 200
    with containers.run(["web"], user=UNKNOWN_USER, **READ_ONLY) as container:
        assert container.wait(timeout=120)["StatusCode"] == 2
        assert LOAD_BALANCER in container.logs().decode()


def test_the_image_has_no_networks_and_decodes_pictures(
    containers: Containers, photograph: bytes, tmp_path: Path
) -> None:
    script = (
        "import importlib.util, json, sys; from client import thumbnails;"
        "found = [name for name in ('onnxruntime', 'pymatting', 'moto') if importlib.util.find_spec(name)];"
        "print(json.dumps([found, len(thumbnails.of_original(open('/photo', 'rb').read(), 256))]))"
    )
    picture = tmp_path / "photo"
    picture.write_bytes(photograph)
    mounted = {str(picture): {"bind": "/photo", "mode": "ro"}}
    with containers.run(
        ["-c", script], entrypoint="python", user=UNKNOWN_USER, volumes=mounted, **READ_ONLY
    ) as container:
        assert container.wait(timeout=120)["StatusCode"] == 0
        present, size = json.loads(container.logs(stderr=False).decode().splitlines()[-1])
    assert present == []
    assert size > 1000
