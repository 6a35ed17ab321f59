"""The definitions of the state machines, with the states of all branches in one mapping."""

from collections.abc import Iterator
from typing import Any

import yaml

from core.errors import BackgroundRemoverError
from functions.contracts import errors as cloud_errors
from tests.conftest import ROOT

assert cloud_errors  # its classes are among those that ``leaves`` finds

DEFINITION = yaml.safe_load((ROOT / "statemachine/remove_background.asl.yaml").read_text())
DELIVERY = yaml.safe_load((ROOT / "statemachine/deliver_webhook.asl.yaml").read_text())


def _all(states: dict[str, Any], inside: str | None = None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, state in states.items():
        yield name, inside or name, state
        for branch in state.get("Branches", []):
            yield from _all(branch["States"], inside or name)


STATES = {name: state for name, _, state in _all(DEFINITION["States"])}
TASKS = {name: state for name, state in STATES.items() if state["Type"] == "Task"}

ANSWERABLE = {name: outer for name, outer, _ in _all(DEFINITION["States"])}
"""By state: the state whose Catch handles its errors: itself, or the Parallel that contains it."""

STATES_OF_BOTH = {**STATES, **DELIVERY["States"]}
TASKS_OF_BOTH = {name: state for name, state in STATES_OF_BOTH.items() if state["Type"] == "Task"}
assert len(STATES_OF_BOTH) == len(STATES) + len(DELIVERY["States"])  # a name tells which machine's state is meant

OF_A_DELIVERY = {"WebhookRefusedError", "WebhookUnansweredError", "SecretUnavailableError"}
"""Errors of webhook deliveries, which never occur in a job."""


def leaves(base: type[BackgroundRemoverError]) -> set[str]:
    """Return the names of the leaf classes below an error class."""
    found: set[str] = set()
    for child in base.__subclasses__():
        found |= leaves(child) if child.__subclasses__() else {child.__name__}
    return found


def of_a_job(base: type[BackgroundRemoverError]) -> set[str]:
    """Return the names of the leaf classes that can occur in a job."""
    return leaves(base) - OF_A_DELIVERY


def waits_s(retrier: dict[str, Any]) -> list[float]:
    """Return the longest duration of each wait of a retrier. With full jitter a wait takes half as long on average."""
    return [
        min(retrier["IntervalSeconds"] * retrier["BackoffRate"] ** attempt, retrier["MaxDelaySeconds"])
        for attempt in range(retrier["MaxAttempts"])
    ]
