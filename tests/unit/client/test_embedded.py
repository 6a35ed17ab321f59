import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from client.embedded import Cloud, Model, choose_model, parameters, registered, running, stop, template
from client.errors import EmbeddedCloudError
from core.options import Host
from core.segmentation.registry import CLASSICAL
from tests.conftest import ROOT

MODEL = Model("classical", "asked for", limited=False)
CLOUD = Cloud("http://localhost:5555", "eu-west-1", "pbr", os.getpid(), MODEL)

HOLD = """
import os, sys, time
from pathlib import Path
from client.embedded import Cloud, Model, registered
with registered(Path(sys.argv[1])) as enter:
    enter(Cloud("http://localhost:1", "eu-west-1", "pbr", os.getpid(), Model("m", "w", False)))
    time.sleep(60)
"""


def holder(directory: Path) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(directory)], cwd=ROOT)
    deadline = time.monotonic() + 20
    while running(directory) is None:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_a_registered_cloud_is_found_while_it_runs_and_not_afterwards(tmp_path: Path) -> None:
    assert running(tmp_path) is None
    with registered(tmp_path / "new") as enter:
        assert running(tmp_path / "new") is None, "not before it is ready"
        enter(CLOUD)
        assert running(tmp_path / "new") == CLOUD
    assert running(tmp_path / "new") is None


def test_there_is_one_cloud_at_a_time(tmp_path: Path) -> None:
    with registered(tmp_path) as enter:
        enter(CLOUD)
        with pytest.raises(EmbeddedCloudError, match="localhost:5555"), registered(tmp_path):
            pass
        assert running(tmp_path) == CLOUD


def test_a_cloud_that_was_killed_leaves_its_place(tmp_path: Path) -> None:
    process = holder(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert running(tmp_path) is None
    with registered(tmp_path) as enter:
        enter(CLOUD)
        assert running(tmp_path) == CLOUD


def test_stop_waits_until_the_cloud_is_gone(tmp_path: Path) -> None:
    process = holder(tmp_path)
    stopped = stop(tmp_path)
    assert stopped is not None and stopped.pid == process.pid
    assert process.wait(1) == -signal.SIGTERM
    assert stop(tmp_path) is None


def test_a_model_that_is_asked_for_is_taken() -> None:
    assert choose_model("u2net") == Model("u2net", "asked for", limited=False)


@pytest.mark.parametrize("name", [None, "auto"])
def test_without_weights_the_built_in_segmenter_is_taken_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str | None
) -> None:
    monkeypatch.setenv("PBR_MODEL_DIR", str(tmp_path))
    monkeypatch.setenv("PBR_MODEL_MIRROR", "http://localhost:9")
    chosen = choose_model(name)
    assert (chosen.name, chosen.limited) == (CLASSICAL, True)
    assert "PBR_MODEL_DIR" in chosen.why and "quality is limited" in chosen.why


@pytest.mark.parametrize("host", Host)
@pytest.mark.parametrize("all_hosts", [True, False])
def test_the_parameters_are_those_of_the_template(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: Host, all_hosts: bool
) -> None:
    monkeypatch.setenv("PBR_MODEL_DIR", str(tmp_path))
    monkeypatch.setenv("PBR_MODEL_MIRROR", "https://mirror.example/models")
    monkeypatch.setenv("PBR_CUSTOM_MODELS", "[]")
    values = parameters(MODEL, host, all_hosts=all_hosts)
    yaml.SafeLoader.add_multi_constructor("!", lambda _loader, suffix, node: f"!{suffix} {node.value}")
    known = yaml.safe_load(template().read_text())["Parameters"]
    assert values.keys() <= known.keys()
    assert values["ModelDirectory"] == str(tmp_path) and values["ModelMirror"] == "https://mirror.example/models"
    assert values["CustomModels"] == "[]"
    assert values.get("SegmentationHost", "lambda") in known["SegmentationHost"]["AllowedValues"]
