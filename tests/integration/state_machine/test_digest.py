"""Failed images and active alarms become one message on the topic for people, on the deployed template."""

import json
from typing import Any

import pytest

from tests.conftest import client
from tests.integration.deployment import Deployed, next_second


def digest(stack: Deployed) -> dict[str, Any]:
    """Publish what has failed until now."""
    next_second()
    answer = client("lambda", stack.cloud.endpoint_url, stack.cloud.region).invoke(
        FunctionName=stack.outputs["DigestFunctionArn"], Payload=json.dumps({"min_age_s": 0})
    )
    found = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer, found
    return dict(found)


def test_three_failures_are_one_message(stack: Deployed) -> None:
    digest(stack)  # failures of other tests
    for number in range(3):
        assert stack.process(f"digest/{number}.png", b"no picture").error == "UnsupportedFormatError"
    with stack.listener("AlertsTopicArn") as heard:
        assert digest(stack)["failed"] == 3
        [message] = heard()
        assert message["Subject"] == f"{stack.cloud.stack_name}: 3 images failed"
        lines = message["Message"].splitlines()
        assert "3 x UnsupportedFormatError" in lines and "  - digest/0.png" in lines
        assert "  pbr redrive --failed --since 25h" in lines
        assert not digest(stack)["published"] and not heard()


def test_an_alarm_is_reported_while_it_is_active(stack: Deployed) -> None:
    digest(stack)  # failures of other tests
    cloudwatch = client("cloudwatch", stack.cloud.endpoint_url, stack.cloud.region)
    alarm = f"{stack.cloud.stack_name}-dead-letters-uploads"
    with stack.listener("AlertsTopicArn") as heard:
        cloudwatch.set_alarm_state(AlarmName=alarm, StateValue="ALARM", StateReason="test")
        try:
            assert [digest(stack)["alarms"] for _ in range(2)] == [1, 1]
        finally:
            cloudwatch.set_alarm_state(AlarmName=alarm, StateValue="OK", StateReason="test")
        assert not digest(stack)["published"]
        messages = heard()
        assert {message["Subject"] for message in messages} == {f"{stack.cloud.stack_name}: 1 alarm active"}
        lines = messages[0]["Message"].splitlines()
        [line] = [number for number, text in enumerate(lines) if text.startswith(f"  - {alarm}, since ")]
        assert lines[line + 1].endswith("/runbook.md#dead-letters-uploads")


@pytest.mark.slow
def test_a_report_that_is_deleted_while_reports_are_read_is_left_out(stack: Deployed) -> None:
    digest(stack)  # failures of other tests
    for name in ("there", "gone"):
        assert stack.process(f"digest/{name}.png", b"no picture").error == "UnsupportedFormatError"
    report = {"Bucket": stack.outputs["ResultsBucket"], "Key": "failed/digest/gone.png.json"}
    stack.crashes.before["/{Bucket}/{Key}".format(**report)] = lambda: stack.s3.delete_object(**report)
    assert digest(stack)["failed"] == 1
