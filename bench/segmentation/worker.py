"""The ECS worker as it is, with queue, state machine and bucket in memory: its work without the network's."""

import threading
from collections.abc import Callable
from pathlib import Path

from bench.segmentation.cloud_in_memory import Cloud
from bench.segmentation.inputs import Network
from core.segmentation.sessions import Device
from functions.runtime.store import Store
from functions.segment.ecs.worker import Worker, WorkerConfig


class JobFailedError(Exception):
    """The worker answered a job with an error."""


def prepare(
    network: Network, folder: Path, pictures: int, batch: int = 1, device: Device = Device.CPU
) -> Callable[[], None]:
    """Start a worker, let it do a few jobs, and return the call that has it do ``pictures`` of them.

    Args:
        network: what it runs.
        folder: the pictures, taken in turns.
        pictures: how many a call does.
        batch: the most that it predicts at a time.
        device: what the network runs on.
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

    def work_off(count: int) -> None:
        for number in range(count):
            cloud.send(number, network.name)
        for _ in range(count):
            cloud.wait()
        if cloud.failures:
            raise JobFailedError(cloud.failures[0])

    work_off(2 * batch)
    return lambda: work_off(pictures)
