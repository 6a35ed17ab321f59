"""How the embedded cloud starts and ends: nothing of it is left behind."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import pytest

from local.cloud import EmbeddedCloud

TEMPLATE = Path(__file__).parent / "embedded" / "template.yaml"


def client(service: str, environment: dict[str, str]) -> Any:
    session = boto3.session.Session("local", "local", region_name=environment["AWS_REGION"])
    return session.client(service, endpoint_url=environment["AWS_ENDPOINT_URL"])


def children_of(process: int) -> set[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=False)
    return {int(line) for line in listed.stdout.split()}


def is_running(process: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, 0)
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_cloud(number: signal.Signals) -> None:
    root = Path(__file__).parents[2]
    arguments = [sys.executable, "-m", "local", "--port", "0", "--template", str(TEMPLATE)]
    with subprocess.Popen(arguments, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        environment: dict[str, str] = {}
        for line in process.stdout or []:
            if line.startswith("export "):
                name, value = line.strip().removeprefix("export ").split("=", 1)
                environment[name] = value
            if len(environment) == 5:
                break
        lambdas = client("lambda", environment)
        echo = next(f["FunctionName"] for f in lambdas.list_functions()["Functions"] if "Echo" in f["FunctionName"])
        lambdas.invoke(FunctionName=echo, Payload="{}")
        children = children_of(process.pid)
        assert len(children) == 2  # the sandbox and the worker
        process.send_signal(number)
        assert process.wait(15) == (0 if number is signal.SIGTERM else -signal.SIGKILL)
    deadline = time.monotonic() + 5
    while any(is_running(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_cloud_follows_another_at_the_same_port_and_knows_nothing_of_it() -> None:
    port = free_port()
    for _ in range(2):
        with EmbeddedCloud(TEMPLATE, {"WorkerCount": "0"}, port) as cloud:
            buckets = client("s3", cloud.environment).list_buckets()["Buckets"]
            assert {bucket["Name"] for bucket in buckets} == {cloud.outputs["Bucket"], cloud.outputs["PlainBucket"]}
            with pytest.raises(RuntimeError, match="Another embedded cloud"), EmbeddedCloud(TEMPLATE):
                pass


def test_a_port_in_use_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"), EmbeddedCloud(TEMPLATE, port=taken.getsockname()[1]):
            pass
