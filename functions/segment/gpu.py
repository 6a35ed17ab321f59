"""Metrics of the GPU of a worker or an endpoint."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.errors import GpuUnavailableError
from core.segmentation.sessions import Networks
from functions.runtime.handler import count, logger, measure

_EVERY_S: Final = 60.0
_TIMEOUT_S: Final = 20.0
_QUERY: Final = (
    "nvidia-smi",
    "--query-gpu=utilization.gpu,memory.used,memory.total",
    "--format=csv,noheader,nounits",
)


class CountedNetworks(Networks):
    """Networks that count each failed attempt to load a model onto a GPU in the metric ``GpuUnavailable``."""

    def load(self, name: str) -> None:
        """See :meth:`core.segmentation.sessions.Networks.load`."""
        with _counted():
            super().load(name)

    def predict(self, name: str, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See :meth:`core.segmentation.sessions.Networks.predict`."""
        with _counted():
            return super().predict(name, batch)


@contextmanager
def _counted() -> Iterator[None]:
    try:
        yield
    except GpuUnavailableError:
        count("GpuUnavailable")
        raise


def start_publishing() -> None:
    """Publish the use of this container's GPUs every minute, in a thread."""
    Thread(target=_publish_forever, name="gpu", daemon=True).start()


def _publish_forever() -> None:
    while True:
        publish_use()
        time.sleep(_EVERY_S)


def publish_use() -> None:
    """Publish utilization and memory in use of each GPU of this container, as ``nvidia-smi`` reports them."""
    try:
        report = subprocess.run(_QUERY, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True).stdout  # noqa: S603
        rows = [_numbers(line) for line in report.splitlines()]
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        facts = {"failure": f"{type(error).__name__}: {error}"}
        logger.warning("no metrics of the GPU: nvidia-smi failed", extra=facts)
        return
    for utilization, used_mb, total_mb in rows:
        measure("GpuUtilization", utilization)
        measure("GpuMemoryUtilization", 100 * used_mb / total_mb)


def _numbers(line: str) -> tuple[float, float, float]:
    utilization, used_mb, total_mb = map(float, line.split(","))
    return utilization, used_mb, total_mb
