from dataclasses import replace
from itertools import pairwise

import pytest
import yaml

from functions.contracts.prices import (
    GPU,
    REGIONS,
    STANDARD_TRANSITIONS,
    TRANSFORM_TRANSITIONS,
    bulk_image_usd,
    execution_usd,
    express_usage,
    mask_usage,
    price_list,
    prices_of,
    standard_usage,
    upload_usage,
)
from tests.conftest import ROOT

_, PRICES = prices_of("eu-west-1")
STATES = yaml.safe_load((ROOT / "statemachine/remove_background.asl.yaml").read_text())["States"]
PATH = ["Validate", "ClaimWork", "ChooseSegmenter", "SegmentOnLambda", "Refine"]
PATH += ["NeedsEscalation?", "Encode", "SaveCache", "PublishMetrics", "Outcome?", "Done"]
HIT_PATH = ["Validate", "ClaimWork", "LookUpCache", "CacheHit?", "ServeCached", "DescribeHit", "ComposeSidecar"]
HIT_PATH += ["SaveSidecar", "PublishMetrics", "Outcome?", "Done"]
FAILURE_PATH = ["Validate", "KeepRawInput", "RecordFailure", "HoldsClaim?", "PublishMetrics", "Outcome?", "Failed"]


def test_the_goals_of_bulk_runs_are_met() -> None:
    usage = express_usage(1000, 0, 10, 1000 * 3, 3008)
    assert usage.orchestration_usd(PRICES) < 0.05
    total = usage.orchestration_usd(PRICES) + usage.compute_usd(PRICES) + usage.requests_usd(PRICES)
    assert total < 0.30


def test_a_large_transform_job_keeps_the_goal_of_bulk_runs() -> None:
    images, seconds = 100_000, 100_000 * 0.15 + 300
    usage = express_usage(images, 0, 10, images * 2, 3008) + mask_usage(images, images)
    total = usage.orchestration_usd(PRICES) + usage.compute_usd(PRICES) + usage.requests_usd(PRICES)
    assert (total + seconds / 3600 * PRICES.instance_h[GPU]) * 1000 / images < 0.30
    assert usage.transitions - express_usage(images, 0, 10, 0, 3008).transitions == TRANSFORM_TRANSITIONS + 200


def test_a_standard_child_costs_the_states_of_the_main_machine() -> None:
    assert set(PATH) <= STATES.keys()
    assert 1 + len(PATH) == STANDARD_TRANSITIONS
    assert 0.3 < standard_usage(1000, 0, 3008).orchestration_usd(PRICES) < 0.45


def successors(name: str) -> set[str]:
    state = STATES[name]
    branches = [*state.get("Choices", []), *state.get("Catch", []), {"Next": state.get("Next", state.get("Default"))}]
    return {branch["Next"] for branch in branches}


@pytest.mark.parametrize(
    ("path", "usage"),
    [
        (PATH, upload_usage(1, 0, 0, 0)),
        (HIT_PATH, upload_usage(0, 1, 0, 0)),
        (FAILURE_PATH, upload_usage(0, 0, 1, 0)),
    ],
)
def test_an_upload_costs_the_states_and_functions_on_its_path(path, usage) -> None:
    assert all(after in successors(before) for before, after in pairwise(path))
    assert usage.transitions == len(path)
    assert usage.lambda_requests == sum("lambda:invoke" in STATES[name].get("Resource", "") for name in path)


def test_a_second_run_of_finished_images_costs_two_requests_each() -> None:
    usage = express_usage(1000, 1000, 10, 0, 3008)
    assert (usage.s3_reads, usage.dynamodb_writes, usage.lambda_gb_s) == (2000, 0, 0)
    assert usage.s3_writes == 1


def test_a_region_without_prices_is_estimated_with_another_one_s() -> None:
    assert prices_of("ap-south-1") == prices_of("eu-west-1")


def usd(usage) -> float:
    return usage.orchestration_usd(PRICES) + usage.compute_usd(PRICES) + usage.requests_usd(PRICES)


@pytest.mark.parametrize("cached", [False, True])
def test_an_execution_costs_its_path_and_the_memory_of_each_stage(cached) -> None:
    timings_s, memory_mb = {"validate": 0.5, "refine": 2.0}, {"validate": 2048, "refine": 3072, "encode": 1024}
    expected = usd(upload_usage(1 - cached, cached, 0, 0.5 * 2 + 2 * 3))
    assert execution_usd(timings_s, memory_mb, "eu-west-1", cached=cached) == pytest.approx(expected)


def test_images_of_a_batch_cost_what_their_child_costs_without_its_start() -> None:
    image = bulk_image_usd({"validate": 0.5, "segment": 1.5}, 3008, "eu-west-1", cached=False)
    child = replace(express_usage(10, 0, 10, 10 * 2, 3008), transitions=0, express_runs=0, lambda_requests=0)
    assert 10 * image == pytest.approx(usd(child))
    assert bulk_image_usd({"validate": 0.5}, 3008, "eu-west-1", cached=True) < image / 2


@pytest.mark.parametrize("region", REGIONS)
def test_the_price_list_has_each_price_once_with_its_source(region: str) -> None:
    prices = REGIONS[region]
    listed = list(price_list(prices))
    values = [value for name, value in vars(prices).items() if name != "unconfirmed"]
    expected = [usd for value in values for usd in ([value] if isinstance(value, float) else value.values())]
    assert sorted(one.usd for one in listed) == sorted(expected)
    assert len({(one.service, one.unit) for one in listed}) == len(listed)
    assert all(one.usd > 0 and one.page.startswith("https://aws.amazon.com/") for one in listed)


@pytest.mark.parametrize("region", REGIONS)
def test_unconfirmed_prices_exist(region: str) -> None:
    prices = REGIONS[region]
    assert prices.unconfirmed <= vars(prices).keys() | prices.instance_h.keys()
    assert {one.unit for one in price_list(prices) if not one.confirmed} >= {"recorded trace", "vCPU-hour, Spot"}
    assert next(one for one in price_list(prices) if one.unit == "request").confirmed


def test_a_bill_is_the_sum_of_its_lines() -> None:
    usage = upload_usage(2, 1, 0, 10.0)
    parts = usage.orchestration_usd(PRICES) + usage.compute_usd(PRICES) + usage.requests_usd(PRICES)
    assert usage.usd(PRICES) == pytest.approx(parts)
    by_hand = 33 * 0.025e-3 + 12 * 0.2e-6 + 10 * 0.0000166667
    by_hand += 12 * 0.005e-3 + 16 * 0.0004e-3 + 11 * 0.705e-6 + 1 * 0.1415e-6
    assert usage.usd(PRICES) == pytest.approx(by_hand)
