"""Deliver: one attempt to post a webhook."""

import json
from datetime import UTC, datetime
from typing import Any

import boto3
from aws_lambda_powertools.utilities.parameters import SecretsProvider

from functions.contracts.webhook import Notice
from functions.contracts.webhook_signature import signing_secret
from functions.runtime.config import SDK
from functions.runtime.edge import Edge, EdgeConfig
from functions.runtime.handler import stage
from functions.runtime.store import Store
from functions.runtime.url_policy import UrlConfig
from functions.webhook.message import headers, payload, post
from functions.webhook.secret import stack_secret


class WebhookConfig(UrlConfig, EdgeConfig):
    """The secret that signs webhooks, and the URLs they may be posted to."""

    webhook_secret_arn: str


CONFIG = WebhookConfig()
STORE = Store()
SECRETS_MANAGER = boto3.client("secretsmanager", config=SDK)
SECRETS = SecretsProvider(boto3_client=SECRETS_MANAGER)
EDGE = Edge(CONFIG.edge_secret_arn, CONFIG.aws_region, SECRETS_MANAGER) if CONFIG.edge_secret_arn else None


@stage(Notice)
def handler(notice: Notice) -> dict[str, Any]:
    """Return the status of the receiver's response, 200 to 299."""
    body = json.dumps(payload(notice, STORE, EDGE))
    secret = signing_secret(stack_secret(SECRETS, CONFIG.webhook_secret_arn), notice.webhook.key_id)
    signed = headers(notice, body, secret, datetime.now(UTC))
    return {"status": post(notice.webhook.url, body, signed, CONFIG.outbound)}
