"""Markdown of reports and of pages with generated parts."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]], texts: Collection[str] = ()) -> str:
    """Return a table with a title; the first column and those whose heads are ``texts`` are aligned left."""
    ruler = ["---" if index == 0 or head in texts else "---:" for index, head in enumerate(heads)]
    return f"{title}:\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ruler, *rows))


def fill(text: str, kind: str, parts: Mapping[str, str]) -> str:
    """Return a page with its generated parts replaced: those after ``<!-- KIND: NAME -->``, by name."""
    return re.sub(
        rf"(<!-- {kind}: (\w+) -->\n).*?(<!-- end of \2 -->)",
        lambda found: f"{found[1]}\n{parts[found[2]]}\n\n{found[3]}",
        text,
        flags=re.DOTALL,
    )
