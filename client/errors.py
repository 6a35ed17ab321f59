"""Errors of the client itself. Errors of an image are in ``core.errors``."""

from dataclasses import dataclass
from typing import Any

from core.errors import BackgroundRemoverError


class UsageError(BackgroundRemoverError):
    """An argument or option is invalid. Nothing has been done."""


class StackUnavailableError(BackgroundRemoverError):
    """The stack does not exist, does not respond, or was not deployed from this project's template."""


class EmbeddedCloudError(BackgroundRemoverError):
    """The embedded cloud cannot be started or stopped."""


class ExecutionNotFoundError(BackgroundRemoverError):
    """No execution matches the name, or several do."""


class ExecutionRunningError(BackgroundRemoverError):
    """The execution has not ended, so it has no result yet."""


class ResultNotFoundError(BackgroundRemoverError):
    """The execution succeeded, but its result has been deleted or has expired since."""


class JobTimeoutError(BackgroundRemoverError):
    """An upload did not start an execution, or its execution did not end, within the timeout."""


class KeyNotFoundError(BackgroundRemoverError):
    """No API key has this ID."""


class KeyConflictError(BackgroundRemoverError):
    """The API key is revoked or expired, or was changed at the same time."""


class BulkRunError(BackgroundRemoverError):
    """A bulk run cannot start or continue, or it failed as a whole."""


class ReviewConflictError(BackgroundRemoverError):
    """The review of a cut-out was changed at the same time, or its retry has started."""


class NotSignedInError(BackgroundRemoverError):
    """A request to the web page belongs to no user."""


class SignInKeyError(BackgroundRemoverError):
    """The public key of the load balancer, which signs users in to the web page, cannot be read."""


class WebPageError(BackgroundRemoverError):
    """The web page cannot be started, or it ended by itself."""


class DiskFullError(BackgroundRemoverError):
    """The disk is full. Nothing is half-written; the run can be resumed."""


@dataclass(frozen=True)
class JobFailure:
    """Why an image has no result: its failure report, or the status of its execution if there is none.

    Attributes:
        stage: state that failed; empty if the execution wrote no report.
        error: class name of the error.
        message: what is wrong.
        field: the invalid input; None if the error is not about an input.
        value: value of that input.
        remedy: what the caller can do.
        key: object key of the report in the results bucket; None if there is no report.
    """

    stage: str
    error: str
    message: str
    field: str | None
    value: Any
    remedy: str
    key: str | None


class JobFailedError(BackgroundRemoverError):
    """The execution ended without a result; ``report`` has the reason."""

    def __init__(self, report: JobFailure) -> None:
        self.report = report
        super().__init__(report.message, field=report.field or report.stage, value=report.value, remedy=report.remedy)


def sdk_errors() -> tuple[type[Exception], type[Exception]]:
    """Return the bases of boto3's errors, for an ``except`` clause: Python calls this once something has failed."""
    from botocore.exceptions import BotoCoreError, ClientError

    return BotoCoreError, ClientError


def credentials_error() -> type[Exception]:
    """Return the error of a call without credentials, for an ``except`` clause as :func:`sdk_errors`."""
    from botocore.exceptions import NoCredentialsError

    return NoCredentialsError


def client_error() -> type[Exception]:
    """Return the error of a call that AWS rejects, for an ``except`` clause as :func:`sdk_errors`."""
    return sdk_errors()[1]


def failure_of(error: Exception) -> JobFailure | None:
    """Return the facts of an error of this project or of boto3; None for any other one."""
    if isinstance(error, JobFailedError):
        return error.report
    if isinstance(error, BackgroundRemoverError):
        return JobFailure(stage="", key=None, **error.facts())
    if isinstance(error, sdk_errors()):
        return JobFailure("", type(error).__name__, str(error), None, None, "Try again later.", None)
    return None
