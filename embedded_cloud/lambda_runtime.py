"""Run Lambda functions as processes (awslambdaric) that talk to a local Runtime API."""

import json
import os
import queue
import shutil
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from embedded_cloud.faults import FaultEffect, FaultPlan, InvocationFault
from embedded_cloud.processes import Log, ModuleProcess, exit_reason

INIT_S = 10.0  # Lambda's limit of the init phase; a longer init counts against the timeout
CONCURRENCY = 2 * (os.cpu_count() or 1)


@dataclass(frozen=True)
class Function:
    """Configuration of a function."""

    name: str
    arn: str
    handler: str
    log_group: str
    timeout_s: int
    memory_mb: int
    environment: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Invocation:
    """Result of a call: JSON payload (an error object if ``failed``) and the lines logged during the call."""

    payload: str
    failed: bool
    log: str


class LambdaRuntime:
    """Runs functions in sandboxes that stay warm. Calls above the concurrency limit wait; none is throttled.

    Args:
        base: environment of every sandbox, before the function's variables.
        code: folder that handlers are imported from.
        open_log: returns a function that writes lines to a log group and stream.
        faults: faults to inject; None injects none.
    """

    def __init__(
        self, base: Mapping[str, str], code: Path, open_log: Callable[[str, str], Log], faults: FaultPlan | None = None
    ) -> None:
        self._base, self._code, self._open_log, self._faults = base, code, open_log, faults
        self._idle: dict[Function, list[_Sandbox]] = defaultdict(list)
        self._slots: dict[str, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(CONCURRENCY))
        self._sandboxes: set[_Sandbox] = set()
        self._closed = False
        self._lock = threading.Lock()

    def invoke(self, function: Function, payload: str) -> Invocation:
        """Call a function and return its result.

        Args:
            function: function to call.
            payload: event as JSON.
        """
        fault = self._faults.invocation(function.name, payload) if self._faults else None
        with self._lock:
            slot = self._slots[function.name]
        with slot:
            with self._lock:
                if self._closed:
                    return Invocation(
                        _error("Runtime.ExitError", "none", "Error: The embedded cloud is closed"), True, ""
                    )
                sandbox = self._idle[function].pop() if self._idle[function] else None
                if sandbox is None:
                    stream = f"{datetime.now(UTC):%Y/%m/%d}/[$LATEST]{uuid.uuid4().hex}"
                    log = self._open_log(function.log_group, stream)
                    sandbox = _Sandbox(function, self._base, self._code, log)
                    self._sandboxes.add(sandbox)
            invocation = sandbox.invoke(payload, fault)
            with self._lock:
                if sandbox.usable:
                    self._idle[function].append(sandbox)
                else:
                    self._sandboxes.discard(sandbox)
            if not sandbox.usable:
                sandbox.close()
            return invocation

    def close(self) -> None:
        """End every sandbox and refuse further calls."""
        with self._lock:
            self._closed = True
            sandboxes, self._sandboxes = self._sandboxes, set()
            self._idle.clear()
        with ThreadPoolExecutor(len(sandboxes) or 1) as pool:  # each waits for its server's half-second poll
            list(pool.map(_Sandbox.close, sandboxes))


class _Sandbox:
    """A process of a function with its own Runtime API and temporary folder. Handles one call at a time."""

    def __init__(self, function: Function, base: Mapping[str, str], code: Path, log: Log) -> None:
        self.usable = True
        self._function, self._log, self._lines = function, log, list[str]()
        self._api = _RuntimeApi(function.arn)
        self._tmp = tempfile.mkdtemp(prefix=f"{function.name}-")
        environment = {
            **base,
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._api.server_port}",
            "AWS_LAMBDA_FUNCTION_NAME": function.name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
            "AWS_LAMBDA_LOG_GROUP_NAME": function.log_group,
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "LAMBDA_TASK_ROOT": str(code),
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

    def invoke(self, payload: str, fault: InvocationFault | None) -> Invocation:
        self._lines = []
        request_id, timeout_s = str(uuid.uuid4()), self._function.timeout_s
        self._api.taken.clear()
        waited_from = time.monotonic()
        self._api.ready.wait(INIT_S + timeout_s)
        init_s = time.monotonic() - waited_from
        self._record(f"START RequestId: {request_id} Version: $LATEST")
        started = time.monotonic()
        self._api.events.put((request_id, time.time() + timeout_s, payload.encode()))
        left_s = max(0.0, timeout_s - max(0.0, init_s - INIT_S))
        try:
            answer, failed = self._killed(fault, left_s) if fault else self._api.outcomes.get(timeout=left_s)
        except queue.Empty:
            message = f"Error: Task timed out after {timeout_s}.00 seconds"
            answer, failed, self.usable = _error("Sandbox.Timedout", request_id, message), True, False
        if isinstance(answer, int):
            message = f"Error: Runtime exited with error: {exit_reason(answer)}"
            answer, self.usable = _error("Runtime.ExitError", request_id, message), False
        self._record(f"END RequestId: {request_id}")
        duration_ms = 1000 * (time.monotonic() - started)
        self._record(
            f"REPORT RequestId: {request_id} Duration: {duration_ms:.2f} ms Memory Size: {self._function.memory_mb} MB"
        )
        self.usable = self.usable and not self._api.broken
        return Invocation(answer, failed, "\n".join(self._lines))

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
        self._child.stop()
        self._api.close()
        shutil.rmtree(self._tmp, ignore_errors=True)


def _error(name: str, request_id: str, message: str) -> str:
    return json.dumps({"errorType": name, "errorMessage": f"RequestId: {request_id} {message}"})


class _RuntimeApi(ThreadingHTTPServer):
    """Lambda's Runtime API (2018-06-01) for one sandbox."""

    daemon_threads = True

    def __init__(self, function_arn: str) -> None:
        super().__init__(("127.0.0.1", 0), _RuntimeApiHandler)
        self.function_arn = function_arn
        self.ready = threading.Event()  # init has succeeded or failed
        self.taken = threading.Event()  # the function has received its event, or has exited
        self.broken = False  # init failed; the process is about to exit
        self.events: queue.Queue[tuple[str, float, bytes] | None] = queue.Queue()
        self.outcomes: queue.Queue[tuple[str | int, bool]] = queue.Queue()  # (JSON or exit status, failed)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore connection errors: the process may have been killed while it was sending."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def exited(self, status: int) -> None:
        self.outcomes.put((status, True))
        self.ready.set()
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
        self.server.ready.set()
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
        self.server.ready.set()
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
