"""A stand-in for Route 53: health checks, latency or failover records, and clients that cache answers."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

import httpx

from tests.resilience.failover.regions import Region

Routing = Literal["latency", "failover"]

CHECK_TIMEOUT_S: Final = 4.0


@dataclass
class Records:
    """The records of the API's name, one per Region, and the health checks that they depend on.

    If no Region is healthy, all are treated as healthy, as Route 53 does.

    Attributes:
        regions: the Regions; the first one is the primary.
        routing: ``latency``: the Region near the client; ``failover``: the primary. Both leave out unhealthy Regions.
        threshold: number of equal checks in sequence that change the state of a Region.
        changes: time, name of the Region and whether it became healthy, of all changes of states.
    """

    regions: tuple[Region, ...]
    routing: Routing
    threshold: int
    changes: list[tuple[float, str, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._healthy = {region.name: True for region in self.regions}
        self._against = dict.fromkeys(self._healthy, 0)

    def answer(self, near: str) -> Region:
        """Return the Region that a client near a Region is sent to."""
        ranked = (
            sorted(self.regions, key=lambda region: region.name != near) if self.routing == "latency" else self.regions
        )
        return next((region for region in ranked if self._healthy[region.name]), ranked[0])

    def left_at(self, region: Region) -> float | None:
        """Return when a Region last became unhealthy; None if it never did."""
        return next((when for when, name, is_ok in reversed(self.changes) if name == region.name and not is_ok), None)

    def note(self, name: str, is_ok: bool, now: float) -> None:
        """Count a check of a Region."""
        self._against[name] = 0 if is_ok == self._healthy[name] else self._against[name] + 1
        if self._against[name] >= self.threshold:
            self._healthy[name], self._against[name] = is_ok, 0
            self.changes.append((now, name, is_ok))

    def watch(self, interval_s: float, stop: threading.Event) -> None:
        """Check the Regions in threads until ``stop`` is set."""
        for region in self.regions:
            threading.Thread(target=self._check, args=(region, interval_s, stop), daemon=True).start()

    def _check(self, region: Region, interval_s: float, stop: threading.Event) -> None:
        while not stop.wait(interval_s):
            try:
                url = f"{region.outputs['ApiUrl']}/health"
                is_ok = httpx.get(url, timeout=CHECK_TIMEOUT_S, trust_env=False).is_success
            except httpx.TransportError:
                is_ok = False
            self.note(region.name, is_ok, time.monotonic())


class Resolver(httpx.BaseTransport):
    """Sends the requests of one client to the Region that the records name, and caches their answer.

    Requests to other hosts are sent there. Responses have the Region's name in ``extensions["region"]``.

    Args:
        records: the records of the API's name.
        near: Region near the client.
        ttl_s: how long an answer is cached.
    """

    API: Final = "http://api.example.com"

    def __init__(self, records: Records, near: str, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._records, self._near, self._ttl_s, self._clock = records, near, ttl_s, clock
        self._transport = httpx.HTTPTransport()
        self._region: Region | None = None
        self._expires_at = 0.0

    def resolve(self) -> Region:
        """Return the Region that the next request is sent to."""
        if self._region is None or self._clock() >= self._expires_at:
            self._region, self._expires_at = self._records.answer(self._near), self._clock() + self._ttl_s
        return self._region

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        if request.url.host != httpx.URL(self.API).host:
            return self._transport.handle_request(request)
        region = self.resolve()
        target = httpx.URL(region.outputs["ApiUrl"])
        request.url = request.url.copy_with(scheme=target.scheme, host=target.host, port=target.port)
        response = self._transport.handle_request(request)
        response.extensions = {**response.extensions, "region": region.name}
        return response

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()
