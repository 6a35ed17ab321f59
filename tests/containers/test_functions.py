"""Runs every function in its container: with sam local, and as on Lambda: read-only, arbitrary user."""

import io
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import boto3
import pytest
from botocore.config import Config
from PIL import Image

from client.stack import Stack
from tests.conftest import ROOT
from tests.containers.conftest import PIPELINE, Containers, Function, Sam, http, sam_environment

pytestmark = pytest.mark.usefixtures("sample_upload")

# Keys that identify the response of each function.
ANSWERS: Final[dict[str, set[str]]] = {
    "Validate": {"source", "options", "keys"},
    "Segment": {"model", "key"},
    "Refine": {"key"},
    "Encode": {"result"},
    "Metrics": set(),
    "Failure": set(),
    "Api": {"statusCode", "body"},
}


def check(function: Function, payload: bytes) -> None:
    """Assert that the response is no error. Neither sam nor the emulator reports errors in another way."""
    answer = json.loads(payload)
    assert "errorType" not in (answer or {}), payload.decode()
    missing = ANSWERS[function.logical_id.removesuffix("Function")] - set(answer or {})
    assert not missing, payload.decode()


def named(stage: str, functions: list[Function]) -> Function:
    [function] = [function for function in functions if function.logical_id == f"{stage}Function"]
    return function


def check_result(stack: Stack) -> None:
    """Check the sample's result in the results bucket and delete it, so that the next test cannot find it."""
    location: Any = {"Bucket": stack.outputs["ResultsBucket"], "Key": "results/photos/cup.png.png"}
    picture = Image.open(io.BytesIO(stack.s3.get_object(**location)["Body"].read()))
    stack.s3.delete_object(**location)
    assert (picture.format, picture.mode, picture.size) == ("PNG", "RGBA", (600, 400))
    assert picture.getchannel("A").getextrema() == (0, 255)


class TestSamLocal:
    @pytest.mark.parametrize("stage", PIPELINE)
    def test_invokes(self, stage: str, sam: Sam, functions: list[Function], stack: Stack) -> None:
        function = named(stage, functions)
        done = subprocess.run(
            sam.command("local", "invoke", function.logical_id, "--event", str(function.sample)),
            cwd=ROOT, env=sam_environment(), capture_output=True, text=True, check=True,
        )  # fmt: skip
        check(function, done.stdout.encode())
        if stage == "Encode":
            check_result(stack)

    def test_serves_the_lambda_api(self, sam: Sam, functions: list[Function], lambda_api: str) -> None:
        config = Config(read_timeout=120, retries={"total_max_attempts": 1})
        client: Any = boto3.client(
            "lambda", "eu-west-1", endpoint_url=lambda_api, config=config,
            aws_access_key_id="local", aws_secret_access_key="local",
        )  # fmt: skip
        function = named("Validate", functions)
        answer = client.invoke(FunctionName=function.logical_id, Payload=function.sample.read_bytes())
        check(function, answer["Payload"].read())


@pytest.fixture
def lambda_api(sam: Sam) -> Iterator[str]:
    """URL of a running `sam local start-lambda`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        sam.command("local", "start-lambda", "--port", str(port)),
        cwd=ROOT, env=sam_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        http(f"http://127.0.0.1:{port}/")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()  # background processes ignore SIGINT
        process.wait(60)


@pytest.mark.parametrize("stage", PIPELINE)
def test_function_runs_on_a_read_only_disk_as_any_user(
    stage: str,
    containers: Containers,
    functions: list[Function],
    stack: Stack,
    measure: Callable[[str, str], None],
) -> None:
    function = named(stage, functions)
    started = time.monotonic()
    with containers.emulated(function) as invoke:
        check(function, invoke(function.sample.read_bytes()))
        first = time.monotonic()
        check(function, invoke(function.sample.read_bytes()))
        second = time.monotonic()
    measure(f"{function.logical_id}: cold start", f"{(first - started) - (second - first):.1f} s")
    if stage == "Encode":
        check_result(stack)
