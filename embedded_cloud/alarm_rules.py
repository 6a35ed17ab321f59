"""When a CloudWatch alarm changes state.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum

EXTRA_PERIODS = 2
"""Periods that are read before those that an alarm needs. CloudWatch only documents an example, with 2."""

MAX_CHARACTERS = 10_240  # of the rule of a composite alarm
_MAX_DEPTH = 50

_TOKEN = re.compile(r"""\s*(?:(?P<name>"[^"]*"|'[^']*'|[^\s()"',]+)|(?P<symbol>[()]))""")

Rule = Callable[[Mapping[str, str]], bool]


class State(StrEnum):
    """State of an alarm."""

    OK = "OK"
    ALARM = "ALARM"
    INSUFFICIENT_DATA = "INSUFFICIENT_DATA"


class AlarmRuleError(ValueError):
    """An invalid rule of a composite alarm."""


def decide(breaching: Sequence[bool | None], periods: int, to_alarm: int, missing: str, current: str) -> State:
    """Return the state of a metric alarm.

    Args:
        breaching: for each period, oldest first, whether its value breaches the threshold; None without a value.
            :data:`EXTRA_PERIODS` more than ``periods``.
        periods: EvaluationPeriods.
        to_alarm: DatapointsToAlarm.
        missing: TreatMissingData.
        current: current state.
    """
    found = [value for value in breaching if value is not None]
    if len(found) >= periods:
        return State.ALARM if sum(found[-periods:]) >= to_alarm else State.OK
    fill = periods - len(found)
    if missing in ("breaching", "notBreaching"):
        return State.ALARM if sum(found) + fill * (missing == "breaching") >= to_alarm else State.OK
    if sum(found) >= to_alarm:
        return State.ALARM
    if not all(found):
        return State.OK
    if missing == "ignore":
        return State(current)
    if not found:
        return State.INSUFFICIENT_DATA
    # All values breach, but there are too few. That suffices if the oldest is old enough.
    oldest = len(breaching) - next(index for index, value in enumerate(breaching) if value)
    return State.ALARM if oldest >= to_alarm else State(current)


def breaches(value: float, comparison: str, threshold: float, upper: float | None = None) -> bool:
    """Return whether a value breaches a threshold.

    Args:
        value: value of a period.
        comparison: ComparisonOperator.
        threshold: threshold, or the lower limit of a band.
        upper: upper limit of a band.
    """
    match comparison:
        case "GreaterThanThreshold":
            return value > threshold
        case "GreaterThanOrEqualToThreshold":
            return value >= threshold
        case "LessThanThreshold" | "LessThanLowerThreshold":
            return value < threshold
        case "LessThanOrEqualToThreshold":
            return value <= threshold
    above = value > (threshold if upper is None else upper)
    return above if comparison == "GreaterThanUpperThreshold" else above or value < threshold


def compile_rule(text: str) -> Rule:
    """Return a function that tells from the states of alarms whether a composite alarm is in ALARM.

    Example: ``compile_rule('ALARM("high") AND NOT OK("low")')``.

    Raises:
        AlarmRuleError: the rule is invalid.
    """
    if len(text) > MAX_CHARACTERS:
        raise AlarmRuleError(f"AlarmRule has more than {MAX_CHARACTERS} characters")
    return _Parser(text).parse()


def alarms_in(text: str) -> list[str]:
    """Return the names of the alarms that a rule refers to."""
    parser = _Parser(text)
    parser.parse()
    return parser.names


class _Parser:
    """A recursive descent parser: NOT binds more tightly than AND, and AND than OR."""

    def __init__(self, text: str) -> None:
        self._tokens, self._next, self._depth = list(_tokenize(text)), 0, 0
        self.names: list[str] = []

    def parse(self) -> Rule:
        rule = self._either()
        if self._next < len(self._tokens):
            raise AlarmRuleError(f"Invalid AlarmRule: unexpected '{self._tokens[self._next]}'")
        return rule

    def _is_next(self, word: str) -> bool:
        found = self._next < len(self._tokens) and self._tokens[self._next] == word
        self._next += found
        return found

    def _take(self, expected: str = "") -> str:
        found = self._tokens[self._next] if self._next < len(self._tokens) else ""
        if not found or (expected and found != expected):
            raise AlarmRuleError(f"Invalid AlarmRule: expected {expected or 'a condition'} instead of '{found}'")
        self._next += 1
        return found

    def _either(self) -> Rule:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise AlarmRuleError("Invalid AlarmRule: too many nested parentheses")
        rules = [self._all()]
        while self._is_next("OR"):
            rules.append(self._all())
        self._depth -= 1
        return lambda states: any(rule(states) for rule in rules)

    def _all(self) -> Rule:
        rules = [self._single()]
        while self._is_next("AND"):
            rules.append(self._single())
        return lambda states: all(rule(states) for rule in rules)

    def _single(self) -> Rule:
        if self._is_next("NOT"):
            self._depth += 1
            if self._depth > _MAX_DEPTH:
                raise AlarmRuleError("Invalid AlarmRule: too many NOTs")
            rule = self._single()
            self._depth -= 1
            return lambda states: not rule(states)
        if self._is_next("("):
            rule = self._either()
            self._take(")")
            return rule
        word = self._take()
        if word in ("TRUE", "FALSE"):
            return lambda states: word == "TRUE"
        if word not in tuple(State):
            raise AlarmRuleError(f"Invalid AlarmRule: unexpected '{word}'")
        self._take("(")
        name = self._take().strip("\"'")
        name = name.rpartition(":alarm:")[2]
        self._take(")")
        self.names.append(name)
        return lambda states: states.get(name) == word


def _tokenize(text: str) -> Iterator[str]:
    position = 0
    while text[position:].strip():
        if not (found := _TOKEN.match(text, position)) or not found.lastgroup:
            raise AlarmRuleError(f"Invalid AlarmRule: unexpected '{text[position:].strip()}'")
        yield found[found.lastgroup]
        position = found.end()
