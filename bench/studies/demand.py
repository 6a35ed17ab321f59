"""Walk the paths of an upload through the state machine, and count the AWS requests on each path."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from functions.contracts.object_keys import sidecar_keys

Definition: TypeAlias = Mapping[str, Any]

_FUNCTION: Final = re.compile(r"\$\{(\w+)Arn\}")

Bucket: TypeAlias = Literal["uploads", "work", "results"]

REQUESTS: Final[Mapping[str, Mapping[tuple[Bucket, Literal["get", "put"]], int]]] = {
    "ValidateFunction": {("uploads", "get"): 1},
    "SegmentFunction": {("uploads", "get"): 1, ("work", "put"): 1},
    "RefineFunction": {("uploads", "get"): 1, ("work", "get"): 1, ("work", "put"): 1},
    "EncodeFunction": {
        ("uploads", "get"): 1,
        ("work", "get"): 1,
        ("work", "put"): 1,
        ("results", "put"): 2,
        ("results", "get"): 1,  # checks for an earlier failure report
    },
    "FailureFunction": {
        # the job's own sidecar, the result without one, and before and after writing the report all possible sidecars
        ("results", "get"): 2 + 2 * len(sidecar_keys("")),
        ("results", "put"): 1,
    },
    "MetricsFunction": {},
}
"""S3 requests per call of each function, for a picture without a background image and without retries."""

_WORKER: Final = "SegmentFunction"  # the worker makes the same S3 requests as this function
_NATIVE: Final[Mapping[str, Mapping[tuple[Bucket, Literal["get", "put"]], int]]] = {
    "ServeCached": {("work", "get"): 1, ("results", "put"): 1},
    "SaveSidecar": {("results", "put"): 1, ("results", "get"): 1},  # PublishMetrics checks for an earlier report
    "KeepRawInput": {("results", "get"): -2},  # RecordFailure has no result to delete
}
_ITEM_KB: Final = 4
"""Size of a finished item in kB, rounded up. It contains a sidecar of about 2.3 kB."""

COMPUTED: Final[Mapping[str, Sequence[str]]] = {
    "ChooseSegmenter": ["SegmentOnLambda"],
    "NeedsEscalation?": ["Encode"],
    "Outcome?": ["Done"],
}
PATHS: Final[Mapping[str, Mapping[str, Sequence[str]]]] = {
    "computed, Lambda": COMPUTED,
    "computed, ECS": {**COMPUTED, "ChooseSegmenter": ["SegmentOnEcs"]},
    "computed, SageMaker": {**COMPUTED, "ChooseSegmenter": ["SegmentOnSageMaker"]},
    "computed, SageMaker, asynchronous": {**COMPUTED, "ChooseSegmenter": ["SegmentOnSageMakerAsync"]},
    "computed, ECS fails, fallback to Lambda": {
        **COMPUTED,
        "ChooseSegmenter": ["SegmentOnEcs"],
        "SegmentOnEcs": ["SegmentOnLambda"],
    },
    "computed twice, Lambda": {
        **COMPUTED,
        "ChooseSegmenter": ["SegmentOnLambda", "SegmentOnLambda"],
        "NeedsEscalation?": ["Escalate", "Encode"],
    },
    "from the cache": {"ClaimWork": ["LookUpCache"], "CacheHit?": ["ServeCached"], "Outcome?": ["Done"]},
    "from the cache, after one wait": {
        "ClaimWork": ["LookUpCache"],
        "ClaimAgain?": ["LookUpCache"],
        "CacheHit?": ["CheckOwner", "ServeCached"],
        "OwnerRunning?": ["WaitedBefore?"],
        "WaitedBefore?": ["SetInitialWait"],
        "Outcome?": ["Done"],
    },
    "rejected by Validate": {"Validate": ["KeepRawInput"], "HoldsClaim?": ["PublishMetrics"], "Outcome?": ["Failed"]},
}
"""For each choice, its next states in the order of visits; for a failing task, the state that catches the error."""


@dataclass(frozen=True)
class Step:
    """A state on a path; ``entered`` is the number of state transitions, including those of its branches."""

    name: str
    state: Mapping[str, Any]
    entered: int

    @property
    def function(self) -> str | None:
        """Logical ID of the Lambda function that the state calls, or None."""
        found = _FUNCTION.fullmatch(str(self.state.get("Parameters", {}).get("FunctionName", "")))
        return found[1] if found else None

    def calls(self, service: str) -> bool:
        """Return whether the state is an integration with the given service."""
        return f":{service}:" in str(self.state.get("Resource", ""))


def walk(definition: Definition, choices: Mapping[str, Sequence[str]], start: str | None = None) -> list[Step]:
    """Return the states that an execution enters on a path.

    Args:
        definition: definition of the state machine.
        choices: one of :data:`PATHS`.
        start: first state; None for ``StartAt``.

    Raises:
        ValueError: a chosen state does not follow the previous state.
    """
    left = {name: list(nexts) for name, nexts in choices.items()}
    steps, name = [], start or definition["StartAt"]
    while True:
        state = definition["States"][name]
        steps.append(Step(name, state, _entered(state)))
        chosen = left.get(name, []).pop(0) if left.get(name) else state.get("Next")
        if chosen is None and state["Type"] in ("Succeed", "Fail"):
            return steps
        if chosen not in _nexts(state):
            raise ValueError(f"{name} does not lead to {chosen}, but to {', '.join(sorted(_nexts(state)))}")
        name = chosen


def _entered(state: Mapping[str, Any]) -> int:
    inside = (inner for branch in state.get("Branches", ()) for inner in branch["States"].values())
    return 1 + sum(map(_entered, inside))


def _nexts(state: Mapping[str, Any]) -> set[str]:
    leads = [state, *state.get("Catch", ()), *state.get("Choices", ())]
    return {entry[key] for entry in leads for key in ("Next", "Default") if key in entry}


def demand(steps: Sequence[Step]) -> Counter[str]:
    """Return the number of requests of one upload on a path, by limit."""
    needed = Counter({"events": 1, "starts": 1, "transitions": sum(step.entered for step in steps), "uploads put": 1})
    for step in steps:
        if function := step.function:
            needed["invocations"] += 1
        requests = REQUESTS[function] if function else _NATIVE.get(step.name, {})
        if step.calls("sqs"):
            needed["callbacks"] += 1  # one of each kind: a heartbeat when a worker receives the job, and the result
            requests = REQUESTS[_WORKER]
        if step.name.startswith("SegmentOnSageMaker"):
            requests = REQUESTS[_WORKER]
        if step.name == "SegmentOnSageMakerAsync":
            needed["callbacks"] += 1
            # Includes the request object: put, head, get.
            requests = {**requests, ("work", "put"): 2, ("work", "get"): 2}
        for (bucket, kind), times in requests.items():
            needed[f"{bucket} {kind}"] += times
        if step.calls("dynamodb"):
            needed["table reads" if "getItem" in step.state["Resource"] else "table writes"] += _units(step)
        if step.calls("sfn"):
            needed["descriptions"] += 1
    names = {step.name for step in steps}
    if "ServeCached" in names and "WaitForOwner" not in names:
        needed["table writes"] += _ITEM_KB - 1  # ClaimWork met a finished item: a refused write takes the item's size
    return needed


def _units(step: Step) -> int:
    return _ITEM_KB if step.name == "SaveCache" else 1
