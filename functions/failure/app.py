"""RecordFailure: what the machine does about a stage that gave up."""

from typing import Any

from pydantic import BaseModel

from functions.contracts.failure_report import gave_up
from functions.contracts.job import Execution
from functions.runtime.failure_reports import FailureConfig, Recorder
from functions.runtime.handler import stage


class FailureRequest(BaseModel):
    """The state as it was when a stage gave up; ``state["failed"]`` holds that stage's name and error."""

    state: dict[str, Any]
    execution: Execution


RECORDER = Recorder(FailureConfig())


@stage(FailureRequest)
def handler(request: FailureRequest) -> dict[str, Any]:
    """Return what :meth:`functions.runtime.failure_reports.Recorder.record` returns."""
    RECORDER.delete_undescribed_results(request.state, request.execution)
    [(stage_name, caught)] = gave_up(request.state)
    return RECORDER.record(request.state, request.execution, stage_name, caught)
