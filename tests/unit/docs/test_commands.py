"""Commands in the documentation exist: targets of make, and commands and options of pbr."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from client.cli import LazyCommand, app
from tests.conftest import ROOT

PAGES = [
    *sorted(page for page in ROOT.glob("[A-Z]*.md") if page.name != "CHANGELOG.md"),  # it names removed commands
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "bench").rglob("*.md")),
]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def code(page: Path) -> list[str]:
    """Return the lines of a page's shell blocks, continued lines joined, and its inline code."""
    text = page.read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    return [line.partition(" #")[0] for block in blocks for line in block.splitlines()] + inline


def unknown_option(words: list[str]) -> str | None:
    """Return the first command or option of a ``pbr`` call that does not exist."""
    command: Any = typer.main.get_command(app)
    while words and getattr(command, "commands", None) and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return words[0] if re.fullmatch(r"[a-z-]+", words[0]) else None
        command = command.commands[words.pop(0)]
        command = command.load() if isinstance(command, LazyCommand) else command
    known = {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)} | {"-h", "--help"}
    flags = [word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-z][a-z-]*(=.*)?", word)]
    return next((flag for flag in flags if flag not in known), None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    wrong = []
    for line in code(page):
        wrong += [f"make {target}" for target in re.findall(r"^make ([a-z][a-z-]*)", line) if target not in TARGETS]
        for call in re.findall(r"(?:^|[(;] ?|\.venv/bin/)pbr ([^|;<>)&]+)", line):
            if option := unknown_option(call.split()):
                wrong.append(f"pbr {call.strip()}: {option}")

    assert wrong == []


def test_unknown_commands_and_options_are_found() -> None:
    assert unknown_option(["process", "--frmat", "png"]) == "--frmat"
    assert unknown_option(["keys", "creat"]) == "creat"
    assert unknown_option(["keys", "create", "laptop", "--scope", "process"]) is None
