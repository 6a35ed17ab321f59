import hashlib
import json
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from typer.testing import CliRunner, Result

from client import local_models
from client.cli import app
from client.commands.models import effect_on, weights
from client.commands.models.weights import ModelInfo
from client.local_cloud import CloudOptions, DefaultModel, RunningCloud, registered, state_directory
from core.segmentation.registry import BUNDLED, MODELS, Model
from functions.runtime.weights import RELEASE, ModelSource, open_url
from tests.fakes.stack_in_memory import OUTPUTS, stack

CONTENT = b"the weights of a small network" * 100_000


def described(folder: Path, name: str = "small", content: bytes = CONTENT) -> dict[str, Any]:
    """Put a custom model's file into a folder and describe it."""
    path = folder / f"{name}-epoch_7.onnx"
    path.write_bytes(content)
    return {
        "name": name,
        "uri": path.as_uri(),
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "input_px": 64,
        "licence": "Example-1.0",
        "commercial_use": True,
    }


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Where the files lie that are fetched."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The directory that weights are fetched to."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PBR_MODEL_DIR", str(tmp_path / "here"))
    for name in ("AWS_ENDPOINT_URL", "PBR_STACK", "PBR_MODEL_MIRROR", "PBR_CUSTOM_MODELS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "here"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """S3, with a bucket named weights."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3")
    client.create_bucket(Bucket="weights")
    yield client
    server.stop()


class Listener:
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.counts: list[tuple[int, int]] = []
        self.lines: list[str] = []
        self.errors: dict[str, Exception] = {}

    def moved(self, name: str, count_bytes: int, of_bytes: int) -> None:
        self.counts.append((count_bytes, of_bytes))

    def done(self, name: str, result: str) -> None:
        self.lines.append(f"{name} {result}")

    def failed(self, name: str, error: Exception) -> None:
        self.errors[name] = error


def pbr(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def listed() -> dict[str, dict[str, Any]]:
    result = pbr("models", "--json", "--verify")
    assert result.exit_code == 0, result.stderr
    return {facts["name"]: facts for facts in json.loads(result.stdout)}


def mirrored(name: str, **facts: Any) -> Model:
    """A model as the registry has it, of the small file."""
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    return replace(MODELS["u2net"], name=name, file=f"{name}.v1.onnx", sha256=sha256, bytes=len(CONTENT), **facts)


def test_models_are_listed_with_license_and_source() -> None:
    result = pbr("models")
    assert result.exit_code == 0
    for model in MODELS.values():
        [line] = [line for line in result.stdout.splitlines() if line.split(" ")[0] == model.name]
        assert model.licence in line and (" yes " if model.commercial_use else " no ") in line
        assert (
            f"{model.input_px} px" in line
            and ("included" if model.name == BUNDLED else f"not downloaded: {model.file}") in line
        )
    assert RELEASE in result.stdout and "classical" in result.stdout
    assert f"Included: {BUNDLED}" in result.stdout and "NOTICE" in result.stdout


def test_mirror_and_custom_models_are_listed(monkeypatch: pytest.MonkeyPatch, shelf: Path) -> None:
    monkeypatch.setenv("PBR_MODEL_MIRROR", "s3://weights/nets/")
    monkeypatch.setenv("PBR_CUSTOM_MODELS", json.dumps([described(shelf)]))
    found = listed()
    assert list(found) == [*MODELS, "small"]
    assert found["u2net"]["url"] == "s3://weights/nets/u2net.onnx"
    assert found["small"]["url"] == (shelf / "small-epoch_7.onnx").as_uri()
    assert (found["small"]["path"], found["small"]["verified"]) == (None, None)


def test_weights_are_checked_with_verify(here: Path) -> None:
    here.mkdir()
    (here / "u2netp.onnx").write_bytes(b"another network")
    assert "not checked" in pbr("models").stdout
    assert "not the pinned file" in pbr("models", "--verify").stdout
    facts = listed()["u2netp"]
    assert (facts["path"], facts["verified"]) == (str(here / "u2netp.onnx"), False)


def test_the_default_model_is_that_of_an_embedded_cloud(tmp_path: Path) -> None:
    small, best = mirrored("small"), mirrored("best")
    source = ModelSource((tmp_path,), registry={"best": best, "small": small})
    assert [entry.default for entry in weights.list_models(source, verify=False)] == [True, False]
    (tmp_path / "small.onnx").write_bytes(CONTENT)
    assert [entry.default for entry in weights.list_models(source, verify=False)] == [False, True]


def test_invalid_custom_models_are_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PBR_CUSTOM_MODELS", '[{"name": "../../etc"}]')
    result = pbr("models")
    assert result.exit_code == 2 and "PBR_CUSTOM_MODELS.0.name" in result.stderr


def test_fetch_downloads_once_and_verifies_each_time(monkeypatch: pytest.MonkeyPatch, shelf: Path, here: Path) -> None:
    monkeypatch.setenv("PBR_CUSTOM_MODELS", json.dumps([described(shelf)]))
    result = pbr("models", "fetch", "small")
    assert result.exit_code == 0 and "fetched to" in result.stderr
    assert (here / "small.onnx").read_bytes() == CONTENT
    assert listed()["small"]["verified"] is True
    (shelf / "small-epoch_7.onnx").unlink()
    again = pbr("models", "fetch", "small")
    assert again.exit_code == 0 and "is at" in again.stderr and "verified" in again.stderr


def test_a_failed_fetch_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch, shelf: Path, tmp_path: Path) -> None:
    tampered = {**described(shelf, "tampered"), "sha256": "0" * 64}
    missing = {**described(shelf, "missing"), "uri": (shelf / "missing.onnx").as_uri()}
    monkeypatch.setenv("PBR_CUSTOM_MODELS", json.dumps([tampered, missing, described(shelf)]))
    result = pbr("models", "fetch", "tampered", "missing", "small", "--to", str(tmp_path / "to"))
    assert result.exit_code == 1
    assert [line.split()[:2] for line in result.stderr.splitlines()] == [
        ["failed", "tampered"],
        ["failed", "missing"],
        ["done", "small"],
    ]
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["small.onnx"], "nothing half-written"


def test_fetch_rejects_and_keeps_a_local_file_with_another_hash(
    monkeypatch: pytest.MonkeyPatch, shelf: Path, here: Path
) -> None:
    monkeypatch.setenv("PBR_CUSTOM_MODELS", json.dumps([described(shelf)]))
    here.mkdir()
    (here / "small.onnx").write_bytes(b"another network")
    result = pbr("models", "fetch", "small")
    assert result.exit_code == 1 and "SHA-256" in result.stderr
    assert (here / "small.onnx").read_bytes() == b"another network"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [([], "--all-free"), (["classical"], "--all-free"), (["nosuch"], "birefnet-general")],
    ids=str,
)
def test_fetch_requires_a_model_with_weights(arguments: list[str], says: str) -> None:
    result = pbr("models", "fetch", *arguments)
    assert result.exit_code == 2 and says in result.stderr


def test_all_free_adds_the_free_models_to_the_named_ones() -> None:
    source = ModelSource((Path("models"),))
    names = [model.name for model in weights.select(["silueta", "u2net"], source, all_free=True)]
    assert len(names) == len(set(names))
    assert set(names) == {"silueta", *(model.name for model in MODELS.values() if model.commercial_use)}


def test_a_filled_bucket_serves_as_a_mirror(s3: Any, shelf: Path, tmp_path: Path) -> None:
    first, second = mirrored("first"), mirrored("second")
    for model in (first, second):
        (shelf / model.file).write_bytes(CONTENT)
    registry = {"first": first, "second": second}
    filling = ModelSource((tmp_path / "a",), shelf.as_uri(), 10, registry, open_url)
    heard = Listener()
    assert weights.fetch([first, second], filling, heard, bucket="s3://weights/nets/")
    assert heard.lines == [f"{name} uploaded to s3://weights/nets/{name}.v1.onnx" for name in registry]
    assert heard.counts[-1] == (len(CONTENT), len(CONTENT))

    served = ModelSource((tmp_path / "b",), "s3://weights/nets", 10, registry, open_url)
    assert weights.fetch([first, second], served, Listener())
    assert (tmp_path / "b" / "second.onnx").read_bytes() == CONTENT


def test_a_file_is_uploaded_to_a_bucket_once(s3: Any, shelf: Path, tmp_path: Path) -> None:
    model = mirrored("small")
    (shelf / model.file).write_bytes(CONTENT)
    source = ModelSource((tmp_path / "a",), shelf.as_uri(), 10, {"small": model}, open_url)
    weights.fetch([model], source, Listener(), bucket="s3://weights")
    before = s3.head_object(Bucket="weights", Key=model.file)["LastModified"]
    heard = Listener()
    weights.fetch([model], source, heard, bucket="s3://weights")
    assert heard.lines == [f"small is at s3://weights/{model.file}"]
    assert s3.head_object(Bucket="weights", Key=model.file)["LastModified"] == before

    s3.put_object(Bucket="weights", Key=model.file, Body=b"another network")
    heard = Listener()
    weights.fetch([model], source, heard, bucket="s3://weights")
    assert heard.lines == [f"small uploaded to s3://weights/{model.file}"]


def test_fetch_to_a_missing_bucket_fails(s3: Any, shelf: Path, tmp_path: Path) -> None:
    model = mirrored("small")
    (shelf / model.file).write_bytes(CONTENT)
    source = ModelSource((tmp_path / "a",), shelf.as_uri(), 10, {"small": model}, open_url)
    heard = Listener()
    assert not weights.fetch([model], source, heard, bucket="s3://nosuch")
    assert "bucket" in str(heard.errors["small"]).lower()


def test_requested_weights_are_downloaded_once(shelf: Path, tmp_path: Path) -> None:
    model = mirrored("small")
    (shelf / model.file).write_bytes(CONTENT)
    source = ModelSource((tmp_path / "here",), shelf.as_uri(), 10, {"small": model}, open_url)
    heard = Listener()
    weights.obtain(model, source, heard)
    assert (tmp_path / "here/small.onnx").read_bytes() == CONTENT and len(heard.lines) == 1
    (shelf / model.file).unlink()
    weights.obtain(model, source, heard)
    assert len(heard.lines) == 1, "nothing to print the second time"


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, shelf: Path, here: Path) -> RunningCloud:
    """A cloud that uses the bundled network, and whose environment has a model of its own."""
    monkeypatch.setenv("PBR_CUSTOM_MODELS", json.dumps([described(shelf)]))
    included = DefaultModel(BUNDLED, "included", limited=False)
    state = local_models.fingerprint()
    return RunningCloud("http://localhost:1", "eu-west-1", "pbr", 1, included, "/pbr", "", fingerprint=state)


def test_fetch_says_what_it_means_for_the_running_cloud(cloud: RunningCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "running cloud" not in pbr("models", "fetch", "small").stderr
    with registered(state_directory()) as register:
        register(cloud)
        assert pbr("models", "fetch", "small").stderr.splitlines()[-1] == (
            f"The running cloud uses {BUNDLED} by default; --model small works at once."
        )
        monkeypatch.setenv("PBR_MODEL_DIR", "elsewhere")
        assert pbr("models", "fetch", BUNDLED).stderr.splitlines()[-1].endswith("Run pbr restart.")


def test_a_better_model_that_was_fetched_needs_a_restart_unless_another_was_requested(cloud: RunningCloud) -> None:
    text = effect_on(cloud, ["u2net", "better"], best="better")
    assert f"uses {BUNDLED} by default" in text and "To use better, run pbr restart" in text
    requested = replace(cloud, options=CloudOptions(model=BUNDLED))
    assert "restart" not in effect_on(requested, ["better"], best="better")
    assert "restart" not in effect_on(
        replace(cloud, model=replace(cloud.model, name="better")), ["better"], best="better"
    )


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that answers no connection, as a firewall that drops packets."""
    with socket.socket() as server, ExitStack() as held:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(3):  # fill the queue
            client = held.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield server.getsockname()[1]


@pytest.mark.parametrize("mirror", ["http://127.0.0.1:1", "http://nonexistent.invalid", "silent"])
def test_a_requested_model_without_network_fails_soon_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, silent: int, mirror: str
) -> None:
    url = f"http://127.0.0.1:{silent}" if mirror == "silent" else mirror
    monkeypatch.setenv("PBR_MODEL_MIRROR", url)
    (tmp_path / "a.jpg").write_bytes(b"never read")
    started = time.monotonic()
    result = pbr("process", str(tmp_path / "a.jpg"), "--model", "u2net")
    assert time.monotonic() - started < 5
    assert result.exit_code == 1 and f"{url}/u2net.onnx" in result.stderr and "(--model: u2net)" in result.stderr
    for remedy in ("pbr models fetch u2net", "PBR_MODEL_MIRROR", "PBR_MODEL_DIR", f"--model {BUNDLED} or classical"):
        assert remedy in result.stderr
    assert not (tmp_path / "state").exists(), "no cloud was started"


@pytest.mark.parametrize(
    ("endpoint_url", "parameters", "directories"),
    [
        ("http://localhost:5555", {"ModelDirectory": "/a:/b", "CustomModels": ""}, (Path("/a"), Path("/b"))),
        ("http://localhost:5555", {"ModelDirectory": "/a", "ModelBucket": "weights"}, None),
        ("http://localhost:4566", {}, None),
        (None, {"ModelDirectory": "/opt/models"}, None),
    ],
    ids=["embedded cloud", "bucket of weights", "other emulator", "AWS"],
)
def test_weights_are_read_from_this_machine_by_an_embedded_cloud_only(
    endpoint_url: str | None, parameters: dict[str, str], directories: tuple[Path, ...] | None
) -> None:
    deployed = replace(stack(), endpoint_url=endpoint_url, parameters=parameters)
    source = weights.source_of(deployed)
    assert (source and source.directories) == directories


@pytest.mark.parametrize(("bytes_", "suits"), [(224_005_088, "CPU, GPU"), (972_666_916, "GPU")])
def test_large_models_suit_gpus_only(bytes_: int, suits: str) -> None:
    entry = ModelInfo(replace(MODELS["birefnet-general"], bytes=bytes_), None, None, "https://mirror.example", False)
    assert entry.suits == suits


@pytest.fixture
def stack_with_a_model_of_its_own(s3: Any, shelf: Path) -> Iterator[None]:
    """A deployed stack, as far as the client looks at it before it uploads."""
    template = {
        "Parameters": {"CustomModels": {"Type": "String"}},
        "Resources": {"Bucket": {"Type": "AWS::S3::Bucket"}},
        "Outputs": {name: {"Value": value} for name, value in OUTPUTS.items()},
    }
    parameter = {"ParameterKey": "CustomModels", "ParameterValue": json.dumps([described(shelf)])}
    boto3.client("cloudformation").create_stack(
        StackName="precision-background-remover",
        TemplateBody=json.dumps(template),
        Parameters=[parameter],  # type: ignore[list-item]
    )
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("stack_with_a_model_of_its_own")
def test_process_accepts_custom_models_of_the_stack(tmp_path: Path) -> None:
    known = pbr("process", "nosuch.jpg", "--model", "small", "--out", str(tmp_path))
    assert known.exit_code == 2 and "does not exist" in known.stderr and "model" not in known.stderr
    unknown = pbr("process", "nosuch.jpg", "--model", "large", "--out", str(tmp_path))
    assert unknown.exit_code == 2 and "small" in unknown.stderr and "nosuch.jpg" not in unknown.stderr
