"""States of alarms."""

import pytest

from embedded_cloud.alarm_rules import AlarmRuleError, alarms_in, breaches, compile_rule, decide

POINTS = {"0": False, "X": True, "-": None}
TREATMENTS = ("missing", "ignore", "breaching", "notBreaching")
RETAINED = "retained"


@pytest.mark.parametrize(
    ("to_alarm", "points", "states"),
    [
        # The tables in https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
        (3, "0-X-X", ("OK", "OK", "OK", "OK")),
        (3, "----0", ("OK", "OK", "OK", "OK")),
        (3, "-----", ("INSUFFICIENT_DATA", RETAINED, "ALARM", "OK")),
        (3, "0XX-X", ("ALARM", "ALARM", "ALARM", "ALARM")),
        (3, "--X--", ("ALARM", RETAINED, "ALARM", "OK")),
        (2, "0-X-X", ("ALARM", "ALARM", "ALARM", "ALARM")),
        (2, "00X0X", ("ALARM", "ALARM", "ALARM", "ALARM")),
        (2, "0-X--", ("OK", "OK", "ALARM", "OK")),
        (2, "----0", ("OK", "OK", "ALARM", "OK")),
        (2, "---X-", ("ALARM", RETAINED, "ALARM", "OK")),
        # Too recent to be sure.
        (3, "----X", (RETAINED, RETAINED, "ALARM", "OK")),
    ],
)
@pytest.mark.parametrize("current", ["OK", "ALARM", "INSUFFICIENT_DATA"])
def test_missing_data_are_treated_as_configured(
    to_alarm: int, points: str, states: tuple[str, ...], current: str
) -> None:
    breaching = [POINTS[point] for point in points]
    found = tuple(decide(breaching, 3, to_alarm, treatment, current) for treatment in TREATMENTS)
    assert found == tuple(current if state == RETAINED else state for state in states)


@pytest.mark.parametrize(
    ("comparison", "values"),
    [
        ("GreaterThanThreshold", [3]),
        ("GreaterThanOrEqualToThreshold", [2, 3]),
        ("LessThanThreshold", [1]),
        ("LessThanOrEqualToThreshold", [1, 2]),
    ],
)
def test_values_are_compared_with_a_threshold(comparison: str, values: list[float]) -> None:
    assert [value for value in (1, 2, 3) if breaches(value, comparison, 2)] == values


@pytest.mark.parametrize(
    ("comparison", "values"),
    [
        ("GreaterThanUpperThreshold", [5]),
        ("LessThanLowerThreshold", [1]),
        ("LessThanLowerOrGreaterThanUpperThreshold", [1, 5]),
    ],
)
def test_values_are_compared_with_a_band(comparison: str, values: list[float]) -> None:
    assert [value for value in (1, 2, 3, 4, 5) if breaches(value, comparison, 2, 4)] == values


@pytest.mark.parametrize(
    ("rule", "alarm"),
    [
        ('ALARM("a")', True),
        ("ALARM(b)", False),
        ("OK('b') AND INSUFFICIENT_DATA(c)", True),
        ('ALARM("b") OR ALARM("a") AND OK("a")', False),
        ('(ALARM("b") OR ALARM("a")) AND NOT OK("a")', True),
        ("ALARM(arn:aws:cloudwatch:eu-west-1:123456789012:alarm:a)", True),
        ("ALARM(missing)", False),
        ("NOT FALSE", True),
    ],
)
def test_a_rule_combines_the_states_of_alarms(rule: str, alarm: bool) -> None:
    assert compile_rule(rule)({"a": "ALARM", "b": "OK", "c": "INSUFFICIENT_DATA"}) is alarm


def test_a_rule_names_its_alarms() -> None:
    assert alarms_in('ALARM("a b") OR NOT OK(c)') == ["a b", "c"]


@pytest.mark.parametrize(
    "rule",
    ["", "ALARM", "ALARM(a", "ALARM(a) OK(b)", "RED(a)", "ALARM(a) AND", "(" * 60 + "TRUE" + ")" * 60, "TRUE " * 9999],
)
def test_an_invalid_rule_is_rejected(rule: str) -> None:
    with pytest.raises(AlarmRuleError, match="AlarmRule"):
        compile_rule(rule)
