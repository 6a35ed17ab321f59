"""Consoles of the commands, and how they print errors and warnings."""

import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.style import StyleType
from rich.text import Text

from client.errors import JobFailedError, JobFailure, credentials_error
from core.errors import BackgroundRemoverError

if TYPE_CHECKING:
    from rich.table import Column, Table

STATUS_STYLES: Final = {"SUCCEEDED": "green", "FAILED": "red", "TIMED_OUT": "red", "ABORTED": "yellow"}
"""Styles of the statuses of an execution."""

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PIPE_COLUMNS: Final = 200
_GAP: Final = 2  # between the columns of a table
_MIN_COLUMN: Final = 16  # a narrower column is hard to read if its text is long


class PlainConsole(Console):
    r"""Prints text unchanged, except control characters: keys and names come from uploads.

    They are printed as JSON escapes them, e.g. ``\u001b``, so that printed JSON keeps its meaning.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield what is printed."""
        for segment in super().render(renderable, options):
            if segment.control:  # of rich itself
                yield segment
            else:
                yield segment._replace(text=_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", segment.text))


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints text unchanged, with control characters escaped."""
    made = PlainConsole(stderr=stderr, soft_wrap=True)
    if not made.is_terminal:
        made.width = _PIPE_COLUMNS
    return made


OUT: Final = console()
"""Standard output: what the user asked for."""

ERR: Final = console(stderr=True)
"""Standard error: progress and warnings; silent with --quiet."""

ERRORS: Final = console(stderr=True)
"""Standard error: errors, with --quiet, too."""


def print_table(table: "Table", out: Console | None = None) -> None:
    """Print a table. The text of ``no_wrap`` columns is never wrapped or cut.

    If a terminal is too narrow for one line per row, a row starts with its first cell in a line of its own. The others
    follow with the names of their columns. If the output is not a terminal, lines are as long as necessary.

    Args:
        table: the table.
        out: where it is printed; None for standard output.
    """
    out = out or OUT
    widths = _widths(table)
    gaps = table_width(table) - sum(widths)
    for one in table.columns:
        one.overflow = "fold"
    least = [
        width if one.no_wrap else min(width, _MIN_COLUMN) for one, width in zip(table.columns, widths, strict=True)
    ]
    if not out.is_terminal:
        unlimited = PlainConsole(file=out.file, width=sum(widths) + gaps)
        unlimited.print(table)
    elif sum(least) + gaps <= out.width:
        out.print(table, soft_wrap=False)
    else:
        for row, cells in zip(table.rows, zip(*(one.cells for one in table.columns), strict=True), strict=True):
            _print_row(out, table.columns, cells, row.style or "")


def table_width(table: "Table") -> int:
    """Return the width of a table whose lines are not wrapped."""
    widths = _widths(table)
    return sum(widths) + _GAP * (len(widths) - 1)


def _widths(table: "Table") -> list[int]:
    return [
        max(cell_len(line) for cell in (one.header, *one.cells) for line in (str(cell).splitlines() or [""]))
        for one in table.columns
    ]


def _print_row(out: Console, columns: Sequence["Column"], cells: Sequence[Any], style: StyleType) -> None:
    """Print the first cell, then as many of the others in each line as fit."""
    out.print(_text(cells[0]), style=style)
    line = Text()
    for column, cell in list(zip(columns, cells, strict=True))[1:]:
        if str(cell) in ("", "-"):
            continue
        text = Text.assemble((f"{column.header} ", "dim"), _text(cell))
        if line and line.cell_len + _GAP + text.cell_len > out.width:
            out.print(line, style=style)
            line = Text()
        if column.no_wrap or _GAP + text.cell_len <= out.width:
            line.append(" " * _GAP).append_text(text)
        else:
            for part in text.wrap(out, out.width - _GAP, overflow="fold"):
                out.print(Text(" " * _GAP).append_text(part), style=style)
    if line:
        out.print(line, style=style)


def _text(cell: Any) -> Text:
    return cell if isinstance(cell, Text) else Text(str(cell))


@contextmanager
def silenced(*, quiet: bool) -> Iterator[None]:
    """Print only errors if ``quiet`` is set."""
    ERR.quiet = quiet
    try:
        yield
    finally:
        ERR.quiet = False


def program() -> str:
    """Return the command that runs this program, as the user can type it."""
    if shutil.which("pbr"):
        return "pbr"
    called = Path(sys.argv[0])
    return str(called) if called.name == "pbr" else "pbr"


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
        return f"{error.strerror}: {os.fsencode(str(error.filename)).decode(errors='replace')}"
    if isinstance(error, credentials_error()):
        return "No AWS credentials were found. Set AWS_PROFILE, or run aws configure or aws sso login."
    return str(error)


def _sentences(error: BackgroundRemoverError | JobFailure) -> str:
    value = f" ({error.field}: {error.value})" if error.field and error.value is not None else ""
    return f"{error.message}{value}. {error.remedy}"


def local_time(time: datetime, format_: str = "%Y-%m-%d %H:%M") -> str:
    """Return a time in the local time zone."""
    return time.astimezone().strftime(format_)


def plural(count: int, one: str, many: str) -> str:
    """Return a number with its noun, e.g. ``1 line`` or ``2 lines``."""
    return f"{count:,} {one if count == 1 else many}"
