"""The gpu flavor of the image. Its packages take gigabytes, so it is built only with GPU=1."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.images import Image

from tests.containers import network
from tests.containers.conftest import READ_ONLY, UNKNOWN_USER, Containers

pytestmark = pytest.mark.skipif("PBR_TEST_GPU" not in os.environ, reason="Downloads gigabytes. Set GPU=1 to run it.")


@pytest.fixture(scope="module")
def image(docker_client: docker.DockerClient, project: Path, measure: Callable[[str, str], None]) -> Image:
    built, _ = docker_client.images.build(path=str(project), target="gpu", tag="precision-background-remover:gpu")
    measure("image, flavor gpu", f"{built.attrs['Size'] / 1e6:.0f} MB")
    return built


def test_cuda_and_cudnn_are_in_the_image(containers: Containers, image: Image) -> None:
    script = "import onnxruntime; onnxruntime.preload_dlls(); print(onnxruntime.get_available_providers())"
    with containers.run(["-c", script], image, entrypoint="python", user=UNKNOWN_USER, **READ_ONLY) as container:
        assert container.wait(timeout=60)["StatusCode"] == 0
        said = container.logs().decode()
    assert "CUDAExecutionProvider" in said and "Failed to load" not in said


def test_worker_exits_without_a_gpu(containers: Containers, image: Image, worker: dict[str, Any]) -> None:
    environment = {**worker["environment"], "DEFAULT_MODEL": network.NAME}
    del environment["PBR_DEVICE"]  # the image sets its own default
    with containers.run(**{**worker, "image": image, "environment": environment}) as container:
        assert container.wait(timeout=60)["StatusCode"] != 0
        assert "GpuUnavailableError" in container.logs().decode()
