import threading
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from client.commands.up import choose_model, parse_parameters, stack_parameters, wait_for_end
from client.local_cloud import DefaultModel, template
from core.errors import InvalidOptionsError
from core.options import Host
from core.segmentation.registry import BUNDLED, CLASSICAL, MODELS
from functions.runtime.weights import ModelSource, open_url
from tests.fakes.registry_entries import CONTENT, model

MODEL = DefaultModel("classical", "requested", limited=False)


def test_a_requested_model_is_used() -> None:
    assert choose_model("u2net") == DefaultModel("u2net", "requested", limited=False)


@pytest.mark.parametrize("name", [None, "auto"])
def test_without_a_mirror_the_bundled_network_is_used_with_a_hint_and_no_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str | None
) -> None:
    monkeypatch.setenv("PBR_MODEL_DIR", str(tmp_path))
    monkeypatch.setenv("PBR_MODEL_MIRROR", "http://localhost:9")
    chosen = choose_model(name)
    assert (chosen.name, chosen.limited) == (BUNDLED, False)
    better = next(model for model in MODELS if f"pbr models fetch {model} " in chosen.hint)
    assert list(MODELS).index(better) < list(MODELS).index(BUNDLED)


@pytest.fixture
def source(tmp_path: Path) -> ModelSource:
    """The bundled network, and a better one that can be downloaded."""
    better, bundled = model("better"), model(BUNDLED)
    (tmp_path / better.file).write_bytes(CONTENT)
    (tmp_path / f"{BUNDLED}.onnx").write_bytes(CONTENT)
    registry = {entry.name: entry for entry in (better, bundled)}
    return ModelSource((tmp_path / "cache",), tmp_path.as_uri(), 10, registry, open_url, bundled=tmp_path)


def test_a_better_network_is_downloaded_and_used_without_a_hint(
    source: ModelSource, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = choose_model(None, source)
    assert (chosen.name, chosen.limited, chosen.hint) == ("better", False, "")
    assert "Downloading better" in capsys.readouterr().err
    assert choose_model(None, source) == chosen
    assert "Downloading" not in capsys.readouterr().err


def test_ctrl_c_skips_the_download(source: ModelSource, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(url: str, timeout_s: float, start: int) -> Generator[bytes, None, None]:
        yield CONTENT[:100]
        raise KeyboardInterrupt

    chosen = choose_model(None, replace(source, open_url=interrupted))
    assert (chosen.name, chosen.limited) == (BUNDLED, False)
    assert "pbr models fetch better" in chosen.hint
    assert f"skipped, {BUNDLED} is used" in capsys.readouterr().err


def test_without_any_weights_classical_is_used_with_a_warning(source: ModelSource, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    chosen = choose_model(None, replace(source, mirror=nothing.as_uri(), bundled=nothing))
    assert (chosen.name, chosen.limited) == (CLASSICAL, True)
    assert "make setup" in chosen.reason and "quality is limited" in chosen.reason


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


def test_a_cloud_ends_when_it_is_stopped_or_idle_for_too_long() -> None:
    stop, idle = threading.Event(), iter([0.0, 0.28, 0.1, 0.3])
    started = time.monotonic()
    assert wait_for_end(stop, lambda: next(idle), 0.3), "idle"
    assert time.monotonic() - started + 0.01 >= 0.3 + 0.02 + 0.2
    assert not list(idle)
    stop.set()
    assert not wait_for_end(stop, lambda: 0.0, 60)
    assert not wait_for_end(stop, lambda: 0.0, None)


def test_the_presets_of_a_cloud_are_checked_before_it_starts() -> None:
    presets = '{"card": {"scale": "85%"}}'
    assert parse_parameters([f"Presets={presets}"]) == {"Presets": presets}
    with pytest.raises(InvalidOptionsError) as caught:
        parse_parameters(['Presets={"card": {"scale": "5%"}}'])
    assert caught.value.field == "Presets.card.scale"
