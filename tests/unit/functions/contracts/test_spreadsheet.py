import csv
import io

import pytest

from functions.contracts.spreadsheet import cell_text, csv_line


def cell(value: object) -> str:
    [[written]] = csv.reader(io.StringIO(csv_line([value]), newline=""))
    return written


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "'=1", "''=1"])
def test_a_formula_is_text_that_can_be_read_back(text: str) -> None:
    assert cell(text) == f"'{text}"
    assert cell_text(cell(text)) == text


@pytest.mark.parametrize("text", ["a=1", "'a'", "'", 'a "b", c', ""])
def test_other_text_is_unchanged(text: str) -> None:
    assert cell(text) == text and cell_text(text) == text


def test_numbers_are_not_text() -> None:
    assert csv_line([-1.5, True, None]) == "-1.5,True,\n"
