import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from client.errors import EmbeddedCloudError
from client.local_cloud import DefaultModel, RunningCloud, registered, running, stop
from tests.conftest import ROOT

MODEL = DefaultModel("classical", "requested", limited=False)
CLOUD = RunningCloud("http://localhost:5555", "eu-west-1", "pbr", os.getpid(), MODEL)

HOLD = """
import os, sys, time
from pathlib import Path
from client.local_cloud import DefaultModel, RunningCloud, registered
with registered(Path(sys.argv[1])) as register:
    register(RunningCloud("http://localhost:1", "eu-west-1", "pbr", os.getpid(), DefaultModel("m", "w", False)))
    time.sleep(60)
"""


def holder(directory: Path) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(directory)], cwd=ROOT)
    deadline = time.monotonic() + 20
    while running(directory) is None:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_a_registered_cloud_is_found_while_it_runs(tmp_path: Path) -> None:
    assert running(tmp_path) is None
    with registered(tmp_path / "new") as register:
        assert running(tmp_path / "new") is None, "not before it is ready"
        register(CLOUD)
        assert running(tmp_path / "new") == CLOUD
    assert running(tmp_path / "new") is None


def test_there_is_one_cloud_at_a_time(tmp_path: Path) -> None:
    with registered(tmp_path) as register:
        register(CLOUD)
        with pytest.raises(EmbeddedCloudError, match="localhost:5555"), registered(tmp_path):
            pass
        assert running(tmp_path) == CLOUD


def test_a_killed_cloud_releases_its_lock(tmp_path: Path) -> None:
    process = holder(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert running(tmp_path) is None
    with registered(tmp_path) as register:
        register(CLOUD)
        assert running(tmp_path) == CLOUD


def test_stop_waits_until_the_cloud_is_gone(tmp_path: Path) -> None:
    process = holder(tmp_path)
    stopped = stop(tmp_path)
    assert stopped is not None and stopped.pid == process.pid
    assert process.wait(1) == -signal.SIGTERM
    assert stop(tmp_path) is None
