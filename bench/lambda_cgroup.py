"""A control group with the CPU share and the memory that AWS Lambda gives to a function of a memory size."""

import math
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

MB_PER_CPU: Final = 1769
"""Memory at which a function has the equivalent of one CPU; its share is proportional (AWS Lambda developer guide)."""

PERIOD_US: Final = 20_000
"""Period of the CPU quota. AWS documents none; with Linux's 100 ms, a short call would not be slowed down at all."""

_WEIGHT_V1, _WEIGHT_V2 = 262_144, 10_000
"""The largest weights: the function gets its quota although other processes want the CPUs, too."""

_MOUNT: Final = Path("/sys/fs/cgroup")
_OWN: Final = Path("/proc/self/cgroup")
_REMEDY: Final = (
    "make tune needs a control group with the controllers cpu and memory that it may create subgroups in."
    " Run it as root on Linux, e.g. sudo make tune, or: systemd-run --user --scope -p Delegate=yes make tune"
)


class CgroupError(RuntimeError):
    """The control group cannot be created."""


def cpu_share(memory_mb: int) -> float:
    """Return the CPUs that a function has."""
    return memory_mb / MB_PER_CPU


def visible_cpus(memory_mb: int) -> int:
    """Return the CPUs that a function sees, at least two. It may use its share of them."""
    return max(2, math.ceil(cpu_share(memory_mb)))


class LambdaCgroup:
    """A control group, version 1 or 2, which is removed at the end.

    Args:
        memory_mb: memory of the function.
        mount: mount point of the control groups.
        own: file with the groups of this process.

    Raises:
        CgroupError: this machine or user cannot create one. The message has the remedy.
    """

    def __init__(self, memory_mb: int, *, mount: Path = _MOUNT, own: Path = _OWN) -> None:
        quota_us, limit = round(cpu_share(memory_mb) * PERIOD_US), memory_mb << 20
        name = f"pbr-tune-{os.getpid()}-{memory_mb}"
        try:
            if (mount / "cgroup.controllers").exists():
                self._folders = [_subgroup_v2(mount, own) / name]
                cpu = {"cpu.max": f"{quota_us} {PERIOD_US}", "cpu.weight": _WEIGHT_V2}
                settings = [{**cpu, "memory.max": limit, "memory.swap.max": 0}]
            else:
                self._folders = [_group_v1(mount, own, controller) / name for controller in ("cpu", "memory")]
                cpu = {"cpu.cfs_period_us": PERIOD_US, "cpu.cfs_quota_us": quota_us, "cpu.shares": _WEIGHT_V1}
                settings = [cpu, {"memory.limit_in_bytes": limit}]
            for folder, values in zip(self._folders, settings, strict=True):
                folder.mkdir(exist_ok=True)
                for file, value in values.items():
                    if file != "memory.swap.max" or (folder / file).exists():  # absent without swap accounting
                        (folder / file).write_text(str(value))
        except OSError as error:
            raise CgroupError(f"{error}. {_REMEDY}") from error

    def add(self, pid: int) -> None:
        """Move a process into the group. Its future children start there."""
        for folder in self._folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def peak_bytes(self) -> int:
        """Return the sum of the peak resident sizes of its processes."""
        total = 0
        for pid in (self._folders[0] / "cgroup.procs").read_text().split():
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                total += int(line.split()[1]) << 10 if line.startswith("VmHWM:") else 0
        return total

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Remove the group, as soon as its processes have ended."""
        for folder in self._folders:
            for _attempt in range(100):
                try:
                    folder.rmdir()
                    break
                except OSError:
                    time.sleep(0.05)


def _group_v1(mount: Path, own: Path, controller: str) -> Path:
    """Return this process's group of a controller, or the root where its path is that of another namespace."""
    for line in own.read_text().splitlines():
        _number, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            folder = mount / controller / path.strip("/")
            return folder if folder.exists() else mount / controller
    raise FileNotFoundError(f"This process has no control group of the controller {controller}")


def _subgroup_v2(mount: Path, own: Path) -> Path:
    """Return a group whose subgroups have CPU and memory limits: the root's, or the delegated one of this process.

    A group with limited subgroups must have no processes of its own, so those of a delegated one move to a subgroup.
    """
    if os.access(mount / "cgroup.subtree_control", os.W_OK):
        group = mount
    else:
        [path] = [line[3:] for line in own.read_text().splitlines() if line.startswith("0::")]
        group = mount / path.strip("/")
        (group / "callers").mkdir(exist_ok=True)
        for pid in (group / "cgroup.procs").read_text().split():
            (group / "callers/cgroup.procs").write_text(pid)
    (group / "cgroup.subtree_control").write_text("+cpu +memory")
    return group
