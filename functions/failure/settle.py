"""Settle: the last word on executions that ended without one of their own.

An execution that is stopped, or takes too long, or fails in a way that no Catch sees, passes neither RecordFailure nor
ReleaseClaim. Step Functions tells EventBridge how every execution ends, and that is where this begins.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import boto3
from pydantic import BaseModel, Field

from functions.failure.record import FailureConfig, Recorder
from functions.failure.report import gave_up, json_object
from functions.shared.config import SDK
from functions.shared.job import Execution
from functions.shared.observe import count, logger, stage

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions.type_defs import HistoryEventTypeDef


class SettleConfig(FailureConfig):
    """Where claims are, beside what all failures need."""

    cache_table: str


class Ended(BaseModel):
    """What EventBridge tells of an execution."""

    arn: str = Field(alias="executionArn")
    name: str


class SettleRequest(BaseModel):
    """The event "Step Functions Execution Status Change"."""

    detail: Ended


_SETTLED_HERE: Final = {"FAILED", "TIMED_OUT", "ABORTED"}
_NAMES: Final = {"TIMED_OUT": "ExecutionTimedOut", "ABORTED": "ExecutionAborted"}
NOT_RECORDED: Final = "FailureNotRecordedError"
"""What the machine calls a failure that RecordFailure failed at."""

_LATEST: Final = 200
"""How many events are read, newest first: the end, and the beginning of the state that it came in, are among them."""

CONFIG = SettleConfig()
RECORDER = Recorder(CONFIG)
STEP_FUNCTIONS = boto3.client("stepfunctions", config=SDK)
DYNAMODB = boto3.client("dynamodb", config=SDK)


@stage(SettleRequest)
def handler(request: SettleRequest) -> dict[str, Any]:
    """Release the execution's claim, if it still holds one, and record its failure unless it did so itself."""
    logger.append_keys(job_id=request.detail.name)
    described = STEP_FUNCTIONS.describe_execution(executionArn=request.detail.arn)
    if described["status"] not in _SETTLED_HERE:
        return {"status": described["status"], "claim_released": False, "report_key": None}  # it was redriven
    execution = Execution(
        id=described["executionArn"], name=described["name"], started_at=described["startDate"].isoformat()
    )
    history = STEP_FUNCTIONS.get_execution_history(executionArn=execution.id, reverseOrder=True, maxResults=_LATEST)
    stage_name, state = state_at_the_end(history["events"])
    released = release_claim(state.get("cache_key"), execution.id)
    if is_recorded(state):
        return {"status": described["status"], "claim_released": released, "report_key": None}
    if state.get("failed"):
        stage_name, caught = gave_up(state)
    else:
        caught = {"Error": _NAMES.get(described["status"]) or described["error"], "Cause": described.get("cause", "")}
    recorded = RECORDER.record(state, execution, stage_name, caught)
    if recorded["report_key"]:
        count("Failed", {"Stage": stage_name, "Error": recorded["error"]})
    return {"status": described["status"], "claim_released": released, "report_key": recorded["report_key"]}


def state_at_the_end(events: Sequence["HistoryEventTypeDef"]) -> tuple[str, dict[str, Any]]:
    """Return the name of the state that an execution ended in, and what it was given.

    Args:
        events: the execution's history, newest first.
    """
    states: list[tuple[str, dict[str, Any]]] = []
    for event in events:
        if entered := event.get("stateEnteredEventDetails"):
            states.append((entered["name"], json_object(entered["input"])))
        elif started := event.get("executionStartedEventDetails"):
            states.append(("Start", json_object(started["input"])))
    # In a branch of a Parallel the newest was given a part of the state: the Parallel itself was given the whole. Where
    # there is no job, what names the upload is the execution's own input, and the newest tells what failed.
    (newest, state), (_, given) = states[0], states[-1]
    return next((found for found in states if "cache_key" in found[1]), (newest, {**given, **state}))


def is_recorded(state: dict[str, Any]) -> bool:
    """Return whether RecordFailure has done its work."""
    return "failure" in state and state["failure"]["error"] != NOT_RECORDED


def release_claim(cache_key: str | None, execution_arn: str) -> bool:
    """Release the claim of an execution on a piece of work, and return whether it held one."""
    if cache_key is None:
        return False
    try:
        DYNAMODB.delete_item(
            TableName=CONFIG.cache_table,
            Key={"cache_key": {"S": cache_key}},
            ConditionExpression="#owner = :me AND #status = :in_progress",
            ExpressionAttributeNames={"#owner": "owner", "#status": "status"},
            ExpressionAttributeValues={":me": {"S": execution_arn}, ":in_progress": {"S": "IN_PROGRESS"}},
        )
    except DYNAMODB.exceptions.ConditionalCheckFailedException:
        return False
    return True
