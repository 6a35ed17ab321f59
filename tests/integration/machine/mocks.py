"""Mocked executions: the file of cases, the cases that it does not spell out, and how to run one."""

import json
import re
import time
from typing import Any

from tests.conftest import ROOT
from tests.state_machine import DEFINITION, STATES, TASKS

MOCK_FILE = ROOT / "statemachine/MockConfigFile.json"

_FILE = json.loads(MOCK_FILE.read_text())
_RESPONSES = _FILE["MockedResponses"]
_CASES = _FILE["StateMachines"]["RemoveBackground"]["TestCases"]

GOOD_CASE = {state: case for case in reversed(_CASES) for state in _CASES[case]} | {
    "CheckOwner": "OwnerGaveUp",
    "TakeOverClaim": "OwnerGaveUp",
    "PublishMetrics": "Processed",
}
"""Per state the first case that goes through it, and through it once."""

RETRIED = [
    (name, error) for name, task in TASKS.items() for retrier in task["Retry"] for error in retrier["ErrorEquals"]
]
PERMANENT = sorted(
    {(name, error) for name in TASKS for error in ("UnknownForegroundError", "ZeroDivisionError")}
    | {("SegmentOnEcs", error) for error in STATES["SegmentOnEcs"]["Catch"][0]["ErrorEquals"]}
    | {("AwaitMask", error) for error in STATES["SegmentOnSageMakerAsync"]["Catch"][0]["ErrorEquals"]}
)


def case_of(kind: str, state: str, error: str) -> str:
    """Name the case in which the state throws the error ``Once``, or ``Always``."""
    return re.sub(r"\W", "", f"{kind}{state}{error}")


def all_mocks() -> dict[str, Any]:
    """Return the file's cases, and per pair of state and error one in which the state throws it."""
    cases, responses = dict(_CASES), dict(_RESPONSES)
    for kind, pairs in (("Once", RETRIED), ("Always", PERMANENT)):
        for state, error in pairs:
            case, good = case_of(kind, state, error), _CASES[GOOD_CASE[state]]
            throw = {"Throw": {"Error": error, "Cause": "mocked"}}
            responses[case] = {"0": throw, "1": _RESPONSES[good[state]]["0"]} if kind == "Once" else {"0": throw}
            elsewhere = dict.fromkeys(("ClaimWork", "TakeOverClaim", "ReleaseClaim"), "Written")
            cases[case] = {"RecordFailure": "Recorded", "SegmentOnLambda": "Mask", **elsewhere, **good, state: case}
    return {"StateMachines": {"RemoveBackground": {"TestCases": cases}}, "MockedResponses": responses}


def create_machine(sfn: Any) -> str:
    """Create the machine that the mocks are for, and return its ARN. A mocked task calls nothing, so any name does."""
    text = json.dumps(DEFINITION)
    for stage in ("Validate", "Segment", "Refine", "Encode", "Metrics", "Failure"):
        text = text.replace(f"${{{stage}FunctionArn}}", "arn:aws:lambda:eu-west-1:123456789012:function:stage")
    text = text.replace("${SegmentationQueueUrl}", "https://sqs.eu-west-1.amazonaws.com/123456789012/queue")
    for name in ("CacheTable", "WorkBucket", "ResultsBucket", "SageMakerEndpointName"):
        text = text.replace(f"${{{name}}}", name.lower())
    assert "${" not in text
    created = sfn.create_state_machine(
        name="RemoveBackground",
        definition=text,
        roleArn="arn:aws:iam::123456789012:role/machine",
    )
    return created["stateMachineArn"]


def run_case(sfn: Any, machine_arn: str, case: str) -> tuple[dict[str, Any], list[str]]:
    """Run one case; return the execution's description and the states that it entered."""
    arn = sfn.start_execution(
        stateMachineArn=f"{machine_arn}#{case}", input='{"source": {"bucket": "uploads", "key": "a.jpg"}}'
    )["executionArn"]
    deadline = time.monotonic() + 120
    while (described := sfn.describe_execution(executionArn=arn))["status"] == "RUNNING":
        assert time.monotonic() < deadline, f"{case} runs on"
        time.sleep(0.1)
    events = sfn.get_execution_history(executionArn=arn, maxResults=1000)["events"]
    return described, [e["stateEnteredEventDetails"]["name"] for e in events if "stateEnteredEventDetails" in e]
