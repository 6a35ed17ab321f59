"""Consoles of the commands, and how they print errors and warnings."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from rich.console import Console

from client.errors import JobFailedError, JobFailure
from core.errors import BackgroundRemoverError

STATUS_STYLES: Final = {"SUCCEEDED": "green", "FAILED": "red", "TIMED_OUT": "red", "ABORTED": "yellow"}
"""Styles of the statuses of an execution."""

_PIPE_COLUMNS: Final = 200


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints text unchanged. If the output is not a terminal, tables are up to 200 wide."""
    made = Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)
    if not made.is_terminal:
        made.width = _PIPE_COLUMNS
    return made


OUT: Final = console()
"""Standard output: what the user asked for."""

ERR: Final = console(stderr=True)
"""Standard error: progress and warnings; silent with --quiet."""

ERRORS: Final = console(stderr=True)
"""Standard error: errors, with --quiet, too."""


@contextmanager
def silenced(*, quiet: bool) -> Iterator[None]:
    """Print only errors if ``quiet`` is set."""
    ERR.quiet = quiet
    try:
        yield
    finally:
        ERR.quiet = False


def print_error(error: Exception) -> None:
    """Print an error in one line."""
    ERRORS.print(f"error: {error_text(error)}", style="red")


def print_warning(text: str) -> None:
    """Print a warning."""
    ERR.print(f"warning: {text}", style="yellow")


def error_text(error: Exception) -> str:
    """Return an error as one line: stage, message, input and remedy."""
    if isinstance(error, JobFailedError):
        stage = f"{error.report.stage}: " if error.report.stage else ""
        return f"{stage}{_sentences(error.report)}"
    if isinstance(error, BackgroundRemoverError):
        return _sentences(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    return str(error)


def _sentences(error: BackgroundRemoverError | JobFailure) -> str:
    value = f" ({error.field}: {error.value})" if error.field and error.value is not None else ""
    return f"{error.message}{value}. {error.remedy}"


def local_time(time: datetime, format_: str = "%Y-%m-%d %H:%M") -> str:
    """Return a time in the local time zone."""
    return time.astimezone().strftime(format_)
