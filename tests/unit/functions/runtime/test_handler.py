import json
import os
import subprocess
import sys

import pytest

from embedded_cloud import embedded_metrics
from functions.contracts.metrics import METRICS, Metric
from functions.runtime.handler import count, measure
from tests.conftest import ROOT

CALL = """
import os, socket, sys
daemon = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
daemon.bind(("127.0.0.1", 0))
daemon.settimeout(5)
if len(sys.argv) > 1:
    os.environ["AWS_XRAY_DAEMON_ADDRESS"] = "127.0.0.1:%d" % daemon.getsockname()[1]
from functions.runtime.handler import traced

@traced
def handler(event, context):
    return event

assert handler("secret", None) == "secret"
print(daemon.recv(65536).decode() if len(sys.argv) > 1 else "aws_xray_sdk" in sys.modules)
"""
IN_LAMBDA = {
    "LAMBDA_TASK_ROOT": "/var/task",
    "AWS_LAMBDA_FUNCTION_NAME": "validate",
    "_X_AMZN_TRACE_ID": "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
}


def call(*arguments: str) -> str:
    """Call a traced handler in a process of its own: the X-Ray SDK reads the environment once."""
    command = [sys.executable, "-c", CALL, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | IN_LAMBDA, check=True, capture_output=True
    ).stdout.decode()


LOG = """
from functions.runtime.handler import logger, stage
from pydantic import BaseModel

class Request(BaseModel): pass
class Context:
    function_name, memory_limit_in_mb, invoked_function_arn, aws_request_id = "validate", 128, "arn", "1"

handler = stage(Request)(lambda request: {})
handler({"execution": {"name": "first"}}, Context())
handler({"execution": {"name": "second"}}, Context())
"""


@pytest.mark.parametrize("build", ["1.4.0-abc", ""])
def test_every_line_names_the_build(build: str) -> None:
    command = [sys.executable, "-c", LOG]
    environment = os.environ | {"PBR_BUILD": build}
    lines = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True).stdout.splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["job_id"] for record in records] == ["first", "first", "second", "second"]
    assert {record.get("build", "") for record in records} == {build}


@pytest.mark.slow
def test_a_call_is_recorded_without_its_response() -> None:
    header, _, subsegment = call("with a daemon").partition("\n")
    assert json.loads(header)["format"] == "json"
    recorded = json.loads(subsegment)
    assert recorded["name"] == "## handler" and recorded["trace_id"] == "1-5759e988-bd862e3fe1be46a994272793"
    assert "secret" not in subsegment


@pytest.mark.slow
def test_the_sdk_is_not_imported_without_a_daemon() -> None:
    assert call().strip() == "False"


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_a_value_is_published_in_each_dimension_set_with_the_unit(
    metric: Metric, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "PrecisionBackgroundRemover/pbr")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "metrics")  # as in the template
    measure(metric.name, 2.5, **{name: f"some {name}" for name in metric.dimensions})
    [line] = capsys.readouterr().out.splitlines()
    found = embedded_metrics.extract(line)
    assert {(one.namespace, one.name, one.unit, one.values) for one in found} == {
        ("PrecisionBackgroundRemover/pbr", metric.name, metric.unit, (2.5,))
    }
    expected = [sorted((name, f"some {name}") for name in names) for names in metric.dimension_sets]
    assert [list(one.dimensions) for one in found] == expected


def test_a_metric_with_other_dimensions_is_not_published(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=r"Failed has the dimensions \['Error', 'Stage'\], not \['Stage'\]"):
        count("Failed", Stage="Refine")
    assert not capsys.readouterr().out


def test_a_container_without_a_stack_has_a_namespace(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POWERTOOLS_METRICS_NAMESPACE", raising=False)
    count("Degraded", Stage="OpenReview")
    assert (
        json.loads(capsys.readouterr().out)["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "PrecisionBackgroundRemover"
    )
