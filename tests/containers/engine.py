"""A Docker engine to test with, and on it the image that the Dockerfile starts from."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import docker
from docker.errors import DockerException, ImageNotFound

from tests.conftest import ROOT

_BOOTSTRAP: Final = Path(__file__).with_name("debian_base_image.sh")
_START_S: Final = 30.0
_STOP_S: Final = 30.0


class UnavailableError(Exception):
    """There is no engine, or no base image, and none can be made here; the text says why."""


@contextmanager
def engine(log: Path) -> Iterator[docker.DockerClient]:
    """Yield a client of the engine that runs, or of one that runs until the block ends.

    Args:
        log: where an engine that is started here writes to.

    Raises:
        UnavailableError: none runs, and none can be started.
    """
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        why = str(error)
    else:
        yield client
        return
    if shutil.which("dockerd") is None or os.geteuid() != 0:
        raise UnavailableError(f"no Docker engine answers, and to start one takes dockerd and root: {why}")

    with log.open("wb") as output:
        process = subprocess.Popen(["dockerd"], stdout=output, stderr=subprocess.STDOUT)
    try:
        yield _client_of(process, log)
    finally:
        process.terminate()
        process.wait(_STOP_S)


def _client_of(process: subprocess.Popen[bytes], log: Path) -> docker.DockerClient:
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            client = docker.from_env()
            client.ping()
            return client
        except DockerException:
            time.sleep(0.2)
    raise UnavailableError(f"dockerd does not start here: {' | '.join(log.read_text().splitlines()[-2:])}")


def have_base_image(client: docker.DockerClient, folder: Path) -> str:
    """See to it that what the Dockerfile starts from is on the engine, and return where it came from.

    Args:
        client: of the engine.
        folder: for a file of 150 MB that is removed again.

    Raises:
        UnavailableError: it cannot be pulled, and nothing else can be made in its place.
    """
    [name] = re.findall(r"^FROM (\S+/\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    try:
        client.images.get(name)
        return "was here"
    except ImageNotFound:
        pass
    try:
        client.images.pull(name)
        return "pulled"
    except DockerException as error:
        why = str(error)
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        raise UnavailableError(f"the base image cannot be pulled, and to make one takes debootstrap and root: {why}")

    archive = folder / "debian.tar"
    try:
        subprocess.run([_BOOTSTRAP, archive], check=True, capture_output=True, text=True)
        repository, tag = name.rsplit(":", 1)
        changes = ["ENV PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8", 'CMD ["python3"]']
        client.api.import_image(str(archive), repository=repository, tag=tag, changes=changes)
    except subprocess.CalledProcessError as error:
        raise UnavailableError(f"no base image can be pulled ({why}) or made: {error.stderr[-500:]}") from error
    finally:
        archive.unlink(missing_ok=True)
    return "made from Debian's packages"
