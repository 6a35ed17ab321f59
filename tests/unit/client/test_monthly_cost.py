import json
import math
import re
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from client.monthly_cost import ASSUMED, FIXED, VOLUMES, Bill, Bulk, Host, bill, cheapest, memory_of
from functions.contracts.prices import REGIONS
from tests.conftest import ROOT

PRICES = REGIONS["us-east-1"]
MILLION = 1_000_000
MEASURED = json.loads((ROOT / "functions/contracts/measured_durations.json").read_text())["functions"]
LAMBDA = 0.0000166667


def measured(function: str) -> dict[str, float]:
    """Return the figures of a function at the memory of the template, which was measured."""
    found = MEASURED[function]
    return next(one for one in found["samples"] if one["memory_mb"] == found["proposed_mb"])


def gb_s(function: str, s3_calls: int) -> float:
    """Return the GB-seconds of a warm call, by hand."""
    sample = measured(function)
    return (sample["seconds"] + s3_calls * 0.1) * sample["memory_mb"] / 1024


def by_service(found: Bill) -> dict[str, float]:
    sums: dict[str, float] = {}
    for line in (*found.lines, *(one for one in found.fixed if one.service == "SageMaker")):
        sums[line.service] = sums.get(line.service, 0) + line.usd
    return sums


def test_a_million_uploads_on_lambda_cost_what_plain_arithmetic_gives() -> None:
    sums = by_service(bill(Host.LAMBDA, MILLION, 0, PRICES))
    assert sums["Step Functions"] == pytest.approx(MILLION * 11 * 0.025 / 1000)
    assert sums["EventBridge"] == pytest.approx(3)
    assert sums["X-Ray"] == pytest.approx(5)
    assert sums["CloudWatch"] == pytest.approx(MILLION * 10_244 / 1e9 * (0.50 + 0.03))
    assert sums["DynamoDB"] == pytest.approx(4 * 0.625 + MILLION * 2374 / 1e9 * 0.25)
    gigabytes = (400_907 + 2 * 1_356_069 + 2_770 + 55_997 / 15) * MILLION / 1e9
    sweep = 1000 * 730 * 0.005e-3 + 0.4
    assert sums["S3"] == pytest.approx(6 * 5 + 8 * 0.4 + gigabytes * 0.023 + sweep)
    large = gb_s("segment", 2) + gb_s("refine", 3) + gb_s("encode", 6)
    assert 5 * 0.2 + MILLION * large * LAMBDA < sums["Lambda"] < 1.1 * (5 * 0.2 + MILLION * large * LAMBDA)


def test_half_the_uploads_from_the_cache_skip_the_large_functions() -> None:
    sums = by_service(bill(Host.LAMBDA, MILLION, 0.5, PRICES))
    assert sums["Step Functions"] == pytest.approx(0.5 * MILLION * (11 + 11) * 0.025 / 1000)
    none = by_service(bill(Host.LAMBDA, MILLION, 0, PRICES))
    assert 0.5 < sums["Lambda"] / none["Lambda"] < 0.55


def test_a_worker_is_billed_while_images_arrive_within_its_idle_time() -> None:
    sums = by_service(bill(Host.FARGATE, 1_000, 0, PRICES))
    rate = 1_000 / (730 * 3600)
    hours = 730 * (1 - math.exp(-rate * 1200)) + 1_000 * math.exp(-rate * 1200) * 150 / 3600
    assert sums["Fargate"] == pytest.approx(hours * (4 * 0.04048 + 12 * 0.004445))
    assert sums["SQS"] == pytest.approx((3_000 + 180 * hours) * 0.4e-6)


def test_a_busy_worker_is_billed_for_its_work() -> None:
    sums = by_service(bill(Host.GPU, 20 * MILLION, 0, PRICES))
    assert sums["EC2"] == pytest.approx(20 * MILLION * 0.15 / 3600 / 0.7 * 0.526)


def test_a_realtime_endpoint_has_one_instance_or_as_many_as_its_target_asks_for() -> None:
    assert by_service(bill(Host.SAGEMAKER, 1_000, 0, PRICES))["SageMaker"] == pytest.approx(730 * 0.408)
    instances = MILLION / (730 * 60) / 6
    assert by_service(bill(Host.SAGEMAKER, MILLION, 0, PRICES))["SageMaker"] == pytest.approx(730 * 0.408 * instances)
    assert by_service(bill(Host.SAGEMAKER, 9 * MILLION, 0, PRICES))["SageMaker"] == pytest.approx(730 * 0.408 * 4)


def test_a_bulk_run_of_a_million_images_costs_what_plain_arithmetic_gives() -> None:
    sums = by_service(bill(Bulk.EXPRESS_10, MILLION, 0, PRICES))
    seconds = MILLION * (measured("bulk")["seconds"] + 7 * 0.1)
    states = (8 + 100_000) * 0.025 / 1000 + 100_000 * 1e-6 + seconds * 64 / 1024 * 0.00001667
    assert sums["Step Functions"] == pytest.approx(states)
    assert sums["Lambda"] == pytest.approx(100_000 * 0.2e-6 + seconds * measured("bulk")["memory_mb"] / 1024 * LAMBDA)
    assert "X-Ray" not in sums


def test_a_transform_job_is_billed_for_its_instance_and_its_start() -> None:
    sums = by_service(bill(Bulk.TRANSFORM, MILLION, 0, PRICES))
    assert sums["SageMaker"] == pytest.approx((MILLION * 0.15 + 300) / 3600 * 0.736)
    assert sums["Lambda"] < by_service(bill(Bulk.EXPRESS_10, MILLION, 0, PRICES))["Lambda"]


@pytest.mark.parametrize("method", [*Host, *Bulk])
@pytest.mark.parametrize("hits", [0, 0.2, 0.5, 1])
def test_more_images_cost_more_and_hits_less(method: Host | Bulk, hits: float) -> None:
    totals = [bill(method, volume, hits, PRICES).usd for volume in (1, *VOLUMES)]
    assert totals == sorted(totals)
    assert bill(method, MILLION, hits, PRICES).usd <= bill(method, MILLION, 0, PRICES).usd


def test_the_cheapest_host_is_found() -> None:
    found = cheapest(Host, 1_000, 0, PRICES)
    assert found.usd == min(bill(host, 1_000, 0, PRICES).usd for host in Host) and found.method is Host.LAMBDA


def test_memory_is_that_of_the_stack() -> None:
    assert memory_of({"SegmentMemory": "4096", "BulkMemory": "0"})["bulk"] == 4096
    assert memory_of({"SegmentMemory": "4096", "BulkMemory": "6144"})["bulk"] == 6144
    assert memory_of({"EncodeMemory": "2048"})["encode"] == 2048
    small = bill(Host.LAMBDA, MILLION, 0, PRICES, memory_of({"EncodeMemory": "2048"})).usd
    assert small < bill(Host.LAMBDA, MILLION, 0, PRICES).usd


def resources(template: str) -> dict[str, Any]:
    return yaml_parse((ROOT / template).read_text())["Resources"]


def alarm_metrics(resource: dict[str, Any]) -> int:
    """Return the metrics that an alarm is billed for: its own, and two more for a band of expected values."""
    metrics = resource["Properties"].get("Metrics", [])
    band = any("ANOMALY_DETECTION_BAND" in str(one.get("Expression")) for one in metrics)
    return max(1, sum("MetricStat" in one for one in metrics)) + 2 * band


def test_alarms_keys_and_dashboards_of_the_template_are_those_that_are_billed() -> None:
    found = resources("infrastructure/operations.yaml")
    alarms = {name: one for name, one in found.items() if one["Type"] == "AWS::CloudWatch::Alarm"}
    count = {
        condition: sum(alarm_metrics(one) for one in alarms.values() if one.get("Condition") == condition)
        for condition in (None, "HasWorker", "HasAsyncEndpoint")
    }
    wake_up = alarm_metrics(resources("infrastructure/worker.yaml")["WorkerWakeUpAlarm"])
    assert count[None] == FIXED.alarm_metrics
    assert count["HasWorker"] + wake_up + 6 == FIXED.worker_alarm_metrics
    assert count["HasAsyncEndpoint"] + 1 + 2 == FIXED.endpoint_alarm_metrics
    types = [one["Type"] for one in found.values()]
    assert types.count("AWS::CloudWatch::CompositeAlarm") == FIXED.composite_alarms
    assert types.count("AWS::CloudWatch::Dashboard") == FIXED.dashboards
    assert types.count("AWS::KMS::Key") == FIXED.keys
    secrets = [one for one in resources("template.yaml").values() if one["Type"] == "AWS::SecretsManager::Secret"]
    assert len(secrets) == FIXED.secrets


def test_custom_metrics_are_those_of_the_page_about_metrics() -> None:
    found = re.search(r"\*\*Sum: .*\*\* \| \*\*(\d+)\*\*", (ROOT / "docs/reference/metrics.md").read_text())
    assert found and int(found[1]) == FIXED.custom_metrics


def test_the_private_network_has_the_interface_endpoints_that_are_billed() -> None:
    network = resources("infrastructure/network.yaml").values()
    endpoints = [one for one in network if one["Properties"].get("VpcEndpointType") == "Interface"]
    assert FIXED.endpoints == sum("Condition" not in one for one in endpoints)
    assert FIXED.gpu_endpoints == sum("Condition" in one for one in endpoints)
    assert {len(one["Properties"]["SubnetIds"]) for one in endpoints} == {ASSUMED.zones}


def test_workers_and_endpoints_have_the_size_that_is_billed() -> None:
    worker = resources("infrastructure/worker.yaml")
    task = worker["WorkerTaskDefinition"]["Properties"]
    assert (task["Cpu"], task["Memory"]) == ("4096", "12288")
    disk = worker["GpuLaunchTemplate"]["Properties"]["LaunchTemplateData"]["BlockDeviceMappings"][0]["Ebs"]
    assert (disk["VolumeType"], disk["VolumeSize"]) == ("gp3", 60)
    scaling = resources("infrastructure/endpoint.yaml")["EndpointLoad"]["Properties"]
    target = scaling["TargetTrackingScalingPolicyConfiguration"]["TargetValue"]
    assert target == {"Fn::If": ["HasGpu", 60, 6]}
    parameters = yaml_parse((ROOT / "template.yaml").read_text())["Parameters"]
    assert parameters["SageMakerInstanceType"]["Default"] == "ml.c6i.2xlarge"
    assert parameters["SageMakerMaxCount"]["Default"] == 4
    assert parameters["GpuInstanceType"]["Default"] == "g4dn.xlarge"
    assert parameters["CacheDays"]["Default"] == parameters["LogRetentionDays"]["Default"] == ASSUMED.days_kept
