"""The stack's alarms that are in the state ALARM."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any, Final

SEVERITIES: Final = ("critical", "warning")
"""Ends of the names of the composite alarms. Their rules have the names of all alarms of the stack."""

_IN_ALARM: Final = re.compile(r'ALARM\("([^"]+)"\)')
_RUNBOOK: Final = "Runbook: "


@dataclass(frozen=True)
class ActiveAlarm:
    """An alarm in the state ALARM.

    Attributes:
        name: name.
        since: time of its last change.
        runbook: link of its section in the runbook.
    """

    name: str
    since: datetime
    runbook: str


def active(cloudwatch: Any, stack: str) -> tuple[ActiveAlarm, ...]:
    """Return the alarms of a stack that are in the state ALARM, the oldest first.

    A composite alarm publishes when it changes its state. While one of its alarms stays in ALARM, others are silent.
    Alarms of a stack whose name begins with this one's are left out.

    Args:
        cloudwatch: CloudWatch client.
        stack: name of the main stack.
    """
    pages = cloudwatch.get_paginator("describe_alarms")
    composites = pages.paginate(AlarmNames=[f"{stack}-{one}" for one in SEVERITIES], AlarmTypes=["CompositeAlarm"])
    rules = (one["AlarmRule"] for page in composites for one in page["CompositeAlarms"])
    names = sorted({name for rule in rules for name in _IN_ALARM.findall(rule)})
    return tuple(sorted(_in_alarm(cloudwatch, names), key=attrgetter("since", "name")))


def _in_alarm(cloudwatch: Any, names: list[str]) -> Iterator[ActiveAlarm]:
    if not names:  # an empty list would be one of all alarms of the account
        return
    pages = cloudwatch.get_paginator("describe_alarms")
    for page in pages.paginate(AlarmNames=names, AlarmTypes=["MetricAlarm"], StateValue="ALARM"):
        for one in page["MetricAlarms"]:
            runbook = one.get("AlarmDescription", "").rpartition(_RUNBOOK)[2]
            yield ActiveAlarm(one["AlarmName"], one["StateUpdatedTimestamp"], runbook)
