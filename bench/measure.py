"""Measure wall time, CPU time, and peak memory of calls in separate processes.

Memory is the peak resident size during the call minus the resident size before the first round. On Linux, writing ``5``
to ``/proc/self/clear_refs`` resets the peak that ``VmHWM`` reports. Other systems only report the peak of the whole
process (``ru_maxrss``), so the result is too low if the preparation used more memory than it kept.
"""

import gc
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, TypeAlias

_STATUS: Final = Path("/proc/self/status")
_CLEAR_REFS: Final = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Case:
    """A call to measure. The arguments and the result of the call must support pickling.

    Attributes:
        prepare: module-level function that imports, warms up, and returns the call. Runs once in the child process and
            is not measured.
        arguments: arguments of ``prepare``.
        rounds: number of measured calls.
        time_limit_s: time limit per round.
        memory_limit_bytes: writable memory that the call may allocate in addition to that of the process
            (``RLIMIT_DATA``, Linux).
    """

    prepare: Callable[..., Callable[[], Any]]
    arguments: tuple[Any, ...] = ()
    rounds: int = 5
    time_limit_s: float | None = None
    memory_limit_bytes: int | None = None


@dataclass(frozen=True)
class Cost:
    """The cost of a call over all rounds.

    Attributes:
        wall_s: median wall time.
        cpu_s: median CPU time of all threads.
        peak_bytes: maximum of the memory added.
        result: return value of the round with the median wall time; of the faster middle one if the number of rounds is
            even.
    """

    wall_s: float
    cpu_s: float
    peak_bytes: int
    result: Any


@dataclass(frozen=True)
class Failure:
    """The reason why a case failed: an exception, an exceeded limit, or the exit of its process."""

    reason: str


Measurement: TypeAlias = Cost | Failure


def measure(cases: Mapping[str, Case]) -> dict[str, Measurement]:
    """Run the rounds of all cases, each case in a separate process.

    Cases take turns, so that other load on the computer affects them equally. A failed case is skipped from then on.
    """
    measured: dict[str, list[Cost]] = {name: [] for name in cases}
    failed: dict[str, Failure] = {}
    children: dict[str, _Child] = {}
    try:
        for turn in range(max(case.rounds for case in cases.values())):
            for name, case in cases.items():
                if turn >= case.rounds or name in failed:
                    continue
                if name not in children:
                    children[name] = _Child(case)
                outcome = children[name].run()
                if isinstance(outcome, Failure):
                    failed[name] = outcome
                else:
                    measured[name].append(outcome)
                if isinstance(outcome, Failure) or turn + 1 == case.rounds:
                    children.pop(name).end()
    finally:
        for child in children.values():
            child.end()
    return {name: failed.get(name) or _summary(rounds) for name, rounds in measured.items()}


def _summary(rounds: list[Cost]) -> Cost:
    middle = sorted(rounds, key=lambda cost: cost.wall_s)[(len(rounds) - 1) // 2]
    return replace(
        middle,
        cpu_s=statistics.median(cost.cpu_s for cost in rounds),
        peak_bytes=max(cost.peak_bytes for cost in rounds),
    )


class _Child:
    """A child process that runs one case."""

    def __init__(self, case: Case) -> None:
        # A fork would inherit the resident memory of this process and the locks of its threads.
        context = multiprocessing.get_context("spawn")
        self._time_limit_s = case.time_limit_s
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, case), daemon=True)
        self._process.start()
        theirs.close()

    def run(self) -> Measurement:
        """Run one round."""
        try:
            if isinstance(failure := self._pipe.recv(), Failure):
                return failure
            self._pipe.send(None)  # go on
            if not self._pipe.poll(self._time_limit_s):
                return Failure(f"time limit of {self._time_limit_s:g} s")
            outcome: Measurement = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            return Failure(f"the process exited with {self._process.exitcode}")
        return outcome

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(pipe: Connection, case: Case) -> None:
    try:
        call = case.prepare(*case.arguments)
        gc.collect()
        before = resident_bytes()
        while True:
            pipe.send(None)  # ready
            pipe.recv()
            pipe.send(_run(call, before, case.memory_limit_bytes))
            gc.collect()
    except Exception as error:
        pipe.send(Failure(f"{type(error).__name__}: {error}".strip()))
        if not isinstance(error, MemoryError):
            raise  # prints the traceback on stderr


def _run(call: Callable[[], Any], before: int, memory_limit_bytes: int | None) -> Cost:
    _reset_peak()
    with _data_limit(memory_limit_bytes):
        cpu, wall = time.process_time(), time.perf_counter()
        result = call()
        wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    return Cost(wall_s, cpu_s, max(0, peak_bytes() - before), result)


@contextmanager
def _data_limit(more_bytes: int | None) -> Iterator[None]:
    """Limit writable memory. A limit of the address space would count arenas that threads reserve but never use."""
    if more_bytes is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_status_bytes("VmData") + more_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _reset_peak() -> None:
    if _CLEAR_REFS.exists():
        _CLEAR_REFS.write_text("5")


def resident_bytes() -> int:
    """Return the resident size of this process; outside Linux, its peak."""
    return _status_bytes("VmRSS") if _CLEAR_REFS.exists() else _highest_resident_bytes()


def peak_bytes() -> int:
    """Return the peak resident size of this process; on Linux, since the start of the current round."""
    return _status_bytes("VmHWM") if _CLEAR_REFS.exists() else _highest_resident_bytes()


def _highest_resident_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status_bytes(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
