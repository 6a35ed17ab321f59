"""Every mitigation in the threat model names tests that exist."""

import re
from typing import Final

import pytest

from tests.conftest import ROOT

PAGE: Final = ROOT / "docs/explanation/security.md"
ROWS: Final = re.findall(r"^\| ([STRIDE](?:, [STRIDE])*) \| (.+?) \| (.+?) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
TARGETS: Final = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_all_kinds_of_threats_are_in_the_model() -> None:
    assert set(", ".join(row[0] for row in ROWS).split(", ")) == set("STRIDE")
    assert len(ROWS) == len(re.findall(r"^\| [A-Z]\W", PAGE.read_text(), re.MULTILINE))


@pytest.mark.parametrize(("threat", "held_by"), [(row[1], row[3]) for row in ROWS], ids=[row[1] for row in ROWS])
def test_a_mitigation_is_held_by_tests(threat: str, held_by: str) -> None:
    named = re.findall(r"\[(test_\w+)\]\(\.\./\.\./(tests/[\w/]+\.py)\)", held_by)
    targets = re.findall(r"`make ([a-z-]+)`", held_by)
    assert named or targets, threat
    missing = [name for name, path in named if f"\ndef {name}(" not in (ROOT / path).read_text()]
    assert missing == []
    assert set(targets) <= set(TARGETS)
