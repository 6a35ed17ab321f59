"""A Docker engine for the tests, with the base image of the Dockerfile."""

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
    """No engine or no base image is available. The message has the reason."""


@contextmanager
def engine(log: Path) -> Iterator[docker.DockerClient]:
    """Yield a client of the running engine. If none is running, start one for the duration of the block.

    Args:
        log: output file of an engine started here.

    Raises:
        UnavailableError: no engine is running and none can be started.
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
        raise UnavailableError(f"No Docker engine is running. Starting one requires dockerd and root: {why}")

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
    raise UnavailableError(f"dockerd failed to start: {' | '.join(log.read_text().splitlines()[-2:])}")


def _base_image() -> str:
    """Return the name of the base image of the Dockerfile, with its digest."""
    [name] = re.findall(r"^FROM (\S+/\S+@\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return str(name)


def have_base_image(client: docker.DockerClient, folder: Path) -> str:
    """Provide the base image of the Dockerfile and return its origin.

    Args:
        client: client of the engine.
        folder: folder for a temporary file of 150 MB.

    Raises:
        UnavailableError: the image can be neither pulled nor built.
    """
    name = _base_image()
    tagged = name.partition("@")[0]
    for present in (name, tagged):
        try:
            client.images.get(present)
            return "present"
        except ImageNotFound:
            pass
    try:
        client.images.pull(name)
        return "pulled"
    except DockerException as error:
        why = str(error)
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        raise UnavailableError(f"The base image cannot be pulled. Building one requires debootstrap and root: {why}")

    archive = folder / "debian.tar"
    try:
        subprocess.run([_BOOTSTRAP, archive], check=True, capture_output=True, text=True)
        repository, tag = tagged.rsplit(":", 1)
        changes = ["ENV PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8", 'CMD ["python3"]']
        client.api.import_image(str(archive), repository=repository, tag=tag, changes=changes)
    except subprocess.CalledProcessError as error:
        raise UnavailableError(f"Cannot pull ({why}) or build the base image: {error.stderr[-500:]}") from error
    finally:
        archive.unlink(missing_ok=True)
    return "built from Debian packages"


def buildable_project(client: docker.DockerClient, folder: Path) -> Path:
    """Return the project, or a copy of it in ``folder`` if the engine has no base image of the Dockerfile's digest.

    An image that was built here has another digest, so the Dockerfile of the copy names the tag only.
    """
    name = _base_image()
    try:
        client.images.get(name)
        return ROOT
    except ImageNotFound:
        pass
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for path in filter(Path.is_file, (ROOT / line for line in listed.split("\0"))):
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    dockerfile = folder / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text().replace(name, name.partition("@")[0]))
    return folder
