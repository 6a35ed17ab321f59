"""CPU and memory limits of this process: the container's where there is one, else the host's."""

import math
import os
from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")


def cpus(*, cgroup: Path = _CGROUP) -> int:
    """Return the number of CPUs that this process may use at a time, rounded up.

    As in Python 3.13, the environment variable ``PYTHON_CPU_COUNT`` replaces the CPUs that the process may run on.

    Lambda has no cgroup. It shows one CPU per 1,769 MB, rounded up, and one more below 3,538 MB (measured by
    github.com/rwnx/lambda-cpuinfo).

    Args:
        cgroup: mount point of the container's cgroup, version 2 or 1.
    """
    given = os.environ.get("PYTHON_CPU_COUNT", "")  # Python also accepts "default"
    usable = int(given) if given.isdigit() else 0
    usable = usable or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    quota, period = [*_words(cgroup / "cpu.max"), "max", "max"][:2]
    if quota == "max":
        [quota] = _words(cgroup / "cpu/cpu.cfs_quota_us") or ["-1"]
        [period] = _words(cgroup / "cpu/cpu.cfs_period_us") or ["1"]
    if int(quota) > 0:
        usable = min(usable, math.ceil(int(quota) / int(period)))
    return max(1, usable)


def memory_bytes(*, cgroup: Path = _CGROUP) -> int:
    """Return the memory of this container or host, in bytes."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    [limit] = _words(cgroup / "memory.max") or _words(cgroup / "memory/memory.limit_in_bytes") or ["max"]
    return physical if limit == "max" else min(physical, int(limit))


def _words(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []
