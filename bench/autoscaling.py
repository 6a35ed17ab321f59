"""The worker's autoscaling, as template.yaml asks for it: what CloudWatch and Application Auto Scaling would decide.

Two policies share one target. The wake-up adds a worker in a minute in which jobs waited and none was taken. The
backlog keeps the jobs per worker, those in hand included, at a target; it cannot leave zero, as a multiple of zero.

Read out of the template: target values, steps, cooldowns, periods, limits. Emulated, since AWS only describes it:
target tracking adds after three minutes above its target and takes away after fifteen below nine tenths of it, in
proportion; while a cooldown lasts, what the last step added counts as part of the next one.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from samtranslator.yaml_helper import yaml_parse

_PERIOD_S: Final = 60.0  # of both policies' metrics
_PERIODS_ABOVE: Final = 3
_PERIODS_BELOW: Final = 15
_BELOW: Final = 0.9


@dataclass(frozen=True)
class Policies:
    """What the template says of the worker's scaling; times in seconds.

    Attributes:
        minimum: fewest workers.
        maximum: most workers.
        wake_up_threshold: untouched jobs that wake a worker up.
        wake_up_adjustment: workers that are then added.
        wake_up_cooldown_s: pause after that.
        target: jobs per worker.
        scale_out_cooldown_s: pause after workers were added for the target.
        scale_in_cooldown_s: pause after workers were taken away.
    """

    minimum: int
    maximum: int
    wake_up_threshold: float
    wake_up_adjustment: int
    wake_up_cooldown_s: float
    target: float
    scale_out_cooldown_s: float
    scale_in_cooldown_s: float

    @classmethod
    def read(cls, template: Path, parameters: Mapping[str, str] | None = None) -> "Policies":
        """Read them out of the SAM template.

        Args:
            template: the template.
            parameters: values of its parameters; the rest have their defaults.
        """
        source = yaml_parse(template.read_text())
        values = {name: facts.get("Default") for name, facts in source["Parameters"].items()} | dict(parameters or {})
        nested = source["Resources"]["WorkerStack"]["Properties"]
        values = _resolved(nested["Parameters"], values, {})
        worker = yaml_parse((template.parent / nested["Location"]).read_text())
        conditions = {"HasGpu": values["Capacity"] == "GPU"}

        def properties(logical_id: str) -> Any:
            return _resolved(worker["Resources"][logical_id]["Properties"], values, conditions)

        scaling, alarm = properties("WorkerScaling"), properties("WorkerWakeUpAlarm")
        wake_up = properties("WorkerWakeUp")["StepScalingPolicyConfiguration"]
        backlog = properties("WorkerBacklog")["TargetTrackingScalingPolicyConfiguration"]
        [step] = wake_up["StepAdjustments"]
        return cls(
            minimum=int(scaling["MinCapacity"]),
            maximum=int(scaling["MaxCapacity"]),
            wake_up_threshold=alarm["Threshold"],
            wake_up_adjustment=step["ScalingAdjustment"],
            wake_up_cooldown_s=wake_up["Cooldown"],
            target=backlog["TargetValue"],
            scale_out_cooldown_s=backlog["ScaleOutCooldown"],
            scale_in_cooldown_s=backlog["ScaleInCooldown"],
        )


def _resolved(value: Any, values: Mapping[str, Any], conditions: Mapping[str, bool]) -> Any:
    """Put parameters and choices in; what refers to resources stays as it is."""
    match value:
        case {"Ref": str(name)} if name in values:
            return values[name]
        case {"Fn::If": [condition, yes, no]} if condition in conditions:
            return _resolved(yes if conditions[condition] else no, values, conditions)
        case dict():
            return {key: _resolved(item, values, conditions) for key, item in value.items()}
        case list():
            return [_resolved(item, values, conditions) for item in value]
        case _:
            return value


@dataclass(frozen=True)
class Decision:
    """A change of the desired count, and why; ``at_s`` since the start, ``before`` None where it is not known."""

    at_s: float
    before: int | None
    after: int
    reason: str


@dataclass
class _Period:
    """One period of the metrics. A sample that found none of a kind is a sample, too."""

    waiting: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    taken: int = 0


class Autoscaler:
    """Decides on the desired count from samples of the queue.

    Args:
        policies: of the template.
        desired: the count to start from.

    Attributes:
        desired: the count that is wanted.
        decisions: every change so far.
    """

    def __init__(self, policies: Policies, desired: int) -> None:
        self.desired = desired
        self.decisions: list[Decision] = []
        self._policies = policies
        self._period, self._ends_s = _Period(), _PERIOD_S
        self._above: deque[bool] = deque(maxlen=_PERIODS_ABOVE)
        self._below: deque[bool] = deque(maxlen=_PERIODS_BELOW)
        self._base, self._added_until_s = desired, -math.inf
        self._woken_until_s = self._taken_away_until_s = -math.inf

    def sample(self, at_s: float, *, waiting: int, held: int, running: int, taken: int) -> Decision | None:
        """Look at the queue, once or more often per period; return what is decided when a period is over.

        Args:
            at_s: seconds since the start, as AWS would count them.
            waiting: messages that are visible.
            held: messages in flight.
            running: workers.
            taken: messages that were received since the last sample.
        """
        decision = None
        if at_s >= self._ends_s:
            decision = self._evaluate(at_s)
            self._period = _Period()
            self._ends_s = _PERIOD_S * (1 + at_s // _PERIOD_S)
        self._period.waiting.append(waiting)
        self._period.held.append(held)
        self._period.running.append(running)
        self._period.taken += taken
        return decision

    def _evaluate(self, at_s: float) -> Decision | None:
        period, policies = self._period, self._policies
        if not period.waiting:
            return None
        workers = max(1.0, _mean(period.running))
        backlog = (_mean(period.waiting) + _mean(period.held)) / workers
        self._above.append(backlog > policies.target)
        self._below.append(backlog < _BELOW * policies.target)
        untouched = max(period.waiting) if period.taken < 1 else 0
        wanted = (
            (self._woken(at_s, untouched), f"{untouched} jobs wait, none was taken in a minute"),
            (self._tracked(at_s, backlog), f"{backlog:.1f} jobs per worker, the target is {policies.target:g}"),
        )
        decided = [(count, why) for count, why in wanted if count is not None]
        after, reason = max(decided, default=(self.desired, ""))  # of two policies AWS follows the one that wants more
        after = min(max(after, policies.minimum), policies.maximum)
        if after == self.desired:
            return None
        decision = Decision(at_s, self.desired, after, reason)
        self._take(decision)
        return decision

    def _woken(self, at_s: float, untouched: int) -> int | None:
        if untouched < self._policies.wake_up_threshold or at_s < self._woken_until_s:
            return None
        return self.desired + self._policies.wake_up_adjustment

    def _tracked(self, at_s: float, backlog: float) -> int | None:
        """Return the count in proportion to the backlog, or None while it is to stay."""
        ratio = backlog / self._policies.target
        if len(self._above) == _PERIODS_ABOVE and all(self._above):
            base = self._base if at_s < self._added_until_s else self.desired
            return max(self.desired, math.ceil(base * ratio))
        if len(self._below) == _PERIODS_BELOW and all(self._below) and at_s >= self._taken_away_until_s:
            return math.ceil(self.desired * ratio)
        return None

    def _take(self, decision: Decision) -> None:
        policies, at_s = self._policies, decision.at_s
        if decision.after < self.desired:
            self._taken_away_until_s = at_s + policies.scale_in_cooldown_s
        else:
            if at_s >= self._added_until_s:
                self._base = self.desired
            self._added_until_s = at_s + policies.scale_out_cooldown_s
            self._woken_until_s = at_s + policies.wake_up_cooldown_s
        self.desired = decision.after
        self.decisions.append(decision)


def _mean(values: list[int]) -> float:
    return sum(values) / len(values)
