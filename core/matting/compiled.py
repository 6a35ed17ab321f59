"""pymatting, whose functions numba compiles: for about a minute once, then they come from numba's cache."""

import importlib
import os
import platform
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Final

_BAKED: Final = "PBR_NUMBA_CACHE"
"""Names the folder of compiled functions that an image carries; not set on a laptop."""

_CPU: Final = {"x86_64": "x86-64-v3"}.get(platform.machine(), "generic")
"""What an image is compiled for, whichever machine builds it. On x86 with AVX2, which every host of AWS has."""


@lru_cache(maxsize=1)
def pymatting() -> ModuleType:
    """Import pymatting, with its functions from the cache that ``PBR_NUMBA_CACHE`` names.

    Without that variable numba keeps its cache beside the package, or in the user's home.
    """
    baked = os.environ.get(_BAKED)
    if not baked:
        return importlib.import_module("pymatting")
    # numba reads only where it could also write, and a Lambda function can write only here.
    with tempfile.TemporaryDirectory(prefix="numba-") as writable:
        shutil.copytree(baked, writable, dirs_exist_ok=True)
        return _import_with(writable)


def bake(folder: Path) -> None:
    """Compile pymatting into a folder, for images whose ``PBR_NUMBA_CACHE`` names it."""
    _import_with(str(folder))


def _import_with(cache: str) -> ModuleType:
    # The CPU is part of the cache's key. numba reads all three when it is imported.
    os.environ |= {"NUMBA_CACHE_DIR": cache, "NUMBA_CPU_NAME": _CPU, "NUMBA_CPU_FEATURES": ""}
    return importlib.import_module("pymatting")
