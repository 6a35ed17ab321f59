import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Replaces pymatting, whose functions take a minute to compile.
STAND_IN = """
from numba import njit

@njit("f8(f8)", cache=True)
def twice(number):
    return 2 * number
"""
BAKE = "from pathlib import Path; from core.matting import compiled; compiled.bake(Path({folder!r}))"
LOAD = """
from pathlib import Path
from core.matting import compiled
compiled.use_cache(Path({folder!r}))
twice = compiled.pymatting().twice
print(twice(21.0), sum(twice.stats.cache_hits.values()), sum(twice.stats.cache_misses.values()))
"""
FAST_PATH = """
import sys
from core import pipeline
print(sorted({"numba", "pymatting", "rembg", "onnxruntime", "skimage"} & set(sys.modules)))
"""


def python(code: str, *paths: Path, **environment: str) -> str:
    """Run it in a process of its own, because pymatting is imported once."""
    search = os.pathsep.join(map(str, (*paths, ROOT)))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "PBR_"))}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env={**kept, "PYTHONPATH": search, **environment}, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.slow
def test_functions_from_a_baked_cache_are_not_compiled_again(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package/pymatting.py").write_text(STAND_IN)
    (tmp_path / "writable").mkdir()
    baked = tmp_path / "baked"
    python(BAKE.format(folder=str(baked)), tmp_path / "package")
    before = sorted((path, path.stat().st_mtime_ns) for path in baked.rglob("*"))
    answer = python(LOAD.format(folder=str(baked)), tmp_path / "package", TMPDIR=str(tmp_path / "writable"))
    assert answer == "42.0 1 0"
    assert sorted((path, path.stat().st_mtime_ns) for path in baked.rglob("*")) == before
    assert not list((tmp_path / "writable").iterdir())


def test_importing_the_pipeline_imports_nothing_slow() -> None:
    assert python(FAST_PATH) == "[]"
