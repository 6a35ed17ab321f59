"""NOTICE names every shared library that the wheels of the container images bundle."""

import re
from importlib.metadata import PackageNotFoundError, files

import pytest

from tests.conftest import ROOT


def bundled_libraries() -> dict[str, set[str]]:
    """Return, by wheel, the names of the libraries in its folder ``*.libs``, as auditwheel writes it on Linux."""
    bundled: dict[str, set[str]] = {}
    locked = "".join((ROOT / f"requirements/{lock}.lock").read_text() for lock in ("runtime", "web"))
    for package in re.findall(r"^([a-z0-9-]+)==", locked, re.MULTILINE):
        try:
            paths = files(package) or []
        except PackageNotFoundError:  # of another platform
            continue
        for path in paths:
            if path.parts[0].endswith(".libs"):
                wheel = path.parts[0].removesuffix(".libs")
                bundled.setdefault(wheel, set()).add(re.sub(r"-r?\d*-?[0-9a-f]{8}.*", "", path.name).rstrip("-"))
    return bundled


def noticed_libraries() -> dict[str, set[str]]:
    noticed: dict[str, set[str]] = {}
    wheels: list[str] = []
    for line in (ROOT / "NOTICE").read_text().partition("Bundled libraries")[2].splitlines():
        if line.startswith("    "):
            for wheel in wheels:
                names = re.sub(r"\(.*?\)", "", line.rpartition(":")[0])
                noticed.setdefault(wheel, set()).update(re.findall(r"lib\w+", names))
        elif re.fullmatch(r"[\w, ]+", line):
            wheels = line.split(", ")
    return noticed


def test_notice_names_the_bundled_libraries() -> None:
    bundled = bundled_libraries()
    if not bundled:
        pytest.skip("only wheels for Linux have folders of libraries")
    missing = {wheel: libraries - noticed_libraries().get(wheel, set()) for wheel, libraries in bundled.items()}
    assert {wheel: libraries for wheel, libraries in missing.items() if libraries} == {}


def test_the_distributed_packages_include_no_gpl_encoder() -> None:
    for lock in ("runtime", "gpu", "web"):
        assert not re.search(r"^pillow-heif==", (ROOT / f"requirements/{lock}.lock").read_text(), re.MULTILINE)
