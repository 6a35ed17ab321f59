import os
from pathlib import Path

import pytest

from client.fingerprint import changes, summary, take
from tests.conftest import ROOT


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("core/a.py", "functions/segment/b.py", "statemachine/c.yaml", "models/u2netp.onnx", "template.yaml"):
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    return tmp_path / "project"


def taken(project: Path, **environment: str) -> dict[str, str]:
    return take(project, [project / "models", project / "nosuch"], environment)


def test_changed_added_and_removed_files_are_found(project: Path) -> None:
    before = taken(project)
    assert changes(before, taken(project)) == []
    os.utime(project / "core/a.py", ns=(1, 1))
    (project / "functions/segment/new.py").write_text("1")
    (project / "statemachine/c.yaml").unlink()
    assert changes(before, taken(project)) == ["core/a.py", "functions/segment/new.py", "statemachine/c.yaml"]


def test_what_the_cloud_does_not_run_is_ignored(project: Path) -> None:
    before = taken(project)
    for name in ("core/__pycache__/a.cpython-311.pyc", "core/__pycache__/a.py", "client/a.py", "core/.a.py.swp"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("2")
    (project / "core/.#a.py").symlink_to("me@host.4711")  # the lock of an editor
    assert changes(before, taken(project, PBR_STACK="prod", PATH="/bin")) == []


def test_changed_weights_and_variables_are_found(project: Path) -> None:
    before = taken(project, PBR_MODEL_MIRROR="https://a")
    (project / "models/u2netp.onnx").write_text("22")
    (project / "models/u2net.onnx").write_text("1")
    after = taken(project, PBR_MODEL_MIRROR="https://b")
    assert changes(before, after) == ["PBR_MODEL_MIRROR", "the weights of u2net", "the weights of u2netp"]
    assert "https" not in str(after), "a URL may hold a secret"
    assert changes(before, taken(project, PBR_MODEL_MIRROR="https://a", PBR_MODEL_DIR="/x")) == ["PBR_MODEL_DIR"]


def test_this_project_has_its_code_template_and_state_machine_in_it() -> None:
    names = take(ROOT, [], {}).keys()
    assert {"template.yaml", "requirements/dev.lock", "core/options.py", "core/matting/prior.npz"} <= names
    assert {"functions/segment/app.py", "embedded_cloud/cloud.py", "statemachine/remove_background.asl.yaml"} <= names


@pytest.mark.parametrize(
    ("names", "phrase"), [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c", "d"], "a, b and 2 more")]
)
def test_a_summary_names_two(names: list[str], phrase: str) -> None:
    assert summary(names) == phrase
