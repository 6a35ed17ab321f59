"""Failed images become one message on the topic for people, on the deployed template."""

import json
from typing import Any

from tests.conftest import client
from tests.integration.deployment import Deployed


def digest(stack: Deployed) -> dict[str, Any]:
    """Publish what has failed until now."""
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
        assert "  pbr redrive --failed --since 1h" in lines
        assert not digest(stack)["published"] and not heard()
