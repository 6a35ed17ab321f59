"""The embedded cloud of this project directory: find, start and stop the process that runs it."""

import errno
import fcntl
import hashlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Any, Final, Self
from urllib.parse import urlsplit

import platformdirs

from client.errors import EmbeddedCloudError
from client.fingerprint import Fingerprint

APP: Final = "precision-background-remover"
"""Name of the directories for state and cache."""

ROOT: Final = Path(__file__).resolve().parent.parent
"""The project directory: the checkout that this code is imported from."""

_START_S: Final = 90.0
_STOP_S: Final = 30.0
_LOCK_S: Final = 1.0
_POLL_S: Final = 0.1
_WRITE_S: Final = 1.0
_LOG_TAIL_LINES: Final = 15
_NAME_CHARS: Final = 50  # file names have up to 255 bytes, characters up to four


@dataclass(frozen=True)
class DefaultModel:
    """The default segmentation model of a cloud.

    Attributes:
        name: name of the model.
        reason: why it was chosen.
        limited: whether it is the fallback because no network is available.
        hint: how to get a better model; may be empty.
    """

    name: str
    reason: str
    limited: bool
    hint: str = ""


@dataclass(frozen=True)
class CloudOptions:
    """Options of ``pbr up``, as a restart repeats them.

    Attributes:
        port: port of the AWS endpoint; 0 for any free port.
        api_port: port of the HTTP API; 0 for any free port.
        model: requested default model; None for the best available one.
        host: default host of segmentation.
        parameters: template parameters, ``NAME=VALUE``.
        stop_after: idle time after which it stops, as text; ``never`` for no limit.
    """

    port: int = 0
    api_port: int = 0
    model: str | None = None
    host: str = "lambda"
    parameters: Sequence[str] = ()
    stop_after: str = "never"

    def arguments(self, chosen_model: str) -> list[str]:
        """Return the command line of ``pbr up``.

        Args:
            chosen_model: model to use if none is requested.
        """
        model = ("--model", self.model) if self.model else ("--chosen-model", chosen_model)
        return [
            *("--port", str(self.port), "--api-port", str(self.api_port), "--host", self.host, *model),
            *("--stop-after", self.stop_after),
            *(argument for parameter in self.parameters for argument in ("--parameter", parameter)),
        ]


@dataclass(frozen=True)
class RunningCloud:
    """An embedded cloud that runs in another process.

    Attributes:
        endpoint_url: endpoint for AWS SDKs and tools.
        region: AWS region.
        stack_name: name of its stack.
        pid: process that runs it.
        model: its default model.
        project: project directory that its code comes from.
        api_url: address of the HTTP API.
        options: options that it was started with.
        outputs: outputs of its stack by name.
        environment: variables that AWS SDKs and tools need.
        fingerprint: of the code, weights and variables that it was started with.
    """

    endpoint_url: str
    region: str
    stack_name: str
    pid: int
    model: DefaultModel
    project: str
    api_url: str
    options: CloudOptions = CloudOptions()
    outputs: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    fingerprint: Fingerprint = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the cloud that a state file describes. Another checkout may have written it at another version."""
        state = {"project": "", "api_url": "", "options": {}, **json.loads(text)}
        state["model"] = DefaultModel(**_known(DefaultModel, state["model"]))
        options = _known(CloudOptions, state["options"])
        state["options"] = CloudOptions(**{**options, "parameters": tuple(options.get("parameters", ()))})
        return cls(**_known(cls, state))

    @property
    def ports(self) -> set[int | None]:
        """Ports of the AWS endpoint and the HTTP API on localhost."""
        return {urlsplit(url).port for url in (self.endpoint_url, self.api_url)}


def _is_json(text: bytes) -> bool:
    """Return whether a text is JSON; the beginning of a JSON object is not."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _known(kind: type, state: Mapping[str, Any]) -> dict[str, Any]:
    return {each.name: state[each.name] for each in fields(kind) if each.name in state}


def template() -> Path:
    """Return the path of the project's template.yaml.

    Raises:
        EmbeddedCloudError: if the package is not installed from a clone of the project.
    """
    path = ROOT / "template.yaml"
    if not path.is_file():
        raise EmbeddedCloudError(
            "The embedded cloud needs template.yaml, which only a clone of the project has",
            field="template",
            value=str(path),
            remedy="Run make setup in a clone of the project, or use a stack on AWS with --stack.",
        )
    return path


def state_directory(project: Path = ROOT) -> Path:
    """Return the directory of the state file and the log of a project directory's cloud."""
    digest = hashlib.sha256(os.fsencode(project)).hexdigest()
    return _clouds() / f"{project.name[:_NAME_CHARS]}-{digest[:10]}"


def directories() -> list[Path]:
    """Return the state directories of all project directories of this user that had a cloud."""
    return sorted(path.parent for path in _clouds().glob("*/cloud.json"))


def check_port(option: str, port: int) -> None:
    """Check that a port of localhost is free; 0 is.

    Args:
        option: name of the option, for the error message.
        port: the port.

    Raises:
        EmbeddedCloudError: if it is in use; the message names the cloud that uses it.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return
    other = next((cloud for cloud in all_running() if port in cloud.ports), None)
    user, remedy = "another program", f"Pass another port with {option}, or 0 for any free port."
    if other:
        user = f"the embedded cloud of {other.project}"
        remedy = f"Stop that cloud with pbr down in its directory, or use {option} 0 for any free port."
    raise EmbeddedCloudError(f"The port is in use by {user}", field=option, value=port, remedy=remedy)


def _clouds() -> Path:
    return platformdirs.user_state_path(APP) / "clouds"


@contextmanager
def registered(directory: Path) -> Iterator[Callable[[RunningCloud | None], None]]:
    """Lock the state file while a cloud runs.

    Yields a function that registers the cloud once it is ready, and withdraws it with None before it stops, so that no
    command starts to use it then.

    The operating system releases the lock even if the process is killed.

    Raises:
        EmbeddedCloudError: if a cloud of this project directory is running.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "cloud.json").open("a+") as file:
        if not _lock(file):
            other = running(directory)
            raise EmbeddedCloudError(
                "An embedded cloud is already running",
                field="endpoint",
                value=other.endpoint_url if other else "starting or stopping",
                remedy="Use it, or stop it with pbr down. To start it again, run pbr restart.",
            )
        file.truncate(0)

        def register(cloud: RunningCloud | None) -> None:
            file.truncate(0)
            file.write(json.dumps(asdict(cloud)) if cloud else "")
            file.flush()

        try:
            yield register
        finally:
            file.truncate(0)


def running(directory: Path) -> RunningCloud | None:
    """Return the running cloud, or None if there is none or it is not ready.

    Raises:
        EmbeddedCloudError: if its state file is damaged.
    """
    path = directory / "cloud.json"
    deadline = time.monotonic() + _WRITE_S
    while True:
        try:
            with path.open("rb") as file:
                if _try_lock(file, fcntl.LOCK_SH):
                    return None
                text = file.read()
        except FileNotFoundError:
            return None
        try:
            return RunningCloud.from_json(text.decode()) if text else None
        except (ValueError, TypeError, KeyError):
            if _is_json(text) or time.monotonic() > deadline:  # else the cloud may be writing it
                raise EmbeddedCloudError(
                    "The state file of a running embedded cloud is damaged",
                    field="file",
                    value=str(path),
                    remedy="Find the process of the cloud with lsof and this path, and stop it with kill.",
                ) from None
        time.sleep(_POLL_S)


def is_busy(directory: Path) -> bool:
    """Return whether a cloud is starting or stopping."""
    return _is_locked(directory) and running(directory) is None


def all_running() -> list[RunningCloud]:
    """Return the running clouds of all project directories of this user whose state file can be read."""
    clouds = []
    for directory in directories():
        with suppress(EmbeddedCloudError, OSError):
            clouds.append(running(directory))
    return [cloud for cloud in clouds if cloud]


def start(directory: Path, arguments: Sequence[str], region: str | None = None) -> tuple[RunningCloud, bool]:
    """Start a cloud in the background and wait until it is ready.

    Returns the cloud, and whether this call started it rather than another command at the same time. The file
    ``cloud.log`` is the log of the cloud that runs, or of the last one that did not start.

    Args:
        directory: of the state file and the log.
        arguments: of ``pbr up``.
        region: AWS region; None for that of the environment.

    Raises:
        EmbeddedCloudError: if it does not start; the remedy contains the end of its log.
    """
    template()
    directory.mkdir(parents=True, exist_ok=True)
    if cloud := _settled(directory):
        return cloud, False
    path = directory / f"starting-{secrets.token_hex(8)}.log"
    with path.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  the user's own options
            [sys.executable, "-m", "client.cli", "up", *arguments],
            cwd=ROOT,
            env={**os.environ, **({"AWS_DEFAULT_REGION": region} if region else {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    started = False
    try:
        cloud = _wait_until_ready(directory, process, path)
        started = cloud.pid == process.pid
        if started:
            path.replace(_log(directory))
        return cloud, started
    finally:
        path.unlink(missing_ok=True)
        if not started:  # after Ctrl-C, too: no cloud is left that the user was not told about
            process.terminate()


def _log(directory: Path) -> Path:
    return directory / "cloud.log"


def _wait_until_ready(directory: Path, process: "subprocess.Popen[bytes]", path: Path) -> RunningCloud:
    """Wait for the cloud that a process starts, and return it. The process writes its log to ``path``.

    If it does not start, its log is kept as that of the project directory.
    """
    deadline = time.monotonic() + _START_S
    while (cloud := running(directory)) is None:
        # If another process starts a cloud at the same time, ours exits and the other one is used.
        ended = process.poll() is not None and not _is_locked(directory)
        if ended or time.monotonic() > deadline:
            tail = "\n".join(path.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:])
            path = path.replace(_log(directory))
            raise EmbeddedCloudError(
                "The embedded cloud did not start"
                if ended
                else f"The embedded cloud was not ready within {_START_S:.0f} s",
                field="log",
                value=str(path),
                remedy=f"The end of its log:\n{tail}",
            )
        time.sleep(_POLL_S)
    return cloud


def stop(directory: Path) -> RunningCloud | None:
    """Stop the running cloud, wait for its end, and return it; None if no cloud is running.

    A cloud that is still starting is stopped when it is ready.

    Raises:
        EmbeddedCloudError: if it does not stop in time.
    """
    cloud = _settled(directory)
    if cloud is None:
        return None
    with suppress(ProcessLookupError):  # another command has just stopped it
        os.kill(cloud.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_S
    while _is_locked(directory):
        if time.monotonic() > deadline:
            raise EmbeddedCloudError(
                f"The embedded cloud did not stop within {_STOP_S:.0f} s",
                field="pid",
                value=cloud.pid,
                remedy=f"Kill it with kill -9 {cloud.pid}.",
            )
        time.sleep(_POLL_S)
    return cloud


def _settled(directory: Path) -> RunningCloud | None:
    """Wait while a cloud starts or stops. Return the running cloud, or None if no cloud is running."""
    deadline = time.monotonic() + _STOP_S
    while (cloud := running(directory)) is None and _is_locked(directory) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return cloud


def _is_locked(directory: Path) -> bool:
    if not directory.is_dir():
        return False
    with (directory / "cloud.json").open("a") as file:
        return not _try_lock(file, fcntl.LOCK_SH)


def _lock(file: IO[Any]) -> bool:
    """Lock the state file. Retries, because readers lock it briefly to test for a running cloud."""
    deadline = time.monotonic() + _LOCK_S
    while not _try_lock(file, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _try_lock(file: IO[Any], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
