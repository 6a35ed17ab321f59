"""Micro-batches: images for one model, collected while more of them are being loaded."""

import math
import threading
import time
from collections import Counter, deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Batches(Generic[Item]):
    """Collects items by model and returns them in batches; thread-safe.

    A batch is ready when it is full, when no other item of its model is expected, or when its oldest item has waited
    for ``wait_s``. The batch with the oldest item goes first, so that no model starves another.

    Args:
        most: maximum number of items in a batch.
        wait_s: maximum time that an item waits for others, in seconds.
    """

    def __init__(self, most: int, wait_s: float) -> None:
        self._most, self._wait_s = most, wait_s
        self._waiting: dict[str, deque[tuple[float, Item]]] = {}
        self._expected: Counter[str] = Counter()
        self._closed = False
        self._changed = threading.Condition()

    def expect(self, model: str) -> None:
        """Announce an item. A call of :meth:`put` or :meth:`cancel` must follow."""
        with self._changed:
            self._expected[model] += 1

    def put(self, model: str, item: Item) -> None:
        """Add an announced item."""
        with self._changed:
            self._waiting.setdefault(model, deque()).append((time.monotonic(), item))
            self._arrived(model)

    def cancel(self, model: str) -> None:
        """Withdraw an announced item."""
        with self._changed:
            self._arrived(model)

    def _arrived(self, model: str) -> None:
        self._expected -= Counter([model])  # removes models with no expected items
        self._changed.notify_all()

    def take(self) -> list[Item] | None:
        """Wait for a batch and return it, or None after :meth:`close`."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                due = [model for model in self._waiting if self._due_at(model) <= now]
                if due:
                    return self._batch(min(due, key=lambda model: self._waiting[model][0][0]))
                earliest = min(map(self._due_at, self._waiting), default=None)
                self._changed.wait(earliest and earliest - now)
            return None

    def _due_at(self, model: str) -> float:
        items = self._waiting[model]
        if len(items) >= self._most or not self._expected[model]:
            return -math.inf
        return items[0][0] + self._wait_s

    def _batch(self, model: str) -> list[Item]:
        items = self._waiting[model]
        batch = [items.popleft()[1] for _ in range(min(self._most, len(items)))]
        if not items:
            del self._waiting[model]
        return batch

    def close(self) -> None:
        """Discard all items and end :meth:`take`."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
