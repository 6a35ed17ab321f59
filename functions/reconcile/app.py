"""Reconcile: the last word on executions that ended without one of their own.

An execution that is stopped, or takes too long, or fails in a way that no Catch sees, passes neither RecordFailure nor
ReleaseClaim nor StartWebhook. Step Functions tells EventBridge how every execution ends, and that is where this begins.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import boto3
from pydantic import BaseModel, Field, ValidationError

from functions.contracts.failure_report import gave_up, json_object
from functions.contracts.job import Execution
from functions.contracts.webhook import Notice, Webhook
from functions.runtime.config import SDK
from functions.runtime.failure_reports import FailureConfig, Recorder
from functions.runtime.handler import count, logger, stage
from functions.runtime.outcomes import DELETED

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions.type_defs import HistoryEventTypeDef


class ReconcileConfig(FailureConfig):
    """Where claims are and who delivers webhooks, beside what all failures need."""

    cache_table: str
    delivery_machine_arn: str


class Ended(BaseModel):
    """What EventBridge tells of an execution; ``input`` is JSON text, and None where it is too long for an event."""

    arn: str = Field(alias="executionArn")
    name: str
    started_at: datetime = Field(alias="startDate")
    input: str | None = None


class ReconcileRequest(BaseModel):
    """The event "Step Functions Execution Status Change"."""

    detail: Ended


class HistoryBehindError(Exception):
    """The history does not tell of the end yet. Lambda calls again, a minute later and two more after that."""


_STATUS: Final = {"ExecutionFailed": "FAILED", "ExecutionTimedOut": "TIMED_OUT", "ExecutionAborted": "ABORTED"}
_NAMES: Final = {"TIMED_OUT": "ExecutionTimedOut", "ABORTED": "ExecutionAborted"}
NOT_RECORDED: Final = "FailureNotRecordedError"
"""What the machine calls a failure that RecordFailure failed at."""

_LATEST: Final = 200
"""How many events are read, newest first: the end, and the beginning of the state that it came in, are among them."""

CONFIG = ReconcileConfig()
RECORDER = Recorder(CONFIG)
STEP_FUNCTIONS = boto3.client("stepfunctions", config=SDK)
DYNAMODB = boto3.client("dynamodb", config=SDK)


@stage(ReconcileRequest)
def handler(request: ReconcileRequest) -> dict[str, Any]:
    """Release the execution's claim, if it still holds one, record its failure unless it did so itself, and tell of it.

    One call tells all: failures come in floods, and the quota of each call is some tens a second.
    """
    ended = request.detail
    logger.append_keys(job_id=ended.name)
    execution = Execution(id=ended.arn, name=ended.name, started_at=ended.started_at.isoformat())
    events = STEP_FUNCTIONS.get_execution_history(executionArn=ended.arn, reverseOrder=True, maxResults=_LATEST)[
        "events"
    ]
    status = _STATUS.get(events[0]["type"])
    if status is None:
        if any(event["type"] == "ExecutionRedriven" for event in events):
            return {"status": "redriven", "claim_released": False, "report_key": None}
        raise HistoryBehindError(f"{ended.name}: the newest event is {events[0]['type']}")
    stage_name, state = state_at_the_end(events)
    released = release_claim(state.get("cache_key"), execution.id)
    if events[0].get("executionAbortedEventDetails", {}).get("error") == DELETED:
        RECORDER.delete_undescribed_results(state, execution)
        return {"status": status, "claim_released": released, "report_key": None}
    if is_recorded(state):
        tell(ended, execution, "failed", state["failure"]["facts"])
        return {"status": status, "claim_released": released, "report_key": None}
    if status == "FAILED" or stage_name != "Encode":  # that of a stopped execution may still be at work
        RECORDER.delete_undescribed_results(state, execution)
    stage_name, caught = next(iter(gave_up(state)), (stage_name, end_of(events[0], status)))
    recorded = RECORDER.record(state, execution, stage_name, caught)
    if recorded["report_key"] and "failure" not in state:  # else PublishMetrics has counted it
        count("Failed", {"Stage": stage_name, "Error": recorded["error"]})
    if recorded["report_key"] is None and "done" in state:  # it was stopped with its work done
        tell(ended, execution, "succeeded", state["done"]["document"])
    else:
        tell(ended, execution, "failed", recorded["facts"])
    return {"status": status, "claim_released": released, "report_key": recorded["report_key"]}


def state_at_the_end(events: Sequence["HistoryEventTypeDef"]) -> tuple[str, dict[str, Any]]:
    """Return the name of the state that an execution ended in, and what it was given.

    What Validate and the execution itself were given is anybody's words: it stands in ``input``, as it does where
    Validate refuses it. In a branch of a Parallel a state was given a part; the Parallel itself was given the whole.

    Args:
        events: the execution's history, newest first.
    """
    newest = None
    for event in events:
        if entered := event.get("stateEnteredEventDetails"):
            newest = newest or entered["name"]
            state = json_object(entered["input"])
            if entered["name"] != "Validate" and state.keys() & {"cache_key", "input"}:
                return entered["name"], state
        elif started := event.get("executionStartedEventDetails"):
            return newest or "Start", {"input": json.loads(started["input"])}
    return newest or "Start", {}


def end_of(event: Mapping[str, Any], status: str) -> dict[str, str]:
    """Return the ``{"Error", "Cause"}`` of an execution's last event."""
    details: Mapping[str, Any] = next((value for name, value in event.items() if name.endswith("EventDetails")), {})
    return {"Error": _NAMES.get(status) or details["error"], "Cause": details.get("cause", "")}


def is_recorded(state: dict[str, Any]) -> bool:
    """Return whether RecordFailure has done its work."""
    return "failure" in state and state["failure"]["error"] != NOT_RECORDED


def tell(ended: Ended, execution: Execution, outcome: Literal["succeeded", "failed"], data: dict[str, Any]) -> None:
    """Have it delivered how an execution ended, if it was started with a webhook; once, whoever tells it."""
    try:
        webhook = Webhook.model_validate(json_object(ended.input or "").get("webhook"))
    except ValidationError:
        return
    notice = Notice(
        webhook=webhook,
        execution=execution,
        outcome=outcome,
        created_at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),  # as the machine
        data=data,
    )
    with suppress(STEP_FUNCTIONS.exceptions.ExecutionAlreadyExists):
        STEP_FUNCTIONS.start_execution(
            stateMachineArn=CONFIG.delivery_machine_arn, name=notice.delivery, input=notice.model_dump_json()
        )


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
