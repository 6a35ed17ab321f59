"""``pbr`` as a process, on the stack PBR_STACK, or else on an embedded cloud that it starts."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

ON_AWS = "PBR_STACK" in os.environ


class Pbr:
    """Runs pbr as a user with an empty home directory."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {**os.environ, "HOME": str(home), "COLUMNS": "200", "PBR_MODEL_MIRROR": "http://127.0.0.1:9"}
        for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
            self.environment.pop(name, None)
        if not ON_AWS:
            self.environment.pop("AWS_ENDPOINT_URL", None)

    def __call__(self, *arguments: str, stdin: bytes = b"", status: int = 0) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "client.cli", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, input=stdin, capture_output=True, timeout=240, check=False
        )
        assert done.returncode == status, done.stdout.decode() + done.stderr.decode()
        return done


@pytest.fixture(scope="module")
def pbr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pbr]:
    command = Pbr(tmp_path_factory.mktemp("home"))
    try:
        yield command
    finally:
        if not ON_AWS:
            command("down")
