"""RecordFailure: write ``failed/<key>.json``, tell the topic, and name the error for the console."""

import json
from typing import Any

import boto3
from pydantic import BaseModel

from core.keys import failure_key
from functions.failure.report import explain, gave_up, source_of
from functions.shared.config import Config
from functions.shared.job import Execution
from functions.shared.observe import stage
from functions.shared.store import Store

_MAX_SUBJECT_CHARS = 100


class FailureConfig(Config):
    """Where reports go and who is told."""

    results_bucket: str
    topic_arn: str


class FailureRequest(BaseModel):
    """The state as it was when a stage gave up; ``state["failed"]`` holds that stage's name and error."""

    state: dict[str, Any]
    execution: Execution


CONFIG = FailureConfig()
STORE = Store()
TOPIC = boto3.client("sns")


@stage(FailureRequest)
def handler(request: FailureRequest) -> dict[str, Any]:
    """Return stage, error and cause, as the machine's Failed state shows them."""
    stage_name, caught = gave_up(request.state)
    failure = explain(caught)
    source = source_of(request.state)
    report = {
        "status": "FAILED",
        "stage": stage_name,
        **failure,
        "source": source,
        "options": request.state.get("options", {}),
        "execution": request.execution.model_dump(),
    }
    key = failure_key(source["key"], request.execution.name)
    STORE.put(CONFIG.results_bucket, key, json.dumps(report, indent=2).encode(), "application/json")
    TOPIC.publish(TopicArn=CONFIG.topic_arn, Subject=subject(source["key"], stage_name), Message=json.dumps(report))
    return {
        "stage": stage_name,
        "error": failure["error"],
        "cause": f"{stage_name}: {failure['message']}. {failure['remedy']} Report: s3://{CONFIG.results_bucket}/{key}",
        "report_key": key,
    }


def subject(source_key: str | None, stage_name: str) -> str:
    """Return a subject that SNS accepts: printable ASCII, at most 100 characters."""
    text = f"Background removal failed in {stage_name}: {source_key or 'unknown source'}"
    printable = "".join(character if " " <= character <= "~" else "?" for character in text)
    return printable[:_MAX_SUBJECT_CHARS]
