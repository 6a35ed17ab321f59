"""PublishMetrics: publish a job's metrics in CloudWatch's embedded metric format, which needs no API call."""

from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from pydantic import BaseModel

from functions.contracts.job import Execution
from functions.contracts.outcome import ObjectVersion
from functions.metrics.buckets import image_size
from functions.runtime.config import Config
from functions.runtime.handler import count, logger, measure, stage
from functions.runtime.outcomes import Outcomes
from functions.runtime.store import Store


class MetricsConfig(Config):
    """Buckets of PublishMetrics."""

    results_bucket: str


class FinalState(BaseModel):
    """The end of the workflow state: a sidecar or a failure, and errors that did not fail the job."""

    done: dict[str, Any] | None = None
    failure: dict[str, Any] | None = None
    fallback: dict[str, dict[str, str]] = {}
    degraded: dict[str, dict[str, str]] = {}


class MetricsRequest(BaseModel):
    """The workflow state and its execution."""

    state: FinalState
    execution: Execution


CONFIG = MetricsConfig()
OUTCOMES = Outcomes(Store(), CONFIG.results_bucket)


@stage(MetricsRequest)
def handler(request: MetricsRequest) -> dict[str, Any]:
    """Publish the metrics, and return an empty part of the state.

    On a cache hit, delete failure reports of earlier executions of the upload. Encode does so for new results.
    """
    publish(request.state)
    document = request.state.done and request.state.done["document"]
    if document and document["cache"]["hit"] and not request.state.failure:
        OUTCOMES.delete_stale_reports(ObjectVersion(**document["source"]), request.execution)
    return {}


def publish(final: FinalState) -> None:
    """Publish the outcome of an execution, and the errors that did not fail it."""
    for name, caught in {**final.fallback, **final.degraded}.items():
        logger.error("degraded", extra={"state": name, "caught": caught})
        count("Degraded", {"Stage": name})
    if final.failure:
        count("Failed", {"Stage": final.failure["stage"], "Error": final.failure["error"]})
    elif final.done:
        publish_result(final.done["document"])


def publish_result(document: dict[str, Any]) -> None:
    """Publish the metrics of a result. A cache hit has its own timings, but no quality of its own."""
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
