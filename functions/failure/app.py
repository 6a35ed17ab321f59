"""RecordFailure: report a failed stage."""

from typing import Any

from pydantic import BaseModel

from functions.contracts.failure_report import fatal_errors
from functions.contracts.job import Execution
from functions.runtime.failure_reports import FailureConfig, FailureReporter
from functions.runtime.handler import stage


class FailureRequest(BaseModel):
    """The workflow state when a stage failed; ``state["failed"]`` holds the stage's name and error."""

    state: dict[str, Any]
    execution: Execution


REPORTER = FailureReporter(FailureConfig())


@stage(FailureRequest)
def handler(request: FailureRequest) -> dict[str, Any]:
    """Return what :meth:`functions.runtime.failure_reports.FailureReporter.record` returns."""
    REPORTER.delete_undescribed_results(request.state, request.execution)
    [(stage_name, caught)] = fatal_errors(request.state)
    return REPORTER.record(request.state, request.execution, stage_name, caught)
