"""The image of the web page contains what the page imports."""

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.conftest import ROOT

OWN = ("client", "core", "functions", "web")


def file_of(module: str) -> Path | None:
    path = ROOT / module.replace(".", "/")
    return next((one for one in (path / "__init__.py", path.with_suffix(".py")) if one.is_file()), None)


def imports(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports anywhere, except for type checking."""
    tree = ast.parse(path.read_text())
    for branch in [node for node in ast.walk(tree) if isinstance(node, ast.If)]:
        if ast.unparse(branch.test) == "TYPE_CHECKING":
            branch.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def imported_packages() -> dict[str, str]:
    """Return the packages of others that the page can import, each with a module that does."""
    waiting = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "web").rglob("*.py")]
    seen: set[str] = set()
    found: dict[str, str] = {}
    while waiting:
        module = waiting.pop()
        top = module.partition(".")[0]
        if module in seen or top not in OWN or (path := file_of(module)) is None:
            continue
        seen.add(module)
        waiting.append(module.rpartition(".")[0])
        for name in imports(path):
            waiting.append(name)
            found.setdefault(name.partition(".")[0], module)
    return {name: by for name, by in found.items() if name not in (*OWN, *sys.stdlib_module_names)}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_import_of_the_page_is_in_its_lock_file() -> None:
    locked = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements/web.lock").read_text(), re.MULTILINE))
    distributions = packages_distributions()
    packages = imported_packages()
    assert {"streamlit", "jwt", "cv2", "pi_heif"} <= packages.keys()
    missing = {
        name: by
        for name, by in packages.items()
        if not {normalized(one) for one in distributions[name]} & set(map(normalized, locked))
    }
    assert missing == {}, "add it to web-image in pyproject.toml, and run make lock"
