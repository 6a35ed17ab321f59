import json
from typing import Any

import httpx
import pytest

from functions.segment.ecs.protection import Protection


class Agent:
    """An ECS agent that returns or raises ``response`` and records the requests."""

    def __init__(self, response: httpx.Response | Exception) -> None:
        self.response = response
        self.told: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert (request.method, request.url.path) == ("PUT", "/api/1/task-protection/v1/state")
        self.told.append(json.loads(request.content))
        if isinstance(self.response, Exception):
            raise self.response
        return self.response


class Clock:
    """A clock in seconds that tests advance."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


ON, OFF = {"ProtectionEnabled": True, "ExpiresInMinutes": 15}, {"ProtectionEnabled": False}
DONE = httpx.Response(200, json={"protection": {"ProtectionEnabled": True}})


def protection(agent: Agent, clock: Clock) -> Protection:
    return Protection("http://agent/api/1", httpx.Client(transport=httpx.MockTransport(agent)), clock)


def test_protection_is_enabled_once_and_disabled_once() -> None:
    agent = Agent(DONE)
    task = protection(agent, Clock())
    for turn in (task.off, task.on, task.on, task.off, task.off, task.on):
        turn()
    assert agent.told == [ON, OFF, ON]


def test_under_constant_load_protection_expires_for_a_minute_so_that_ecs_can_deploy() -> None:
    agent, clock = Agent(DONE), Clock()
    task = protection(agent, clock)
    task.on()
    clock.now += 15 * 60 + 59
    task.on()
    assert agent.told == [ON]
    clock.now += 1
    task.on()
    assert agent.told == [ON, ON]


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(400, json={"error": {"Code": "AccessDeniedException"}}),
        httpx.Response(200, json={"failure": {"Reason": "DEPLOYMENT_BLOCKED"}}),
        httpx.Response(200, text="not JSON"),
        httpx.ConnectError("refused"),
    ],
)
def test_a_rejected_request_is_repeated_after_a_pause_and_not_at_each_message(
    response: httpx.Response | Exception,
) -> None:
    agent, clock = Agent(response), Clock()
    task = protection(agent, clock)
    task.on()
    clock.now += 59
    task.on()
    task.off()
    assert agent.told == [ON]
    clock.now += 1
    task.on()
    assert agent.told == [ON, ON]


def test_a_failed_request_to_disable_protection_is_retried() -> None:
    agent = Agent(DONE)
    task = protection(agent, Clock())
    task.on()
    agent.response = httpx.ConnectError("refused")
    task.off()
    task.off()
    assert agent.told == [ON, OFF, OFF]


def test_outside_of_ecs_no_request_is_made() -> None:
    agent = Agent(DONE)
    task = Protection(None, httpx.Client(transport=httpx.MockTransport(agent)))
    task.on()
    task.off()
    assert not agent.told
