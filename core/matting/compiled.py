"""pymatting with its compiled functions from a cache: without one, numba compiles them for about a minute."""

import importlib
import platform
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Final

_CPU: Final = {"x86_64": "x86-64-v3"}.get(platform.machine(), "generic")
"""Target of an image's compiled functions, whichever machine builds it. On x86 with AVX2, which every AWS host has."""

_cache: Path | None = None


def use_cache(folder: Path | None) -> None:
    """Have :func:`pymatting` take its functions from a folder that :func:`bake` filled.

    Call it when the process starts. Without it, or with None, numba keeps its cache beside the package or in the user's
    home.
    """
    global _cache
    _cache = folder


@lru_cache(maxsize=1)
def pymatting() -> ModuleType:
    """Import pymatting."""
    if _cache is None:
        return importlib.import_module("pymatting")
    # numba reads only a cache that it could also write, and a Lambda function can write only to /tmp.
    with tempfile.TemporaryDirectory(prefix="numba-") as writable:
        shutil.copytree(_cache, writable, dirs_exist_ok=True)
        return _import_with(writable)


def bake(folder: Path) -> None:
    """Compile pymatting into a folder."""
    _import_with(str(folder))


def _import_with(cache: str) -> ModuleType:
    from numba import config

    # The CPU is part of the cache's key.
    config.CACHE_DIR, config.CPU_NAME, config.CPU_FEATURES = cache, _CPU, ""  # type: ignore[attr-defined]
    return importlib.import_module("pymatting")
