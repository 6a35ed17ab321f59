"""PublishMetrics: one job's facts in CloudWatch's embedded metric format, which costs a log line and no API call."""

from typing import Any

from aws_lambda_powertools import single_metric
from aws_lambda_powertools.metrics import MetricUnit
from pydantic import BaseModel

from functions.metrics.buckets import image_size
from functions.shared.job import Execution
from functions.shared.observe import logger, stage


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


@stage(MetricsRequest)
def handler(request: MetricsRequest) -> dict[str, Any]:
    """Publish and return nothing that the state needs."""
    final = request.state
    for name, caught in {**final.fallback, **final.degraded}.items():
        logger.error("degraded", extra={"state": name, "caught": caught})
        count("Degraded", {"Stage": name})
    if final.failure:
        count("Failed", {"Stage": final.failure["stage"], "Error": final.failure["error"]})
    elif final.done:
        publish(final.done["document"])
    return {}


def publish(document: dict[str, Any]) -> None:
    """Publish the metrics of a finished job; a cache hit has timings of its own and no quality of its own."""
    hit = document["cache"]["hit"]
    size = image_size(document["source"]["width"], document["source"]["height"])
    for stage_name, seconds in document["timings_s"].items():
        dimensions = {"Stage": stage_name, "ImageSize": size}
        put("ProcessingTime", MetricUnit.Milliseconds, seconds * 1000, dimensions)
    count("CacheHit" if hit else "Processed", {"ImageSize": size})
    if not hit:
        dimensions = {"Model": document["model"]["name"], "ImageSize": size}
        put("QualityScore", MetricUnit.NoUnit, document["quality"]["score"], dimensions)
        put("Review", MetricUnit.Count, float(document["quality"]["review"]), dimensions)
        if escalation := document["escalation"]:
            count("Escalated", {"Kept": escalation["kept"]})


def count(name: str, dimensions: dict[str, str]) -> None:
    """Publish one occurrence."""
    put(name, MetricUnit.Count, 1, dimensions)


def put(name: str, unit: MetricUnit, value: float, dimensions: dict[str, str]) -> None:
    """Publish one value under all of its dimensions together."""
    with single_metric(name=name, unit=unit, value=value) as metric:
        for dimension, text in dimensions.items():
            metric.add_dimension(name=dimension, value=text)
