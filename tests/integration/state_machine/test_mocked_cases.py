"""The cases of MockConfigFile.json, run by the embedded engine, or by AWS Step Functions Local where there is one.

Step Functions Local reads the same file: start it with SFN_MOCK_CONFIG naming it, and run this module with
STEPFUNCTIONS_LOCAL_ENDPOINT set to its address.
"""

import json
import os
from typing import Any

import pytest

from tests.conftest import client
from tests.integration.state_machine.mocks import MACHINES, MOCK_FILE, ORDER, WEBHOOK, create_machine, run_case
from tests.state_machine import ANSWERABLE

CLAIMED = ["Validate", "ClaimWork", "ChooseSegmenter"]
FOUND = ["Validate", "ClaimWork", "LookUpCache", "CacheHit?"]
REFINED = ["Refine", "NeedsEscalation?", "Encode", "SaveCache", "PublishMetrics", "Outcome?", "Done"]
SERVED = ["ServeCached", "DescribeHit", "ComposeSidecar", "SaveSidecar", "PublishMetrics", "Outcome?", "Done"]
REPORTED = ["RecordFailure", "HoldsClaim?", "PublishMetrics", "Outcome?", "Failed"]
TOLD = [*SERVED[:-1], "PrepareResultWebhook", "StartWebhook"]

CASES = {
    "Processed": [*CLAIMED, "SegmentOnLambda", *REFINED],
    "ServedFromCache": [*FOUND, *SERVED],
    "CachedResultExpired": [*FOUND, "ServeCached", "TakeOverClaim", "ChooseSegmenter", "SegmentOnLambda", *REFINED],
    "OwnerFailed": [
        *FOUND,
        *("CheckOwner", "OwnerRunning?", "TakeOverClaim", "ChooseSegmenter", "SegmentOnLambda"),
        *REFINED,
    ],
    "SegmentedOnEcs": [*CLAIMED, "SegmentOnEcs", *REFINED],
    "WorkerTimeout": [*CLAIMED, "SegmentOnEcs", "SegmentOnLambda", *REFINED],
    "WorkerCrash": [*CLAIMED, "SegmentOnEcs", "SegmentOnLambda", *REFINED],
    "SegmentedOnSageMaker": [*CLAIMED, "SegmentOnSageMaker", *REFINED],
    "SegmentedOnSageMakerAsync": [*CLAIMED, "SegmentOnSageMakerAsync", *REFINED],
    "EndpointRejectsRequest": [*CLAIMED, "SegmentOnSageMakerAsync", "SegmentOnLambda", *REFINED],
    "EndpointTimeout": [*CLAIMED, "SegmentOnSageMakerAsync", "SegmentOnLambda", *REFINED],
    "EndpointFindsNoSubject": [
        *CLAIMED,
        "SegmentOnSageMakerAsync",
        "SecondAttempt?",
        *REPORTED[:2],
        "ReleaseClaim",
        *REPORTED[2:],
    ],
    "EndpointError": [*CLAIMED, "SegmentOnSageMaker", "SegmentOnLambda", *REFINED],
    "RefineThrottledTwice": [*CLAIMED, "SegmentOnLambda", *REFINED],
    "DoubtfulWithoutEscalation": [*CLAIMED, "SegmentOnLambda", *REFINED],
    "Escalated": [
        *CLAIMED,
        *("SegmentOnLambda", "Refine", "NeedsEscalation?", "Escalate", "ChooseSegmenter", "SegmentOnLambda"),
        *REFINED,
    ],
    "EscalatedAfterFallback": [
        *CLAIMED,
        *(
            "SegmentOnEcs",
            "SegmentOnLambda",
            "Refine",
            "NeedsEscalation?",
            "Escalate",
            "ChooseSegmenter",
            "SegmentOnLambda",
        ),
        *REFINED,
    ],
    "EscalationNotNeeded": [*CLAIMED, "SegmentOnLambda", *REFINED],
    "NoSubject": [*CLAIMED, "SegmentOnLambda", "SecondAttempt?", *REPORTED[:2], "ReleaseClaim", *REPORTED[2:]],
    "UnsupportedFormat": ["Validate", "KeepRawInput", *REPORTED],
    "ValidateTimeout": ["Validate", "KeepRawInput", *REPORTED],
    "ValidateCrash": [*FOUND, *SERVED],
    "FailureNotRecorded": ["Validate", "KeepRawInput", "RecordFailure", "DescribeUnrecordedFailure", *REPORTED[1:]],
    "CacheNotSaved": [*CLAIMED, "SegmentOnLambda", *REFINED],
    "MetricsNotPublished": [*CLAIMED, "SegmentOnLambda", *REFINED],
}
WITH_WEBHOOK = {
    "ResultWebhook": [*FOUND, *TOLD, "WebhookDelivered?", "Done"],
    "WebhookAlreadyStarted": [*FOUND, *TOLD, "WebhookDelivered?", "Done"],
    "FailureWebhook": [
        "Validate",
        "KeepRawInput",
        *REPORTED[:-1],
        "PrepareFailureWebhook",
        "StartWebhook",
        "WebhookDelivered?",
        "Failed",
    ],
    "FailureWebhookByReconcile": [
        "Validate",
        "KeepRawInput",
        "RecordFailure",
        "DescribeUnrecordedFailure",
        *REPORTED[1:],
    ],
    "WebhookDeadLettered": [*FOUND, *TOLD, "DeadLetterNotice", "WebhookDelivered?", "Done"],
    "WebhookLost": [*FOUND, *TOLD, "DeadLetterNotice", "WebhookDelivered?", "Done"],
}
DELIVERIES = {
    "Delivered": ["Deliver", "Delivered"],
    "DeliveredAfterRetry": ["Deliver", "Delivered"],
    "DeliveryRejected": ["Deliver", "DeadLetter", "Undelivered"],
    "DeadLetterFails": ["Deliver", "DeadLetter", "Undelivered"],
}
NOTICE = {
    "webhook": WEBHOOK,
    "execution": {"id": "arn", "name": "mocked", "started_at": "2026-01-05T10:00:00Z"},
    "outcome": "failed",
    "created_at": "2026-01-05T10:00:01Z",
    "data": {"error": "CorruptImageError"},
}


@pytest.fixture(scope="module")
def sfn(request: pytest.FixtureRequest) -> Any:
    """A Step Functions that reads mocks."""
    if endpoint_url := os.environ.get("STEPFUNCTIONS_LOCAL_ENDPOINT"):
        return client("stepfunctions", endpoint_url, "eu-west-1")
    return request.getfixturevalue("stack").sfn


@pytest.fixture(scope="module")
def machine_arn(sfn: Any) -> str:
    return create_machine(sfn, "RemoveBackground")


def test_every_case_of_the_file_is_expected_here() -> None:
    machines = json.loads(MOCK_FILE.read_text())["StateMachines"]
    assert {name: set(machine["TestCases"]) for name, machine in machines.items()} == dict(
        zip(MACHINES, ({*CASES, *WITH_WEBHOOK}, set(DELIVERIES)), strict=True)
    )


@pytest.mark.parametrize("case", CASES)
def test_a_mocked_case_enters_the_expected_states(sfn: Any, machine_arn: str, case: str) -> None:
    described, states = run_case(sfn, machine_arn, case)
    outside_branches = [state for state in states if ANSWERABLE[state] == state]
    assert outside_branches == CASES[case]
    assert described["status"] == ("FAILED" if states[-1] == "Failed" else "SUCCEEDED")


@pytest.mark.parametrize("case", WITH_WEBHOOK)
def test_a_job_with_a_webhook_delivers_it_and_ends_as_without_one(sfn: Any, machine_arn: str, case: str) -> None:
    described, states = run_case(sfn, machine_arn, case, {**ORDER, "webhook": WEBHOOK})
    assert states == WITH_WEBHOOK[case]
    assert described["status"] == ("FAILED" if states[-1] == "Failed" else "SUCCEEDED")


@pytest.fixture(scope="module")
def delivery_arn(sfn: Any) -> str:
    return create_machine(sfn, "DeliverWebhook")


@pytest.mark.parametrize("case", DELIVERIES)
def test_a_mocked_delivery_enters_the_expected_states(sfn: Any, delivery_arn: str, case: str) -> None:
    described, states = run_case(sfn, delivery_arn, case, NOTICE)
    assert states == DELIVERIES[case]
    if states[-1] == "Delivered":
        assert json.loads(described["output"]) == {"status": 204}
    else:
        assert (described["status"], described["error"]) == ("FAILED", "WebhookRefusedError")
        assert "410" in described["cause"]


def test_a_failure_carries_the_recorded_error_into_the_console(sfn: Any, machine_arn: str) -> None:
    described, _ = run_case(sfn, machine_arn, "NoSubject")
    assert (described["error"], described["cause"]) == ("UnknownForegroundError", "no subject")


def test_a_failure_that_cannot_be_recorded_still_names_stage_and_error(sfn: Any, machine_arn: str) -> None:
    described, _ = run_case(sfn, machine_arn, "FailureNotRecorded")
    assert described["error"] == "FailureNotRecordedError"
    assert "Validate" in described["cause"] and "UnsupportedFormatError" in described["cause"]


def test_a_cache_hit_merges_the_execution_over_the_cached_document(sfn: Any, machine_arn: str) -> None:
    described, _ = run_case(sfn, machine_arn, "ServedFromCache")
    output = json.loads(described["output"])
    assert (output["quality"], output["options"]) == ({"score": 0.9}, {"format": "png"})
    assert output["cache"]["hit"] is True and output["result"]["key"] == "results/a.jpg.png"
