"""The embedded cloud as the command line uses it: which model it gets, where it runs, how it starts and stops."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

import platformdirs

from client import models
from client.errors import EmbeddedCloudError, UsageError
from client.models import APP
from core.options import Host
from core.segmentation.registry import CLASSICAL
from embedded_cloud.deploy import parameter_names
from functions.runtime.weights import best_available

ROOT: Final = Path(__file__).parent.parent

# Worker and endpoint run from the working tree: their image has only to be named.
IMAGE_URI: Final = f"123456789012.dkr.ecr.eu-west-1.amazonaws.com/{APP}:working-tree"

# Long enough to fetch the best model's 224 MB on a good line. Where nothing answers it is known in three seconds.
_MODEL_S: Final = 20.0
_START_S: Final = 90.0
_STOP_S: Final = 130.0  # a worker may drain for two minutes
_LOCK_S: Final = 1.0
_POLL_S: Final = 0.1
_LOG_TAIL_LINES: Final = 15


@dataclass(frozen=True)
class Model:
    """The segmentation model of a cloud, and why it is that one; ``limited`` if it is only the last resort."""

    name: str
    why: str
    limited: bool


@dataclass(frozen=True)
class Cloud:
    """An embedded cloud that runs in a process of its own."""

    endpoint_url: str
    region: str
    stack_name: str
    pid: int
    model: Model


def template() -> Path:
    """Return the project's template.

    Raises:
        EmbeddedCloudError: this is not the project's working tree, which the functions run from.
    """
    path = ROOT / "template.yaml"
    if not path.is_file():
        raise EmbeddedCloudError(
            "The embedded cloud runs from the project's working tree, and it has no template.yaml",
            field="template",
            value=str(path),
            remedy="Install with make setup in a clone of the project, or give --stack to use AWS.",
        )
    return path


def choose_model(name: str | None) -> Model:
    """Choose a cloud's default model: the one asked for, or for None or ``auto`` the best that can be had now."""
    if name not in (None, "auto"):
        return Model(name, "asked for", limited=False)
    source = models.source(_MODEL_S)
    found = best_available(source)
    if found == CLASSICAL:
        return Model(
            found,
            "no network weights could be had: using the built-in classical segmenter, quality is limited; "
            "set PBR_MODEL_DIR or PBR_MODEL_MIRROR",
            limited=True,
        )
    return Model(found, f"the best of the free models whose weights are here: {source.find(found)}", limited=False)


def parameters(model: Model, host: Host, *, all_hosts: bool) -> dict[str, str]:
    """Return the values of the template's parameters for an embedded cloud.

    Args:
        model: for uploads that name none.
        host: where segmentation runs for uploads that name none; auto is the template's default.
        all_hosts: with an ECS worker and a SageMaker endpoint, whatever the default host is.
    """
    directories = os.pathsep.join(str(directory) for directory in models.directories())
    values = {"DefaultModel": model.name, "ModelDirectory": directories}
    if mirror := os.environ.get("PBR_MODEL_MIRROR"):
        values["ModelMirror"] = mirror
    if custom := os.environ.get("PBR_CUSTOM_MODELS"):
        values["CustomModels"] = custom
    if host is not Host.AUTO:
        values["SegmentationHost"] = host.value
    if all_hosts:
        values |= {
            "WorkerImageUri": IMAGE_URI,
            "WorkerSubnets": "subnet-embedded",
            "WorkerSecurityGroups": "sg-embedded",
            "SageMakerImageUri": IMAGE_URI,
        }
    return values


def parse_parameters(given: Iterable[str]) -> dict[str, str]:
    """Return the values of the template's parameters that are given as ``NAME=VALUE``.

    Raises:
        UsageError: one is written otherwise, or is no parameter of the template.
    """
    known, values = parameter_names(template()), {}
    for text in given:
        name, is_pair, value = text.partition("=")
        if not is_pair or name not in known:
            raise UsageError(
                "The template has no such parameter, or it has no value",
                field="--parameter",
                value=text,
                remedy=f"Give NAME=VALUE, with one of: {', '.join(known)}.",
            )
        values[name] = value
    return values


def state_directory() -> Path:
    """Return where the running cloud is registered and where its log is."""
    return platformdirs.user_state_path(APP)


@contextmanager
def registered(directory: Path) -> Iterator[Callable[[Cloud], None]]:
    """Hold the place of this user's one cloud; yields what enters the cloud in the register once it is ready.

    The place is a lock on a file, so that it is free again however its holder dies.

    Raises:
        EmbeddedCloudError: another cloud has the place.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "cloud.json").open("a+") as file:
        if not _lock(file):
            other = running(directory)
            raise EmbeddedCloudError(
                "An embedded cloud is running already",
                field="endpoint",
                value=other.endpoint_url if other else "starting",
                remedy="Use that one, or stop it with pbr down.",
            )
        file.truncate(0)

        def enter(cloud: Cloud) -> None:
            file.write(json.dumps(asdict(cloud)))
            file.flush()

        try:
            yield enter
        finally:
            file.truncate(0)


def running(directory: Path) -> Cloud | None:
    """Return the cloud that runs, or None if there is none or it is not ready."""
    try:
        with (directory / "cloud.json").open() as file:
            if _try_lock(file, fcntl.LOCK_SH):
                return None
            text = file.read()
    except FileNotFoundError:
        return None
    if not text:
        return None
    facts = json.loads(text)
    return Cloud(**{**facts, "model": Model(**facts["model"])})


def start(directory: Path) -> Cloud:
    """Start a cloud in the background and wait until it is ready.

    Raises:
        EmbeddedCloudError: it did not start; tells the end of its log.
    """
    template()
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "cloud.log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "client.cli", "up", "--port", "0", "--api-port", "0"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_S
    while (cloud := running(directory)) is None:
        # Another process may have started one at the same moment: then ours ends, and the other is as good.
        ended = process.poll() is not None and _free(directory)
        if ended or time.monotonic() > deadline:
            process.terminate()
            tail = "\n".join(path.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:])
            raise EmbeddedCloudError(
                "The embedded cloud did not start" if ended else f"No embedded cloud after {_START_S:.0f} s",
                field="log",
                value=str(path),
                remedy=f"Its last words:\n{tail}",
            )
        time.sleep(_POLL_S)
    return cloud


def stop(directory: Path) -> Cloud | None:
    """Stop the running cloud, wait until it is gone, and return what it was; None if none runs.

    Raises:
        EmbeddedCloudError: it does not end.
    """
    cloud = running(directory)
    if cloud is None:
        return None
    os.kill(cloud.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_S
    while not _free(directory):
        if time.monotonic() > deadline:
            raise EmbeddedCloudError(
                f"The embedded cloud did not end within {_STOP_S:.0f} s",
                field="pid",
                value=cloud.pid,
                remedy=f"End it with kill -9 {cloud.pid}.",
            )
        time.sleep(_POLL_S)
    return cloud


def _free(directory: Path) -> bool:
    with (directory / "cloud.json").open("a") as file:
        return _try_lock(file, fcntl.LOCK_SH)


def _lock(file: IO[str]) -> bool:
    """Lock a file that readers lock for an instant to see whether it is."""
    deadline = time.monotonic() + _LOCK_S
    while not _try_lock(file, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _try_lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
