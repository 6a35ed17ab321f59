"""Build, sign and post webhooks."""

import hashlib
import hmac
import re
from datetime import datetime
from typing import Any, Final

from standardwebhooks import Webhook

from functions.contracts.errors import WebhookRefusedError, WebhookUnansweredError
from functions.contracts.webhook import Notice
from functions.runtime import safe_http
from functions.runtime.edge import Edge, result_url
from functions.runtime.store import Store

LINK_S: Final = 3600
"""Lifetime of the URL of the result, in seconds."""

ANSWER_S: Final = 15.0
"""Timeout of a delivery, DNS lookup included."""

_RETRYABLE: Final = {408, 425, 429}  # and all of 5xx
_USER_AGENT: Final = "precision-background-remover-webhook/1"


def message_id(notice: Notice) -> str:
    """Return the message's id. It depends on job and outcome only, so retries and redriven executions share it."""
    return f"evt_{hashlib.sha256(f'{notice.job_id} {notice.outcome}'.encode()).hexdigest()[:32]}"


def payload(notice: Notice, store: Store, edge: Edge | None) -> dict[str, Any]:
    """Return the webhook's body as a JSON object."""
    document = {
        "id": message_id(notice),
        "type": f"job.{notice.outcome}",
        "created_at": notice.created_at,
        "job_id": notice.job_id,
        "data": notice.data,
    }
    if notice.outcome == "succeeded":
        document["result_url"] = result_url(notice.data["result"], store, edge, LINK_S)
    return document


def headers(notice: Notice, body: str, secret: str, sent_at: datetime) -> dict[str, str]:
    """Return the headers of a webhook, signed by the Standard Webhooks specification.

    Args:
        notice: the job's end.
        body: the webhook's body.
        secret: the caller's secret, ``whsec_...``.
        sent_at: the time of this attempt, in UTC.
    """
    name, timestamp = message_id(notice), int(sent_at.timestamp())
    return {
        "Content-Type": "application/json",
        "User-Agent": _USER_AGENT,
        "webhook-id": name,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": Webhook(secret).sign(name, sent_at, body),
        # Deprecated, removed in 0.3.0:
        "X-PBR-Webhook-Id": name,
        "X-PBR-Timestamp": str(timestamp),
        "X-PBR-Signature": _deprecated_signature(secret, timestamp, body),
    }


def _deprecated_signature(secret: str, timestamp: int, body: str) -> str:
    """Return the signature of 0.1: its key is the text of the secret in URL-safe base64 without padding."""
    key = secret.translate(str.maketrans("+/", "-_", "="))
    return f"v1={hmac.new(key.encode(), f'{timestamp}.{body}'.encode(), hashlib.sha256).hexdigest()}"


def post(url: str, body: str, signed: dict[str, str], policy: safe_http.Policy) -> int:
    """Post a webhook and return the status of the response, 200 to 299.

    Raises:
        WebhookRefusedError: the receiver rejects the webhook, or the URL is not allowed.
        WebhookUnansweredError: no response, or a status that is worth a retry.
    """
    try:
        status = safe_http.post(url, body.encode(), signed, policy, timeout_s=ANSWER_S, field="webhook.url")
    except safe_http.UrlError as error:
        kind = WebhookUnansweredError if error.retryable else WebhookRefusedError
        raise kind(error.message, field=error.field, value=_origin(str(error.value)), remedy=error.remedy) from error
    if status in range(200, 300):
        return status
    kind = WebhookUnansweredError if status >= 500 or status in _RETRYABLE else WebhookRefusedError
    raise kind(
        f"The receiver responded with status {status}",
        field="webhook.url",
        value=status,
        remedy="Respond with a status from 200 to 299 once the webhook is received.",
    )


def _origin(url: str) -> str:
    """Return a URL without its path and query, which often hold a secret and must not be logged."""
    return re.sub(r"^([^/]*//)?([^/]*).*", r"\1\2", url, flags=re.DOTALL)
