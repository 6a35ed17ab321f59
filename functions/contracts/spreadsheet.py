"""Lines of CSV that a spreadsheet shows and does not execute: object keys and names come from uploads."""

import csv
import io
import re
from collections.abc import Iterable
from typing import Final

_FORMULA: Final = re.compile(r"'*[=+\-@\t\r\n]")


def csv_line(cells: Iterable[object]) -> str:
    r"""Return a line of CSV. Text that starts like a formula gets an apostrophe in front; None is an empty cell.

    >>> csv_line(["=1+1", 2, None])
    "'=1+1,2,\n"
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(  # it quotes only the characters of its own line ends
        f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell for cell in cells
    )
    return text.getvalue().removesuffix("\r\n") + "\n"


def cell_text(cell: str) -> str:
    """Return the text of a cell that :func:`csv_line` wrote."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
