"""Files of the container image: modules that exist, copies of what a build stage imports, and pinned downloads."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
STAGES = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", DOCKERFILE, flags=re.MULTILINE | re.DOTALL))


def test_base_images_have_a_digest() -> None:
    images = set(re.findall(r"^FROM (\S+)", DOCKERFILE, flags=re.MULTILINE)) - STAGES.keys()
    assert images
    assert all(re.search(r"@sha256:[0-9a-f]{64}$", image) for image in images)


@pytest.mark.parametrize("file", ["Dockerfile", "Makefile"])
def test_packages_are_installed_by_hash(file: str) -> None:
    commands = re.split(r"&&|\n", (ROOT / file).read_text().replace("\\\n", " "))
    installs = [command for command in commands if re.search(r"\bpip\b.* (install|download|sync)\b", command)]
    assert installs
    unpinned = [
        one
        for one in installs
        if "--require-hashes" not in one and "--no-deps --no-build-isolation --editable ." not in one
    ]
    assert unpinned == []


def test_the_entry_point_starts_modules_that_exist() -> None:
    modules = re.findall(r"python -m (functions\S+)", (ROOT / "entrypoint.sh").read_text())
    assert len(modules) == 2
    assert all(importlib.util.find_spec(module) for module in modules)


@pytest.mark.parametrize("stage", ["compiled", "weights"])
def test_a_build_stage_copies_what_it_imports(stage: str, tmp_path: Path) -> None:
    for copied in re.findall(r"^COPY ((?:core|functions)\S+(?: +\S+)*)$", STAGES[stage], flags=re.MULTILINE):
        *files, target = copied.split()
        for file in files:
            (tmp_path / target).mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, tmp_path / target)
    imports = re.findall(r"(from (?:core|functions)\S* import \w+)", STAGES[stage])
    assert imports
    subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, '.'); {'; '.join(imports)}"],
        cwd=tmp_path,
        check=True,
    )
