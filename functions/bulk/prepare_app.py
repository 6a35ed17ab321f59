"""PrepareBulk: the first state of a bulk run."""

from typing import Any

from pydantic import BaseModel

from functions.bulk.objects import BulkObjects
from functions.bulk.prepare import PrepareConfig, Preparer
from functions.contracts.bulk import BulkRequest
from functions.contracts.job import Execution
from functions.runtime.handler import parse, stage


class PrepareRequest(BaseModel):
    """The execution and its input."""

    input: dict[str, Any]
    execution: Execution


PREPARER = Preparer(PrepareConfig(), BulkObjects())


@stage(PrepareRequest)
def handler(request: PrepareRequest) -> dict[str, Any]:
    """Return what :meth:`functions.bulk.prepare.Preparer.prepare` returns."""
    return PREPARER.prepare(parse(BulkRequest, request.input), request.execution)
