"""Publish a job's metrics in CloudWatch's embedded metric format, which needs no API call."""

from collections.abc import Callable
from typing import Any, Final

from pydantic import BaseModel

from functions.metrics.buckets import image_size
from functions.runtime.handler import count, logger, measure

_SEGMENTATION: Final = ("segment", "escalation")


class FinalState(BaseModel):
    """The end of the workflow state: a sidecar or a failure, and errors that did not fail the job."""

    done: dict[str, Any] | None = None
    failure: dict[str, Any] | None = None
    fallback: dict[str, dict[str, str]] = {}
    degraded: dict[str, dict[str, str]] = {}


def publish(final: FinalState, usd_of: Callable[[dict[str, Any]], float]) -> None:
    """Publish the outcome of an execution, and the errors that did not fail it.

    Args:
        final: the end of the workflow state.
        usd_of: returns the cost of a result in US dollars, from its sidecar.
    """
    for name, caught in {**final.fallback, **final.degraded}.items():
        logger.error("degraded", extra={"state": name, "caught": caught})
        count("Degraded", Stage=name)
    if final.failure:
        count("Failed", Stage=final.failure["stage"], Error=final.failure["error"])
    elif final.done:
        document = final.done["document"]
        publish_result(document, usd_of(document))


def lambda_timings_s(document: dict[str, Any]) -> dict[str, float]:
    """Return the durations of a result's stages that ran on Lambda, by stage.

    The sidecar names the host of one of two attempts. It stands for both.
    """
    return {
        name: seconds
        for name, seconds in document["timings_s"].items()
        if name not in _SEGMENTATION or document["model"]["host"] == "lambda"
    }


def publish_result(document: dict[str, Any], usd: float) -> None:
    """Publish the metrics of a result. A cache hit has its own timings, but no quality of its own.

    Args:
        document: the sidecar.
        usd: cost of the result in US dollars.
    """
    hit = document["cache"]["hit"]
    size = image_size(document["source"]["width"], document["source"]["height"])
    for stage_name, seconds in document["timings_s"].items():
        measure("ProcessingTime", seconds * 1000, Stage=stage_name, ImageSize=size)
    count("CacheHit" if hit else "Processed", ImageSize=size)
    measure("EstimatedCost", usd)
    if not hit:
        count("Segmented", Host=document["model"]["host"])
        model, quality = document["model"]["name"], document["quality"]
        measure("QualityScore", quality["score"], Model=model, ImageSize=size)
        measure("Review", float(quality["review"]), Model=model, ImageSize=size)
        if escalation := document["escalation"]:
            count("Escalated", Kept=escalation["kept"])
