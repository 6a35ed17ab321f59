"""The embedded cloud in a process of its own, so that what it costs can be told from what its stages cost."""

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
    """CPU seconds so far: ``cloud`` of the embedded cloud itself, ``stages`` of the processes that it started."""

    cloud: float
    stages: float


@dataclass(frozen=True)
class EmbeddedProcess:
    """A running embedded cloud."""

    pid: int
    endpoint_url: str
    region: str

    def cpu_time(self) -> CpuTime:
        """Return what it used until now (Linux)."""
        own = _times(self.pid)
        started = [sum(times) for times in map(_times, _children(self.pid))]
        return CpuTime(cloud=own[0] + own[1], stages=own[2] + own[3] + sum(started))


@contextmanager
def embedded_process(parameters: Mapping[str, str]) -> Iterator[EmbeddedProcess]:
    """Deploy the project's template to an embedded cloud of its own, and stop it afterwards.

    Args:
        parameters: of the template.
    """
    given = [word for name, value in parameters.items() for word in ("--parameter", f"{name}={value}")]
    process = subprocess.Popen(  # noqa: S603  the command is this project's own
        [sys.executable, "-m", "local", "--port", "0", *given], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None  # noqa: S101  a pipe was asked for
        exported: dict[str, str] = {}
        while "AWS_SECRET_ACCESS_KEY" not in exported:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError("The embedded cloud did not start")
            if line.startswith("export "):
                name, _, value = line.removeprefix("export ").strip().partition("=")
                exported[name] = value
        yield EmbeddedProcess(process.pid, exported["AWS_ENDPOINT_URL"], exported["AWS_REGION"])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_STOP_S)


def _children(pid: int) -> list[int]:
    """Return the processes that one has started and that still run."""
    listed = (Path(f"/proc/{pid}/task/{task.name}/children") for task in Path(f"/proc/{pid}/task").iterdir())
    return [int(child) for path in listed for child in path.read_text().split()]


def _times(pid: int) -> list[float]:
    """Return seconds in user and system mode, and the same of children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [int(ticks) / _TICKS for ticks in fields[11:15]]
