"""What a receiver is told, and what its answer means."""

import hashlib
import re
from typing import Any, Final

from functions.contracts.errors import WebhookRefusedError, WebhookUnansweredError
from functions.contracts.webhook import Notice
from functions.contracts.webhook_signature import sign
from functions.runtime import safe_http
from functions.runtime.store import Store

LINK_S: Final = 3600
"""How long the address of a result leads there."""

ANSWER_S: Final = 15.0
"""How long a receiver has to answer, from the lookup of its name on."""

_LATER: Final = {408, 425, 429}  # what a receiver says that wants to be asked again
_USER_AGENT: Final = "precision-background-remover-webhook/1"


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
        told["result_url"] = store.url(result["bucket"], result["key"], result["version_id"], LINK_S)
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


def send(url: str, body: bytes, named: dict[str, str], policy: safe_http.Policy) -> int:
    """Post a message and return the status of the answer, 200 to 299.

    Raises:
        WebhookRefusedError: the receiver does not want it, or the URL may not be opened.
        WebhookUnansweredError: no answer, or one that may be another one later.
    """
    try:
        status = safe_http.post(url, body, named, policy, timeout_s=ANSWER_S, field="webhook.url")
    except safe_http.UrlError as error:
        kind = WebhookUnansweredError if error.retryable else WebhookRefusedError
        raise kind(error.message, field=error.field, value=_origin(str(error.value)), remedy=error.remedy) from error
    if status in range(200, 300):
        return status
    kind = WebhookUnansweredError if status >= 500 or status in _LATER else WebhookRefusedError
    raise kind(
        f"The receiver answers with status {status}",
        field="webhook.url",
        value=status,
        remedy="A receiver answers with a status from 200 to 299 once it has the message.",
    )


def _origin(url: str) -> str:
    """Return a URL without its path, which is the secret of many receivers, and goes into logs."""
    return re.sub(r"^([^/]*//)?([^/]*).*", r"\1\2", url, flags=re.DOTALL)
