"""Emulate CloudWatch and Application Auto Scaling for the worker service that template.yaml defines.

Two policies scale the same service. The wake-up policy adds a worker after a minute in which jobs waited and no worker
received one. The backlog policy keeps the jobs per worker, waiting and in flight, at a target value. It cannot scale
out from zero, because it multiplies the current count.

Target values, steps, cooldowns, and limits come from the template. The rest emulates the AWS documentation: target
tracking scales out after three minutes above the target and scales in after fifteen minutes below 90 % of it, in
proportion to the metric. During a cooldown, workers that the previous step added count towards the next step.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from samtranslator.yaml_helper import yaml_parse

_PERIOD_S: Final = 60.0  # of the metrics of both policies
_PERIODS_ABOVE: Final = 3
_PERIODS_BELOW: Final = 15
_BELOW: Final = 0.9


@dataclass(frozen=True)
class Policies:
    """The worker's scaling policies.

    Attributes:
        minimum: lower limit of the desired count.
        maximum: upper limit of the desired count.
        wake_up_threshold: number of waiting jobs that triggers the wake-up policy.
        wake_up_adjustment: number of workers that the wake-up policy adds.
        wake_up_cooldown_s: cooldown after a wake-up.
        target: target value of jobs per worker.
        scale_out_cooldown_s: cooldown after the backlog policy adds workers.
        scale_in_cooldown_s: cooldown after the backlog policy removes workers.
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
        """Read the policies from a SAM template.

        Args:
            template: path of the template.
            parameters: template parameters that override the defaults.
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
    """Resolve references to parameters and conditions; leave references to resources unchanged."""
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
    """A change of the desired count.

    Attributes:
        at_s: seconds since the start.
        before: previous count; None if unknown.
        after: new count.
        reason: explanation for the report.
    """

    at_s: float
    before: int | None
    after: int
    reason: str


@dataclass
class _Period:
    """The samples of one metric period."""

    waiting: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    taken: int = 0


class Autoscaler:
    """Calculate the desired count from samples of the queue.

    Args:
        policies: the scaling policies.
        desired: initial desired count.

    Attributes:
        desired: current desired count.
        decisions: all changes so far, oldest first.
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
        """Add a sample, at least one per period; return the decision if the sample ends a period and changes the count.

        Args:
            at_s: seconds since the start, in AWS time.
            waiting: number of visible messages.
            held: number of messages in flight.
            running: number of running workers.
            taken: number of messages received since the previous sample.
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
            (self._woken(at_s, untouched), f"{untouched} jobs waited, and no worker received one for a minute"),
            (self._tracked(at_s, backlog), f"{backlog:.1f} jobs per worker, target {policies.target:g}"),
        )
        decided = [(count, why) for count, why in wanted if count is not None]
        after, reason = max(decided, default=(self.desired, ""))  # AWS applies the policy with the higher count
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
        """Return the count in proportion to the backlog, or None to keep the current count."""
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
