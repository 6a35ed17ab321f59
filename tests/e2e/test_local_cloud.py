"""The life of an embedded cloud: changes are reported, a restart keeps its options, and it stops when idle."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.e2e.conftest import ON_AWS, Pbr

pytestmark = [pytest.mark.slow, pytest.mark.skipif(ON_AWS, reason="about the cloud on this machine")]

UP = ("up", "--port", "0", "--api-port", "0", "--model", "classical", "--parameter", "CacheDays=3")


@pytest.fixture(scope="module")
def pbr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pbr]:
    """The command line, with a cloud that runs in the foreground of another terminal."""
    command = Pbr(tmp_path_factory.mktemp("home"))
    process = subprocess.Popen(
        [sys.executable, "-m", "client.cli", *UP], cwd=ROOT, env=command.environment, stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 90
        while not state(command):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        yield command
    finally:
        command("down")
        process.wait(10)


def state(pbr: Pbr) -> dict[str, Any]:
    """Return the state file of the running cloud; empty if none is running."""
    [*paths] = pbr.home.glob(".local/state/*/clouds/*/cloud.json")
    text = paths[0].read_text() if paths else ""
    return json.loads(text) if text else {}


def test_changes_after_the_start_are_reported_in_one_line(pbr: Pbr) -> None:
    assert pbr("status").stderr == b""
    mirror = pbr.environment["PBR_MODEL_MIRROR"]
    pbr.environment["PBR_MODEL_MIRROR"] = "http://127.0.0.1:10"
    [warning] = pbr("status").stderr.decode().splitlines()
    assert warning.startswith("warning: PBR_MODEL_MIRROR changed") and "Run pbr restart." in warning
    pbr.environment["PBR_MODEL_MIRROR"] = mirror


def test_a_restart_keeps_the_options_and_addresses(pbr: Pbr) -> None:
    before = state(pbr)
    output = pbr("restart").stderr.decode()
    assert "content are deleted" in output and str(ROOT) in output and "classical" in output
    after = state(pbr)
    assert after["pid"] != before["pid"]
    for name in ("endpoint_url", "api_url", "region", "project"):
        assert after[name] == before[name]
    assert after["options"]["parameters"] == ["CacheDays=3"] and after["options"]["model"] == "classical"


def test_an_idle_cloud_stops_although_its_worker_polls(pbr: Pbr) -> None:
    pbr.environment["PBR_STOP_AFTER"] = "15s"
    assert "stops after 15 idle seconds" in pbr("restart").stderr.decode()
    started = time.monotonic()
    pbr("status")
    while state(pbr):
        assert time.monotonic() < started + 60
        time.sleep(0.2)
    assert time.monotonic() - started > 15
    [log] = pbr.home.glob(".local/state/*/clouds/*/cloud.log")
    assert "No request and no execution for 15s." in log.read_text()
