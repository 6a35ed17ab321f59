"""``pbr ui``: serve the web page on this machine."""

import os
import signal
import subprocess
import sys
import time
import webbrowser
from contextlib import suppress
from typing import Annotated, Final
from urllib.error import URLError
from urllib.request import urlopen

import typer

from client import local_cloud
from client.commands.connect import find_stack, start_local_cloud
from client.commands.console import OUT
from client.commands.options import Region, StackName
from client.errors import WebPageError
from client.stack import Stack

_START_S: Final = 30.0
_POLL_S: Final = 0.1
_KEEP_AWAKE_S: Final = 60.0


def ui(
    port: Annotated[int, typer.Option(help="Port of the page on localhost.")] = 8501,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
    stack: StackName = None,
    region: Region = None,
) -> None:
    """Serve the web page on this machine, until Ctrl-C.

    It shows the stack in use. If that is an embedded cloud and none is running, one is started in the background. The
    embedded cloud keeps running while the page is served.

    For example: [bold]pbr ui --port 8600 --no-open[/bold]
    """
    local_cloud.check_port("--port", port)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # otherwise the server of the page would go on
    deployed = find_stack(stack, region) or start_local_cloud()
    process = subprocess.Popen(  # noqa: S603  this project's own module
        [sys.executable, "-m", "web", "--port", str(port)],
        env={**os.environ, **_environment(deployed)},
        stdout=subprocess.DEVNULL,  # Streamlit's greeting; its log is on standard error
    )
    try:
        url = f"http://localhost:{port}"
        _wait_until_ready(process, url)
        OUT.print(f"The web page of stack {deployed.name} is at {url}. Press Ctrl-C to stop it.")
        if open_:
            webbrowser.open(url)
        _wait_for_end(process, deployed)
    except KeyboardInterrupt:
        pass
    finally:
        process.terminate()
        process.wait()


def _environment(stack: Stack) -> dict[str, str]:
    """Return the variables that name a stack."""
    names = {"PBR_STACK": stack.name, "AWS_REGION": stack.region}
    return {**names, "AWS_ENDPOINT_URL": stack.endpoint_url} if stack.endpoint_url else names


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(URLError, TimeoutError), urlopen(f"{url}/_stcore/health", timeout=1):  # noqa: S310  our own server
            return
        time.sleep(_POLL_S)
    raise WebPageError(
        "The web page did not start",
        field="url",
        value=url,
        remedy="Read the messages above. If a package is missing, run make setup.",
    )


def _wait_for_end(process: "subprocess.Popen[bytes]", stack: Stack) -> None:
    """Wait until the page ends, and keep an embedded cloud from stopping because no one uses it."""
    while True:
        with suppress(subprocess.TimeoutExpired):
            status = process.wait(_KEEP_AWAKE_S)
            raise WebPageError(
                "The web page ended", field="exit status", value=status, remedy="Read the messages above."
            )
        if stack.endpoint_url:
            stack.sqs.list_queues(MaxResults=1)
