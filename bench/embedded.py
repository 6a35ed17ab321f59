"""Run the embedded cloud in a separate process, so that its CPU time can be separated from that of the stages."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
_STOP_S: Final = 150.0  # a worker may drain for two minutes
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class CpuTime:
    """CPU seconds since the start.

    Attributes:
        cloud: used by the embedded cloud itself.
        stages: used by the processes that it started.
    """

    cloud: float
    stages: float


@dataclass(frozen=True)
class EmbeddedProcess:
    """A running embedded cloud."""

    pid: int
    endpoint_url: str
    region: str

    def cpu_time(self) -> CpuTime:
        """Return the CPU time used since the start. Requires Linux."""
        own = _times(self.pid)
        started = [sum(times) for times in map(_times, _children(self.pid))]
        return CpuTime(cloud=own[0] + own[1], stages=own[2] + own[3] + sum(started))


@contextmanager
def embedded_process(parameters: Mapping[str, str]) -> Iterator[EmbeddedProcess]:
    """Start an embedded cloud, deploy the template to it, and stop it at the end.

    Args:
        parameters: template parameters.
    """
    options = [word for name, value in parameters.items() for word in ("--parameter", f"{name}={value}")]
    process = subprocess.Popen(  # noqa: S603  fixed command of this project
        [sys.executable, "-m", "embedded_cloud", "--port", "0", *options], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None  # noqa: S101  stdout=PIPE guarantees it
        exported: dict[str, str] = {}
        while "AWS_SECRET_ACCESS_KEY" not in exported:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError("The embedded cloud did not start. Its log on stderr has the reason.")
            if line.startswith("export "):
                name, _, value = line.removeprefix("export ").strip().partition("=")
                exported[name] = value
        yield EmbeddedProcess(process.pid, exported["AWS_ENDPOINT_URL"], exported["AWS_REGION"])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_STOP_S)


def _children(pid: int) -> list[int]:
    """Return the IDs of a process's running children."""
    listed = (Path(f"/proc/{pid}/task/{task.name}/children") for task in Path(f"/proc/{pid}/task").iterdir())
    return [int(child) for path in listed for child in path.read_text().split()]


def _times(pid: int) -> list[float]:
    """Return the user and system CPU seconds of a process, then those of its ended children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [int(ticks) / _TICKS for ticks in fields[11:15]]
