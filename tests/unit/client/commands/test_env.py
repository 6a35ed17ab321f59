import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli import app
from client.local_cloud import DefaultModel, RunningCloud, registered, state_directory
from tests.fakes.stack_in_memory import OUTPUTS

CLOUD = RunningCloud(
    "http://localhost:5555",
    "eu-west-1",
    "pbr",
    os.getpid(),
    DefaultModel("classical", "requested", limited=False),
    "/code/pbr",
    "http://localhost:8080",
    outputs={**OUTPUTS, "QueueUrl": "http://localhost:5555/a queue's; true", "ApiUrl": "http://localhost:8080"},
    environment={"AWS_ENDPOINT_URL": "http://localhost:5555", "AWS_REGION": "eu-west-1"},
)


@pytest.fixture(autouse=True)
def running(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with registered(state_directory()) as register:
        register(CLOUD)
        yield


def test_a_shell_evaluates_the_output() -> None:
    script = CliRunner().invoke(app, ["env"]).stdout
    assert all(line.startswith("export ") for line in script.splitlines())
    shown = subprocess.run(
        ["sh", "-c", f'{script}\nprintf "%s\\n" "$AWS_ENDPOINT_URL" "$AWS_REGION" "$PBR_UPLOADS" "$PBR_QUEUE_URL"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.splitlines() == [
        CLOUD.endpoint_url,
        CLOUD.region,
        CLOUD.outputs["UploadsBucket"],
        CLOUD.outputs["QueueUrl"],
    ]


def test_json_has_the_same_variables() -> None:
    values = json.loads(CliRunner().invoke(app, ["env", "--json"]).stdout)
    assert values["PBR_QUEUE_URL"] == CLOUD.outputs["QueueUrl"] and values["PBR_API_URL"] == CLOUD.outputs["ApiUrl"]
    script = CliRunner().invoke(app, ["env"]).stdout
    assert [line.partition("=")[0] for line in script.splitlines()] == [f"export {name}" for name in values]
