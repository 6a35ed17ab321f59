import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from client.cli import app
from client.errors import EmbeddedCloudError
from client.local_cloud import (
    DefaultModel,
    RunningCloud,
    all_running,
    check_port,
    directories,
    registered,
    running,
    start,
    state_directory,
    stop,
)
from tests.conftest import ROOT

MODEL = DefaultModel("classical", "requested", limited=False)
CLOUD = RunningCloud(
    "http://localhost:5555", "eu-west-1", "pbr", os.getpid(), MODEL, "/code/pbr", "http://localhost:8080"
)

HOLD = """
import os, sys, time
from pathlib import Path
from client.local_cloud import DefaultModel, RunningCloud, registered
model = DefaultModel("m", "w", False)
with registered(Path(sys.argv[1])) as register:
    register(RunningCloud("http://localhost:1", "eu-west-1", "pbr", os.getpid(), model, sys.argv[1], "http://localhost:2"))
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
        register(None)
        assert running(tmp_path / "new") is None, "not while it stops"
    assert running(tmp_path / "new") is None


@pytest.mark.parametrize("text", ['{"model": ', "{}", "[]", '{"model": {}}'], ids=["half", "empty", "list", "model"])
def test_error_for_a_damaged_state_file_has_its_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    directory, other = state_directory(Path("/a")), state_directory(Path("/b"))
    with registered(directory), registered(other) as register_other:
        register_other(CLOUD)
        (directory / "cloud.json").write_text(text)
        with pytest.raises(EmbeddedCloudError, match="damaged") as caught:
            running(directory)
        assert caught.value.value == str(directory / "cloud.json")
        assert all_running() == [CLOUD], "the clouds of other directories are found"


def test_a_state_file_that_is_being_written_is_not_damaged(tmp_path: Path) -> None:
    with registered(tmp_path) as register, ThreadPoolExecutor() as pool:
        register(CLOUD)
        text = (tmp_path / "cloud.json").read_text()
        (tmp_path / "cloud.json").write_text(text[:-9])
        found = pool.submit(running, tmp_path)
        time.sleep(0.25)
        with (tmp_path / "cloud.json").open("r+") as file:  # an empty file would mean that none is ready
            file.write(text)
        assert found.result() == CLOUD


def test_the_name_of_a_state_directory_fits_a_file_system(tmp_path: Path) -> None:
    (tmp_path / state_directory(Path("/") / ("\U0001f600" * 60)).name).mkdir()


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


def test_a_cloud_that_is_starting_is_stopped_when_it_is_ready(tmp_path: Path) -> None:
    starting = HOLD.replace("    register(", "    print('locked', flush=True)\n    time.sleep(0.5)\n    register(")
    process = subprocess.Popen([sys.executable, "-c", starting, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline()
    assert running(tmp_path) is None
    stopped = stop(tmp_path)
    assert stopped is not None and stopped.pid == process.pid
    assert process.wait(1) == -signal.SIGTERM


@pytest.fixture
def state_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.mark.usefixtures("state_home")
def test_an_interrupted_start_leaves_no_cloud() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    children = set(psutil.Process().children())
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            start(state_directory(), ["--port", "0", "--api-port", "0", "--chosen-model", "classical"])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    _, alive = psutil.wait_procs(set(psutil.Process().children()) - children, timeout=10)
    assert not alive


def test_commands_that_start_a_cloud_at_the_same_time_use_one_cloud_and_its_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho log of $$\nsleep 0.5\nexec {sys.executable} -c '{HOLD}' {tmp_path}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda _: start(tmp_path, []), range(3)))
    cloud = stop(tmp_path)
    assert cloud is not None and [found for found, _ in answers] == [cloud] * 3
    assert sum(started for _, started in answers) == 1
    assert [path.name for path in tmp_path.glob("*.log")] == ["cloud.log"]
    assert (tmp_path / "cloud.log").read_text() == f"log of {cloud.pid}\n"


def test_the_log_of_a_cloud_that_does_not_start_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/ls")
    with pytest.raises(EmbeddedCloudError, match="did not start") as caught:
        start(tmp_path, [])
    assert caught.value.value == str(tmp_path / "cloud.log")
    assert (tmp_path / "cloud.log").read_text() and str(caught.value.remedy).startswith("The end of its log:")
    assert [path.name for path in tmp_path.glob("*.log")] == ["cloud.log"]


@pytest.mark.usefixtures("state_home")
def test_each_project_directory_has_a_cloud_of_its_own() -> None:
    one, other = state_directory(Path("/a/pbr")), state_directory(Path("/b/pbr"))
    with registered(one) as register, registered(other) as register_other:
        register(CLOUD)
        assert running(one) == CLOUD and running(other) is None
        register_other(CLOUD)
        assert directories() == sorted([one, other])


@pytest.mark.usefixtures("state_home")
def test_down_stops_the_cloud_of_this_project_and_all_stops_the_others() -> None:
    ours, other = state_directory(), state_directory(Path("/b/pbr"))
    processes = [holder(ours), holder(other)]
    pbr = CliRunner()
    stopped = pbr.invoke(app, ["down"])
    assert f"Stopped the cloud of {ours}" in stopped.stdout, stopped.stderr
    assert running(other) is not None
    assert "pbr down --all" in pbr.invoke(app, ["down"]).stdout
    stopped = pbr.invoke(app, ["down", "--all"])
    assert stopped.stdout.splitlines() == [f"Stopped the cloud of {other} at http://localhost:1."]
    assert [process.wait(1) for process in processes] == [-signal.SIGTERM] * 2


@pytest.mark.usefixtures("state_home")
@pytest.mark.parametrize("option", ["--port", "--api-port"])
def test_a_port_in_use_is_reported_with_the_cloud_that_uses_it(option: str) -> None:
    check_port(option, 0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedCloudError, match=f"another program.*{port}"):
            check_port(option, port)
        name = "endpoint_url" if option == "--port" else "api_url"
        other = replace(CLOUD, project="/b/pbr", **{name: f"http://localhost:{port}"})
        with registered(state_directory(Path("/b/pbr"))) as register:
            register(other)
            with pytest.raises(EmbeddedCloudError, match="the embedded cloud of /b/pbr") as raised:
                check_port(option, port)
    assert "pbr down" in raised.value.remedy and f"{option} 0" in raised.value.remedy


def test_state_of_another_version_is_read(tmp_path: Path) -> None:
    with registered(tmp_path) as register:
        register(CLOUD)
        path = tmp_path / "cloud.json"
        state = json.loads(path.read_text())
        del state["api_url"]
        path.write_text(json.dumps({**state, "later": 1}))
        assert running(tmp_path) == replace(CLOUD, api_url="")
