import json
import os
from typing import Any

import pytest

os.environ.setdefault("WORK_BUCKET", "work")
os.environ.setdefault("RESULTS_BUCKET", "results")

from core.image.encode import Encoded
from core.layout import Box
from functions.contracts.job import Job, RefinedJob
from functions.encode.app import describe
from tests.conftest import ROOT

STATE = json.loads((ROOT / "events/encode.json").read_text())
ESCALATION = {"model": "birefnet-general", "mask_key": "work/second/mask.png", "alpha_key": "work/second/alpha.png"}
ENCODED = Encoded(
    data=b"png", format="png", content_type="image/png", width=600, height=400, foreground=Box(10, 20, 300, 200)
)


def attempt(score: float, *, model: str = "classical", host: str = "lambda", seconds: float = 0.2) -> dict[str, Any]:
    mask = {**STATE["segment"]["mask"], "model": model, "host": host, "seconds": seconds}
    alpha = {**STATE["refine"]["alpha"], "quality": {"score": score, "review": score < 0.7}, "seconds": seconds}
    return {"segment": {"mask": mask}, "refine": {"alpha": alpha}}


def told(**state: Any) -> dict[str, Any]:
    return describe(RefinedJob.model_validate({**STATE, **state}), ENCODED, None, 0.1)


def told_of_two(first: dict[str, Any], second: dict[str, Any], **state: Any) -> dict[str, Any]:
    return told(escalation=ESCALATION, first=first, **second, **state)


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [(0.3, 0.8, "second"), (0.5, 0.4, "first"), (0.5, 0.5, "second")],
    ids=["better", "worse", "equal"],
)
def test_the_better_attempt_is_told_of_and_the_other_s_score_and_time(first: float, second: float, kept: str) -> None:
    document = told_of_two(attempt(first), attempt(second, model="birefnet-general", seconds=3))
    score = {"first": first, "second": second}
    assert document["escalation"] == {"model": "birefnet-general", "kept": kept, "score": score, "error": None}
    assert document["model"]["name"] == ("birefnet-general" if kept == "second" else "classical")
    assert document["quality"]["score"] == max(score.values())
    assert document["timings_s"]["escalation"] == (0.4 if kept == "second" else 6)
    assert document["timings_s"]["refine"] == (3 if kept == "second" else 0.2)


def test_an_attempt_that_failed_halfway_is_not_kept_whatever_it_left() -> None:
    left = attempt(0.3) | {"segment": attempt(0.3, model="birefnet-general")["segment"]}
    document = told_of_two(attempt(0.3), left, degraded={"Refine": {"Error": "Runtime.ExitError", "Cause": "killed"}})
    assert document["escalation"] == {
        "model": "birefnet-general",
        "kept": "first",
        "score": {"first": 0.3},
        "error": {"stage": "Refine", "error": "Runtime.ExitError"},
    }
    assert document["model"]["name"] == "classical"
    assert document["warnings"] == ["birefnet-general was tried and failed: Refine, Runtime.ExitError"]
    assert "escalation" not in document["timings_s"]


def test_a_job_of_one_attempt_has_no_escalation() -> None:
    document = told(escalation=ESCALATION)
    assert document["escalation"] is None and "escalation" not in document["timings_s"]


@pytest.mark.parametrize(
    ("asked", "first", "second", "degraded"),
    [
        ("ecs", attempt(0.9, host="ecs"), {}, False),
        ("ecs", attempt(0.9, host="lambda"), {}, True),
        ("lambda", attempt(0.9, host="lambda"), {}, False),
        ("ecs", attempt(0.3, host="ecs"), attempt(0.9, host="lambda"), True),
        ("ecs", attempt(0.3, host="ecs"), attempt(0.1, host="lambda"), False),
    ],
    ids=["as asked", "stood in", "lambda itself", "stood in for the kept", "stood in for the other"],
)
def test_a_result_is_degraded_if_its_mask_is_not_from_the_host_that_was_asked_for(
    asked: str, first: dict[str, Any], second: dict[str, Any], degraded: bool
) -> None:
    document = told_of_two(first, second, host=asked) if second else told(host=asked, **first)
    assert document["degraded"] is degraded


def test_stages_work_for_the_attempt_that_is_being_made() -> None:
    job = {key: value for key, value in STATE.items() if key not in {"segment", "refine"}} | {"escalation": ESCALATION}
    first, second = Job.model_validate(job), Job.model_validate({**job, "first": attempt(0.3)})
    assert (first.model, first.mask_key, first.alpha_key) == ("classical", first.keys.mask, first.keys.alpha)
    assert (second.model, second.mask_key, second.alpha_key) == tuple(ESCALATION.values())
