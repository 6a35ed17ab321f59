"""Every page is linked from the README or the index, and every relative link and anchor resolves."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("[A-Z]*.md")),
    *sorted(DOCS.rglob("*.md")),
    *sorted((ROOT / "bench").rglob("*.md")),
]
PAGES = list(dict.fromkeys(PAGES))
INDEXES = [ROOT / "README.md", DOCS / "README.md"]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def links(page: Path) -> list[str]:
    """Return the targets of a page's relative links, outside of code blocks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [target for target in LINK.findall(text) if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    heads = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.strip().lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_and_anchors_resolve(page: Path) -> None:
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)

    assert broken == []


def test_every_page_is_linked_from_the_readme_or_the_index() -> None:
    linked = {(index.parent / link.partition("#")[0]).resolve() for index in INDEXES for link in links(index)}
    pages = {page for page in (*DOCS.rglob("*.md"), *(ROOT / "bench/studies").glob("*.md")) if page not in INDEXES}

    assert sorted(str(page.relative_to(ROOT)) for page in pages - linked) == []


def test_paths_of_documentation_in_the_code_exist() -> None:
    suffixes = {".py", ".yaml", ".toml", ".cjs"}
    folders = [
        ROOT / name
        for name in (
            "core",
            "functions",
            "client",
            "embedded_cloud",
            "bench",
            "tests",
            "statemachine",
            "infrastructure",
        )
    ]
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in suffixes]
    files += [ROOT / name for name in ("template.yaml", "Dockerfile", "Makefile", "pyproject.toml")]
    missing = [
        f"{path.relative_to(ROOT)}: {found}"
        for path in files
        for found in re.findall(r"\bdocs/[\w/.-]+\.(?:md|json|png)\b", path.read_text())
        if not (ROOT / found).exists()
    ]

    assert missing == []
