"""Reconcile: handle executions that ended without RecordFailure, e.g. stopped or timed-out ones.

Such an execution also skips ReleaseClaim and StartWebhook. EventBridge reports the end of every execution and starts
this function.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import boto3
from pydantic import BaseModel, Field, ValidationError

from functions.contracts.failure_report import fatal_errors, json_object
from functions.contracts.job import Execution
from functions.contracts.webhook import Notice, Webhook
from functions.runtime.config import SDK
from functions.runtime.failure_reports import FailureConfig, FailureReporter
from functions.runtime.handler import count, stage
from functions.runtime.outcomes import DELETED

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions.type_defs import HistoryEventTypeDef


class ReconcileConfig(FailureConfig):
    """Configuration of Reconcile, in addition to that of failure reports.

    Attributes:
        cache_table: table of the claims.
        delivery_machine_arn: state machine that delivers webhooks.
    """

    cache_table: str
    delivery_machine_arn: str


class EndedExecution(BaseModel):
    """The event's ``detail``. ``input`` is JSON text; None if it exceeds the size of an event."""

    arn: str = Field(alias="executionArn")
    name: str
    started_at: datetime = Field(alias="startDate")
    input: str | None = None

    @property
    def execution(self) -> Execution:
        """The execution as the workflow state contains it."""
        return Execution(id=self.arn, name=self.name, started_at=self.started_at.isoformat())


class ReconcileRequest(BaseModel):
    """The EventBridge event "Step Functions Execution Status Change"."""

    detail: EndedExecution


class HistoryBehindError(Exception):
    """The execution history does not contain the end yet. Lambda retries after one minute, and again after two."""


_STATUS: Final = {"ExecutionFailed": "FAILED", "ExecutionTimedOut": "TIMED_OUT", "ExecutionAborted": "ABORTED"}
_ERRORS: Final = {"TIMED_OUT": "ExecutionTimedOut", "ABORTED": "ExecutionAborted"}
NOT_RECORDED: Final = "FailureNotRecordedError"
"""Error name in the state machine when RecordFailure itself fails."""

_MAX_EVENTS: Final = 200
"""Events to read, newest first. They include the end, and the entry into the state in which the execution ended."""

CONFIG = ReconcileConfig()
REPORTER = FailureReporter(CONFIG)
STEP_FUNCTIONS = boto3.client("stepfunctions", config=SDK)
DYNAMODB = boto3.client("dynamodb", config=SDK)


@stage(ReconcileRequest)
def handler(request: ReconcileRequest) -> dict[str, Any]:
    """Release the execution's claim, and report its failure unless RecordFailure did.

    One API call reads the history: failures come in bursts, and the quota is a few tens of calls per second.
    """
    ended = request.detail
    history = STEP_FUNCTIONS.get_execution_history(executionArn=ended.arn, reverseOrder=True, maxResults=_MAX_EVENTS)
    events = history["events"]
    if is_redriven(events):
        return {"status": "redriven", "claim_released": False, "report_key": None}
    stage_name, state = state_at_the_end(events)
    released = release_claim(state.get("cache_key"), ended.arn)
    report_key = report(ended, events[0], stage_name, state)
    return {"status": _STATUS[events[0]["type"]], "claim_released": released, "report_key": report_key}


def is_redriven(events: Sequence["HistoryEventTypeDef"]) -> bool:
    """Return whether the execution was redriven and is running again.

    Args:
        events: the execution's history, newest first.

    Raises:
        HistoryBehindError: the history contains neither the end nor a redrive.
    """
    if events[0]["type"] in _STATUS:
        return False
    if any(event["type"] == "ExecutionRedriven" for event in events):
        return True
    raise HistoryBehindError(f"The newest event is {events[0]['type']}")


def report(ended: EndedExecution, end: "HistoryEventTypeDef", stage_name: str, state: dict[str, Any]) -> str | None:
    """Report how an execution ended, and return the key of the failure report, if one was written.

    Args:
        ended: the execution.
        end: its last event.
        stage_name: the state in which it ended.
        state: that state's input.
    """
    status, execution = _STATUS[end["type"]], ended.execution
    if end.get("executionAbortedEventDetails", {}).get("error") == DELETED:
        REPORTER.delete_undescribed_results(state, execution)
        return None
    if is_recorded(state):
        start_webhook(ended, "failed", state["failure"]["facts"])
        return None
    if status == "FAILED" or stage_name != "Encode":  # Encode of a stopped execution may still be running
        REPORTER.delete_undescribed_results(state, execution)
    stage_name, caught = next(iter(fatal_errors(state)), (stage_name, error_of(end, status)))
    recorded = REPORTER.record(state, execution, stage_name, caught)
    report_key: str | None = recorded["report_key"]
    if report_key and "failure" not in state:  # otherwise PublishMetrics has counted it
        count("Failed", Stage=stage_name, Error=recorded["error"])
    if report_key is None and "done" in state:  # stopped after its work was done
        start_webhook(ended, "succeeded", state["done"]["document"])
    else:
        start_webhook(ended, "failed", recorded["facts"])
    return report_key


def state_at_the_end(events: Sequence["HistoryEventTypeDef"]) -> tuple[str, dict[str, Any]]:
    """Return the name of the state in which an execution ended, and the workflow state at that time.

    Input that Validate has not accepted is returned in ``input``, as Validate's Catch does. Inside a branch of a
    Parallel state, the workflow state is the input of the Parallel state, since a branch receives only a part of it.

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


def error_of(end: Mapping[str, Any], status: str) -> dict[str, str]:
    """Return the ``{"Error", "Cause"}`` of an execution's last event."""
    details: Mapping[str, Any] = next((value for name, value in end.items() if name.endswith("EventDetails")), {})
    return {"Error": _ERRORS.get(status) or details["error"], "Cause": details.get("cause", "")}


def is_recorded(state: dict[str, Any]) -> bool:
    """Return whether RecordFailure has succeeded."""
    return "failure" in state and state["failure"]["error"] != NOT_RECORDED


def start_webhook(ended: EndedExecution, outcome: Literal["succeeded", "failed"], data: dict[str, Any]) -> None:
    """Start delivery of the webhook, if the job has one, unless the state machine already did."""
    try:
        webhook = Webhook.model_validate(json_object(ended.input or "").get("webhook"))
    except ValidationError:
        return
    notice = Notice(
        webhook=webhook,
        execution=ended.execution,
        outcome=outcome,
        created_at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),  # as in the ASL
        data=data,
    )
    with suppress(STEP_FUNCTIONS.exceptions.ExecutionAlreadyExists):
        STEP_FUNCTIONS.start_execution(
            stateMachineArn=CONFIG.delivery_machine_arn, name=notice.delivery, input=notice.model_dump_json()
        )


def release_claim(cache_key: str | None, execution_arn: str) -> bool:
    """Release an execution's claim on a cache key, and return whether it held one."""
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
