import json
from typing import Any

import pytest

from core import pipeline
from core.image import decode
from core.image.encode import Encoded
from core.layout import Box
from core.types import Precision
from functions.contracts.job import Job, RefinedJob
from functions.contracts.result import Result
from functions.encode.work import describe
from tests.conftest import ROOT, disc
from tests.fakes import scenes

STATE = json.loads((ROOT / "events/encode.json").read_text())
ESCALATION = {"model": "birefnet-general", "mask_key": "work/second/mask.png", "alpha_key": "work/second/alpha.png"}
ENCODED = Encoded(
    data=b"png", format="png", content_type="image/png", width=600, height=400, foreground=Box(10, 20, 300, 200)
)


def attempt(score: float, *, model: str = "classical", host: str = "lambda", seconds: float = 0.2) -> dict[str, Any]:
    mask = {**STATE["segment"]["mask"], "model": model, "host": host, "seconds": seconds}
    quality = {**STATE["refine"]["alpha"]["quality"], "score": score, "review": score < 0.7}
    alpha = {**STATE["refine"]["alpha"], "quality": quality, "seconds": seconds}
    return {"segment": {"mask": mask}, "refine": {"alpha": alpha}}


def sidecar(**state: Any) -> dict[str, Any]:
    return describe(RefinedJob.model_validate({**STATE, **state}), ENCODED, "results", None, 0.1).model_dump(
        mode="json"
    )


def sidecar_of_two(first: dict[str, Any], second: dict[str, Any], **state: Any) -> dict[str, Any]:
    return sidecar(escalation=ESCALATION, first=first, **second, **state)


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [(0.3, 0.8, "second"), (0.5, 0.4, "first"), (0.5, 0.5, "second")],
    ids=["better", "worse", "equal"],
)
def test_the_sidecar_describes_the_better_attempt_and_scores_both(first: float, second: float, kept: str) -> None:
    document = sidecar_of_two(attempt(first), attempt(second, model="birefnet-general", seconds=3))
    score = {"first": first, "second": second}
    assert document["escalation"] == {"model": "birefnet-general", "kept": kept, "score": score, "error": None}
    assert document["model"]["name"] == ("birefnet-general" if kept == "second" else "classical")
    assert document["quality"]["score"] == max(score.values())
    assert document["timings_s"]["escalation"] == (0.4 if kept == "second" else 6)
    assert document["timings_s"]["refine"] == (3 if kept == "second" else 0.2)


def test_the_sidecar_lists_the_looks_of_the_mask() -> None:
    kept = attempt(0.8, model="u2netp")
    kept["segment"]["mask"] |= {"looks": ["first"], "rejected_looks": ["mirrored"]}
    model = sidecar(**kept)["model"]
    assert (model["looks"], model["rejected_looks"]) == (["first"], ["mirrored"])


def test_a_mask_of_an_earlier_version_was_made_from_one_look() -> None:
    earlier = attempt(0.8, model="u2netp")
    for name in ("looks", "rejected_looks"):
        earlier["segment"]["mask"].pop(name, None)
    document = sidecar(**earlier)
    assert (document["model"]["looks"], document["model"]["rejected_looks"]) == (["first"], [])
    del document["model"]["looks"], document["model"]["rejected_looks"]
    assert Result.model_validate(document).model.looks == ["first"], "a sidecar in the cache"


def test_a_failed_second_attempt_is_not_kept_even_if_it_has_a_mask() -> None:
    left = attempt(0.3) | {"segment": attempt(0.3, model="birefnet-general")["segment"]}
    document = sidecar_of_two(
        attempt(0.3), left, degraded={"Refine": {"Error": "Runtime.ExitError", "Cause": "killed"}}
    )
    assert document["escalation"] == {
        "model": "birefnet-general",
        "kept": "first",
        "score": {"first": 0.3},
        "error": {"stage": "Refine", "error": "Runtime.ExitError"},
    }
    assert document["model"]["name"] == "classical"
    assert document["warnings"] == ["The second attempt on birefnet-general failed in Refine: Runtime.ExitError"]
    assert "escalation" not in document["timings_s"]


def test_a_job_with_one_attempt_has_no_escalation() -> None:
    document = sidecar(escalation=ESCALATION)
    assert document["escalation"] is None and "escalation" not in document["timings_s"]


@pytest.mark.parametrize(
    ("host", "first", "second", "degraded"),
    [
        ("ecs", attempt(0.9, host="ecs"), {}, False),
        ("ecs", attempt(0.9, host="lambda"), {}, True),
        ("lambda", attempt(0.9, host="lambda"), {}, False),
        ("ecs", attempt(0.3, host="ecs"), attempt(0.9, host="lambda"), True),
        ("ecs", attempt(0.3, host="ecs"), attempt(0.1, host="lambda"), False),
    ],
    ids=[
        "requested host",
        "fallback",
        "lambda requested",
        "fallback in the kept attempt",
        "fallback in the other attempt",
    ],
)
def test_a_result_is_degraded_if_its_mask_is_not_from_the_requested_host(
    host: str, first: dict[str, Any], second: dict[str, Any], degraded: bool
) -> None:
    document = sidecar_of_two(first, second, host=host) if second else sidecar(host=host, **first)
    assert document["degraded"] is degraded


def test_a_job_has_the_model_and_keys_of_the_current_attempt() -> None:
    job = {key: value for key, value in STATE.items() if key not in {"segment", "refine"}} | {"escalation": ESCALATION}
    first, second = Job.model_validate(job), Job.model_validate({**job, "first": attempt(0.3)})
    assert (first.model, first.mask_key, first.alpha_key) == ("u2netp", first.keys.mask, first.keys.alpha)
    assert (second.model, second.mask_key, second.alpha_key) == tuple(ESCALATION.values())


def test_the_sidecar_keeps_each_fact_of_the_state_unchanged_and_in_order() -> None:
    document, alpha = sidecar(), STATE["refine"]["alpha"]
    assert json.dumps(document["source"]) == json.dumps(STATE["source"])
    assert json.dumps(document["options"]) == json.dumps(STATE["options"])
    assert json.dumps(document["quality"]) == json.dumps(alpha["quality"])
    assert json.dumps(document["refinement"]) == json.dumps(alpha["report"])
    assert document["image"]["foreground"] == {"left": 10, "top": 20, "width": 300, "height": 200}


@pytest.mark.parametrize("precision", list(Precision))
def test_the_sidecar_accepts_the_reports_of_refinement(precision: Precision) -> None:
    scene = scenes.disc()
    edge = pipeline.refine_edge(decode.decode(disc()), scenes.network_mask(scene.alpha), precision)
    alpha = {"key": "alpha", "report": edge.report, "quality": edge.quality_facts(), "seconds": 0.1}
    document = sidecar(refine={"alpha": json.loads(json.dumps(alpha))})
    assert (document["refinement"], document["quality"]) == (edge.report, edge.quality_facts())
    assert Result.model_validate(document).model_dump(mode="json") == document


def test_state_of_an_earlier_version_is_accepted() -> None:
    mask = {name: value for name, value in STATE["segment"]["mask"].items() if name != "quality"}
    report = {**STATE["refine"]["alpha"]["report"], "disagreement": 0.03}
    alpha = {**STATE["refine"]["alpha"], "report": report}
    state = {"segment": {"mask": mask}, "refine": {"alpha": alpha}}
    assert RefinedJob.model_validate({**STATE, **state}).segment.mask.quality is None
    document = sidecar(**state)
    assert document["refinement"] == report
    assert Result.model_validate(document).model_dump(mode="json") == document
