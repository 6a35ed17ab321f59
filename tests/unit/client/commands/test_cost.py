import json
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from client.cli import app
from client.monthly_cost import Bulk, Host, bill, memory_of
from functions.contracts.prices import REGIONS
from tests.fakes.stack_in_memory import MACHINE, History, stack


@pytest.fixture(autouse=True)
def no_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PBR_STACK", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)


def pbr(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["cost", *arguments])


def priced(*arguments: str) -> dict[str, float]:
    return {one["method"]: one["usd"] for one in json.loads(pbr("--json", *arguments).stdout)}


def test_the_table_has_a_row_for_each_host_and_a_column_for_each_volume() -> None:
    lines = pbr("--region", "us-east-1").stdout.splitlines()
    assert lines[0].split()[4:8] == ["1,000", "10,000", "100,000", "1,000,000"]
    assert [line.split()[0] for line in lines[1:8]] == list(Host)
    expected = bill(Host.LAMBDA, 10_000, 0, REGIONS["us-east-1"]).usd
    assert float(lines[1].split()[2]) == pytest.approx(expected, abs=0.005)


def test_volume_hits_and_region_are_those_of_the_options() -> None:
    found = priced("--images", "50000", "--hits", "0.2", "--bulk", "--region", "eu-west-1")
    assert found == {kind: pytest.approx(bill(kind, 50_000, 0.2, REGIONS["eu-west-1"]).usd) for kind in Bulk}


def test_lines_add_up_to_the_total() -> None:
    [found] = json.loads(pbr("--json", "--host", "gpu-spot", "--images", "7").stdout)
    assert sum(one["usd"] for one in found["lines"]) == pytest.approx(found["usd"])
    assert all(one["quantity"] * one["usd_each"] == pytest.approx(one["usd"]) for one in found["lines"])


def test_the_cheapest_is_explained_line_by_line() -> None:
    text = pbr("--images", "1000000", "--explain", "--region", "us-east-1").stdout
    assert "1,000,000 images a month, lambda" in text and "1,000,000 x 11" in text
    assert f"Total {bill(Host.LAMBDA, 1_000_000, 0, REGIONS['us-east-1']).usd:,.2f} US dollars" in text


def test_prices_of_another_region_are_announced() -> None:
    result = pbr("--region", "ap-south-1", "--images", "10")
    assert (
        result.exit_code == 0
        and "prices of us-east-1 and eu-west-1 only" in result.stderr
        and "eu-west-1," in result.stdout
    )


def test_memory_and_region_are_those_of_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    deployed = replace(stack(), region="us-east-1", parameters={"EncodeMemory": "2048"})
    monkeypatch.setattr("client.commands.cost.connect", lambda name, region: deployed)
    found = priced("--stack", "mine", "--images", "1000000", "--host", "lambda")["lambda"]
    assert found < bill(Host.LAMBDA, 1_000_000, 0, REGIONS["us-east-1"]).usd


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--host", "express-10"], "Kinds of bulk runs need --bulk"),
        (["--bulk", "--host", "lambda"], "Use express-10, express-100, batch-transform, standard"),
        (["6f3a", "--images", "5"], "--images is for the costs of a month"),
        (["--hits", "20"], "Use a number from 0 to 1, e.g. 0.2 for 20 %"),
        (["--hits", "20%"], "Use a number from 0 to 1, e.g. 0.2 for 20 %"),
        (["--hits", "nan"], "Use a number from 0 to 1"),
        (["--images", "0"], "'0' is not a number from 1"),
        (["--images", "50,000"], "Use digits only, e.g. 50000"),
    ],
)
def test_invalid_usage_says_what_to_change(arguments: list[str], says: str) -> None:
    result = pbr(*arguments)
    assert result.exit_code == 2 and says in " ".join(result.stderr.replace("\u2502", " ").split())


@pytest.mark.parametrize(
    ("name", "status", "says"),
    [("", 2, "Pass an execution"), ("arn:aws:states:foo:bar", 1, "The stack has no execution with this ARN")],
)
def test_a_missing_execution_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str, status: int, says: str) -> None:
    monkeypatch.setattr("client.commands.cost.connect", lambda name, region: stack())
    result = pbr(name)
    assert result.exit_code == status and says in result.stderr


def test_only_a_single_volume_has_the_cost_of_1000_images() -> None:
    assert "1,000 images, without fixed" not in pbr().stdout
    [found] = json.loads(pbr("--images", "1", "--host", "sagemaker", "--region", "us-east-1", "--json").stdout)
    assert found["fixed_usd"] > 730 * 0.408 and found["image_usd"] < 0.01
    table = pbr("--images", "1", "--host", "sagemaker", "--region", "us-east-1").stdout.splitlines()
    assert table[0].endswith("1,000 images, without fixed")
    assert float(table[1].split()[-1]) == pytest.approx(found["image_usd"] * 1000, abs=0.001)


def run(
    monkeypatch: pytest.MonkeyPatch,
    *billed_ms: float,
    memory_mb: int = 4096,
    options: Sequence[str] = ("--json",),
    **facts: Any,
) -> Result:
    """Price an execution whose segment function took two seconds by its history, half a second of a call to start."""
    deployed = replace(stack(), region="us-east-1", parameters={"SegmentMemory": str(memory_mb)}, **facts)
    executions: Any = deployed.stepfunctions
    arn = executions.add("job", {}, status="SUCCEEDED")
    resource = {"resourceType": "lambda", "resource": "invoke"}
    history = History().enter("SegmentOnLambda").add("TaskScheduled", taskScheduledEventDetails=resource)
    history.add("TaskStarted").add("TaskSucceeded", ms=2000).exit("SegmentOnLambda")
    executions.histories[arn] = [history.events]
    reports = [SimpleNamespace(function="segment", billed_ms=ms, memory_mb=memory_mb, init_ms=500) for ms in billed_ms]
    monkeypatch.setattr("client.commands.cost.connect", lambda name, region: deployed)
    monkeypatch.setattr("client.logs.reports", lambda stack, execution: reports)
    return pbr(*options, MACHINE.replace("stateMachine", "execution") + ":job")


def test_an_execution_is_priced_by_what_lambda_bills(monkeypatch: pytest.MonkeyPatch) -> None:
    found = json.loads(run(monkeypatch, 1500).stdout)
    assert found["is_billed"]
    requests = 0.005e-3 + 0.0004e-3
    assert found["usd"] == pytest.approx(0.025e-3 + 0.2e-6 + 1.5 * 4 * 0.0000166667 + requests)
    assert found["starts_usd"] == pytest.approx(0.5 * 4 * 0.0000166667)
    assert sum(line["usd"] for line in found["lines"]) == pytest.approx(found["usd"])
    starts = next(line for line in found["lines"] if line["item"] == "GB-seconds of starts")
    assert starts["quantity"] == pytest.approx(0.5 * 4)


def test_an_embedded_cloud_is_priced_with_the_memory_of_the_template(monkeypatch: pytest.MonkeyPatch) -> None:
    local = {"memory_mb": 10240, "endpoint_url": "http://localhost:5555"}
    found = json.loads(run(monkeypatch, 1500, **local).stdout)
    default_mb = memory_of({})["segment"]
    assert found["default_memory_mb"] == {"segment": default_mb}
    assert sum(line["quantity"] for line in found["lines"] if line["item"].startswith("GB-")) == pytest.approx(
        1.5 * default_mb / 1024
    )
    text = run(monkeypatch, 1500, **local, options=()).stdout
    assert f"Memory is the template's default in MB: segment {default_mb:,}" in text
    by_history = json.loads(run(monkeypatch, **local).stdout)
    assert sum(line["quantity"] for line in by_history["lines"] if line["item"] == "GB-seconds") == pytest.approx(
        2 * default_mb / 1024
    )


def test_an_embedded_cloud_is_priced_in_the_region_that_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(monkeypatch, 1500, endpoint_url="http://localhost:5555", options=("--json", "--region", "eu-west-1"))
    assert json.loads(found.stdout)["region"] == "eu-west-1"


def test_an_ended_execution_without_reports_says_how_long_they_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    text = run(monkeypatch, options=()).stdout
    assert "0 of 1 call." in text and "for 30 days (LogRetentionDays)" in text


def test_an_execution_without_reports_is_priced_by_its_history(monkeypatch: pytest.MonkeyPatch) -> None:
    found = json.loads(run(monkeypatch).stdout)
    assert not found["is_billed"]
    seconds = next(one for one in found["lines"] if one["item"] == "GB-seconds")
    assert seconds["quantity"] == pytest.approx(2 * 4)
