"""rembg's command line and its HTTP server, as a user starts them, in a virtual environment of their own."""

import json
import os
import resource
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Final

import httpx

from bench.segmentation.inputs import Network

COMMAND: Final = Path(__file__).parent.parent / ".venv" / "peer" / "bin" / "rembg"
"""What ``make bench-segmentation`` installs from ``requirements/peer.lock``."""

# The session for U^2-Net's weights wherever they come from; it is given the file's path, so that nothing is downloaded.
_SESSION: Final = "u2net_custom"
_START_LIMIT_S: Final = 120.0
_TIME_LIMIT_S: Final = 120.0


def command_line(network: Network, folder: Path, pictures: int, *, only_mask: bool) -> Callable[[], float]:
    """Compile rembg's numba code, and return the call of ``rembg p`` on a folder: it returns the CPU seconds taken."""
    files = sorted(folder.iterdir())

    def run(count: int) -> float:
        with tempfile.TemporaryDirectory() as scratch:
            source, target = Path(scratch, "in"), Path(scratch, "out")
            source.mkdir()
            for number, file in enumerate(islice(cycle(files), count)):
                shutil.copyfile(file, source / f"{number}{file.suffix}")
            before = _children_cpu_s()
            arguments = ["p", "-m", _SESSION, "-x", _extras(network), *(["-om"] if only_mask else [])]
            subprocess.run(  # noqa: S603
                [COMMAND, *arguments, source, target], check=True, capture_output=True, env=_environment(network)
            )
            if (made := len(list(target.iterdir()))) != count:  # it prints what went wrong, and goes on
                raise ChildProcessError(f"rembg made {made} of {count} files")
            return _children_cpu_s() - before

    run(1)
    return lambda: run(pictures)


def requests(
    url: str, network: Network, folder: Path, pictures: int, *, only_mask: bool, clients: int
) -> Callable[[], None]:
    """Have the server load the network, and return the call that posts pictures to it.

    Args:
        url: the server's, see :func:`server`.
        network: what it is to run.
        folder: the pictures, taken in turns.
        pictures: how many a call posts.
        only_mask: whether the mask or the cut-out is asked for.
        clients: how many post at a time.
    """
    files = [path.read_bytes() for path in sorted(folder.iterdir())]
    fields, more = {"model": _SESSION, "om": str(only_mask).lower()}, {"extras": _extras(network)}
    client = httpx.Client(timeout=_TIME_LIMIT_S)

    def post(file: bytes) -> None:
        client.post(f"{url}/api/remove", params=more, data=fields, files={"file": file}).raise_for_status()

    def run(count: int) -> None:
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(post, islice(cycle(files), count)))

    run(clients)
    return lambda: run(pictures)


@contextmanager
def server(network: Network) -> Iterator[str]:
    """Run ``rembg s`` without its web interface; yield its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    arguments = ["s", "--host", "127.0.0.1", "--port", str(port), "--log_level", "error", "--no-ui"]
    process = subprocess.Popen(  # noqa: S603
        [COMMAND, *arguments], env=_environment(network), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(url, process)
        yield url
    finally:
        process.terminate()
        process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"{url}/openapi.json")
        except httpx.TransportError:
            time.sleep(0.2)
        else:
            return
    raise ChildProcessError("rembg's server does not answer")


def _extras(network: Network) -> str:
    return json.dumps({"model_path": str(network.path.absolute())})


def _environment(network: Network) -> dict[str, str]:
    return {**os.environ, "U2NET_HOME": str(network.path.parent.absolute()), "BROWSER": "true"}


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
