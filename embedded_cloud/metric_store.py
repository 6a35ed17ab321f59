"""The most recent metric data, by metric."""

import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from typing import Any

Dimensions = tuple[tuple[str, str], ...]


class RecentData:
    """Data of CloudWatch metrics. The oldest are dropped above a number.

    Its items are moto's. Those of a metric share their dimensions, which need most of the memory.

    Args:
        limit: number of data.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._lock = limit, threading.Lock()
        self._order: deque[Any] = deque()
        self._data: dict[tuple[str, str], dict[Dimensions, deque[Any]]] = defaultdict(dict)

    def append(self, datum: Any) -> None:
        """Add a datum."""
        key = _dimensions(datum)
        with self._lock:
            same = self._data[datum.namespace, datum.name].setdefault(key, deque())
            if same:
                datum.dimensions = same[-1].dimensions
            same.append(datum)
            self._order.append(datum)
            if len(self._order) > self._limit:
                self._drop(self._order.popleft())

    def __iter__(self) -> Iterator[Any]:
        """Yield all data, oldest first."""
        with self._lock:
            return iter(list(self._order))

    def __len__(self) -> int:
        """Return the number of data."""
        return len(self._order)

    def clear(self) -> None:
        """Delete all data."""
        with self._lock:
            self._order.clear()
            self._data.clear()

    def select(self, namespace: str, name: str, dimensions: Dimensions) -> list[Any]:
        """Return the data of a metric: with exactly these dimensions, sorted by name."""
        with self._lock:
            return list(self._data.get((namespace, name), {}).get(dimensions, ()))

    def metrics(self) -> dict[tuple[str, str, Dimensions], Any]:
        """Return the latest datum of each metric, by namespace, name and dimensions."""
        with self._lock:
            return {
                (*key, dimensions): data[-1] for key, same in self._data.items() for dimensions, data in same.items()
            }

    def _drop(self, datum: Any) -> None:
        """Remove the oldest datum from its metric, and the metric with its last one."""
        key, dimensions = (datum.namespace, datum.name), _dimensions(datum)
        self._data[key][dimensions].popleft()
        if not self._data[key][dimensions]:
            del self._data[key][dimensions]
        if not self._data[key]:
            del self._data[key]


def _dimensions(datum: Any) -> Dimensions:
    return tuple(sorted((dimension.name, dimension.value) for dimension in datum.dimensions))
