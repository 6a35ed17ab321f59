"""The worker as a process, as ECS runs it. Each test has its own queue, which no other worker reads."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import IO
from uuid import uuid4

import pytest

from core.segmentation.registry import BUNDLED
from tests.conftest import ROOT, disc
from tests.integration.deployment import Deployed

SAMPLE = json.loads((ROOT / "events/segment.json").read_text())
ROLE = "arn:aws:iam::123456789012:role/worker-test"
SECONDS_HIDDEN = 3


class Line:
    """A queue, and a state machine that sends its input to it and waits for the answer, as SegmentOnEcs does."""

    def __init__(self, stack: Deployed) -> None:
        name = f"line-{uuid4().hex[:8]}"
        self.stack, self.bucket = stack, stack.outputs["WorkBucket"]
        self.queue_url = stack.sqs.create_queue(QueueName=name)["QueueUrl"]
        task = {
            "Type": "Task",
            "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
            "Parameters": {
                "QueueUrl": self.queue_url,
                "MessageBody": {"token.$": "$$.Task.Token", "job.$": "$"},
            },
            "TimeoutSeconds": 120,
            "End": True,
        }
        definition = json.dumps({"StartAt": "Segment", "States": {"Segment": task}})
        machine = stack.sfn.create_state_machine(name=name, definition=definition, roleArn=ROLE)
        self._machine_arn = machine["stateMachineArn"]

    def start(self, key: str, picture: bytes) -> str:
        """Start the segmentation of an image, and return the execution's ARN."""
        self.stack.s3.put_object(Bucket=self.bucket, Key=key, Body=picture)
        job = {
            **SAMPLE,
            "execution": {**SAMPLE["execution"], "name": key},
            "source": {**SAMPLE["source"], "bucket": self.bucket, "key": key},
            "keys": {**SAMPLE["keys"], "mask": f"{key}.mask.png"},
        }
        return self.stack.sfn.start_execution(stateMachineArn=self._machine_arn, input=json.dumps(job))["executionArn"]

    def succeeds(self, execution_arn: str) -> None:
        """Wait for the answer, and check that its mask exists."""
        ended = self.stack.wait(execution_arn)
        assert ended.status == "SUCCEEDED", ended.cause
        self.stack.s3.head_object(Bucket=self.bucket, Key=ended.output["key"])

    def is_empty(self) -> bool:
        """Whether no message is left, visible or not."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        counts = self.stack.sqs.get_queue_attributes(QueueUrl=self.queue_url, AttributeNames=names)["Attributes"]
        return all(int(counts[name]) == 0 for name in names)

    def environment(self, **more: str) -> dict[str, str]:
        return {
            **os.environ,
            **self.stack.cloud.environment,
            "WORK_BUCKET": self.bucket,
            "QUEUE_URL": self.queue_url,
            "PBR_MODEL_DIR": "/nowhere",
            "PBR_VISIBILITY_S": str(SECONDS_HIDDEN),
            "PBR_HEARTBEAT_S": "1",
            **more,
        }


class Process:
    """A worker's process and its log."""

    def __init__(self, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "functions.segment.ecs.worker"]
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        self._log: IO[str] = self._process.stdout

    def wait_for_log(self, text: str) -> None:
        """Read the log up to a message."""
        for line in self._log:
            if text in line:
                return
        raise AssertionError(f"the worker ended without logging: {text}")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def ends(self) -> tuple[int, list[str]]:
        """Wait for its end, and return its exit status and the rest of its log."""
        rest, _ = self._process.communicate(timeout=60)
        return self._process.returncode, rest.splitlines()

    def stop(self) -> list[str]:
        """Send SIGTERM, as ECS does, and return the log from then on."""
        self._process.send_signal(signal.SIGTERM)
        status, rest = self.ends()
        assert status == 0
        assert "worker stopped" in rest[-1]
        return rest

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._log.close()


@pytest.fixture
def line(stack: Deployed) -> Iterator[Line]:
    yield Line(stack)


@pytest.mark.slow
def test_an_idle_worker_stops_on_sigterm_and_logs_it(line: Line) -> None:
    with Process(line.environment()) as worker:
        worker.wait_for_log("worker started")
        worker.stop()


@pytest.mark.slow
def test_a_worker_that_is_stopped_during_work_loses_no_job(line: Line) -> None:
    executions = [line.start(f"stop-{number}", disc(seed=number)) for number in range(6)]
    with Process(line.environment()) as worker:
        worker.wait_for_log("job received")
        log = worker.stop()
    assert any("jobs returned to the queue" in entry for entry in log)
    with Process(line.environment()) as worker:
        for execution in executions:
            line.succeeds(execution)
        worker.stop()
    assert line.is_empty()


@pytest.mark.slow
def test_the_jobs_of_a_killed_worker_are_done_by_another(line: Line) -> None:
    executions = [line.start(f"kill-{number}", disc(seed=number)) for number in range(3)]
    with Process(line.environment()) as worker:
        worker.wait_for_log("job received")
        worker.kill()
    assert not line.is_empty()
    with Process(line.environment()) as worker:
        for execution in executions:
            line.succeeds(execution)
        worker.stop()
    assert line.is_empty()


@pytest.mark.slow
def test_a_worker_without_its_required_gpu_exits_with_one_clear_log_line(line: Line) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine may have a GPU")
    with Process(line.environment(DEFAULT_MODEL=BUNDLED, PBR_DEVICE="cuda")) as worker:
        status, log = worker.ends()
    assert status == 1
    [entry] = [line for line in map(json.loads, log) if "_aws" not in line]
    assert entry["level"] == "ERROR"
    assert entry["failure"]["error"] == "GpuUnavailableError"
    assert entry["failure"]["remedy"]
