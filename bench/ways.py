"""What an upload asks of AWS on each way through the state machine, read out of the definition and the template."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Literal, TypeAlias

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
        ("results", "get"): 1,  # is there a report of an earlier failure?
    },
    "FailureFunction": {
        ("results", "get"): 4,  # is there a result; one without a sidecar; before and after the report, a result?
        ("results", "put"): 1,
    },
    "MetricsFunction": {},
}
"""S3 requests of one call of each function, on a picture without a background and without a second attempt."""

_WORKER: Final = "SegmentFunction"  # a worker does on S3 what the function does
_NATIVE: Final[Mapping[str, Mapping[tuple[Bucket, Literal["get", "put"]], int]]] = {
    "ServeCached": {("work", "get"): 1, ("results", "put"): 1},
    "SaveSidecar": {("results", "put"): 1, ("results", "get"): 1},  # PublishMetrics looks for an earlier report
    "KeepRawInput": {("results", "get"): -2},  # RecordFailure knows of no result that could be taken back
}
_ITEM_KB: Final = 4
"""Of a finished item, rounded up: it holds a sidecar, and the README's has 2.3 kB."""

COMPUTED: Final[Mapping[str, Sequence[str]]] = {
    "CacheHit?": ["ClaimWork"],
    "ChooseSegmenter": ["SegmentOnLambda"],
    "Doubtful?": ["Encode"],
    "Outcome?": ["Done"],
}
WAYS: Final[Mapping[str, Mapping[str, Sequence[str]]]] = {
    "computed, Lambda": COMPUTED,
    "computed, ECS": {**COMPUTED, "ChooseSegmenter": ["SegmentOnEcs"]},
    "computed, SageMaker": {**COMPUTED, "ChooseSegmenter": ["SegmentOnSageMaker"]},
    "computed, SageMaker, asynchronous": {**COMPUTED, "ChooseSegmenter": ["SegmentOnSageMakerAsync"]},
    "computed, ECS fails, Lambda stands in": {
        **COMPUTED,
        "ChooseSegmenter": ["SegmentOnEcs"],
        "SegmentOnEcs": ["SegmentOnLambda"],
    },
    "computed twice, Lambda": {
        **COMPUTED,
        "ChooseSegmenter": ["SegmentOnLambda", "SegmentOnLambda"],
        "Doubtful?": ["Escalate", "Encode"],
    },
    "from the cache": {"CacheHit?": ["ServeCached"], "Outcome?": ["Done"]},
    "from the cache, after one wait": {
        "CacheHit?": ["CheckOwner", "ServeCached"],
        "OwnerActive?": ["WaitedBefore?"],
        "WaitedBefore?": ["WaitBriefly"],
        "Outcome?": ["Done"],
    },
    "refused by Validate": {"Validate": ["KeepRawInput"], "HoldsClaim?": ["PublishMetrics"], "Outcome?": ["Failed"]},
}
"""What is chosen where there is a choice, in order of the visits; of a task that fails, the state that catches it."""


@dataclass(frozen=True)
class Step:
    """A state that an execution enters; ``entered`` counts it and the states inside of it."""

    name: str
    state: Mapping[str, Any]
    entered: int

    @property
    def function(self) -> str | None:
        """Logical id of the Lambda function that it calls."""
        found = _FUNCTION.fullmatch(str(self.state.get("Parameters", {}).get("FunctionName", "")))
        return found[1] if found else None

    def calls(self, service: str) -> bool:
        """Return whether it is an integration of that service."""
        return f":{service}:" in str(self.state.get("Resource", ""))

    def retrier(self, error: str) -> "Retrier":
        """Return who retries that error."""
        return next(Retrier.read(entry) for entry in self.state["Retry"] if error in entry["ErrorEquals"])

    def catches(self, error: str) -> str:
        """Return the state that an error leads to once its retries are spent."""
        return str(
            next(entry["Next"] for entry in self.state["Catch"] if {error, "States.ALL"} & set(entry["ErrorEquals"]))
        )


@dataclass(frozen=True)
class Retrier:
    """One entry of a state's Retry, with full jitter; seconds."""

    attempts: int
    interval_s: float
    rate: float
    most_s: float

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> "Retrier":
        """Read it out of the definition."""
        return cls(entry["MaxAttempts"], entry["IntervalSeconds"], entry["BackoffRate"], entry["MaxDelaySeconds"])

    def longest_wait_s(self, retries: int) -> float:
        """Return the longest wait after so many retries."""
        return float(min(self.interval_s * self.rate**retries, self.most_s))

    def wait_s(self, retries: int, rng: Random) -> float:
        """Return a wait after so many retries."""
        return rng.random() * self.longest_wait_s(retries)


def walk(definition: Definition, choices: Mapping[str, Sequence[str]], start: str | None = None) -> list[Step]:
    """Return the states that an execution enters.

    Args:
        definition: the state machine's.
        choices: one of :data:`WAYS`.
        start: the first state; None for the machine's own.

    Raises:
        ValueError: the definition has no such way.
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
    """Return what one upload on this way asks for, by the name of the limit that it counts against."""
    needed = Counter({"events": 1, "starts": 1, "transitions": sum(step.entered for step in steps), "uploads put": 1})
    for step in steps:
        if function := step.function:
            needed["invocations"] += 1
        requests = REQUESTS[function] if function else _NATIVE.get(step.name, {})
        if step.calls("sqs"):
            needed["callbacks"] += 1  # of each kind: a heartbeat when a worker takes the job, and the answer
            requests = REQUESTS[_WORKER]
        if step.name.startswith("SegmentOnSageMaker"):
            requests = REQUESTS[_WORKER]
        if step.name == "SegmentOnSageMakerAsync":
            needed["callbacks"] += 1
            requests = {**requests, ("work", "put"): 2, ("work", "get"): 2}  # and the request: put, found, read
        for (bucket, kind), times in requests.items():
            needed[f"{bucket} {kind}"] += times
        if step.calls("dynamodb"):
            needed["table reads" if "getItem" in step.state["Resource"] else "table writes"] += _units(step)
        if step.calls("sfn"):
            needed["descriptions"] += 1
    return needed


def _units(step: Step) -> int:
    return _ITEM_KB if step.name == "SaveCache" else 1
