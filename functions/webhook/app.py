"""Deliver: one attempt to tell a receiver how a job ended."""

import json
import time
from typing import Any

import boto3
from aws_lambda_powertools.utilities.parameters import SecretsProvider

from functions.contracts.webhook import Notice
from functions.contracts.webhook_signature import signing_secret
from functions.runtime.config import SDK
from functions.runtime.handler import stage
from functions.runtime.store import Store
from functions.runtime.url_policy import UrlConfig
from functions.webhook.message import headers, message, send
from functions.webhook.secret import master_secret


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
    secret = signing_secret(master_secret(SECRETS, CONFIG.webhook_secret_arn), notice.webhook.key_id)
    named = headers(notice, body, secret, int(time.time()))
    return {"status": send(notice.webhook.url, body, named, CONFIG.outbound)}
