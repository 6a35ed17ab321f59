"""Creates state machines with mocked cases and runs one case."""

import json
import time
from typing import Any

from tests.conftest import ROOT
from tests.state_machine import DEFINITION, DELIVERY

MOCK_FILE = ROOT / "statemachine/MockConfigFile.json"


MACHINES = {"RemoveBackground": DEFINITION, "DeliverWebhook": DELIVERY}
"""The state machines with cases in the file."""

ORDER = {"source": {"bucket": "uploads", "key": "a.jpg"}}
WEBHOOK = {"url": "https://example.com/webhook", "key_id": "k1"}


def create_machine(sfn: Any, machine: str) -> str:
    """Create a state machine for mocked cases, and return its ARN. Mocked tasks make no calls, so any names will do."""
    text = json.dumps(MACHINES[machine]).replace("${Partition}", "aws")
    for stage in ("Validate", "Segment", "Refine", "Encode", "Metrics", "Failure", "Webhook"):
        text = text.replace(f"${{{stage}FunctionArn}}", "arn:aws:lambda:eu-west-1:123456789012:function:stage")
    for queue in ("SegmentationQueueUrl", "WebhooksDeadLetterQueueUrl"):
        text = text.replace(f"${{{queue}}}", "https://sqs.eu-west-1.amazonaws.com/123456789012/queue")
    text = text.replace("${DeliverWebhookArn}", "arn:aws:states:eu-west-1:123456789012:stateMachine:DeliverWebhook")
    for name in ("CacheTable", "WorkBucket", "ResultsBucket", "SageMakerEndpointName"):
        text = text.replace(f"${{{name}}}", name.lower())
    assert "${" not in text
    created = sfn.create_state_machine(
        name=machine,
        definition=text,
        roleArn="arn:aws:iam::123456789012:role/machine",
    )
    return created["stateMachineArn"]


def run_case(sfn: Any, machine_arn: str, case: str, given: dict[str, Any] = ORDER) -> tuple[dict[str, Any], list[str]]:
    """Run one case; return the execution's description and the states that it entered."""
    arn = sfn.start_execution(stateMachineArn=f"{machine_arn}#{case}", input=json.dumps(given))["executionArn"]
    deadline = time.monotonic() + 120
    while (described := sfn.describe_execution(executionArn=arn))["status"] == "RUNNING":
        assert time.monotonic() < deadline, f"{case} runs on"
        time.sleep(0.1)
    events = sfn.get_execution_history(executionArn=arn, maxResults=1000)["events"]
    return described, [e["stateEnteredEventDetails"]["name"] for e in events if "stateEnteredEventDetails" in e]
