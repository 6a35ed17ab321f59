"""Describe the computer that runs a benchmark."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Final

_PACKAGES: Final = ("numpy", "opencv-python-headless", "pillow", "zlib-ng", "rembg", "pymatting", "numba")


def describe() -> str:
    """Return the processor, cores, operating system, and package versions in one line."""
    versions = ", ".join(f"{package} {version(package)}" for package in _PACKAGES)
    return f"{processor()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, {versions}"


def processor() -> str:
    """Return the model of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (FileNotFoundError, StopIteration):
        return platform.processor() or platform.machine()
