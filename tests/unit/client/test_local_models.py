import os
from pathlib import Path

import pytest

from client import local_models


def test_weights_are_in_the_users_cache_or_in_pbr_model_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PBR_MODEL_DIR", os.pathsep.join(["models", "/opt/models"]))
    assert local_models.directories() == (Path.cwd() / "models", Path("/opt/models"))
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/user/.cache")
    monkeypatch.delenv("PBR_MODEL_DIR")
    assert [path.name for path in local_models.directories()] == ["models"]
