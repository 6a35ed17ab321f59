"""Markdown tables for reports."""

from collections.abc import Iterable, Sequence


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table with a title; the first column is aligned left, the others right."""
    ruler = ["---", *["---:"] * (len(heads) - 1)]
    return f"{title}:\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ruler, *rows))
