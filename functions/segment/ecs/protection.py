"""Scale-in protection: while this task has jobs in progress, ECS stops other tasks first.

Source: "Amazon ECS task scale-in protection endpoint" in the Amazon ECS developer guide.
"""

import time
from collections.abc import Callable
from typing import Any, Final

import httpx

from functions.runtime.handler import logger

_MINUTES: Final = 15
"""Timeout of a job in SegmentOnEcs."""

_PAUSE_S: Final = 60.0
"""Pause after protection expires or is rejected. Without it ECS could neither deploy nor scale in under constant load.
A task that ECS stops during the pause drains, and no job is lost."""


class Protection:
    """Scale-in protection of this task; not thread-safe.

    Args:
        agent_uri: ``ECS_AGENT_URI``; None outside of ECS, where the methods have no effect.
        client: HTTP client.
        clock: monotonic time in seconds.
    """

    def __init__(
        self, agent_uri: str | None, client: httpx.Client | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = agent_uri and f"{agent_uri}/task-protection/v1/state"
        self._client = client or httpx.Client(timeout=5.0)
        self._clock = clock
        self._protected = False
        self._not_before = clock()

    def on(self) -> None:
        """Enable protection."""
        if self._clock() < self._not_before:
            return
        self._protected = self._put({"ProtectionEnabled": True, "ExpiresInMinutes": _MINUTES})
        self._not_before = self._clock() + _PAUSE_S + (60.0 * _MINUTES if self._protected else 0.0)

    def off(self) -> None:
        """Disable protection."""
        if self._protected:
            self._protected = not self._put({"ProtectionEnabled": False})
            self._not_before = self._clock()

    def _put(self, state: dict[str, Any]) -> bool:
        """Return whether the request succeeded. The agent also returns 200 for some requests that ECS rejects."""
        if not self._url:
            return False
        try:
            response = self._client.put(self._url, json=state)
            done = response.is_success and "protection" in response.json()
        except (httpx.HTTPError, ValueError):
            logger.exception("scale-in protection: no response from the ECS agent")
            return False
        if not done:
            facts = {"status": response.status_code, "response": response.text}
            logger.warning("scale-in protection: request rejected by the ECS agent", extra={"agent": facts})
        return done
