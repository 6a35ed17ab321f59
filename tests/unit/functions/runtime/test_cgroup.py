import os
from pathlib import Path

import pytest

from functions.runtime.cgroup import cpus, memory_bytes

USABLE = len(os.sched_getaffinity(0))
PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def cgroup(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content + "\n")
    return folder


def v1_cpu(quota: int) -> dict[str, str]:
    return {"cpu/cpu.cfs_quota_us": str(quota), "cpu/cpu.cfs_period_us": "100000"}


@pytest.mark.parametrize(
    ("files", "share"),
    [
        ({"cpu.max": "25000 100000"}, 1),
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "50000 20000"}, 3),
        (v1_cpu(25_000), 1),
        (v1_cpu(100_000), 1),
        (v1_cpu(150_000), 2),
    ],
    ids=str,
)
def test_a_containers_share_of_the_processors_is_rounded_up(tmp_path: Path, files: dict[str, str], share: int) -> None:
    assert cpus(cgroup=cgroup(tmp_path, files)) == min(USABLE, share)


@pytest.mark.parametrize("files", [{}, {"cpu.max": "max 100000"}, v1_cpu(-1), {"cpu.max": "6400000 100000"}], ids=str)
def test_without_a_quota_every_processor_that_the_process_may_use_counts(tmp_path: Path, files: dict[str, str]) -> None:
    assert cpus(cgroup=cgroup(tmp_path, files)) == USABLE


@pytest.mark.parametrize("file", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_containers_memory_is_its_limit(tmp_path: Path, file: str) -> None:
    assert memory_bytes(cgroup=cgroup(tmp_path, {file: "67108864"})) == 64 << 20


@pytest.mark.parametrize(
    "files",
    [{}, {"memory.max": "max"}, {"memory/memory.limit_in_bytes": "9223372036854771712"}, {"memory.max": str(1 << 60)}],
    ids=str,
)
def test_without_a_limit_the_memory_is_the_machines(tmp_path: Path, files: dict[str, str]) -> None:
    assert memory_bytes(cgroup=cgroup(tmp_path, files)) == PHYSICAL


def test_a_variable_replaces_the_processors_of_the_host_but_not_the_limit_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHON_CPU_COUNT", "7")
    assert cpus(cgroup=tmp_path) == 7
    assert cpus(cgroup=cgroup(tmp_path, {"cpu.max": "200000 100000"})) == 2
