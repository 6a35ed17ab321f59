"""Markdown tables for reports."""

from collections.abc import Collection, Iterable, Sequence


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]], texts: Collection[str] = ()) -> str:
    """Return a table with a title; the first column and those whose heads are ``texts`` are aligned left."""
    ruler = ["---" if index == 0 or head in texts else "---:" for index, head in enumerate(heads)]
    return f"{title}:\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ruler, *rows))
