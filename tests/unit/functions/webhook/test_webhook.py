"""Webhooks: what is told, how it is signed, and what the receiver's answer means."""

import inspect
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from aws_lambda_powertools.utilities.parameters import SecretsProvider
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from functions.contracts import webhook_signature
from functions.contracts.errors import SecretUnavailableError, WebhookRefusedError, WebhookUnansweredError
from functions.contracts.webhook import Notice
from functions.contracts.webhook_signature import sign, signing_secret
from functions.runtime.safe_http import Policy
from functions.runtime.store import Store
from functions.runtime.url_policy import UrlConfig
from functions.webhook.message import headers, message, send
from functions.webhook.secret import master_secret
from tests.conftest import ROOT
from tests.fakes.fake_web import Web, closed_port, page

NOTICE = Notice.model_validate_json((ROOT / "events/webhook.json").read_text())
FAILED = NOTICE.model_copy(update={"outcome": "failed", "data": {"error": "CorruptImageError"}})
POLICY = Policy(schemes=("http",), networks=("127.0.0.0/8",))

Verify = Callable[..., bool]


@pytest.fixture(scope="module")
def verify() -> Verify:
    """What the documentation gives to receivers, out of its own text."""
    blocks = [
        block
        for file in sorted((ROOT / "docs").glob("*.md"))
        for block in re.findall(r"```python\n(.*?)```", file.read_text(), re.DOTALL)
        if "def verify(" in block
    ]
    [snippet] = blocks
    names: dict[str, Any] = {}
    exec(snippet, names)
    assert inspect.getsource(webhook_signature.verify) in snippet, "both are one"
    found: Verify = names["verify"]
    return found


@pytest.fixture
def receiver() -> Iterator[Web]:
    with Web() as web:
        yield web


@pytest.fixture
def store() -> Iterator[Store]:
    with mock_aws():
        yield Store(boto3.client("s3", "eu-west-1", aws_access_key_id="k", aws_secret_access_key="s"))


# ---- Signatures


@given(st.text(), st.text(), st.binary())
def test_what_is_signed_is_verified(verify: Verify, master: str, key_id: str, body: bytes) -> None:
    secret, now = signing_secret(master, key_id), int(time.time())
    assert verify(secret, str(now), sign(secret, now, body), body)


SECRET, BODY = signing_secret("master", "k1"), b'{"type": "job.succeeded"}'


@pytest.mark.parametrize("age_s", [-400, 400])
def test_a_message_that_was_recorded_is_refused(verify: Verify, age_s: int) -> None:
    then = int(time.time()) - age_s
    assert not verify(SECRET, str(then), sign(SECRET, then, BODY), BODY)
    assert verify(SECRET, str(then), sign(SECRET, then, BODY), BODY, tolerance_s=500)


@pytest.mark.parametrize(
    "forged",
    [
        {"body": BODY + b" "},
        {"timestamp": "1767607200"},
        {"timestamp": "soon"},
        {"timestamp": ""},
        {"secret": signing_secret("master", "k2")},
        {"secret": signing_secret("another", "k1")},
        {"signature": ""},
        {"signature": "v1="},
        {"signature": "v2=" + "0" * 64},
        {"signature": "ü"},
    ],
    ids=str,
)
def test_what_was_not_signed_like_that_is_refused(verify: Verify, forged: dict[str, Any]) -> None:
    now = int(time.time())
    genuine = {"secret": SECRET, "timestamp": str(now), "signature": sign(SECRET, now, BODY), "body": BODY}
    assert verify(**genuine)
    assert not verify(**{**genuine, **forged})


def test_each_caller_has_a_secret_of_its_own_that_tells_nothing_of_the_stack_s() -> None:
    secrets = {signing_secret("master", key_id) for key_id in ("k1", "k2", "")}
    assert len(secrets) == 3
    assert all(re.fullmatch(r"whsec_[\w-]{43}", secret) for secret in secrets)


def test_the_stack_s_secret_is_read_once_and_one_that_cannot_be_is_asked_for_later() -> None:
    with mock_aws():
        client = boto3.client("secretsmanager", "eu-west-1", aws_access_key_id="k", aws_secret_access_key="s")
        secrets = SecretsProvider(boto3_client=client)
        with pytest.raises(SecretUnavailableError):
            master_secret(secrets, "webhooks")
        client.create_secret(Name="webhooks", SecretString="master")
        assert master_secret(secrets, "webhooks") == "master"
        client.put_secret_value(SecretId="webhooks", SecretString="another")
        assert master_secret(secrets, "webhooks") == "master"


# ---- What is told


def test_of_a_result_its_facts_are_told_and_where_it_is(store: Store) -> None:
    told = message(NOTICE, store)
    assert (told["type"], told["job_id"], told["created_at"]) == ("job.succeeded", "6f3a", NOTICE.created_at)
    assert told["data"] == NOTICE.data
    assert "/results/api/k1/6f3a/cup.png?" in told["result_url"]


def test_of_a_failure_what_failed(store: Store) -> None:
    told = message(FAILED, store)
    assert (told["type"], told["data"]) == ("job.failed", {"error": "CorruptImageError"})
    assert "result_url" not in told


def test_a_receiver_knows_a_message_again_and_another_outcome_from_it(store: Store) -> None:
    retried = NOTICE.model_copy(
        update={"execution": NOTICE.execution.model_copy(update={"name": "6f3a-retry-2"}), "created_at": "later"}
    )
    assert message(retried, store)["id"] == message(NOTICE, store)["id"] != message(FAILED, store)["id"]
    assert message(retried, store)["job_id"] == "6f3a"


def test_what_arrives_can_be_verified(verify: Verify, receiver: Web, store: Store) -> None:
    receiver.pages["127.0.0.1/told"] = page(status=204)
    body, now = json.dumps(message(NOTICE, store)).encode(), int(time.time())
    url = f"http://127.0.0.1:{receiver.port}/told"
    assert send(url, body, headers(NOTICE, body, SECRET, now), POLICY) == 204
    [request] = receiver.requests
    assert verify(SECRET, request.headers["x-pbr-timestamp"], request.headers["x-pbr-signature"], request.body)
    assert json.loads(request.body)["id"] == request.headers["x-pbr-webhook-id"]
    assert (request.method, request.headers["content-type"]) == ("POST", "application/json")


# ---- TaskTokens


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503, 599])
def test_a_receiver_that_cannot_take_it_yet_is_asked_again(receiver: Web, status: int) -> None:
    receiver.pages["127.0.0.1/told"] = page(status=status)
    with pytest.raises(WebhookUnansweredError, match=str(status)):
        send(f"http://127.0.0.1:{receiver.port}/told", BODY, {}, POLICY)


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 410, 422])
def test_a_receiver_that_will_not_have_it_is_not(receiver: Web, status: int) -> None:
    receiver.pages["127.0.0.1/told"] = page(status=status, location="/elsewhere")
    with pytest.raises(WebhookRefusedError, match=str(status)):
        send(f"http://127.0.0.1:{receiver.port}/told", BODY, {}, POLICY)
    assert len(receiver.requests) == 1


def test_nor_is_a_url_that_may_not_be_opened_and_its_secrets_are_not_told() -> None:
    with pytest.raises(WebhookRefusedError) as caught:
        send("https://127.0.0.1/told/s3cr3t?token=s3cr3t", BODY, {}, Policy())
    assert (caught.value.field, caught.value.value) == ("webhook.url", "https://127.0.0.1")
    assert "s3cr3t" not in json.dumps(caught.value.facts())


def test_where_nobody_listens_somebody_may_later() -> None:
    with pytest.raises(WebhookUnansweredError):
        send(f"http://127.0.0.1:{closed_port()}/told", BODY, {}, POLICY)


def test_a_stack_says_where_webhooks_may_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URL_SCHEMES", "https")
    monkeypatch.setenv("URL_NETWORKS", "")
    assert UrlConfig().outbound == Policy()
    monkeypatch.setenv("URL_SCHEMES", "http,https")
    monkeypatch.setenv("URL_NETWORKS", "10.0.0.0/8, 192.168.0.0/16")
    assert UrlConfig().outbound == Policy(("http", "https"), ("10.0.0.0/8", "192.168.0.0/16"))
