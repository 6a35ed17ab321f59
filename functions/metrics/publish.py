"""Publish a job's metrics in CloudWatch's embedded metric format, which needs no API call."""

from typing import Any

from pydantic import BaseModel

from functions.metrics.buckets import image_size
from functions.runtime.handler import count, logger, measure


class FinalState(BaseModel):
    """The end of the workflow state: a sidecar or a failure, and errors that did not fail the job."""

    done: dict[str, Any] | None = None
    failure: dict[str, Any] | None = None
    fallback: dict[str, dict[str, str]] = {}
    degraded: dict[str, dict[str, str]] = {}


def publish(final: FinalState) -> None:
    """Publish the outcome of an execution, and the errors that did not fail it."""
    for name, caught in {**final.fallback, **final.degraded}.items():
        logger.error("degraded", extra={"state": name, "caught": caught})
        count("Degraded", Stage=name)
    if final.failure:
        count("Failed", Stage=final.failure["stage"], Error=final.failure["error"])
    elif final.done:
        publish_result(final.done["document"])


def publish_result(document: dict[str, Any]) -> None:
    """Publish the metrics of a result. A cache hit has its own timings, but no quality of its own."""
    hit = document["cache"]["hit"]
    size = image_size(document["source"]["width"], document["source"]["height"])
    for stage_name, seconds in document["timings_s"].items():
        measure("ProcessingTime", seconds * 1000, Stage=stage_name, ImageSize=size)
    count("CacheHit" if hit else "Processed", ImageSize=size)
    if not hit:
        model, quality = document["model"]["name"], document["quality"]
        measure("QualityScore", quality["score"], Model=model, ImageSize=size)
        measure("Review", float(quality["review"]), Model=model, ImageSize=size)
        if escalation := document["escalation"]:
            count("Escalated", Kept=escalation["kept"])
