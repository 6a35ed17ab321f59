"""Commands import only what they need. Wrong imports cost seconds at each start, and no other test notices them."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from typer.main import get_group

from client.cli import LazyCommand
from client.cli import app as pbr
from tests.conftest import ROOT
from tests.fakes.stack_in_memory import OUTPUTS

SLOW = {"PIL", "boto3", "botocore", "cv2", "moto", "numpy", "onnxruntime", "pydantic", "samtranslator"}


def imported_by(*arguments: str, **environment: str) -> set[str]:
    """Return the top-level packages that a command imports."""
    command = [sys.executable, "-X", "importtime", "-m", "client.cli", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=True
    )
    return set(re.findall(r"^import time:.*\| +(\w+)", done.stderr, flags=re.MULTILINE))


@pytest.mark.parametrize("arguments", ["--help", "--version"])
def test_what_needs_no_command_imports_nothing_slow(arguments: str) -> None:
    assert imported_by(arguments) & SLOW == set()


@pytest.mark.parametrize("command", get_group(pbr).commands.values(), ids=lambda command: command.name)
def test_help_of_pbr_has_the_first_line_of_each_commands_help(command: LazyCommand) -> None:
    assert command.help == command.load().help.partition("\n")[0]


def test_version_has_the_directory_of_the_installation() -> None:
    done = subprocess.run([sys.executable, "-m", "client.cli", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert re.fullmatch(r"pbr \d+\.\d+\.\d+ from (.+) \(Python \d+\.\d+\.\d+\)\n", done.stdout)
    assert str(ROOT) in done.stdout


def test_ctrl_c_during_the_imports_ends_the_command_without_a_traceback() -> None:
    interrupt = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path, target=None):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
import client.cli
"""
    done = subprocess.run([sys.executable, "-c", interrupt], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "")


def test_completion_of_a_command_name_imports_no_command() -> None:
    words = {"_PBR_COMPLETE": "complete_bash", "COMP_WORDS": "pbr hi", "COMP_CWORD": "1"}
    code = "from client.cli import app; app(prog_name='pbr')"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        cwd=ROOT,
        env=os.environ | words,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["history"]
    assert "client.commands.history" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        *("process", "bulk"),
        *(
            pytest.param(command, marks=pytest.mark.slow)
            for command in ("watch", "history", "status", "redrive", "replay-dlq", "keys list", "models", "down")
        ),
    ],
)
def test_help_of_a_command_imports_no_sdk_no_cloud_and_no_pixels(command: str) -> None:
    assert imported_by(*command.split(), "--help") & (SLOW - {"pydantic"}) == set()  # Typer parses with pydantic


@pytest.fixture
def endpoint() -> Iterator[str]:
    """The endpoint of a cloud with one stack that has no executions."""
    outputs = "".join(
        f"<member><OutputKey>{key}</OutputKey><OutputValue>{value}</OutputValue></member>"
        for key, value in OUTPUTS.items()
    )
    stacks = (
        "<DescribeStacksResponse><DescribeStacksResult><Stacks><member><StackStatus>CREATE_COMPLETE</StackStatus>"
        f"<Outputs>{outputs}</Outputs></member></Stacks></DescribeStacksResult></DescribeStacksResponse>"
    )

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = b'{"executions": []}' if "X-Amz-Target" in self.headers else stacks.encode()
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_command_on_an_embedded_cloud_imports_boto3_without_its_extensions_for_aws(endpoint: str) -> None:
    imported = imported_by("history", AWS_ENDPOINT_URL=endpoint)
    assert imported & (SLOW - {"pydantic"}) == {"boto3", "botocore"}
    assert imported & {"_awscrt", "cryptography"} == set()  # of awscrt and pyOpenSSL
