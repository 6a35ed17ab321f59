"""PublishMetrics: one job's facts in CloudWatch's embedded metric format, which costs a log line and no API call."""

from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from pydantic import BaseModel

from functions.contracts.job import Execution
from functions.metrics.buckets import image_size
from functions.runtime.config import Config
from functions.runtime.handler import count, logger, measure, stage
from functions.runtime.outcomes import ObjectVersion, Outcomes
from functions.runtime.store import Store


class MetricsConfig(Config):
    """Where the outcomes lie."""

    results_bucket: str


class FinalState(BaseModel):
    """What the state has to say at its end: a sidecar, or a failure; and what failed without failing the job."""

    done: dict[str, Any] | None = None
    failure: dict[str, Any] | None = None
    fallback: dict[str, dict[str, str]] = {}
    degraded: dict[str, dict[str, str]] = {}


class MetricsRequest(BaseModel):
    """The state, and whose it is."""

    state: FinalState
    execution: Execution


CONFIG = MetricsConfig()
OUTCOMES = Outcomes(Store(), CONFIG.results_bucket)


@stage(MetricsRequest)
def handler(request: MetricsRequest) -> dict[str, Any]:
    """Publish and return nothing that the state needs.

    An upload that failed in an earlier execution and is served from the cache has no failure any more; where the result
    is made anew, Encode sees to that.
    """
    publish(request.state)
    document = request.state.done and request.state.done["document"]
    if document and document["cache"]["hit"] and not request.state.failure:
        OUTCOMES.delete_stale_reports(ObjectVersion(**document["source"]), request.execution)
    return {}


def publish(final: FinalState) -> None:
    """Publish what became of an execution, and what failed in it without failing it."""
    for name, caught in {**final.fallback, **final.degraded}.items():
        logger.error("degraded", extra={"state": name, "caught": caught})
        count("Degraded", {"Stage": name})
    if final.failure:
        count("Failed", {"Stage": final.failure["stage"], "Error": final.failure["error"]})
    elif final.done:
        publish_result(final.done["document"])


def publish_result(document: dict[str, Any]) -> None:
    """Publish the metrics of a finished job; a cache hit has timings of its own and no quality of its own."""
    hit = document["cache"]["hit"]
    size = image_size(document["source"]["width"], document["source"]["height"])
    for stage_name, seconds in document["timings_s"].items():
        dimensions = {"Stage": stage_name, "ImageSize": size}
        measure("ProcessingTime", MetricUnit.Milliseconds, seconds * 1000, dimensions)
    count("CacheHit" if hit else "Processed", {"ImageSize": size})
    if not hit:
        dimensions = {"Model": document["model"]["name"], "ImageSize": size}
        measure("QualityScore", MetricUnit.NoUnit, document["quality"]["score"], dimensions)
        measure("Review", MetricUnit.Count, float(document["quality"]["review"]), dimensions)
        if escalation := document["escalation"]:
            count("Escalated", {"Kept": escalation["kept"]})
