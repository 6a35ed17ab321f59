"""Break the stack and see the right alarm go off."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from embedded_cloud.cloud import EmbeddedCloud
from tests.conftest import ROOT, disc
from tests.integration.deployment import Deployed

pytestmark = pytest.mark.slow  # test_thresholds.py has the alarms, and other tests the failures

SOON = timedelta(minutes=1)  # until the current minute is over


@pytest.fixture(scope="module")
def stack() -> Iterator[Deployed]:
    parameters = {"DefaultModel": "classical", "AlarmFailureMinimum": "1"}
    with EmbeddedCloud(ROOT / "template.yaml", parameters, retry_pace=0.01, alarm_interval_s=None) as cloud:
        yield Deployed(cloud)


def in_alarm(stack: Deployed, now: datetime) -> set[str]:
    """Evaluate the alarms, and return those that are in ALARM, without the stack's name."""
    found = stack.cloud.evaluate_alarms(now)
    return {name.removeprefix(f"{stack.cloud.stack_name}-") for name, state in found.items() if state == "ALARM"}


def test_a_healthy_stack_has_no_alarm_and_failures_set_off_theirs(stack: Deployed) -> None:
    assert stack.process("good.png", disc()).status == "SUCCEEDED"
    assert in_alarm(stack, datetime.now(UTC) + SOON) == set()

    with stack.listener("AlertsTopicArn") as heard:
        assert stack.process("bad.png", b"no image").status == "FAILED"
        assert in_alarm(stack, datetime.now(UTC) + SOON) == {"failure-rate", "critical"}
        [message] = [json.loads(notice["Message"]) for notice in heard()]
        assert message["AlarmName"] == f"{stack.cloud.stack_name}-critical"
        assert (message["OldStateValue"], message["NewStateValue"]) == ("OK", "ALARM")
        assert [child["Arn"].rpartition("-failure-")[2] for child in message["TriggeringChildren"]] == ["rate"]

        url = stack.outputs["WebhooksDeadLetterQueueUrl"]
        stack.sqs.send_message(QueueUrl=url, MessageBody="{}")
        expected = {"failure-rate", "critical", "dead-letters-webhooks", "warning"}
        assert in_alarm(stack, datetime.now(UTC) + SOON) == expected
        [message] = [json.loads(notice["Message"]) for notice in heard()]
        assert message["AlarmName"] == f"{stack.cloud.stack_name}-warning"
