"""Validate: check the request and the image, and create the workflow state."""

import os
from typing import Any

from pydantic import BaseModel

from functions.contracts.job import Execution
from functions.runtime.handler import stage
from functions.runtime.inspection import Inspector
from functions.runtime.store import Store
from functions.validate.job import ValidateConfig, Validator
from functions.validate.upload import read_upload


class ValidateRequest(BaseModel):
    """The execution and its input."""

    input: dict[str, Any]
    execution: Execution


INSPECTOR = Inspector()
VALIDATOR = Validator(ValidateConfig(), Store(), INSPECTOR)
if "AWS_LAMBDA_RUNTIME_API" in os.environ:  # the init phase is shorter if both processes import at the same time
    INSPECTOR.start()


@stage(ValidateRequest)
def handler(request: ValidateRequest) -> dict[str, Any]:
    """Return the :class:`functions.contracts.job.Job`."""
    return VALIDATOR.accept(read_upload(request.input), request.execution).job
