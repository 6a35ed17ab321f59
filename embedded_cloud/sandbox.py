"""A sandbox: one process of a Lambda function (awslambdaric), which talks to a Runtime API of its own."""

import json
import math
import queue
import shutil
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from embedded_cloud.callers import access_key
from embedded_cloud.faults import FaultEffect, InvocationFault
from embedded_cloud.processes import Log, ModuleProcess, exit_reason

INIT_S = 10.0  # Lambda's limit of the init phase; a longer init counts against the timeout


@dataclass(frozen=True)
class Function:
    """Configuration of a function's version; ``$LATEST`` is the unpublished one."""

    name: str
    arn: str
    handler: str
    log_group: str
    timeout_s: int
    memory_mb: int
    environment: tuple[tuple[str, str], ...]
    version: str = "$LATEST"
    role_arn: str = ""


@dataclass(frozen=True)
class Invocation:
    """Result of a call: JSON payload (an error object if ``failed``) and the lines logged during the call."""

    payload: str
    failed: bool
    log: str


class Sandbox:
    """A process of a function with its own Runtime API and temporary folder. Handles one call at a time.

    Args:
        function: the function that it runs.
        base: environment, before the function's variables.
        code: folder that handlers are imported from.
        log: writes a line to the function's log.
        cpus: CPUs that it should use, see :func:`functions.runtime.cgroup.cpus`.

    Attributes:
        function: the function that it runs.
        used_at: time of its start or of the end of its last call, monotonic seconds.
    """

    def __init__(self, function: Function, base: Mapping[str, str], code: Path, log: Log, cpus: int) -> None:
        self.function = function
        self._broken = False
        self.used_at = time.monotonic()
        self._log, self._lines = log, list[str]()
        self._started_at, self._reported, self._peak_bytes = self.used_at, False, 0
        self._api = _RuntimeApi(function.arn)
        self._tmp = tempfile.mkdtemp(prefix=f"{function.name}-")
        environment = {
            **base,
            "AWS_ACCESS_KEY_ID": access_key(function.role_arn),
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._api.server_port}",
            "AWS_LAMBDA_FUNCTION_NAME": function.name,
            "AWS_LAMBDA_FUNCTION_VERSION": function.version,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
            "AWS_LAMBDA_LOG_GROUP_NAME": function.log_group,
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "LAMBDA_TASK_ROOT": str(code),
            "PYTHON_CPU_COUNT": str(cpus),
            "_HANDLER": function.handler,
            "TMPDIR": self._tmp,
            **dict(function.environment),
        }
        self._child = ModuleProcess(
            ["awslambdaric", function.handler], environment, code, self._record, self._api.exited
        )

    def _record(self, line: str) -> None:
        self._lines.append(line)
        self._log(line)

    @property
    def group(self) -> int:
        """Process group of the process and its children."""
        return self._child.group

    @property
    def usable(self) -> bool:
        """Whether it can handle another call."""
        return self._child.alive and not self._broken and not self._api.broken

    @property
    def ready(self) -> bool:
        """Whether the function's init phase has succeeded or failed."""
        return self._api.ready.is_set()

    def invoke(self, payload: str, fault: InvocationFault | None) -> Invocation:
        """Call the function and return its result.

        Args:
            payload: event as JSON.
            fault: fault to inject; None for none.
        """
        self._lines = []
        request_id, timeout_s = str(uuid.uuid4()), self.function.timeout_s
        self._api.taken.clear()
        waited_from = time.monotonic()
        self._api.ready.wait(INIT_S + timeout_s)
        init_s = time.monotonic() - waited_from
        self._record(f"START RequestId: {request_id} Version: {self.function.version}")
        started = time.monotonic()
        self._api.events.put((request_id, time.time() + timeout_s, payload.encode()))
        left_s = max(0.0, timeout_s - max(0.0, init_s - INIT_S))
        try:
            answer, failed = self._killed(fault, left_s) if fault else self._api.outcomes.get(timeout=left_s)
            status = ""
        except queue.Empty:
            message = f"Task timed out after {timeout_s}.00 seconds"
            self._record(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {request_id} {message}")
            answer, failed = error_json("Sandbox.Timedout", request_id, f"Error: {message}"), True
            self._broken, status = True, "timeout"
        if isinstance(answer, int):
            message = f"Error: Runtime exited with error: {exit_reason(answer)}"
            self._record(f"RequestId: {request_id} {message}")
            answer, self._broken, status = error_json("Runtime.ExitError", request_id, message), True, "error"
        self._record(f"END RequestId: {request_id}")
        self._record(self._report(request_id, time.monotonic() - started, status))
        self.used_at = time.monotonic()
        return Invocation(answer, failed, "\n".join(self._lines))

    def _report(self, request_id: str, duration_s: float, status: str) -> str:
        """Return Lambda's line about an invocation. The first one has the init phase, which is billed, too.

        The memory is that of the process without its children.
        """
        init_s = 0.0 if self._reported else max(0.0, self._api.ready_at - self._started_at)
        self._reported, self._peak_bytes = True, max(self._peak_bytes, self._child.peak_memory_bytes())
        facts = {
            "REPORT RequestId": request_id,
            "Duration": f"{1000 * duration_s:.2f} ms",
            "Billed Duration": f"{math.ceil(1000 * (duration_s + init_s))} ms",
            "Memory Size": f"{self.function.memory_mb} MB",
            **({"Max Memory Used": f"{math.ceil(self._peak_bytes / 1024**2)} MB"} if self._peak_bytes else {}),
            **({"Init Duration": f"{1000 * init_s:.2f} ms"} if init_s else {}),
            **({"Status": status} if status else {}),
        }
        return "\t".join(f"{name}: {fact}" for name, fact in facts.items())

    def _killed(self, fault: InvocationFault, left_s: float) -> tuple[int, bool]:
        """Kill the process before or after its work, and return its exit status."""
        if fault.after_work:
            self._api.outcomes.get(timeout=left_s)
        else:
            self._api.taken.wait(left_s)
        self._child.stop()
        if fault.effect is FaultEffect.TIMEOUT:
            raise queue.Empty
        return -signal.SIGKILL, True

    def close(self) -> None:
        """Kill the process and delete its temporary folder."""
        self._child.stop()
        self._api.close()
        shutil.rmtree(self._tmp, ignore_errors=True)


def error_json(name: str, request_id: str, message: str) -> str:
    """Return an error of Lambda itself, as a function's error payload."""
    return json.dumps({"errorType": name, "errorMessage": f"RequestId: {request_id} {message}"})


class _RuntimeApi(ThreadingHTTPServer):
    """Lambda's Runtime API (2018-06-01) for one sandbox."""

    daemon_threads = True

    def __init__(self, function_arn: str) -> None:
        super().__init__(("127.0.0.1", 0), _RuntimeApiHandler)
        self.function_arn = function_arn
        self.ready = threading.Event()  # init has succeeded or failed
        self.ready_at = 0.0  # monotonic seconds
        self.taken = threading.Event()  # the function has received its event, or has exited
        self.broken = False  # init failed; the process is about to exit
        self.events: queue.Queue[tuple[str, float, bytes] | None] = queue.Queue()
        self.outcomes: queue.Queue[tuple[str | int, bool]] = queue.Queue()  # (JSON or exit status, failed)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore connection errors: the process may have been killed while it was sending."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def set_ready(self) -> None:
        """Note that the init phase has ended; again has no effect."""
        if not self.ready.is_set():
            self.ready_at = time.monotonic()
            self.ready.set()

    def exited(self, status: int) -> None:
        self.outcomes.put((status, True))
        self.set_ready()
        self.taken.set()

    def close(self) -> None:
        self.events.put(None)
        self.shutdown()
        self.server_close()


class _RuntimeApiHandler(BaseHTTPRequestHandler):
    # Each response is sent in one segment. Otherwise Nagle's algorithm and delayed ACKs cost 40 ms per call.
    protocol_version = "HTTP/1.1"
    wbufsize = 65536
    disable_nagle_algorithm = True
    server: _RuntimeApi

    def do_GET(self) -> None:
        self.server.set_ready()
        event = self.server.events.get()
        if event is None:
            self.close_connection = True
            return
        request_id, deadline, body = event
        root = f"1-{int(time.time()):08x}-{request_id.replace('-', '')[:24]}"
        self._answer(
            200,
            body,
            {
                "Lambda-Runtime-Aws-Request-Id": request_id,
                "Lambda-Runtime-Invoked-Function-Arn": self.server.function_arn,
                "Lambda-Runtime-Deadline-Ms": str(int(deadline * 1000)),
                "Lambda-Runtime-Trace-Id": f"Root={root};Sampled=0",
            },
        )
        self.server.taken.set()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.broken = self.path.endswith("/init/error")
        self.server.outcomes.put((body, not self.path.endswith("/response")))
        self.server.set_ready()
        self._answer(202, b"{}", {})

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Type": "application/json", "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        pass
