"""Deliver: one attempt to tell a receiver how a job ended."""

import hashlib
import json
import time
from typing import Any, Final

import boto3
from aws_lambda_powertools.utilities.parameters import SecretsProvider
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError

from core import outbound
from functions.shared.config import SDK
from functions.shared.errors import SecretUnavailableError, WebhookRefusedError, WebhookUnansweredError
from functions.shared.notice import Notice
from functions.shared.observe import stage
from functions.shared.store import Store
from functions.shared.urls import UrlConfig
from functions.shared.webhook_signing import sign, signing_secret

LINK_S: Final = 3600
"""How long the address of a result leads there."""

_ANSWER_S: Final = 15.0
_SECRET_KNOWN_S: Final = 300
_LATER: Final = {408, 425, 429}  # what a receiver says that wants to be asked again
_USER_AGENT: Final = "precision-background-remover-webhook/1"


class WebhookConfig(UrlConfig):
    """What webhooks are signed with."""

    webhook_secret_arn: str


CONFIG = WebhookConfig()
STORE = Store()
SECRETS = SecretsProvider(boto3_client=boto3.client("secretsmanager", config=SDK))


@stage(Notice)
def handler(notice: Notice) -> dict[str, Any]:
    """Return the status that the receiver answers with, which is one of success."""
    body = json.dumps(message(notice, STORE)).encode()
    secret = signing_secret(master_secret(CONFIG.webhook_secret_arn), notice.webhook.key_id)
    return {"status": send(notice, body, headers(notice, body, secret, int(time.time())), CONFIG.outbound)}


def event_id(notice: Notice) -> str:
    """Return the name of what is told: the same for each attempt, and for each execution of the job that ends so."""
    return f"evt_{hashlib.sha256(f'{notice.job_id} {notice.outcome}'.encode()).hexdigest()[:32]}"


def message(notice: Notice, store: Store) -> dict[str, Any]:
    """Return what is told."""
    told = {
        "id": event_id(notice),
        "type": f"job.{notice.outcome}",
        "created_at": notice.created_at,
        "job_id": notice.job_id,
        "data": notice.data,
    }
    if notice.outcome == "succeeded":
        result = notice.data["result"]
        told["result_url"] = store.url(result["bucket"], result["key"], LINK_S)
    return told


def headers(notice: Notice, body: bytes, secret: str, timestamp: int) -> dict[str, str]:
    """Return the headers of a message that is sent at a time, in seconds since 1970."""
    return {
        "Content-Type": "application/json",
        "User-Agent": _USER_AGENT,
        "X-PBR-Webhook-Id": event_id(notice),
        "X-PBR-Timestamp": str(timestamp),
        "X-PBR-Signature": sign(secret, timestamp, body),
    }


def master_secret(arn: str) -> str:
    """Return the stack's secret, which is known for some minutes.

    Raises:
        SecretUnavailableError: Secrets Manager does not hand it out.
    """
    try:
        return str(SECRETS.get(arn, max_age=_SECRET_KNOWN_S))
    except GetParameterError as error:
        raise SecretUnavailableError(
            "The secret that webhooks are signed with cannot be read",
            field="WEBHOOK_SECRET_ARN",
            value=arn,
            remedy="Give the function's role access to it, and see whether it is there.",
        ) from error


def send(notice: Notice, body: bytes, named: dict[str, str], policy: outbound.Policy) -> int:
    """Post a message and return the status of the answer, 200 to 299.

    Raises:
        WebhookRefusedError: the receiver does not want it, or the URL may not be opened.
        WebhookUnansweredError: no answer, or one that may be another one later.
    """
    try:
        status = outbound.post(notice.webhook.url, body, named, policy, timeout_s=_ANSWER_S, field="webhook.url").status
    except outbound.UrlError as error:
        kind = WebhookUnansweredError if error.retryable else WebhookRefusedError
        raise kind(error.message, field=error.field, value=error.value, remedy=error.remedy) from error
    if status in range(200, 300):
        return status
    kind = WebhookUnansweredError if status >= 500 or status in _LATER else WebhookRefusedError
    raise kind(
        f"The receiver answers with status {status}",
        field="webhook.url",
        value=status,
        remedy="A receiver answers with a status from 200 to 299 once it has the message.",
    )
