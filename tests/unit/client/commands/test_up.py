from pathlib import Path

import pytest
import yaml

from client.commands.up import choose_model, stack_parameters
from client.local_cloud import DefaultModel, template
from core.options import Host
from core.segmentation.registry import CLASSICAL

MODEL = DefaultModel("classical", "requested", limited=False)


def test_a_requested_model_is_used() -> None:
    assert choose_model("u2net") == DefaultModel("u2net", "requested", limited=False)


@pytest.mark.parametrize("name", [None, "auto"])
def test_without_weights_classical_is_used_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str | None
) -> None:
    monkeypatch.setenv("PBR_MODEL_DIR", str(tmp_path))
    monkeypatch.setenv("PBR_MODEL_MIRROR", "http://localhost:9")
    chosen = choose_model(name)
    assert (chosen.name, chosen.limited) == (CLASSICAL, True)
    assert "PBR_MODEL_DIR" in chosen.reason and "quality is limited" in chosen.reason


@pytest.mark.parametrize("host", Host)
@pytest.mark.parametrize("all_hosts", [True, False])
def test_stack_parameters_exist_in_the_template(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: Host, all_hosts: bool
) -> None:
    monkeypatch.setenv("PBR_MODEL_DIR", str(tmp_path))
    monkeypatch.setenv("PBR_MODEL_MIRROR", "https://mirror.example/models")
    monkeypatch.setenv("PBR_CUSTOM_MODELS", "[]")
    values = stack_parameters(MODEL, host, all_hosts=all_hosts)
    yaml.SafeLoader.add_multi_constructor("!", lambda _loader, suffix, node: f"!{suffix} {node.value}")
    known = yaml.safe_load(template().read_text())["Parameters"]
    assert values.keys() <= known.keys()
    assert values["ModelDirectory"] == str(tmp_path) and values["ModelMirror"] == "https://mirror.example/models"
    assert values["CustomModels"] == "[]"
    assert values.get("SegmentationHost", "lambda") in known["SegmentationHost"]["AllowedValues"]
