import io
import json
import unicodedata
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from botocore.exceptions import NoCredentialsError
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from client.commands.console import PlainConsole, console, error_text, print_table
from client.commands.history import events_table, executions_table
from client.commands.redrive import retries_table
from client.history import ExecutionSummary
from client.redrive import Retry
from functions.contracts.history import Row

ARN = "arn:aws:states:eu-west-1:123456789012:execution:pbr:"
EMBEDDED = "fbf5e186-6510-44a2-8d51-0ae4fa68a8ac"
ON_AWS = f"{EMBEDDED}_{EMBEDDED}"  # EventBridge gives executions such names
KEY = "photos/2026/a long folder/Größe 写真 and more.jpg"


def printed(table: Table, width: int | None) -> list[str]:
    """Return the lines on a terminal of this width, or in a pipe."""
    file = io.StringIO()
    out = Console(file=file, width=width, force_terminal=width is not None, color_system=None, soft_wrap=True)
    print_table(table, out)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def executions(name: str, width: int | None = None) -> Table:
    failed = ExecutionSummary(
        ARN + name, name, "FAILED", KEY, datetime(2026, 3, 1, tzinfo=UTC), 1.5, None, "UnsupportedFormatError"
    )
    return executions_table([failed], width)


def retries(name: str) -> Table:
    retry = Retry(
        arn=ARN + name,
        key=KEY,
        error="UnsupportedFormatError",
        action="restarted",
        reason="the uploaded image is invalid; to retry anyway, pass its name",
        retry_arn=f"{ARN}{name}-retry-1",
    )
    return retries_table([retry], with_status=False)


def test_console_prints_text_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    console().print("arn:aws:secretsmanager:eu-west-1:123456789012:secret:[webhooks]")
    assert capsys.readouterr().out == "arn:aws:secretsmanager:eu-west-1:123456789012:secret:[webhooks]\n"


HOSTILE = "photos/\x1b]52;c;ZXZpbA==\x07\x9b2J\x7f.jpg"
"""A key that writes the clipboard and clears the screen."""


def is_harmless(text: str) -> bool:
    return not any(unicodedata.category(one) == "Cc" for one in text if one != "\n") and "\\u001b]52;" in text


@pytest.mark.parametrize("style", ["", "red"])
def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str], style: str) -> None:
    console().print(HOSTILE, style=style)
    console().print(Text.assemble((HOSTILE, "dim")))
    out = capsys.readouterr().out
    assert is_harmless(out) and out.startswith("photos/\\u001b]52;")


@pytest.mark.parametrize("width", [20, 60, 200, None])
def test_control_characters_of_a_table_do_not_reach_the_terminal(width: int | None) -> None:
    table, file = Table("key", "status", box=None, pad_edge=False), io.StringIO()
    table.add_row(Text(HOSTILE), HOSTILE)
    print_table(table, PlainConsole(file=file, width=width, force_terminal=width is not None, color_system=None))
    assert is_harmless(file.getvalue())


def test_json_keeps_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    console().print_json(data={"key": HOSTILE})
    out = capsys.readouterr().out
    assert is_harmless(out) and json.loads(out) == {"key": HOSTILE}


@pytest.mark.parametrize("width", [40, 60, 80, 130, 200, None])
@pytest.mark.parametrize("name", [EMBEDDED, ON_AWS])
def test_names_are_whole_at_every_width(name: str, width: int | None) -> None:
    assert any(line.startswith(name) for line in printed(executions(name, width), width))
    lines = printed(retries(name), width)
    assert any(line.startswith(name) for line in lines)
    assert any(f"restarted as {name}-retry-1" in line for line in lines)


@pytest.mark.parametrize("width", [40, 60, 80])
def test_narrow_terminals_show_every_cell_with_its_name(width: int) -> None:
    lines = printed(executions(EMBEDDED), width)
    assert lines[0] == EMBEDDED and max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for part in ("status FAILED UnsupportedFormatError", "image photos/2026/a long folder/Größe", "seconds 1.50"):
        assert part in text
    assert "cache" not in text, "a cell without a value is left out"


def test_executions_fit_a_terminal_with_the_ends_of_their_keys() -> None:
    header, row = printed(executions(EMBEDDED, 130), 130)
    assert header.split()[-1] == "cache" and len(row) <= 130
    assert row.startswith(f"{EMBEDDED}  FAILED UnsupportedFormatError  …") and "写真 and more.jpg  2026-" in row


def test_a_narrow_terminal_has_one_line_per_execution_and_one_per_error() -> None:
    started = datetime(2026, 3, 1, tzinfo=UTC)
    done = ExecutionSummary(ARN + EMBEDDED, EMBEDDED, "SUCCEEDED", KEY, started, 12.5, False, None, 0.9, False, False)
    failed = replace(done, status="FAILED", source_key="cup.jpg", error="UnsupportedFormatError", cache_hit=None)
    lines = printed(executions_table([done, failed], 80), 80)
    assert max(map(cell_len, lines)) <= 80
    assert lines[0].split() == ["execution", "status", "image", "started", "s"]
    assert lines[1].startswith(f"{EMBEDDED}  SUCCEEDED  …") and "more.jpg  " in lines[1] and "12.50" in lines[1]
    assert lines[2].startswith(f"{EMBEDDED}  FAILED     cup.jpg  ")
    assert [line.split() for line in lines[3:]] == [["UnsupportedFormatError"]]


def test_json_of_an_execution_has_the_whole_key() -> None:
    started = datetime(2026, 3, 1, tzinfo=UTC)
    done = ExecutionSummary(ARN + EMBEDDED, EMBEDDED, "SUCCEEDED", KEY, started, 12.5, False, None, 0.9, False, False)
    assert done.to_json() == {
        "execution": EMBEDDED,
        "arn": ARN + EMBEDDED,
        "status": "SUCCEEDED",
        "error": None,
        "image": KEY,
        "started": "2026-03-01T00:00:00+00:00",
        "seconds": 12.5,
        "cache": "miss",
        "quality": 0.9,
        "review": False,
        "degraded": False,
    }


def test_a_pipe_has_one_line_per_row() -> None:
    header, row = printed(executions(ON_AWS), None)
    assert header.split() == ["execution", "status", "image", "started", "seconds", "cache"]
    assert row.startswith(f"{ON_AWS}  FAILED UnsupportedFormatError  {KEY}  ")


def test_a_wide_terminal_has_one_line_per_row() -> None:
    row = Row(id=1, ms=0, type="TaskSucceeded", state="Validate", detail="lambda:invoke", data=None)
    assert printed(events_table([row]), 80)[1].split() == ["1", "0", "TaskSucceeded", "Validate", "lambda:invoke"]


def test_missing_credentials_have_a_remedy() -> None:
    assert "Set AWS_PROFILE" in error_text(NoCredentialsError())
