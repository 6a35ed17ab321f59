"""The generated parts of docs/reference are up to date, and the tables that they are made from match the code."""

import ast
from pathlib import Path

import pytest

from docs.reference import generate
from functions.contracts.metrics import METRICS
from tests.conftest import ROOT

SOURCES = sorted((ROOT / "functions").rglob("*.py"))


@pytest.mark.parametrize("page", generate.pages(), ids=lambda page: page.name)
def test_page_matches_the_code(page: Path) -> None:
    assert page.read_text() == generate.render(page.read_text()), "run make reference"


def test_every_part_is_in_a_page() -> None:
    pages = "".join(page.read_text() for page in generate.pages())

    assert [name for name in generate.PARTS if f"<!-- generated: {name} -->" not in pages] == []


def test_render_keeps_the_text_around_a_generated_part() -> None:
    page = "before\n<!-- generated: metrics -->\nold\n<!-- end of metrics -->\nafter\n"

    rendered = generate.render(page)

    assert rendered.startswith("before\n<!-- generated: metrics -->\n\n| Metric |")
    assert rendered.endswith("|\n\n<!-- end of metrics -->\nafter\n")
    assert generate.render(rendered) == rendered


def test_table_escapes_what_would_break_a_row() -> None:
    assert generate.table(["A", "B"], [["a|b", "c\nd"]]) == "| A | B |\n| --- | --- |\n| a\\|b | c d |"


def test_catalog_has_the_metrics_that_the_code_publishes() -> None:
    published = {one for path in SOURCES for one in published_metrics(ast.parse(path.read_text()))}

    assert published == {(one.name, one.dimensions) for one in METRICS.values()}


def published_metrics(tree: ast.Module) -> set[tuple[str, frozenset[str]]]:
    """Return name and dimensions of each ``count`` and ``measure`` call."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {
        (name, frozenset(keyword.arg for keyword in node.keywords if keyword.arg))
        for node in calls
        if getattr(node.func, "id", "") in {"count", "measure"} and not isinstance(node.args[0], ast.Name)
        for name in names(node.args[0])
    }


def names(node: ast.expr) -> list[str]:
    """Return the values that a metric's name can have, a literal or one of two."""
    if isinstance(node, ast.IfExp):
        return [*names(node.body), *names(node.orelse)]
    return [ast.literal_eval(node)]
