"""Deliver: one attempt to tell a receiver how a job ended."""

import json
import time
from typing import Any, Final

import boto3
from aws_lambda_powertools.utilities.parameters import SecretsProvider
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError

from functions.shared.config import SDK
from functions.shared.errors import SecretUnavailableError
from functions.shared.notice import Notice
from functions.shared.observe import stage
from functions.shared.store import Store
from functions.shared.urls import UrlConfig
from functions.shared.webhook_signing import signing_secret
from functions.webhook.message import headers, message, send

_SECRET_KNOWN_S: Final = 300


class WebhookConfig(UrlConfig):
    """What webhooks are signed with, and where they may go."""

    webhook_secret_arn: str


CONFIG = WebhookConfig()
STORE = Store()
SECRETS = SecretsProvider(boto3_client=boto3.client("secretsmanager", config=SDK))


@stage(Notice)
def handler(notice: Notice) -> dict[str, Any]:
    """Return the status that the receiver answers with, which is one of success."""
    body = json.dumps(message(notice, STORE)).encode()
    secret = signing_secret(master_secret(CONFIG.webhook_secret_arn), notice.webhook.key_id)
    named = headers(notice, body, secret, int(time.time()))
    return {"status": send(notice.webhook.url, body, named, CONFIG.outbound)}


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
