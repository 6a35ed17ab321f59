"""The graph of a state machine in the DOT language, drawn from its definition, with what an execution did in it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from client.executions.steps import Outcome, Step

# Dark text on light boxes, and gray lines, can be read on a light and on a dark page. The words in the boxes say what
# the colors say.
_FILLS: Final[dict[Outcome, tuple[str, str]]] = {
    "succeeded": ("#d5f0e3", "#0b6e4f"),
    "caught": ("#ffe3b8", "#a35200"),
    "failed": ("#ffd3cf", "#b3261e"),
    "stopped": ("#ffd3cf", "#b3261e"),
    "running": ("#d4e6ff", "#1f5fae"),
}
_NOT_TAKEN: Final = ("#e6e9e8", "#b9c1be")
_TEXT, _FAINT_TEXT, _LINE, _FAINT_LINE = "#16211d", "#69736f", "#7b8783", "#b0b8b5"
_INSTANT: Final = ("Choice", "Succeed", "Fail")
_SHAPES: Final = {"Choice": "diamond", "Succeed": "oval", "Fail": "oval"}
_WORDS: Final[dict[Outcome, str]] = {
    "succeeded": "",
    "caught": "failed, handled",
    "failed": "failed",
    "stopped": "stopped",
    "running": "running",
}


@dataclass(frozen=True)
class Visits:
    """What an execution did in one state.

    Attributes:
        steps: its visits of the state, in the order of their starts.
        blamed: whether its error made the execution fail.
    """

    steps: Sequence[Step]
    blamed: bool = False

    @property
    def outcome(self) -> Outcome:
        """How the last visit ended."""
        outcome = self.steps[-1].outcome
        return "failed" if self.blamed and outcome == "caught" else outcome

    @property
    def retries(self) -> int:
        """Number of attempts beyond the first of each visit."""
        return sum(max(0, len(step.attempts) - 1) for step in self.steps)

    @property
    def text(self) -> str:
        """Outcome, duration, visits and retries in words."""
        kind, seconds = self.steps[-1].kind, sum(step.seconds or 0.0 for step in self.steps)
        took = "" if kind in _INSTANT or seconds < 0.0005 else duration(seconds)
        word = "" if kind in _INSTANT else _WORDS[self.outcome]
        visits = f"{len(self.steps)} times" if len(self.steps) > 1 else ""
        retries = f"{self.retries} {'retry' if self.retries == 1 else 'retries'}" if self.retries else ""
        return ", ".join(part for part in (word, took, visits, retries) if part)


def duration(seconds: float) -> str:
    """Return a duration for people, e.g. ``40 ms``, ``2.31 s``, ``4 min 10 s`` or ``2 h 5 min``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def dot(definition: Mapping[str, Any], steps: Sequence[Step], *, every_state: bool, blamed: str | None = None) -> str:
    """Return the graph of a state machine.

    Args:
        definition: its definition, as parsed JSON.
        steps: what the execution did.
        every_state: draw the states that the execution did not enter, too, in gray.
        blamed: the state whose error made the execution fail, although a Catch handled it; None without one.
    """
    visits = visits_of(steps, blamed)
    taken = set(_moves(steps))
    lines = [
        "digraph {",
        'graph [bgcolor="transparent", rankdir=TB, nodesep=0.3, ranksep=0.28, margin=0.05]',
        'node [fontname="sans-serif", fontsize=13, style="filled,rounded", shape=box, margin="0.16,0.08", height=0.3]',
        f'edge [fontname="sans-serif", fontsize=10, color="{_LINE}", arrowsize=0.6]',
        *_machine(definition, visits, taken, every_state, "cluster"),
        "}",
    ]
    return "\n".join(lines)


def visits_of(steps: Sequence[Step], blamed: str | None = None) -> dict[str, Visits]:
    """Return the visits of each state that was entered; ``blamed`` as for :func:`dot`."""
    by_name: dict[str, list[Step]] = {}
    for step in steps:
        by_name.setdefault(step.name, []).append(step)
    return {name: Visits(found, name == blamed) for name, found in by_name.items()}


def summary(steps: Sequence[Step], blamed: str | None = None) -> str:
    """Return the states that were entered as text, for those who do not see the graph."""
    parts = [f"{name} ({visits.text})" if visits.text else name for name, visits in visits_of(steps, blamed).items()]
    return f"States in the order in which they were entered: {', '.join(parts)}."


def _machine(
    definition: Mapping[str, Any], visits: Mapping[str, Visits], taken: set[tuple[str, str]], every: bool, prefix: str
) -> Iterator[str]:
    for name, state in definition["States"].items():
        if not every and name not in visits:
            continue
        yield _node(name, state, visits.get(name))
        for number, branch in enumerate(_branches(state)):
            cluster = f"{prefix}_{number}_{name}"
            yield f"subgraph {_quoted(cluster)} {{"
            yield f'graph [label={_quoted(_title(name, state))}, fontname="sans-serif", fontsize=11]'
            yield f'graph [style="rounded,dashed", color="{_LINE}", fontcolor="{_LINE}"]'
            yield from _machine(branch, visits, taken, every, cluster)
            yield "}"
            if every or branch["StartAt"] in visits:
                yield _edge(name, branch["StartAt"], (name, branch["StartAt"]) in taken)
        for target, caught in _targets(state):
            if (name, target) in taken or every:
                yield _edge(name, target, (name, target) in taken, caught=caught)


def _node(name: str, state: Mapping[str, Any], visits: Visits | None) -> str:
    fill, line = _FILLS[visits.outcome] if visits else _NOT_TAKEN
    label = f"{name}\n{visits.text}" if visits and visits.text else name
    shape = _SHAPES.get(state["Type"], "box")
    facts = {
        "label": label,
        "fillcolor": fill,
        "color": line,
        "fontcolor": _TEXT if visits else _FAINT_TEXT,
        "shape": shape,
        "penwidth": "1.6" if visits else "1",
        "tooltip": f"{state['Type']} {name}",
    }
    if shape == "diamond":
        facts |= {"style": "filled", "margin": "0.02,0.02", "fontsize": "11"}
    return f"{_quoted(name)} [{', '.join(f'{key}={_quoted(value)}' for key, value in facts.items())}]"


def _edge(source: str, target: str, taken: bool, *, caught: bool = False) -> str:
    color = _LINE if taken else _FAINT_LINE
    style = "dashed" if caught else "solid"
    width = "1.8" if taken else "0.8"
    return f'{_quoted(source)} -> {_quoted(target)} [color="{color}", style={style}, penwidth={width}]'


def _targets(state: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield the states that can follow a state, each one once, and whether only a caught error leads there."""
    seen: set[str] = set()
    rules = (state, *state.get("Choices", ()), {"Next": state.get("Default")})
    for caught, sources in ((False, rules), (True, state.get("Catch", ()))):
        for rule in sources:
            target = rule.get("Next")
            if target and target not in seen:
                seen.add(target)
                yield target, caught


def _branches(state: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the state machines inside a Parallel or Map state."""
    processor = state.get("ItemProcessor") or state.get("Iterator")
    return [*state.get("Branches", ()), *([processor] if processor else [])]


def _title(name: str, state: Mapping[str, Any]) -> str:
    return f"{name}: each item" if state["Type"] == "Map" else f"{name}: branch"


def _moves(steps: Sequence[Step]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of states between which the execution moved, from a nested state to its branches, too."""
    by_id = {step.id: step for step in steps}
    last: dict[int | None, Step] = {}
    for step in steps:
        if step.parent is not None:
            yield by_id[step.parent].name, step.name
        if step.parent in last:
            yield last[step.parent].name, step.name
        last[step.parent] = step


def _quoted(text: str) -> str:
    """Return a text as a quoted string of DOT; JSON's line breaks are DOT's, too."""
    return json.dumps(text, ensure_ascii=False)
