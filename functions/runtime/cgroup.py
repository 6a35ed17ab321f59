"""What this process may use of its machine: a container's share, where it has one, and not the host's whole."""

import math
import os
from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")


def cpus(*, cgroup: Path = _CGROUP) -> int:
    """Return how many processors may be busy at a time; a part of one counts as one.

    Lambda shows no cgroup, and as many processors as its share of one per 1,769 MB rounded up, or up to 3,538 MB one
    more (measured by github.com/rwnx/lambda-cpuinfo).

    Args:
        cgroup: where the kernel tells the container's limits, in version 2 or 1.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, period = [*_words(cgroup / "cpu.max"), "max", "max"][:2]
    if quota == "max":
        [quota] = _words(cgroup / "cpu/cpu.cfs_quota_us") or ["-1"]
        [period] = _words(cgroup / "cpu/cpu.cfs_period_us") or ["1"]
    if int(quota) > 0:
        usable = min(usable, math.ceil(int(quota) / int(period)))
    return max(1, usable)


def memory_bytes(*, cgroup: Path = _CGROUP) -> int:
    """Return the memory there is for all processes of this machine or container."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    [limit] = _words(cgroup / "memory.max") or _words(cgroup / "memory/memory.limit_in_bytes") or ["max"]
    return physical if limit == "max" else min(physical, int(limit))


def _words(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []
