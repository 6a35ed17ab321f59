"""Check state machine definitions for the mistakes that Step Functions reports by location.

Source: https://docs.aws.amazon.com/step-functions/latest/apireference/API_ValidateStateMachineDefinitionDiagnostic.html
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAX_STATE_NAME_CHARACTERS = 80
STATE_TYPES = ("Task", "Pass", "Choice", "Wait", "Succeed", "Fail", "Parallel", "Map")
_TERMINAL_TYPES = ("Succeed", "Fail")
_WAITING = (".sync", ".sync:2", ".waitForTaskToken")
_TEMPLATES = ("Parameters", "ResultSelector", "ItemSelector")


@dataclass(frozen=True)
class Diagnostic:
    """A problem of a definition.

    Attributes:
        location: path of the field, e.g. ``/States/Refine/Next``, or empty.
    """

    code: str
    message: str
    location: str = ""
    severity: str = "ERROR"


def check(definition: str, *, express: bool = False) -> list[Diagnostic]:
    """Return the problems of a definition in JSON: errors first, then warnings.

    Args:
        definition: JSON in Amazon States Language.
        express: the definition is that of an Express workflow, which cannot wait for other executions or tokens.
    """
    if not definition.strip():
        return [Diagnostic("MISSING_DESCRIPTION", "The definition is empty.")]
    try:
        machine = json.loads(definition)
    except (ValueError, RecursionError) as error:
        return [Diagnostic("INVALID_JSON_DESCRIPTION", f"The definition is not JSON: {error}")]
    if not isinstance(machine, dict):
        return [Diagnostic("INVALID_JSON_DESCRIPTION", "The definition must be a JSON object.")]
    try:
        found = [*_states(machine, ""), *_duplicates(machine), *(_waits(machine) if express else ())]
    except RecursionError:
        return [Diagnostic("TOO_DEEPLY_NESTED", "The states are too deeply nested.")]
    return sorted(found, key=lambda diagnostic: diagnostic.severity)


def _states(machine: dict[str, Any], path: str) -> Iterator[Diagnostic]:
    """Check a machine, a branch or an item processor."""
    states = machine.get("States")
    if not isinstance(states, dict) or not states:
        yield Diagnostic(
            "SCHEMA_VALIDATION_FAILED", "States must be an object with at least one state.", f"{path}/States"
        )
        return
    start = machine.get("StartAt")
    if not isinstance(start, str):
        yield Diagnostic("SCHEMA_VALIDATION_FAILED", "StartAt must be the name of a state.", f"{path}/StartAt")
    elif start not in states:
        yield Diagnostic("MISSING_TRANSITION_TARGET", f"StartAt names a missing state: {start}", f"{path}/StartAt")
    if not any(isinstance(state, dict) and _ends(state) for state in states.values()):
        yield Diagnostic("MISSING_END_STATE", "No state ends the workflow.", f"{path}/States")
    for name, state in states.items():
        yield from _state(name, state, states, f"{path}/States/{name}")


def _ends(state: dict[str, Any]) -> bool:
    return state.get("Type") in _TERMINAL_TYPES or state.get("End") is True


def _state(name: str, state: Any, states: dict[str, Any], path: str) -> Iterator[Diagnostic]:
    if not 0 < len(name) <= MAX_STATE_NAME_CHARACTERS:
        yield Diagnostic("INVALID_STATE_NAME", f"A state name has 1 to {MAX_STATE_NAME_CHARACTERS} characters.", path)
    if not isinstance(state, dict):
        yield Diagnostic("SCHEMA_VALIDATION_FAILED", "A state must be an object.", path)
        return
    if (kind := state.get("Type")) not in STATE_TYPES:
        message = f"Unknown type: {kind}. Use one of {', '.join(STATE_TYPES)}."
        yield Diagnostic("SCHEMA_VALIDATION_FAILED", message, f"{path}/Type")
        return
    if kind not in ("Choice", *_TERMINAL_TYPES) and ("Next" in state) == (state.get("End") is True):
        yield Diagnostic("SCHEMA_VALIDATION_FAILED", "The state needs either Next or End.", path)
    if kind == "Choice" and not (isinstance(state.get("Choices"), list) and state["Choices"]):
        yield Diagnostic("SCHEMA_VALIDATION_FAILED", "Choices must list at least one rule.", f"{path}/Choices")
    if kind == "Task":
        resource = state.get("Resource")
        if not isinstance(resource, str) or not resource.startswith("arn:"):
            yield Diagnostic(
                "INVALID_RESOURCE", f"Resource must be an ARN, not {json.dumps(resource)}", f"{path}/Resource"
            )
    for target, location in _targets(state):
        if target not in states:
            yield Diagnostic("MISSING_TRANSITION_TARGET", f"Missing state: {target}", f"{path}{location}")
    for inner, location in _inner(state):
        yield from _states(inner, f"{path}{location}")
    yield from _paths_without_dollar(state, path)


def _targets(state: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each transition's target and location."""
    for key in ("Next", "Default"):
        if key in state:
            yield str(state[key]), f"/{key}"
    for key in ("Choices", "Catch"):
        rules = state.get(key)
        for index, rule in enumerate(rules if isinstance(rules, list) else []):
            if isinstance(rule, dict):
                yield str(rule.get("Next", "")), f"/{key}[{index}]/Next"


def _inner(state: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the branches or the item processor of a state, with its location."""
    branches = state.get("Branches")
    for index, branch in enumerate(branches if isinstance(branches, list) else []):
        if isinstance(branch, dict):
            yield branch, f"/Branches[{index}]"
    for key in ("ItemProcessor", "Iterator"):
        if isinstance(state.get(key), dict):
            yield state[key], f"/{key}"


def _waits(machine: dict[str, Any]) -> Iterator[Diagnostic]:
    for _name, state, path in _all_states(machine, ""):
        resource = state.get("Resource")
        if isinstance(resource, str) and (resource.endswith(_WAITING) or ":activity:" in resource):
            message = "Express workflows do not support .sync, .waitForTaskToken and activities."
            yield Diagnostic("SCHEMA_VALIDATION_FAILED", message, f"{path}/Resource")


def _duplicates(machine: dict[str, Any]) -> Iterator[Diagnostic]:
    """Find names that are not unique in the whole machine, branches included."""
    seen: set[str] = set()
    for name, _state, path in _all_states(machine, ""):
        if name in seen:
            yield Diagnostic("DUPLICATE_STATE_NAME", f"Several states have the name {name}", path)
        seen.add(name)


def _all_states(machine: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield name, definition and location of each state, branches included."""
    states = machine.get("States")
    for name, state in (states if isinstance(states, dict) else {}).items():
        if isinstance(state, dict):
            yield name, state, f"{path}/States/{name}"
            for inner, location in _inner(state):
                yield from _all_states(inner, f"{path}/States/{name}{location}")


def _paths_without_dollar(state: dict[str, Any], path: str) -> Iterator[Diagnostic]:
    if state.get("QueryLanguage") == "JSONata":
        return
    for key in _TEMPLATES:
        for location in _paths(state.get(key), f"{path}/{key}"):
            message = 'The value looks like a path or a function, but the name of its field does not end with ".$".'
            yield Diagnostic("NO_DOLLAR", message, location, "WARNING")
    if state.get("Type") == "Pass":
        for location in _paths(state.get("Result"), f"{path}/Result"):
            message = "The value looks like a path, but Result is static. Use Parameters."
            yield Diagnostic("PASS_RESULT_IS_STATIC", message, location, "WARNING")


def _paths(value: Any, path: str) -> Iterator[str]:
    """Yield the location of each path in fields without ``.$``."""
    if isinstance(value, dict):
        for name, item in value.items():
            if not name.endswith(".$"):
                yield from _paths(item, f"{path}/{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _paths(item, f"{path}[{index}]")
    elif isinstance(value, str) and (value.startswith(("$.", "$$.")) or (value.startswith("States.") and "(" in value)):
        yield path
