"""The gpu flavour of the image. Its packages are gigabytes, so it is built only when asked for, by GPU=1."""

import os
from collections.abc import Callable
from typing import Any

import docker
import pytest
from docker.models.images import Image

from tests.conftest import ROOT
from tests.containers import network
from tests.containers.conftest import NOBODY, READ_ONLY, Containers

pytestmark = pytest.mark.skipif("PBR_TEST_GPU" not in os.environ, reason="gigabytes to download: GPU=1 asks for it")


@pytest.fixture(scope="module")
def image(docker_client: docker.DockerClient, measure: Callable[[str, str], None]) -> Image:
    built, _ = docker_client.images.build(
        path=str(ROOT), target="gpu", buildargs={"MODELS": "classical"}, tag="precision-background-remover:gpu"
    )
    measure("image, flavour gpu, no weights", f"{built.attrs['Size'] / 1e6:.0f} MB")
    return built


def test_cuda_and_cudnn_are_in_the_image(containers: Containers, image: Image) -> None:
    script = "import onnxruntime; onnxruntime.preload_dlls(); print(onnxruntime.get_available_providers())"
    with containers.run(["-c", script], image, entrypoint="python", user=NOBODY, **READ_ONLY) as container:
        assert container.wait(timeout=60)["StatusCode"] == 0
        said = container.logs().decode()
    assert "CUDAExecutionProvider" in said and "Failed to load" not in said


def test_without_a_gpu_the_worker_ends(containers: Containers, image: Image, worker: dict[str, Any]) -> None:
    environment = {**worker["environment"], "DEFAULT_MODEL": network.NAME}
    del environment["PBR_DEVICE"]  # the flavour has its own
    with containers.run(**{**worker, "image": image, "environment": environment}) as container:
        assert container.wait(timeout=60)["StatusCode"] != 0
        assert "GpuUnavailableError" in container.logs().decode()
