"""Webhooks: payload, signature, and how responses are classified."""

import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from aws_lambda_powertools.utilities.parameters import SecretsProvider
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws
from standardwebhooks import Webhook, WebhookVerificationError

from functions.contracts.errors import SecretUnavailableError, WebhookRefusedError, WebhookUnansweredError
from functions.contracts.webhook import Notice
from functions.contracts.webhook_signature import signing_secret
from functions.runtime.safe_http import Policy
from functions.runtime.store import Store
from functions.runtime.url_policy import UrlConfig
from functions.webhook.message import headers, payload, post
from functions.webhook.secret import stack_secret
from tests.conftest import ROOT
from tests.fakes.fake_web import Web, closed_port, page

NOTICE = Notice.model_validate_json((ROOT / "events/webhook.json").read_text())
FAILED = NOTICE.model_copy(update={"outcome": "failed", "data": {"error": "CorruptImageError"}})
POLICY = Policy(schemes=("http",), networks=("127.0.0.0/8",))
SECRET, BODY = signing_secret("stack", "k1"), '{"type": "job.succeeded"}'


@pytest.fixture
def receiver() -> Iterator[Web]:
    with Web() as web:
        yield web


@pytest.fixture
def store() -> Iterator[Store]:
    with mock_aws():
        yield Store(boto3.client("s3", "eu-west-1", aws_access_key_id="k", aws_secret_access_key="s"))


# ---- Signatures


def signed(secret: str = SECRET, body: str = BODY, *, age_s: int = 0) -> dict[str, str]:
    return headers(NOTICE, body, secret, datetime.now(UTC) - timedelta(seconds=age_s))


@given(st.text(), st.text(), st.dictionaries(st.text(), st.text()))
def test_signature_is_verified_by_the_standard_library(stack: str, caller: str, document: dict[str, str]) -> None:
    secret, body = signing_secret(stack, caller), json.dumps(document)
    assert Webhook(secret).verify(body, signed(secret, body)) == document


@pytest.mark.parametrize("age_s", [-400, 400])
def test_old_and_future_messages_are_rejected(age_s: int) -> None:
    with pytest.raises(WebhookVerificationError, match="timestamp too"):
        Webhook(SECRET).verify(BODY, signed(age_s=age_s))
    Webhook(SECRET).verify(BODY, signed(age_s=age_s // 2))


@pytest.mark.parametrize(
    "forged",
    [
        {"body": BODY + " "},
        {"webhook-timestamp": str(int(datetime.now(UTC).timestamp()) - 100)},
        {"webhook-timestamp": "1767607200"},
        {"webhook-timestamp": "soon"},
        {"webhook-timestamp": ""},
        {"webhook-id": "evt_2"},
        {"secret": signing_secret("stack", "k2")},
        {"secret": signing_secret("another", "k1")},
        {"webhook-signature": ""},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v2," + "A" * 43 + "="},
        {"webhook-signature": "v1," + "A" * 43 + "="},
    ],  # no ids of their values: a time of day in an id differs between processes
)
def test_forged_messages_are_rejected(forged: dict[str, str]) -> None:
    def verify(secret: str, body: str, **sent: str) -> None:
        Webhook(secret).verify(body, sent)

    genuine = {"secret": SECRET, "body": BODY, **signed()}
    verify(**genuine)
    with pytest.raises(WebhookVerificationError):
        verify(**{**genuine, **forged})


def test_each_caller_has_its_own_secret() -> None:
    secrets = {signing_secret("stack", caller) for caller in ("k1", "k2", "")}
    assert len(secrets) == 3
    assert all(re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", secret) for secret in secrets)


def test_deprecated_signature_is_still_sent() -> None:
    """Its key is the secret's text as pbr 0.1 printed it: URL-safe base64 without padding."""
    secret = next(s for s in (signing_secret("stack", f"k{n}") for n in range(100)) if "+" in s and "/" in s)
    sent = signed(secret)
    key = secret.replace("+", "-").replace("/", "_").rstrip("=").encode()
    digest = hmac.new(key, f"{sent['X-PBR-Timestamp']}.{BODY}".encode(), hashlib.sha256).hexdigest()
    assert sent["X-PBR-Signature"] == f"v1={digest}"
    assert (sent["X-PBR-Timestamp"], sent["X-PBR-Webhook-Id"]) == (sent["webhook-timestamp"], sent["webhook-id"])


def test_stack_secret_is_cached_and_a_failed_read_is_not() -> None:
    with mock_aws():
        client = boto3.client("secretsmanager", "eu-west-1", aws_access_key_id="k", aws_secret_access_key="s")
        secrets = SecretsProvider(boto3_client=client)
        with pytest.raises(SecretUnavailableError):
            stack_secret(secrets, "webhooks")
        client.create_secret(Name="webhooks", SecretString="first")
        assert stack_secret(secrets, "webhooks") == "first"
        client.put_secret_value(SecretId="webhooks", SecretString="another")
        assert stack_secret(secrets, "webhooks") == "first"


# ---- Payload


def test_payload_of_a_success_has_the_sidecar_and_a_result_url(store: Store) -> None:
    document = payload(NOTICE, store, None)
    assert (document["type"], document["job_id"], document["created_at"]) == (
        "job.succeeded",
        "6f3a",
        NOTICE.created_at,
    )
    assert document["data"] == NOTICE.data
    assert "/results/api/k1/6f3a/cup.png.png?" in document["result_url"]


def test_payload_of_a_failure_has_the_report(store: Store) -> None:
    document = payload(FAILED, store, None)
    assert (document["type"], document["data"]) == ("job.failed", {"error": "CorruptImageError"})
    assert "result_url" not in document


def test_message_id_is_stable_over_retries_and_differs_by_outcome(store: Store) -> None:
    retried = NOTICE.model_copy(
        update={"execution": NOTICE.execution.model_copy(update={"name": "6f3a-retry-2"}), "created_at": "later"}
    )
    assert (
        payload(retried, store, None)["id"] == payload(NOTICE, store, None)["id"] != payload(FAILED, store, None)["id"]
    )
    assert payload(retried, store, None)["job_id"] == "6f3a"


def test_posted_webhook_can_be_verified(receiver: Web, store: Store) -> None:
    receiver.pages["127.0.0.1/hook"] = page(status=204)
    body = json.dumps(payload(NOTICE, store, None))
    url = f"http://127.0.0.1:{receiver.port}/hook"
    assert post(url, body, signed(body=body), POLICY) == 204
    [request] = receiver.requests
    document = Webhook(SECRET).verify(request.body, dict(request.headers))
    assert document["id"] == request.headers["webhook-id"] == request.headers["x-pbr-webhook-id"]
    assert (request.method, request.headers["content-type"]) == ("POST", "application/json")


# ---- Responses


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503, 599])
def test_retryable_statuses(receiver: Web, status: int) -> None:
    receiver.pages["127.0.0.1/hook"] = page(status=status)
    with pytest.raises(WebhookUnansweredError, match=str(status)):
        post(f"http://127.0.0.1:{receiver.port}/hook", BODY, {}, POLICY)


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 410, 422])
def test_permanent_statuses(receiver: Web, status: int) -> None:
    receiver.pages["127.0.0.1/hook"] = page(status=status, location="/elsewhere")
    with pytest.raises(WebhookRefusedError, match=str(status)):
        post(f"http://127.0.0.1:{receiver.port}/hook", BODY, {}, POLICY)
    assert len(receiver.requests) == 1


def test_disallowed_url_is_permanent_and_its_path_stays_out_of_the_error() -> None:
    with pytest.raises(WebhookRefusedError) as caught:
        post("https://127.0.0.1/hook/s3cr3t?token=s3cr3t", BODY, {}, Policy())
    assert (caught.value.field, caught.value.value) == ("webhook.url", "https://127.0.0.1")
    assert "s3cr3t" not in json.dumps(caught.value.facts())


def test_refused_connection_is_retryable() -> None:
    with pytest.raises(WebhookUnansweredError):
        post(f"http://127.0.0.1:{closed_port()}/hook", BODY, {}, POLICY)


def test_url_policy_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URL_SCHEMES", "https")
    monkeypatch.setenv("URL_NETWORKS", "")
    assert UrlConfig().outbound == Policy()
    monkeypatch.setenv("URL_SCHEMES", "http,https")
    monkeypatch.setenv("URL_NETWORKS", "10.0.0.0/8, 192.168.0.0/16")
    assert UrlConfig().outbound == Policy(("http", "https"), ("10.0.0.0/8", "192.168.0.0/16"))
