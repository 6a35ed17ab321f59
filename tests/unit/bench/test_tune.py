import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.lambda_cgroup import CgroupError, LambdaCgroup, cpu_share, visible_cpus
from bench.tune import LARGEST_DEFAULT_MB, SUBJECTS, possible, proposal
from bench.tune_report import PAGE, chart, cost_usd, parts, write
from functions.contracts.durations import Measurement, Sample, durations
from tests.unit.template.test_template import Stack


def samples(*pairs: tuple[int, float]) -> list[Sample]:
    return [
        Sample(memory_mb=size, seconds=seconds, init_seconds=1.0, first_seconds=2 * seconds, peak_mb=200)
        for size, seconds in pairs
    ]


@pytest.mark.parametrize(
    ("memory_mb", "share", "visible"), [(512, 0.289, 2), (1769, 1, 2), (3538, 2, 2), (10240, 5.789, 6)]
)
def test_the_cpu_share_follows_the_memory(memory_mb: int, share: float, visible: int) -> None:
    assert cpu_share(memory_mb) == pytest.approx(share, abs=1e-3)
    assert visible_cpus(memory_mb) == visible


def test_a_group_of_version_1_has_the_quota_and_the_limit(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("4:memory:/here\n2:cpu,cpuacct:/\n0::/\n")
    for folder in ("cpu", "memory/here"):
        (tmp_path / folder).mkdir(parents=True)
    group = LambdaCgroup(3008, mount=tmp_path, own=own)
    group.add(42)
    [cpu], [memory] = (tmp_path / "cpu").glob("pbr-tune-*"), (tmp_path / "memory/here").glob("pbr-tune-*")
    assert (cpu / "cpu.cfs_period_us").read_text() == "20000"
    assert (cpu / "cpu.cfs_quota_us").read_text() == "34008"  # 3008 / 1769 CPUs
    assert (memory / "memory.limit_in_bytes").read_text() == str(3008 << 20)
    assert (cpu / "cgroup.procs").read_text() == (memory / "cgroup.procs").read_text() == "42"


def test_a_group_of_version_2_has_the_quota_and_the_limit(tmp_path: Path) -> None:
    for file in ("cgroup.controllers", "cgroup.subtree_control"):
        (tmp_path / file).write_text("")
    LambdaCgroup(512, mount=tmp_path, own=tmp_path / "none").add(42)
    [group] = tmp_path.glob("pbr-tune-*")
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +memory"
    assert (group / "cpu.max").read_text() == "5789 20000"
    assert (group / "memory.max").read_text() == str(512 << 20)
    assert (group / "cgroup.procs").read_text() == "42"


def test_without_control_groups_the_error_says_how_to_get_them(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("0::/\n")
    with pytest.raises(CgroupError, match="sudo make tune"):
        LambdaCgroup(512, mount=tmp_path, own=tmp_path / "own")


def test_a_process_that_needs_more_memory_is_killed() -> None:
    try:
        group = LambdaCgroup(128)
    except CgroupError as error:
        pytest.skip(str(error))
    program = "import sys; sys.stdin.read(1); b'x' * (256 << 20)"
    with group, subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as process:
        group.add(process.pid)
        process.communicate(b"x")
        assert process.returncode == -9


def test_sizes_that_the_machine_lacks_cpus_for_are_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    assert possible([1024, 3008, 4096], 2) == [1024, 3008]
    assert "4,096 MB skipped: 2.3 CPUs, this machine has 2" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="too few CPUs"):
        possible([4096], 2)


@pytest.mark.parametrize(
    ("function", "measured", "proposed"),
    [
        ("segment", samples((1769, 2.0), (3008, 1.25)), 3008),
        ("validate", samples((1024, 2.0), (2560, 0.85)), 2560),  # 6 % dearer than the cheapest
        ("validate", samples((1024, 2.0), (2560, 0.95)), 2048),  # 19 % dearer: what it needs
        ("validate", samples((1024, 4.0), (4096, 0.9)), LARGEST_DEFAULT_MB),
        ("metrics", samples((512, 0.4), (1024, 0.1)), 512),  # waits for AWS
    ],
)
def test_the_proposal_is_the_fastest_size_that_costs_little_more(
    function: str, measured: Sequence[Sample], proposed: int
) -> None:
    assert proposal(function, measured, []).proposed_mb == proposed


def test_cost_is_memory_times_duration_at_the_list_price() -> None:
    [sample] = samples((2048, 0.5))
    assert cost_usd(sample) == pytest.approx(16.6667)


def test_durations_between_measured_sizes_follow_the_cpu_share() -> None:
    found = Measurement(samples=tuple(samples((1000, 4.0), (2000, 2.0), (3000, 1.8))), proposed_mb=3000, reason="")
    assert found.seconds(2000) == 2.0
    assert found.seconds(1600) == pytest.approx(2.5)  # time times share is constant there
    assert found.seconds(500) == 8.0
    assert found.seconds(10240) == 1.8
    assert (found.cheapest.memory_mb, found.fastest.memory_mb) == (1000, 3000)


def test_the_page_has_the_measurements(tmp_path: Path) -> None:
    text = PAGE.read_text()
    for part in parts(durations()).values():
        assert part in text
    copy = tmp_path / "sizes.md"
    copy.write_text(text)
    write(durations().model_copy(update={"cpu": "another"}), copy, tmp_path / "chart.png")
    assert "another" in copy.read_text()
    assert (tmp_path / "chart.png").stat().st_size > 10_000
    assert len(chart(durations()).axes) == 5


def test_the_template_has_the_proposed_sizes() -> None:
    stack = Stack({})
    sizes = {name: int(stack[f"{name.title()}Function"]["MemorySize"]) for name in SUBJECTS}
    assert sizes == {name: found.proposed_mb for name, found in durations().functions.items()}
    assert max(sizes.values()) <= LARGEST_DEFAULT_MB
