"""The fault matrix is complete, and its outcomes keep the promises."""

import pytest

from tests.resilience.faults.matrix import (
    DOCUMENT,
    FOR_FAILED_JOBS,
    MALFORMED,
    Fault,
    fate_of,
    faults,
    is_answer_read,
    table,
)
from tests.state_machine import TASKS

THROTTLES = {
    "lambda:invoke": "Lambda.TooManyRequestsException",
    "dynamodb": "DynamoDB.ThrottlingException",
    "s3": "S3.S3Exception",
    "sqs": "SQS.AmazonSQSException",
    "sagemakerruntime": "SageMakerRuntime.SageMakerRuntimeException",
    "sfn": "Sfn.SfnException",
}
"""By service: the error name of a throttled request."""

DELIVERED = ("SaveCache", "PublishMetrics", "StartWebhook", "DeadLetterNotice")
HOSTS = ("SegmentOnEcs", "SegmentOnSageMaker", "AwaitMask", "FindRequest", "InvokeEndpoint")


def test_the_document_has_the_matrix_of_this_state_machine() -> None:
    assert table() in DOCUMENT.read_text(), "make reliability-tables"


def test_every_answer_that_is_read_is_malformed_once() -> None:
    assert set(MALFORMED) == {name for name in TASKS if is_answer_read(name)}


@pytest.mark.parametrize("state", TASKS)
def test_a_service_that_throttles_is_retried(state: str) -> None:
    [error] = [error for service, error in THROTTLES.items() if f":{service}" in TASKS[state]["Resource"]]
    assert fate_of(Fault(state, error)).attempts > 1


@pytest.mark.parametrize("state", DELIVERED)
def test_a_failure_after_the_result_is_delivered_does_not_fail_the_job(state: str) -> None:
    assert {fate_of(fault).outcome for fault in faults() if fault.state == state} == {"result"}


@pytest.mark.parametrize("state", HOSTS)
def test_a_failing_host_does_not_fail_the_job(state: str) -> None:
    ends = {fate_of(fault).outcome for fault in faults() if fault.state == state and "." in fault.error}
    assert ends == {"result"}


@pytest.mark.parametrize("state", FOR_FAILED_JOBS)
def test_a_failure_is_reported_whatever_fails_meanwhile(state: str) -> None:
    assert {fate_of(fault).outcome for fault in faults() if fault.state == state} <= {"report", "settled"}
