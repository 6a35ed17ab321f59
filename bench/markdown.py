"""Tables, as reports show them."""

from collections.abc import Iterable, Sequence


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a titled table; the first column is text, the others are figures."""
    ruler = ["---", *["---:"] * (len(heads) - 1)]
    return f"{title}:\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ruler, *rows))
