"""What is to be told to whom once a job has ended: the input of the state machine that delivers webhooks."""

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from functions.contracts.job import Execution

RETRY: Final = re.compile(r"-retry-(\d+)$")
"""What ``pbr redrive`` adds to the name of an execution that it starts anew."""


class Webhook(BaseModel):
    """Where to tell of a job, and whose secret signs it; as an execution's input has it.

    Whether the URL may be opened is seen when it is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, Field(max_length=8192, pattern=r"(?i)^https?://")]
    key_id: Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9]+$")]


class Notice(BaseModel):
    """A job's end.

    Attributes:
        webhook: whom to tell.
        execution: that of the job.
        outcome: how it ended.
        created_at: when that was, ISO 8601.
        data: the result's sidecar, or what failed.
    """

    webhook: Webhook
    execution: Execution
    outcome: Literal["succeeded", "failed"]
    created_at: str
    data: dict[str, Any]

    @property
    def job_id(self) -> str:
        """The job, which has the name of its first execution."""
        return RETRY.sub("", self.execution.name)

    @property
    def delivery(self) -> str:
        """The name of the execution that delivers it: the state StartWebhook gives it the same."""
        return f"{self.execution.name}-{self.outcome}"
