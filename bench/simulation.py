"""Discrete events: processes that sleep and wait, and what they wait for or are turned away by.

A process is a generator. It yields the seconds it sleeps, or None to wait until something starts it again.
"""

import heapq
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias

Process: TypeAlias = Iterator[float | None]


class Engine:
    """Runs processes in order of simulated time.

    Attributes:
        now: simulated seconds.
        running: the process that runs.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.running: Process = iter(())
        self._agenda: list[tuple[float, int, Process]] = []
        self._numbers = count()

    def start(self, process: Process, after_s: float = 0.0) -> None:
        """Have a process run, or run on, so many seconds from now."""
        heapq.heappush(self._agenda, (self.now + after_s, next(self._numbers), process))

    def run(self) -> None:
        """Run until nothing is left to do."""
        while self._agenda:
            self.now, _, self.running = heapq.heappop(self._agenda)
            pause_s = next(self.running, None)
            if pause_s is not None:
                self.start(self.running, pause_s)


class TokenBucket:
    """Grants what it has tokens for.

    Args:
        engine: whose time it is.
        per_second: tokens that it gains.
        size: tokens that it can hold; it begins full.
    """

    def __init__(self, engine: Engine, per_second: float, size: float) -> None:
        self._engine, self._per_second, self._size = engine, per_second, size
        self._tokens, self._at_s = size, engine.now

    def take(self, tokens: float = 1.0) -> bool:
        """Take tokens, or none at all if there are too few."""
        self._refill()
        if self._tokens < tokens:
            return False
        self._tokens -= tokens
        return True

    def reserve(self, tokens: float = 1.0) -> float:
        """Take tokens that there may not be yet, and return for how many seconds to wait for them."""
        self._refill()
        self._tokens -= tokens
        return max(0.0, -self._tokens / self._per_second)

    def _refill(self) -> None:
        now = self._engine.now
        self._tokens = min(self._size, self._tokens + (now - self._at_s) * self._per_second)
        self._at_s = now


@dataclass(eq=False)
class _Ticket:
    process: Process
    served: bool = False
    gone: bool = False


class Servers:
    """Serve one process each, in the order in which they came.

    Args:
        engine: whose time it is.
        size: how many there are.

    Attributes:
        busy: how many serve.
    """

    def __init__(self, engine: Engine, size: int) -> None:
        self.busy = 0
        self._engine, self._size = engine, size
        self._queue: deque[_Ticket] = deque()

    @property
    def waiting(self) -> int:
        """How many processes wait."""
        return sum(not ticket.gone for ticket in self._queue)

    def enter(self, patience_s: float | None = None) -> Generator[float | None, None, bool]:
        """Wait for one's turn; returns whether it came before one's patience was over."""
        if self.busy < self._size:
            self.busy += 1
            return True
        ticket = _Ticket(self._engine.running)
        self._queue.append(ticket)
        if patience_s is not None:
            self._engine.start(self._give_up(ticket), patience_s)
        yield None
        return ticket.served

    def leave(self) -> None:
        """Free one's server."""
        self.busy -= 1
        self._serve()

    def resize(self, size: int) -> None:
        """Have more or fewer; those that serve finish first."""
        self._size = size
        self._serve()

    def _serve(self) -> None:
        while self.busy < self._size and self._queue:
            ticket = self._queue.popleft()
            if not ticket.gone:
                ticket.served = True
                self.busy += 1
                self._engine.start(ticket.process)

    def _give_up(self, ticket: _Ticket) -> Process:
        if not ticket.served:
            ticket.gone = True
            self._engine.start(ticket.process)
        yield from ()


class Cores:
    """Processor cores that all work shares: what each gets is the same share of what it could use.

    Args:
        engine: whose time it is.
        cores: how many.
    """

    def __init__(self, engine: Engine, cores: int) -> None:
        self._engine, self._cores = engine, cores
        self._work: list[tuple[float, int, float, Process]] = []
        self._numbers = count()
        self._load = self._done_s = self._at_s = 0.0
        self._plan = 0

    def work(self, seconds: float, cores: float = 1.0) -> Process:
        """Work for so long, or longer where others work too; ``cores`` is how many it could use."""
        self._advance()
        heapq.heappush(self._work, (self._done_s + seconds, next(self._numbers), cores, self._engine.running))
        self._load += cores
        self._schedule()
        yield None

    @property
    def _speed(self) -> float:
        return min(1.0, self._cores / self._load) if self._load > 0 else 1.0

    def _advance(self) -> None:
        self._done_s += (self._engine.now - self._at_s) * self._speed
        self._at_s = self._engine.now

    def _schedule(self) -> None:
        self._plan += 1
        if self._work:
            self._engine.start(self._finish(self._plan), max(0.0, self._work[0][0] - self._done_s) / self._speed)

    def _finish(self, plan: int) -> Process:
        if plan == self._plan:  # else somebody came or went since
            self._advance()
            _, _, cores, process = heapq.heappop(self._work)
            self._load -= cores
            self._engine.start(process)
            self._schedule()
        yield from ()
