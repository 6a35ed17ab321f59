"""The rehearsal of a deployment passes."""

import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("aws") is None, reason="make deploy needs the AWS CLI")
def test_a_deployment_can_be_rehearsed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.rehearsal"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The stack is deleted." in done.stdout
