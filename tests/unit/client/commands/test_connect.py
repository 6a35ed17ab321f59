import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from client import local_models
from client.commands.connect import changes_since_start, connect, find_stack
from client.commands.models.weights import model_source
from client.errors import StackUnavailableError, UsageError
from client.local_cloud import CloudOptions, DefaultModel, RunningCloud, registered, state_directory
from core.segmentation.registry import BUNDLED, MODELS
from functions.runtime.weights import candidates


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RunningCloud:
    """A cloud that has started now, with the bundled network as the best on disk."""
    monkeypatch.setenv("PBR_MODEL_DIR", str(tmp_path))
    monkeypatch.delenv("PBR_MODEL_MIRROR", raising=False)
    return RunningCloud(
        "http://localhost:1",
        "eu-west-1",
        "pbr",
        1,
        DefaultModel(BUNDLED, "included", limited=False),
        "/code/pbr",
        "http://localhost:2",
        fingerprint=local_models.fingerprint(),
    )


def test_a_changed_variable_is_a_change(cloud: RunningCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    assert changes_since_start(cloud) == []
    monkeypatch.setenv("PBR_MODEL_MIRROR", "https://mirror.example")
    assert changes_since_start(cloud) == ["PBR_MODEL_MIRROR"]


def test_more_weights_are_a_change_if_the_default_model_would_be_another(cloud: RunningCloud, tmp_path: Path) -> None:
    special = next(model.name for model in MODELS.values() if not (model.general and model.commercial_use))
    (tmp_path / f"{special}.onnx").write_bytes(b"never a default")
    assert changes_since_start(cloud) == []
    better = candidates(model_source())[0].name
    (tmp_path / f"{better}.onnx").write_bytes(b"weights")
    assert changes_since_start(cloud) == [f"the weights of {better}"]
    assert changes_since_start(replace(cloud, options=CloudOptions(model=BUNDLED))) == []


def test_weights_that_are_replaced_or_deleted_are_a_change(cloud: RunningCloud, tmp_path: Path) -> None:
    path = tmp_path / "u2net.onnx"
    path.write_bytes(b"weights")
    cloud = replace(cloud, fingerprint=local_models.fingerprint())
    path.write_bytes(b"other weights")
    assert changes_since_start(cloud) == ["the weights of u2net"]
    path.unlink()
    assert changes_since_start(cloud) == ["the weights of u2net"]


@pytest.mark.parametrize("value", ["localhost:5555", "http://", "http://localhost:port", "http://[::1", "http://h:0"])
def test_an_endpoint_must_be_an_address(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", value)
    with pytest.raises(UsageError, match="Invalid endpoint") as caught:
        find_stack(None, None)
    assert (caught.value.field, caught.value.value) == ("AWS_ENDPOINT_URL", value)


def test_a_cloud_that_is_not_ready_is_not_reported_as_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for name in ("AWS_ENDPOINT_URL", "PBR_STACK"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StackUnavailableError, match="No embedded cloud is running"):
        connect(None, None)
    with registered(state_directory()), pytest.raises(StackUnavailableError, match="starting or stopping"):
        connect(None, None)
    with pytest.raises(StackUnavailableError, match="No embedded cloud is running"):
        connect(None, None)


def test_a_cloud_that_stops_before_the_first_request_is_not_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cloud: RunningCloud
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with registered(state_directory()) as register, socket.create_server(("127.0.0.1", 0)) as server:

        def stop() -> None:
            server.accept()[0].close()
            register(None)
            server.close()

        register(replace(cloud, endpoint_url=f"http://localhost:{server.getsockname()[1]}"))
        threading.Thread(target=stop).start()
        assert find_stack(None, None) is None
