"""Run rembg's command line and HTTP server from a separate virtual environment."""

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

COMMAND: Final = Path(__file__).parents[2] / ".venv" / "peer" / "bin" / "rembg"
"""``make bench-segmentation`` installs it from ``requirements/peer.lock``."""

# The session for a U^2-Net file at a given path, which downloads nothing.
_SESSION: Final = "u2net_custom"
_START_LIMIT_S: Final = 120.0
_TIME_LIMIT_S: Final = 120.0


def command_line(network: Network, folder: Path, pictures: int, *, only_mask: bool) -> Callable[[], float]:
    """Compile rembg's numba code, and return a call that runs ``rembg p`` on a folder and returns its CPU seconds."""
    files = sorted(folder.iterdir())

    def run(count: int) -> float:
        with tempfile.TemporaryDirectory() as scratch:
            source, target = Path(scratch, "in"), Path(scratch, "out")
            source.mkdir()
            for number, file in enumerate(islice(cycle(files), count)):
                shutil.copyfile(file, source / f"{number}{file.suffix}")
            before = _children_cpu_s()
            remove_folder(network, source, target, only_mask=only_mask)
            return _children_cpu_s() - before

    run(1)
    return lambda: run(pictures)


def remove_folder(network: Network, source: Path, target: Path, *, only_mask: bool = False) -> None:
    """Run ``rembg p`` on a folder.

    Raises:
        ChildProcessError: it did not process all files.
    """
    arguments = ["p", "-m", _SESSION, "-x", _extras(network), *(["-om"] if only_mask else [])]
    subprocess.run(  # noqa: S603
        [COMMAND, *arguments, source, target], check=True, capture_output=True, env=_environment(network)
    )
    made, count = len(list(target.iterdir())), len(list(source.iterdir()))
    if made != count:  # rembg prints errors and continues
        raise ChildProcessError(f"rembg made {made} of {count} files")


def requests(
    url: str, network: Network, folder: Path, pictures: int, *, only_mask: bool, clients: int
) -> Callable[[], None]:
    """Load the network in the server, and return a call that posts pictures to it.

    Args:
        url: URL of the server, see :func:`server`.
        network: the network to run.
        folder: pictures to post in turns.
        pictures: number of pictures per call.
        only_mask: True to request masks, False to request cut-outs.
        clients: number of concurrent requests.
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
    """Run ``rembg s`` without its web interface, and yield its URL."""
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
    raise ChildProcessError(f"rembg's server did not respond within {_START_LIMIT_S:g} s")


def _extras(network: Network) -> str:
    return json.dumps({"model_path": str(network.path.absolute())})


def _environment(network: Network) -> dict[str, str]:
    return {**os.environ, "U2NET_HOME": str(network.path.parent.absolute()), "BROWSER": "true"}


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
