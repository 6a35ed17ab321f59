"""The definition of the state machine, with the states inside its branches laid open."""

from collections.abc import Iterator
from typing import Any

import yaml

from tests.conftest import ROOT

DEFINITION = yaml.safe_load((ROOT / "statemachine/remove_background.asl.yaml").read_text())


def _all(states: dict[str, Any], inside: str | None = None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, state in states.items():
        yield name, inside or name, state
        for branch in state.get("Branches", []):
            yield from _all(branch["States"], inside or name)


STATES = {name: state for name, _, state in _all(DEFINITION["States"])}
TASKS = {name: state for name, state in STATES.items() if state["Type"] == "Task"}

ANSWERABLE = {name: outer for name, outer, _ in _all(DEFINITION["States"])}
"""Per state the one whose Catch takes its errors: itself, or the Parallel that it is a part of."""
