"""The container image's files name modules that exist, and each build stage copies what it imports."""

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
