"""The report of a bulk run: one row per image."""

import csv
import io
from pathlib import Path
from typing import Final

from client.bulk.state import RunState
from client.outputs import write

_COLUMNS: Final = ("status", "result", "score", "review", "reasons", "seconds", "error", "message", "remedy")


def write_report(state: RunState, path: Path) -> None:
    """Write the images of a run, in the order of their paths in the folder, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", *_COLUMNS))
    for item in state.items():
        cells = (getattr(item, name) for name in _COLUMNS)
        writer.writerow((item.label, *("" if cell is None else cell for cell in cells)))
    write({path: text.getvalue().encode(errors="replace")})
