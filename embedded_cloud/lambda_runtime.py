"""Run Lambda functions in sandboxes, within the memory of this machine, and end sandboxes that stay idle."""

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psutil

from embedded_cloud.faults import FaultPlan
from embedded_cloud.processes import Log, memory_by_group
from embedded_cloud.sandbox import Function, Invocation, Sandbox, error_json
from functions.runtime.cgroup import memory_bytes

CPUS: Final = os.cpu_count() or 1
CONCURRENCY: Final = 2 * CPUS  # of a function

NEW_SANDBOX_BYTES: Final = 150_000_000  # of a function that has run none yet: 90 to 130 MB after init
MEMORY_SHARE: Final = 0.25
"""Share of the memory available at the start of a cloud that its sandboxes may use."""

_READY_POLL_S: Final = 0.05


@dataclass(frozen=True)
class IdleLimits:
    """How long sandboxes stay idle before they end, in seconds.

    Attributes:
        spare_s: while the function has another idle sandbox.
        last_s: for the last one of a function.
        check_s: interval of the checks.
    """

    spare_s: float = 30.0
    last_s: float = 300.0
    check_s: float = 5.0


class LambdaRuntime:
    """Runs functions in sandboxes that stay warm for a while.

    Calls above the concurrency limit wait; none is throttled. A call also waits for memory, unless its function has no
    sandbox yet: functions that call each other then cannot block each other.

    Args:
        base: environment of every sandbox, before the function's variables.
        code: folder that handlers are imported from.
        open_log: returns a function that writes lines to a log group and stream.
        faults: faults to inject; None injects none.
        memory: bytes that all sandboxes may use; None for a quarter of what is available now.
        limits: how long sandboxes stay idle.
    """

    def __init__(
        self,
        base: Mapping[str, str],
        code: Path,
        open_log: Callable[[str, str], Log],
        faults: FaultPlan | None = None,
        memory: int | None = None,
        limits: IdleLimits = IdleLimits(),
    ) -> None:
        self._base, self._code, self._open_log, self._faults = base, code, open_log, faults
        self._memory = memory or int(MEMORY_SHARE * min(psutil.virtual_memory().available, memory_bytes()))
        self._limits = limits
        self._early: Sequence[Function] = ()
        self._slots: dict[str, threading.Semaphore] = {}
        self._sandboxes: list[Sandbox] = []  # every live one
        self._idle: list[Sandbox] = []  # the least recently used one first
        self._changed = threading.Condition()  # of all of the above
        self._closed = threading.Event()
        self._closing = ThreadPoolExecutor(4 * CPUS)  # closing a sandbox waits for its server's half-second poll
        threading.Thread(target=self._end_idle, daemon=True).start()

    def start(self, functions: Iterable[Function]) -> None:
        """Start a sandbox of each function in the background, in this order, as far as they fit into memory.

        They start again with the first call after all sandboxes have ended.
        """
        self._early = tuple(functions)
        self._start_early()

    def invoke(self, function: Function, payload: str) -> Invocation:
        """Call a function and return its result.

        Args:
            function: function to call.
            payload: event as JSON.
        """
        fault = self._faults.invocation(function.name, payload) if self._faults else None
        with self._changed:
            slot = self._slots.setdefault(function.name, threading.Semaphore(CONCURRENCY))
            first = not self._sandboxes
        with slot:
            sandbox = self._take(function)
            if sandbox is None:
                closed = error_json("Runtime.ExitError", "none", "Error: The embedded cloud is closed")
                return Invocation(closed, True, "")
            if first:
                self._start_early()
            try:
                return sandbox.invoke(payload, fault)
            finally:
                self._put_back(sandbox)

    def processes(self) -> list[int]:
        """Return the process IDs of the sandboxes."""
        with self._changed:
            return [sandbox.group for sandbox in self._sandboxes]

    def close(self) -> None:
        """End every sandbox and refuse further calls."""
        self._closed.set()
        with self._changed:
            for sandbox in list(self._sandboxes):
                self._end(sandbox)
            self._changed.notify_all()
        self._closing.shutdown()

    def _start_early(self) -> None:
        """Start the early functions, each when a CPU is idle, so that they delay no call."""

        def start() -> None:
            for function in self._early:
                with self._changed:
                    while self._busy() >= CPUS and not self._closed.is_set():
                        self._changed.wait(_READY_POLL_S)
                    has_one = any(sandbox.function == function for sandbox in self._sandboxes)
                    if not has_one and not self._closed.is_set() and self._fits(function):
                        self._idle.append(self._open(function))
                        self._changed.notify_all()

        threading.Thread(target=start, daemon=True).start()

    def _busy(self) -> int:
        """Return the number of sandboxes that handle a call or are not ready for one."""
        return sum(sandbox not in self._idle or not sandbox.ready for sandbox in self._sandboxes)

    def _take(self, function: Function) -> Sandbox | None:
        """Return an idle sandbox or a new one; None if the cloud is closed."""
        with self._changed:
            while not self._closed.is_set():
                for ended in [sandbox for sandbox in self._idle if not sandbox.usable]:  # e.g. killed to free memory
                    self._end(ended)
                own = [sandbox for sandbox in self._sandboxes if sandbox.function == function]
                if idle := next((sandbox for sandbox in reversed(self._idle) if sandbox in own), None):
                    self._idle.remove(idle)
                    return idle
                if not own or self._fits(function):
                    return self._open(function)
                if self._idle:
                    self._end(self._idle[0])
                else:
                    self._changed.wait()
            return None

    def _put_back(self, sandbox: Sandbox) -> None:
        with self._changed:
            if sandbox in self._sandboxes:  # else the cloud is closed
                if sandbox.usable:
                    self._idle.append(sandbox)
                else:
                    self._end(sandbox)
            self._changed.notify_all()

    def _fits(self, function: Function) -> bool:
        """Return whether another sandbox fits into memory if it grows as large as the function's largest one."""
        memory = memory_by_group()
        largest = max((memory[sandbox.group] for sandbox in self._sandboxes if sandbox.function == function), default=0)
        used = sum(memory[sandbox.group] for sandbox in self._sandboxes)
        return used + max(largest, NEW_SANDBOX_BYTES) <= self._memory

    def _open(self, function: Function) -> Sandbox:
        stream = f"{datetime.now(UTC):%Y/%m/%d}/[{function.version}]{uuid.uuid4().hex}"
        alone = all(sandbox.function != function for sandbox in self._sandboxes)
        log = self._open_log(function.log_group, stream)
        sandbox = Sandbox(function, self._base, self._code, log, CPUS if alone else 1)
        self._sandboxes.append(sandbox)
        return sandbox

    def _end(self, sandbox: Sandbox) -> None:
        """Forget a sandbox, and close it in the background."""
        self._sandboxes.remove(sandbox)
        if sandbox in self._idle:
            self._idle.remove(sandbox)
        self._closing.submit(sandbox.close)

    def _end_idle(self) -> None:
        """End sandboxes that have been idle for too long."""
        while not self._closed.wait(self._limits.check_s):
            with self._changed:
                for sandbox in list(self._idle):
                    others = sum(other.function == sandbox.function for other in self._idle) - 1
                    limit_s = self._limits.spare_s if others else self._limits.last_s
                    if time.monotonic() - sandbox.used_at > limit_s:
                        self._end(sandbox)
