"""What goes wrong between a person and a stack; what goes wrong with a picture is in ``core.errors``."""

from dataclasses import dataclass
from typing import Any

from core.errors import BackgroundRemoverError


class UsageError(BackgroundRemoverError):
    """The call itself is wrong: nothing was done."""


class StackUnavailableError(BackgroundRemoverError):
    """The stack is not there, is not this project's, or does not answer."""


class EmbeddedCloudError(BackgroundRemoverError):
    """The embedded cloud cannot be started, or not stopped."""


class ExecutionNotFoundError(BackgroundRemoverError):
    """No execution has that name, or several do."""


class JobTimeoutError(BackgroundRemoverError):
    """An upload started nothing, or its execution did not end, within the time allowed."""


class KeyNotFoundError(BackgroundRemoverError):
    """No API key has that id."""


class KeyConflictError(BackgroundRemoverError):
    """An API key is not, or not any more, what it has to be for what was asked."""


@dataclass(frozen=True)
class FailureReport:
    """Why a picture has no result: what ``failed/<key>.json`` says.

    Attributes:
        stage: the state that gave up; empty where no report could be written.
        error: class of the error.
        message: what is wrong.
        field: the input at fault, if it was an input.
        value: the value it had.
        remedy: what can be done.
        key: where the report lies in the results bucket; None where there is none.
    """

    stage: str
    error: str
    message: str
    field: str | None
    value: Any
    remedy: str
    key: str | None


class JobFailedError(BackgroundRemoverError):
    """The execution ended without a result; ``report`` says why."""

    def __init__(self, report: FailureReport) -> None:
        self.report = report
        super().__init__(report.message, field=report.field or report.stage, value=report.value, remedy=report.remedy)
