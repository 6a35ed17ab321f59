"""Webhooks: the receiver in an execution's input, and the input of the state machine that delivers webhooks."""

import hashlib
import re
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from functions.contracts.job import Execution

RETRY: Final = re.compile(r"-retry-(\d+)$")
"""Suffix that ``pbr redrive`` adds to the name of an execution that it starts again."""


class Webhook(BaseModel):
    """A job's webhook: the URL, and the API key whose secret signs the message.

    Whether the URL is allowed is checked at delivery.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, Field(max_length=8192, pattern=r"(?i)^https?://")]
    key_id: Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9]+$")]


class Notice(BaseModel):
    """The end of a job, to be delivered to its webhook.

    Attributes:
        webhook: receiver.
        execution: execution of the job.
        outcome: how the job ended.
        created_at: when the job ended, ISO 8601.
        data: the result document, or the failure.
    """

    webhook: Webhook
    execution: Execution
    outcome: Literal["succeeded", "failed"]
    created_at: str
    data: dict[str, Any]

    @property
    def job_id(self) -> str:
        """ID of the job: the name of its first execution."""
        return RETRY.sub("", self.execution.name)

    @property
    def delivery(self) -> str:
        """Name of the execution that delivers the notice. The state StartWebhook uses the same name.

        The job's name may have 80 characters, the longest name, so it is hashed.
        """
        return f"{hashlib.sha256(self.execution.name.encode()).hexdigest()}-{self.outcome}"
