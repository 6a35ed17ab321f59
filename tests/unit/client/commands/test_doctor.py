import io

import pytest
from rich.console import Console

from client.commands import doctor
from client.doctor.findings import Finding

FINDINGS = (
    Finding("executions", "problem", "word " * 30, "aws events enable-rule --name a-very-long-name " * 3),
    Finding("alarms", "warning", "short"),
    Finding("queues", "warning", "short"),
    Finding("drift", "not checked", "short"),
)


@pytest.mark.parametrize("terminal", [True, False])
def test_findings_are_indented_in_a_terminal_and_commands_are_one_line(terminal: bool) -> None:
    out = Console(file=io.StringIO(), force_terminal=terminal, color_system=None, width=80, soft_wrap=True)
    doctor.print_findings(FINDINGS, out)
    lines = out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    first = next(number for number, line in enumerate(lines) if "→" in line)
    assert (first > 1) == terminal
    assert all(line.startswith(" " * 34) and len(line) <= 80 for line in lines[1:first])
    assert lines[first].count("enable-rule") == 3
    assert lines[-1] == "1 problem, 2 warnings, 1 not checked"
