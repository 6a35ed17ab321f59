"""PublishMetrics: publish a job's metrics, and open the review of a doubtful result."""

from typing import Any

from pydantic import BaseModel

from functions.contracts.job import Execution
from functions.contracts.outcome import ObjectVersion
from functions.metrics.config import MetricsConfig
from functions.metrics.publish import FinalState, publish
from functions.runtime.handler import stage
from functions.runtime.outcomes import Outcomes
from functions.runtime.reviews import Reviews
from functions.runtime.store import Store


class MetricsRequest(BaseModel):
    """The workflow state and its execution."""

    state: FinalState
    execution: Execution


CONFIG = MetricsConfig()
OUTCOMES = Outcomes(Store(), CONFIG.results_bucket)
REVIEWS = Reviews(CONFIG.reviews_table)


@stage(MetricsRequest)
def handler(request: MetricsRequest) -> dict[str, Any]:
    """Publish the metrics, open the review of a doubtful result, and return an empty part of the state.

    On a cache hit, delete failure reports of earlier executions of the upload. Encode does so for new results.
    """
    publish(request.state, CONFIG.usd_of)
    document = request.state.done and request.state.done["document"]
    if document and not request.state.failure:
        REVIEWS.open(document)
        if document["cache"]["hit"]:
            OUTCOMES.delete_stale_reports(ObjectVersion(**document["source"]), request.execution)
    return {}
