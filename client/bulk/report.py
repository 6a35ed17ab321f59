"""The report of a bulk run: one row per image."""

from pathlib import Path
from typing import Final

from client.bulk.state import RunState
from client.outputs import write
from functions.contracts.spreadsheet import csv_line

_COLUMNS: Final = ("status", "result", "score", "review", "reasons", "seconds", "error", "message", "remedy")


def write_report(state: RunState, path: Path) -> None:
    """Write the images of a run, in the order of their paths in the folder, as CSV."""
    rows = ((item.label, *(getattr(item, name) for name in _COLUMNS)) for item in state.items())
    text = "".join(map(csv_line, [("file", *_COLUMNS), *rows]))
    write({path: text.encode(errors="replace")})
