"""Headless Chromium, and the served web page: for tests, and for the pictures of the documentation."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from playwright.sync_api import Browser, sync_playwright

from client.commands.up import best_here, stack_parameters
from core.options import Host
from core.segmentation.registry import BUNDLED
from embedded_cloud.cloud import EmbeddedCloud
from tests.conftest import ROOT

# Chromium would look up hosts on the internet, which can take seconds to fail.
_QUIET = (
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def chromium_path() -> str | None:
    """Return the path of Debian's Chromium; None if it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Chromium."""
    root = ("--no-sandbox",) if os.geteuid() == 0 else ()  # root cannot use the sandbox
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=[*_QUIET, *root])
        yield browser
        browser.close()


@contextmanager
def embedded_cloud(parameters: Mapping[str, str]) -> Iterator[EmbeddedCloud]:
    """Run an embedded cloud as ``pbr up`` does, with these parameters."""
    all_parameters = {**stack_parameters(best_here(BUNDLED), Host.AUTO, all_hosts=False), **parameters}
    with EmbeddedCloud(ROOT / "template.yaml", all_parameters) as cloud:
        cloud.start_functions()
        yield cloud


@contextmanager
def served(environment: Mapping[str, str]) -> Iterator[str]:
    """Serve the page as its container and ``pbr ui`` do, and yield its address.

    Args:
        environment: variables that select the stack.
    """
    port = free_port()
    command = [sys.executable, "-m", "web", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment})
    try:
        address = f"http://localhost:{port}"
        _wait_until_healthy(address, process)
        yield address
    finally:
        process.terminate()
        process.wait(20)


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_healthy(address: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "the page ended"
        with suppress(OSError), urllib.request.urlopen(f"{address}/_stcore/health", timeout=1):
            return
        time.sleep(0.2)
    raise AssertionError("the page did not start")
