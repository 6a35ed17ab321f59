"""Scale-in protection: ECS is told that this task has work in hand, so that it stops another one.

See "Task scale-in protection endpoint" in the developer guide of Amazon ECS.
"""

import time
from collections.abc import Callable
from typing import Any, Final

import httpx

from functions.runtime.handler import logger

_MINUTES: Final = 15
"""As long as a job lives in SegmentOnEcs."""

_PAUSE_S: Final = 60.0
"""Under a load that never ends ECS could neither deploy nor scale in: so protection is left to lapse, and comes back
only after a pause. A task that is stopped then drains, and no job is lost. After a refusal the pause is the same."""


class Protection:
    """The protection of this task; used by one thread.

    Args:
        agent_uri: ``ECS_AGENT_URI``; None outside of ECS, where nothing is done.
        client: makes the requests.
        clock: seconds.
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
        """There is work in hand."""
        if self._clock() < self._not_before:
            return
        self._protected = self._put({"ProtectionEnabled": True, "ExpiresInMinutes": _MINUTES})
        self._not_before = self._clock() + _PAUSE_S + (60.0 * _MINUTES if self._protected else 0.0)

    def off(self) -> None:
        """There is none."""
        if self._protected:
            self._protected = not self._put({"ProtectionEnabled": False})
            self._not_before = self._clock()

    def _put(self, state: dict[str, Any]) -> bool:
        """Return whether the agent has done as it was told; it says 200 to some requests that ECS refuses, too."""
        if not self._url:
            return False
        try:
            response = self._client.put(self._url, json=state)
            done = response.is_success and "protection" in response.json()
        except (httpx.HTTPError, ValueError):
            logger.exception("scale-in protection: the ECS agent does not answer")
            return False
        if not done:
            facts = {"status": response.status_code, "answer": response.text}
            logger.warning("scale-in protection: the ECS agent refuses", extra={"agent": facts})
        return done
