import json
from typing import Any

import pytest

from functions.metrics.buckets import image_size
from functions.metrics.publish import FinalState, lambda_timings_s, publish
from tests.conftest import ROOT

EVENT = json.loads((ROOT / "events/metrics.json").read_text())


def published(event: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    publish(FinalState.model_validate(event["state"]), lambda document: 0.001 if document["cache"]["hit"] else 0.004)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [line for line in lines if "_aws" in line]


def named(blocks: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [block for block in blocks if name in block]


def test_a_finished_job_publishes_the_time_of_each_stage_by_picture_size(
    capsys: pytest.CaptureFixture[str],
) -> None:
    blocks = published(EVENT, capsys)
    times = named(blocks, "ProcessingTime")
    assert {block["Stage"] for block in times} == {"validate", "segment", "refine", "encode"}
    assert {block["ImageSize"] for block in times} == {"<=1MP"}
    assert [block["ProcessingTime"] for block in times if block["Stage"] == "segment"] == [[400.0]]
    assert named(blocks, "QualityScore")[0]["QualityScore"] == [0.9]
    assert len(named(blocks, "Processed")) == 1
    assert [block["EstimatedCost"] for block in named(blocks, "EstimatedCost")] == [[0.004]]
    assert [block["Host"] for block in named(blocks, "Segmented")] == ["lambda"]


def test_a_cache_hit_is_counted_and_publishes_no_quality(capsys: pytest.CaptureFixture[str]) -> None:
    event = json.loads(json.dumps(EVENT))
    event["state"]["done"]["document"]["cache"]["hit"] = True
    blocks = published(event, capsys)
    assert len(named(blocks, "CacheHit")) == 1
    assert not named(blocks, "QualityScore") and not named(blocks, "Processed") and not named(blocks, "Segmented")
    assert [block["EstimatedCost"] for block in named(blocks, "EstimatedCost")] == [[0.001]]


def test_a_failure_is_counted_by_stage_and_error(capsys: pytest.CaptureFixture[str]) -> None:
    [block] = published(
        {**EVENT, "state": {"failure": {"stage": "Refine", "error": "CorruptImageError", "cause": ""}}}, capsys
    )
    assert (block["Stage"], block["Error"], block["Failed"]) == ("Refine", "CorruptImageError", [1.0])


def test_a_fallback_to_lambda_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    fallback = {"SegmentOnEcs": {"Error": "States.HeartbeatTimeout"}}
    event = {**EVENT, "state": {**EVENT["state"], "fallback": fallback}}
    assert [block["Stage"] for block in named(published(event, capsys), "Degraded")] == ["SegmentOnEcs"]


@pytest.mark.parametrize("kept", ["first", "second"])
def test_a_second_attempt_is_counted_by_the_kept_attempt(kept: str, capsys: pytest.CaptureFixture[str]) -> None:
    event = json.loads(json.dumps(EVENT))
    event["state"]["done"]["document"]["escalation"] = {"model": "birefnet-general", "kept": kept}
    [block] = named(published(event, capsys), "Escalated")
    assert (block["Kept"], block["Escalated"]) == (kept, [1.0])
    assert not named(published(EVENT, capsys), "Escalated")


def test_a_second_attempt_that_failed_is_counted_as_degraded(capsys: pytest.CaptureFixture[str]) -> None:
    event = {**EVENT, "state": {**EVENT["state"], "degraded": {"Refine": {"Error": "Runtime.ExitError"}}}}
    blocks = published(event, capsys)
    assert [block["Stage"] for block in named(blocks, "Degraded")] == ["Refine"]
    assert not named(blocks, "Failed")


def test_lambda_does_not_bill_segmentation_on_another_host() -> None:
    timings_s = {"validate": 1, "segment": 2, "refine": 3, "encode": 4, "escalation": 5}
    assert lambda_timings_s({"timings_s": timings_s, "model": {"host": "lambda"}}) == timings_s
    elsewhere = lambda_timings_s({"timings_s": timings_s, "model": {"host": "ecs"}})
    assert elsewhere == {"validate": 1, "refine": 3, "encode": 4}


@pytest.mark.parametrize(
    ("width", "height", "bucket"), [(1000, 1000, "<=1MP"), (4000, 3000, "<=12MP"), (10_000, 10_000, ">50MP")]
)
def test_image_sizes_are_grouped_into_classes(width: int, height: int, bucket: str) -> None:
    assert image_size(width, height) == bucket
