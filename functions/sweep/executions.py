"""Executions of uploads that the sweep looks at."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Final

import boto3

from functions.contracts.failure_report import json_object, source_of
from functions.contracts.history import execution_arn
from functions.runtime.config import SDK
from functions.runtime.handler import logger
from functions.runtime.store import ListedVersion

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_stepfunctions import SFNClient

MAX_RUNNING: Final = 500
"""Most running executions to describe. DescribeExecution has a quota of 10 to 15 calls per second and Region."""

_PREFIX: Final = "sweep-"


@dataclass(frozen=True)
class OwnExecution:
    """The execution that an earlier run started for an upload."""

    arn: str
    name: str
    started_at: datetime
    ended_at: datetime | None
    status: str
    input: str | None


class Executions:
    """Executions of the main state machine.

    Args:
        machine_arn: ARN of the state machine, of a version or of an alias.
        uploads_bucket: bucket of the uploads.
        reconcile_function: function that reports executions which ended without outcome.
        step_functions: Step Functions client; None creates one from the environment.
        functions: Lambda client; likewise.
    """

    def __init__(
        self,
        machine_arn: str,
        uploads_bucket: str,
        reconcile_function: str,
        step_functions: "SFNClient | None" = None,
        functions: "LambdaClient | None" = None,
    ) -> None:
        self._start_arn, self._bucket, self._reconcile_function = machine_arn, uploads_bucket, reconcile_function
        self._machine_arn = ":".join(machine_arn.split(":")[:7])  # without version or alias
        self._step_functions = step_functions or boto3.client("stepfunctions", config=SDK)
        self._functions = functions or boto3.client("lambda", config=SDK)

    def own(self, upload: ListedVersion) -> OwnExecution | None:
        """Return the execution that an earlier run started for an upload; None if there is none."""
        arn = execution_arn(self._machine_arn, name_of(self._bucket, upload))
        try:
            found = self._step_functions.describe_execution(executionArn=arn)
        except self._step_functions.exceptions.ExecutionDoesNotExist:
            return None
        return OwnExecution(
            arn, found["name"], found["startDate"], found.get("stopDate"), found["status"], found.get("input")
        )

    def start(self, upload: ListedVersion) -> str | None:
        """Start the execution of an upload, and return its name, which allows one in 90 days.

        None: another run has started it since :meth:`own` was called, and it has ended.
        """
        name = name_of(self._bucket, upload)
        source = {"bucket": self._bucket, "key": upload.key, "version_id": upload.version_id}
        try:
            self._step_functions.start_execution(
                stateMachineArn=self._start_arn, name=name, input=json.dumps({"source": source})
            )
        except self._step_functions.exceptions.ExecutionAlreadyExists:
            return None
        return name

    @cached_property
    def running(self) -> frozenset[tuple[str | None, str | None]] | None:
        """Key and version of the uploads that have a running execution; None if there are too many to look at."""
        running = self._step_functions.list_executions(
            stateMachineArn=self._machine_arn, statusFilter="RUNNING", maxResults=MAX_RUNNING
        )
        if "nextToken" in running:
            logger.warning("too many running executions", extra={"more_than": MAX_RUNNING})
            return None
        described = (
            self._step_functions.describe_execution(executionArn=one["executionArn"]) for one in running["executions"]
        )
        sources = (source_of(json_object(one.get("input", ""))) for one in described)
        return frozenset((one["key"], one["version_id"]) for one in sources if one["bucket"] == self._bucket)

    def may_be_running(self, upload: ListedVersion) -> bool:
        """Return whether an execution of the upload is running. If too many are running to look at, this is assumed."""
        if self.running is None:
            return True
        return not self.running.isdisjoint({(upload.key, upload.version_id), (upload.key, None)})

    def reconcile(self, ended: OwnExecution) -> None:
        """Have the failure of an ended execution reported. Its event did not reach the reconcile function.

        The call is asynchronous: Lambda retries it, and then puts it into the function's dead-letter queue.
        """
        detail = {
            "executionArn": ended.arn,
            "name": ended.name,
            "startDate": ended.started_at.isoformat(),
            "input": ended.input,
        }
        self._functions.invoke(
            FunctionName=self._reconcile_function,
            InvocationType="Event",
            Payload=json.dumps({"source": "aws.states", "detail": detail}),
        )


def name_of(bucket: str, upload: ListedVersion) -> str:
    """Return the name of the execution of an upload."""
    identity = json.dumps([bucket, upload.key, upload.version_id])
    return _PREFIX + hashlib.sha256(identity.encode()).hexdigest()
