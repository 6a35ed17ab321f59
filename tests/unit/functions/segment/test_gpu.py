from pathlib import Path

import pytest

from embedded_cloud import embedded_metrics
from functions.segment import gpu


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in place of nvidia-smi, which a test has to write."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "nvidia-smi"


def write(program: Path, output: str, status: int = 0) -> None:
    """Write a program that knows the query, and prints lines."""
    known = "--query-gpu=utilization.gpu,memory.used,memory.total --format=csv,noheader,nounits"
    program.write_text(f"#!/bin/sh\n[ \"$*\" = '{known}' ] || exit 2\nprintf '{output}'\nexit {status}\n")
    program.chmod(0o755)


def test_utilization_and_memory_of_each_gpu_are_published(nvidia_smi: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(nvidia_smi, "35, 4096, 16384\\n90, 8192, 16384\\n")
    gpu.publish_use()
    data = [datum for line in capsys.readouterr().out.splitlines() for datum in embedded_metrics.extract(line)]
    assert [(one.name, one.unit, one.values) for one in data] == [
        ("GpuUtilization", "Percent", (35.0,)),
        ("GpuMemoryUtilization", "Percent", (25.0,)),
        ("GpuUtilization", "Percent", (90.0,)),
        ("GpuMemoryUtilization", "Percent", (50.0,)),
    ]


@pytest.mark.parametrize(
    ("output", "status", "failure"),
    [
        ("No devices were found\\n", 6, "CalledProcessError"),
        ("[N/A], 4096, 16384\\n", 0, "ValueError"),
        ("an error\\n", 0, "ValueError"),
        (None, 0, "FileNotFoundError"),
    ],
)
def test_without_a_report_there_is_a_warning_and_no_metric(
    output: str | None,
    status: int,
    failure: str,
    nvidia_smi: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if output is not None:
        write(nvidia_smi, output, status)
    gpu.publish_use()
    assert not embedded_metrics.extract(capsys.readouterr().out)
    [record] = caplog.records
    assert record.levelname == "WARNING" and record.__dict__["failure"].startswith(failure)
