"""Commands in the documentation exist: targets of make, and commands and options of pbr."""

import re
from enum import EnumType
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from samtranslator.yaml_helper import yaml_parse

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


def accepted_values(annotation: Any) -> set[str]:
    """Return the values of an option whose type is an enumeration; none for other types."""
    kinds: list[Any] = [one for one in (annotation, *get_args(annotation)) if isinstance(one, EnumType)]
    return {str(one.value) for kind in kinds for one in kind}


def unknown_option(words: list[str]) -> str | None:
    """Return the first command, option or value of an option in a ``pbr`` call that does not exist."""
    command: Any = typer.main.get_command(app)
    while words and getattr(command, "commands", None) and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return words[0] if re.fullmatch(r"[a-z-]+", words[0]) else None
        command = command.commands[words.pop(0)]
        command = command.load() if isinstance(command, LazyCommand) else command
    known = {flag: one for one in command.params for flag in (*one.opts, *one.secondary_opts)}
    for number, word in enumerate(words):
        flag, _, value = word.partition("=")
        if not re.fullmatch(r"--?[a-z][a-z-]*", flag) or flag in {"-h", "--help"}:
            continue
        if flag not in known:
            return flag
        value = value or " ".join(words[number + 1 : number + 2])
        choices = accepted_values(known[flag].type_descriptor.annotation)
        if choices and re.fullmatch(r"[a-z_-]+", value) and value not in choices:
            return f"{flag} {value}"
    return None


def test_outputs_of_the_stack_exist() -> None:
    outputs = yaml_parse((ROOT / "template.yaml").read_text())["Outputs"]
    named = {name for page in PAGES for line in code(page) for name in re.findall(r"\$\(output (\w+)\)", line)}
    assert named
    assert named - outputs.keys() == set()


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
    assert unknown_option(["history", "--status", "aborted"]) == "--status aborted"
    assert unknown_option(["keys", "create", "laptop", "--scope", "process"]) is None
