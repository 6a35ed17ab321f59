"""Local processes: Lambda sandboxes, ECS tasks, and containers of SageMaker endpoints and transform jobs."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psutil

Log = Callable[[str], None]

RESTART_DELAY_S = 1.0
KEPT_TASKS: Final = 100
"""Stopped tasks that a service remembers; AWS keeps them for an hour."""

ENDPOINT_START_S = 120.0

NO_USER_FILES: Final = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
"""Variables that make an AWS SDK ignore the user's files, which may be invalid, as there are none on AWS."""

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # proxies cannot reach localhost


def base_environment(code: Path, sdk: Mapping[str, str]) -> dict[str, str]:
    """Return the base environment of every process. Only PATH and HOME come from the caller.

    Args:
        code: folder that modules are imported from.
        sdk: variables that point the AWS SDK to the embedded cloud.
    """
    return {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "PYTHONPATH": str(code),
        "PYTHONUNBUFFERED": "1",
        **NO_USER_FILES,
        **sdk,
    }


class ModuleProcess:
    """A process that runs a Python module, and ends with this process.

    Args:
        command: module and arguments.
        environment: complete environment.
        code: working directory.
        log: called with each line of output, in another thread.
        on_exit: called with the exit status after the last line.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        code: Path,
        log: Log,
        on_exit: Callable[[int], None] = lambda _status: None,
    ) -> None:
        self._log, self._on_exit = log, on_exit
        self._process = subprocess.Popen(  # noqa: S603  the command is trusted
            [sys.executable, "-P", str(Path(__file__).with_name("run_module.py")), *command],
            env=dict(environment),
            cwd=code,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C must reach only this process, which stops its children in order
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101  stdout is a pipe
        for line in self._process.stdout:
            self._log(line.rstrip("\n"))
        self._on_exit(self._process.wait())

    @property
    def group(self) -> int:
        """ID of its process group, which its subprocesses belong to, too."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def peak_memory_bytes(self) -> int:
        """Return the highest resident memory so far, without subprocesses; 0 if the process has ended."""
        with contextlib.suppress(OSError):  # no Linux, or no such process
            status = Path(f"/proc/{self._process.pid}/status").read_text()
            if peak := re.search(r"VmHWM:\s*(\d+) kB", status):
                return 1024 * int(peak[1])
        with contextlib.suppress(psutil.Error):
            return int(psutil.Process(self._process.pid).memory_info().rss)
        return 0

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def stop(self, grace_s: float = 0.0) -> None:
        """Wait up to ``grace_s`` seconds for the process, kill it, and read the rest of its output."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # with its subprocesses
        self._reader.join()


def memory_by_group() -> Counter[int]:
    """Return the resident memory of each process group, in bytes."""
    memory: Counter[int] = Counter()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # it has ended, or belongs to another user
            memory[os.getpgid(process.pid)] += process.memory_info().rss
    return memory


def exit_reason(status: int) -> str:
    """Return an exit status as Lambda words it, e.g. "exit status 3"."""
    return f"signal: {(signal.strsignal(-status) or str(-status)).lower()}" if status < 0 else f"exit status {status}"


@dataclass(frozen=True, eq=False)
class Container:
    """A container of a task definition; all of its containers are essential.

    Attributes:
        name: of the container.
        command: module and arguments.
        environment: in addition to the base environment.
        stop_timeout_s: time to drain after SIGTERM.
        open_log: returns the log of the container in a task with this id.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    stop_timeout_s: float
    open_log: Callable[[str], Log]


@dataclass(eq=False)
class Task:
    """A task of a service, which ends as soon as one of its containers does.

    Attributes:
        id: last part of its ARN.
        children: a process for each container.
        exit_codes: by container, of those that have ended.
        created_at, stopping_at, stopped_at: times of its life.
        stop_code, stopped_reason: why it stops, as ECS words it; empty while it runs.
    """

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    children: dict[Container, ModuleProcess] = field(default_factory=dict)
    exit_codes: dict[str, int] = field(default_factory=dict)
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    stopping_at: datetime | None = None
    stopped_at: datetime | None = None
    stop_code: str = ""
    stopped_reason: str = ""

    @property
    def desired_status(self) -> str:
        """``RUNNING`` or ``STOPPED``."""
        return "STOPPED" if self.stopping_at else "RUNNING"

    @property
    def last_status(self) -> str:
        """``RUNNING``, ``STOPPING`` or ``STOPPED``."""
        return "STOPPED" if self.stopped_at else "STOPPING" if self.stopping_at else "RUNNING"


class Service:
    """An ECS service: keeps the desired number of tasks running, and replaces those that end or are stopped."""

    def __init__(self, containers: Sequence[Container], base: Mapping[str, str], code: Path) -> None:
        self._containers, self._base, self._code = containers, base, code
        self._desired = 0
        self._running: list[Task] = []
        self._stopped: deque[Task] = deque(maxlen=KEPT_TASKS)  # and those that are stopping
        self._lock = threading.Lock()

    @property
    def tasks(self) -> list[Task]:
        """The running tasks, then the latest of the others."""
        with self._lock:
            return [*self._running, *self._stopped]

    def scale(self, desired: int) -> None:
        """Start or stop tasks until ``desired`` are running. A stopped task gets SIGTERM and its stop timeout."""
        with self._lock:
            self._desired = desired
            excess = self._running[desired:]
            for task in excess:
                self._retire(task, "ServiceSchedulerInitiated", "Scaling activity initiated by the service")
            self._fill()
        self._drain(excess)

    def stop(self, task: Task, reason: str) -> None:
        """Replace a task, unless it is stopping. It gets SIGTERM and, in the background, its stop timeout."""
        with self._lock:
            if task.stopping_at:
                return
            self._retire(task, "UserInitiated", reason)
            self._fill()
        threading.Thread(target=self._drain, args=([task],), daemon=True).start()

    def kill(self) -> None:
        """Kill every task, as a lost machine would. Each is replaced."""
        with self._lock:
            children = [child for task in self._running for child in task.children.values()]
        for child in children:
            child.stop()

    def close(self) -> None:
        """Kill every task: what it would save when it drains ends with the cloud."""
        with self._lock:
            self._desired = 0
            tasks = [*self._running, *self._stopped]
            for task in [*self._running]:
                self._retire(task, "ServiceSchedulerInitiated", "The cloud stops")
        for task in tasks:
            for child in task.children.values():
                child.stop()

    def _fill(self) -> None:
        """Start the tasks that are missing. The caller holds the lock."""
        while len(self._running) < self._desired:
            task = Task()
            for container in self._containers:
                task.children[container] = self._start(task, container)
            self._running.append(task)

    def _start(self, task: Task, container: Container) -> ModuleProcess:
        log = container.open_log(task.id)

        def ended(status: int) -> None:
            task.exit_codes[container.name] = 128 - status if status < 0 else status
            with self._lock:
                if task.stopping_at:
                    return
                log(f"The container ended with {exit_reason(status)}, and the service replaces its task")
                self._retire(task, "EssentialContainerExited", "Essential container in task exited")
            self._drain([task])
            time.sleep(RESTART_DELAY_S)
            with self._lock:
                self._fill()

        environment = {**self._base, **container.environment}
        return ModuleProcess(container.command, environment, self._code, log, ended)

    def _retire(self, task: Task, code: str, reason: str) -> None:
        """Mark a task as stopping. The caller holds the lock."""
        task.stop_code, task.stopped_reason, task.stopping_at = code, reason, datetime.now(UTC)
        self._running.remove(task)
        self._stopped.appendleft(task)

    @staticmethod
    def _drain(tasks: Sequence[Task]) -> None:
        """Stop the containers that are still running, and wait for them."""
        left = [(box, child) for task in tasks for box, child in task.children.items() if child.alive]
        for _, child in left:
            child.ask_to_stop()
        for container, child in left:
            child.stop(container.stop_timeout_s)
        for task in tasks:
            task.stopped_at = datetime.now(UTC)


@dataclass(frozen=True)
class ContainerResponse:
    """HTTP response of an endpoint's container. Status 0 means that it did not respond in time."""

    status: int
    content_type: str
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300


class Endpoint:
    """A SageMaker endpoint, or the instance of a transform job.

    Its container (GET /ping, POST /invocations) starts at the first call.

    Args:
        command: module and arguments.
        environment: complete environment.
        code: working directory.
        log: called with each line of output, in another thread.
        at_once: number of queued requests handled at the same time.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], code: Path, log: Log, at_once: int = 1
    ) -> None:
        self._command, self._environment, self._code, self._log = command, environment, code, log
        self._queue = ThreadPoolExecutor(at_once)
        self._lock = threading.Lock()
        self._child: ModuleProcess | None = None
        self._url = ""
        self._closed = False

    def invoke(self, body: bytes, headers: Mapping[str, str], timeout_s: float) -> ContainerResponse:
        """Send a request to the container and return its response, also for error statuses.

        Args:
            body: request body.
            headers: request headers, Content-Type and Accept.
            timeout_s: seconds to wait for the response.
        """
        self._ensure_started()
        return self._request("/invocations", timeout_s, body, headers)

    def get(self, path: str, timeout_s: float = 2.0) -> ContainerResponse:
        """Send a GET request to the container and return its response, also for error statuses."""
        self._ensure_started()
        return self._request(path, timeout_s)

    def _ensure_started(self) -> None:
        with self._lock:
            if not self._closed and (self._child is None or not self._child.alive):
                self._start()

    def enqueue(self, work: Callable[[], None]) -> None:
        """Run ``work`` when a slot of the queue is free."""

        def in_turn() -> None:
            try:
                work()
            except Exception as error:  # no caller waits for the result
                self._log(f"A queued request failed: {error!r}")

        self._queue.submit(in_turn)

    def _start(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        environment = {**self._environment, "SAGEMAKER_BIND_TO_PORT": str(port)}
        self._child = ModuleProcess(self._command, environment, self._code, self._log)
        deadline = time.monotonic() + ENDPOINT_START_S
        while self._child.alive and time.monotonic() < deadline and self._request("/ping", 2).status != 200:
            time.sleep(0.1)

    def _request(
        self, path: str, timeout_s: float, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> ContainerResponse:
        request = urllib.request.Request(self._url + path, body, dict(headers or {}))  # noqa: S310  always http
        try:
            with _DIRECT.open(request, timeout=timeout_s) as response:
                return ContainerResponse(response.status, response.headers.get("Content-Type", ""), response.read())
        except urllib.error.HTTPError as error:
            return ContainerResponse(error.code, error.headers.get("Content-Type", ""), error.read())
        except OSError:
            return ContainerResponse(
                0, "", b"Your invocation timed out while waiting for a response from container primary."
            )

    def close(self) -> None:
        """Stop the container, drop the queue, and refuse further calls."""
        self._queue.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._closed = True
            if self._child is not None:
                self._child.stop()
