"""The ECS worker, run from its task definition, and the SageMaker endpoint, run as SageMaker starts it."""

import io
import json
import time
from collections.abc import Callable
from typing import Any, Final

import pytest
from PIL import Image

from client.jobs import JobClient
from client.stack import Stack
from core.segmentation.registry import BUNDLED, MODELS
from tests.conftest import ROOT
from tests.containers import network
from tests.containers.conftest import Containers, address, http, log_line

_JOB_S: Final = 240.0


def test_worker_processes_a_request_from_the_queue(
    containers: Containers,
    worker: dict[str, Any],
    stack: Stack,
    photograph: bytes,
    measure: Callable[[str, str], None],
) -> None:
    jobs, options = JobClient(stack), {"segmentation_host": "ecs", "model": network.NAME}
    started = time.monotonic()
    with containers.run(**worker) as container:
        log_line(container, "worker started")
        measure("worker: start to 'worker started'", f"{time.monotonic() - started:.1f} s")
        execution = jobs.execution_of(jobs.upload("cup.png", photograph, options))
        assert list(jobs.follow(execution, timeout_s=_JOB_S))
        container.stop(timeout=30)
        assert "worker stopped" in container.logs().decode()
    result = jobs.result(execution)
    assert Image.open(io.BytesIO(result.data)).mode == "RGBA"
    assert (result.sidecar["model"]["name"], result.sidecar["model"]["host"]) == (network.NAME, "ecs")


def test_worker_exits_without_the_configured_gpu(containers: Containers, worker: dict[str, Any]) -> None:
    environment = {**worker["environment"], "PBR_DEVICE": "cuda"}
    with containers.run(**{**worker, "environment": environment}) as container:
        assert container.wait(timeout=60)["StatusCode"] != 0
        assert "GpuUnavailableError" in container.logs().decode()


@pytest.mark.usefixtures("sample_upload")
def test_endpoint_segments_jobs_and_images(
    containers: Containers,
    endpoint: dict[str, Any],
    stack: Stack,
    photograph: bytes,
    measure: Callable[[str, str], None],
) -> None:
    started = time.monotonic()
    with containers.run(**endpoint) as container:
        url = address(container)
        assert http(f"{url}/ping") == (200, b"")
        measure("endpoint: start to first /ping response", f"{time.monotonic() - started:.1f} s")
        running_as = container.top()
        of_job, facts = http(f"{url}/invocations", (ROOT / "events" / "segment.json").read_bytes())
        of_picture, picture = http(f"{url}/invocations", photograph, "image/png")
    assert (of_job, of_picture) == (200, 200), (facts, picture)
    assert json.loads(facts)["weights_sha256"] == MODELS[BUNDLED].sha256
    location = {"Bucket": stack.outputs["WorkBucket"], "Key": json.loads(facts)["key"]}
    for file in (stack.s3.get_object(**location)["Body"].read(), picture):
        mask = Image.open(io.BytesIO(file))
        assert (mask.format, mask.mode) == ("PNG", "L")
        assert mask.getextrema() == (0, 255)
    assert {process[running_as["Titles"].index("UID")] for process in running_as["Processes"]} == {"10001"}
