"""The worker as ECS runs it: a process that a signal ends."""

import os
import signal
import subprocess
import sys

from tests.conftest import ROOT
from tests.integration.machine.conftest import Deployed


def test_a_worker_that_is_told_to_stop_stops_and_says_so(stack: Deployed) -> None:
    environment = {
        **os.environ,
        **stack.cloud.environment,
        "WORK_BUCKET": stack.outputs["WorkBucket"],
        "QUEUE_URL": stack.outputs["QueueUrl"],
        "PBR_MODEL_DIR": "/nowhere",
    }
    command = [sys.executable, "-m", "functions.segment.worker"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout
        assert "worker started" in worker.stdout.readline()
        worker.send_signal(signal.SIGTERM)
        told, _ = worker.communicate(timeout=30)
        assert worker.returncode == 0
        assert "worker stopped" in told
