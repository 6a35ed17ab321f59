"""``pbr ui`` on a machine where no cloud runs."""

import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from tests.browser.served import free_port, served
from tests.conftest import ROOT
from tests.e2e.conftest import Pbr


@pytest.fixture
def pbr(tmp_path):
    return Pbr(tmp_path)


def _with_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs, and their children, ignore it


def test_starts_a_cloud_and_serves_the_page_until_ctrl_c(pbr):
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "client.cli", "ui", "--port", str(port), "--no-open"],
        cwd=ROOT,
        env=pbr.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_with_ctrl_c,
    )
    assert process.stdout is not None
    assert f"http://localhost:{port}" in process.stdout.readline()
    with urllib.request.urlopen(f"http://localhost:{port}/_stcore/health", timeout=10) as health:
        assert health.status == 200
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    pbr("down")  # fails if the cloud did not go on


def test_port_in_use_is_an_error_that_names_the_option(pbr):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = pbr("ui", "--port", str(other.getsockname()[1]), "--no-open", status=1)
    assert b"--port" in done.stderr


def test_page_ends_with_a_command_that_is_terminated(cloud):
    with served(cloud.environment) as address:
        pass  # its end terminates the command
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address, timeout=5)
