"""What a call costs: wall time, CPU time and peak memory, measured in a process of its own.

Memory is what the call adds: the highest resident size while it runs, less the resident size before the first round.
Linux forgets the earlier peak on request (``5`` to ``/proc/self/clear_refs``) and then tells the new one as ``VmHWM``.
Elsewhere the peak is what the call adds to the process's highest resident size so far (``ru_maxrss``), which is less
than the truth if the preparation took more memory than it kept.
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
class Job:
    """A call to be measured.

    ``prepare(*arguments)`` runs once in the child, unmeasured, and returns the call; it is the place for imports and
    for a warm-up. It is a function of a module, and the arguments and the call's result can be pickled.

    ``memory_limit_bytes`` is how much writable memory the call may take beyond what the process has by then
    (``RLIMIT_DATA``, Linux); ``time_limit_s`` is for each round.
    """

    prepare: Callable[..., Callable[[], Any]]
    arguments: tuple[Any, ...] = ()
    rounds: int = 5
    time_limit_s: float | None = None
    memory_limit_bytes: int | None = None


@dataclass(frozen=True)
class Cost:
    """What a call took: the medians of the rounds' times, CPU of all threads, the most memory of any round.

    ``result`` is that of the round whose wall time it is (of an even number of rounds, the faster middle one).
    """

    wall_s: float
    cpu_s: float
    peak_bytes: int
    result: Any


@dataclass(frozen=True)
class Failure:
    """Why a call could not be measured: an exception that it raised, a limit, or the death of its process."""

    reason: str


Measurement: TypeAlias = Cost | Failure


def measure(jobs: Mapping[str, Job]) -> dict[str, Measurement]:
    """Run every job's rounds, each job in a process of its own, in turns: what disturbs one disturbs all.

    A job that fails is out; the others go on.
    """
    measured: dict[str, list[Cost]] = {name: [] for name in jobs}
    failed: dict[str, Failure] = {}
    children: dict[str, _Child] = {}
    try:
        for turn in range(max(job.rounds for job in jobs.values())):
            for name, job in jobs.items():
                if turn >= job.rounds or name in failed:
                    continue
                if name not in children:
                    children[name] = _Child(job)
                outcome = children[name].run()
                if isinstance(outcome, Failure):
                    failed[name] = outcome
                else:
                    measured[name].append(outcome)
                if isinstance(outcome, Failure) or turn + 1 == job.rounds:
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
    """A process with one job."""

    def __init__(self, job: Job) -> None:
        # Spawned: a fork would begin with what this process has resident, and with its threads' locks.
        context = multiprocessing.get_context("spawn")
        self._time_limit_s = job.time_limit_s
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, job), daemon=True)
        self._process.start()
        theirs.close()

    def run(self) -> Measurement:
        """Do one round."""
        try:
            if isinstance(failure := self._pipe.recv(), Failure):
                return failure
            self._pipe.send(None)  # go on
            if not self._pipe.poll(self._time_limit_s):
                return Failure(f"time limit of {self._time_limit_s:g} s")
            outcome: Measurement = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            return Failure(f"its process ended with {self._process.exitcode}")
        return outcome

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(pipe: Connection, job: Job) -> None:
    try:
        call = job.prepare(*job.arguments)
        gc.collect()
        before = resident_bytes()
        while True:
            pipe.send(None)  # ready
            pipe.recv()
            pipe.send(_run(call, before, job.memory_limit_bytes))
            gc.collect()
    except Exception as error:
        pipe.send(Failure(f"{type(error).__name__}: {error}".strip()))
        if not isinstance(error, MemoryError):
            raise  # its trace belongs on stderr


def _run(call: Callable[[], Any], before: int, memory_limit_bytes: int | None) -> Cost:
    _forget_peak()
    with _data_limit(memory_limit_bytes):
        cpu, wall = time.process_time(), time.perf_counter()
        result = call()
        wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    return Cost(wall_s, cpu_s, max(0, peak_bytes() - before), result)


@contextmanager
def _data_limit(more_bytes: int | None) -> Iterator[None]:
    """Limit writable memory: not the address space, of which threads' arenas reserve much that they never use."""
    if more_bytes is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_status_bytes("VmData") + more_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _forget_peak() -> None:
    if _CLEAR_REFS.exists():
        _CLEAR_REFS.write_text("5")


def resident_bytes() -> int:
    """Return what this process has resident, where the system tells; elsewhere the most that it had."""
    return _status_bytes("VmRSS") if _CLEAR_REFS.exists() else _highest_resident_bytes()


def peak_bytes() -> int:
    """Return the most that this process had resident, where the system tells since :func:`measure` last began."""
    return _status_bytes("VmHWM") if _CLEAR_REFS.exists() else _highest_resident_bytes()


def _highest_resident_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status_bytes(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
