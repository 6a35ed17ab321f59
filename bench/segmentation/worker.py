"""Run the real ECS worker with in-memory fakes of queue, state machine, and bucket."""

import threading
from collections.abc import Callable
from pathlib import Path

from bench.segmentation.cloud_in_memory import Cloud
from bench.segmentation.inputs import Network
from core.segmentation.sessions import Device
from functions.runtime.store import Store
from functions.segment.ecs.worker import Worker, WorkerConfig


class JobFailedError(Exception):
    """The worker reported a failed job."""


def prepare(
    network: Network, folder: Path, pictures: int, batch: int = 1, device: Device = Device.CPU
) -> Callable[[], None]:
    """Start a worker, warm it up with a few jobs, and return a call that processes ``pictures`` jobs.

    Args:
        network: the network to run.
        folder: pictures to process in turns.
        pictures: number of jobs per call.
        batch: largest batch of a prediction.
        device: device that runs the network.

    Raises:
        JobFailedError: a job failed; also raised by the call.
    """
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    cloud = Cloud(files)
    config = WorkerConfig(
        work_bucket="work",
        queue_url="memory",
        pbr_model_dir=str(network.path.parent),
        pbr_custom_models=network.custom,
        pbr_device=device,
        pbr_batch=batch,
        default_model=network.name,
    )
    worker = Worker(config, Store(cloud), cloud, cloud)  # type: ignore[arg-type]
    threading.Thread(target=worker.run, daemon=True).start()

    def process(count: int) -> None:
        for number in range(count):
            cloud.send(number, network.name)
        for _ in range(count):
            cloud.wait()
        if cloud.failures:
            raise JobFailedError(cloud.failures[0])

    process(2 * batch)
    return lambda: process(pictures)
