"""SummarizeBulk: the last state of a bulk run."""

from typing import Any

from pydantic import BaseModel

from functions.bulk.objects import BulkObjects
from functions.bulk.summary import Plan, Summarizer, SummaryConfig
from functions.runtime.handler import stage
from functions.runtime.store import Store


class SummaryRequest(BaseModel):
    """The state of the run; ``failed`` is the error of its Map state."""

    plan: Plan
    failed: dict[str, str] | None = None


SUMMARIZER = Summarizer(SummaryConfig(), Store(), BulkObjects())


@stage(SummaryRequest)
def handler(request: SummaryRequest) -> dict[str, Any]:
    """Return the :class:`functions.contracts.bulk.BulkSummary`."""
    return SUMMARIZER.summarize(request.plan, request.failed).model_dump(mode="json")
