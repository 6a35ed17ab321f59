"""The edge: which requests it has sent, and the URLs of results."""

import json
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from cryptography.exceptions import InvalidSignature
from moto import mock_aws

from functions.contracts.errors import SecretUnavailableError
from functions.runtime.edge import Edge, result_url
from functions.runtime.store import Store
from tests.fakes.edge_keys import secret, signed_until

LOCATION = {"bucket": "results", "key": "results/api/k/ä b+c.jpg.png", "version_id": "v/1"}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def client() -> Iterator[Any]:
    with mock_aws():
        client = boto3.client("secretsmanager", "eu-west-1", aws_access_key_id="k", aws_secret_access_key="s")
        client.create_secret(Name="edge", SecretString=secret())
        yield client


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def edge(client: Any, clock: Clock) -> Edge:
    return Edge("edge", "eu-west-1", client, clock)


def reads(client: Any) -> list[str]:
    """Return a list to which each read of the secret adds its operation."""
    made: list[str] = []
    client.meta.events.register("before-call.secrets-manager", lambda model, **_: made.append(model.name))
    return made


def test_only_the_origin_secret_is_accepted(edge: Edge) -> None:
    assert edge.sent("current")
    assert not any(edge.sent(value) for value in ("", "other", "Current", "current ", "çurrent"))


def test_an_empty_previous_secret_accepts_no_request(client: Any, edge: Edge) -> None:
    client.put_secret_value(SecretId="edge", SecretString=secret(previous_origin_secret=""))
    assert not edge.sent("")


def test_a_rotation_rejects_no_request(client: Any, edge: Edge, clock: Clock) -> None:
    assert edge.sent("current")
    client.put_secret_value(SecretId="edge", SecretString=secret(origin_secret="new", previous_origin_secret="current"))
    clock.now = 61
    assert edge.sent("current"), "CloudFront sends it until its stack is updated"
    assert edge.sent("new"), "read again at the first request with another secret"
    client.put_secret_value(SecretId="edge", SecretString=secret(origin_secret="new"))
    clock.now = 400
    assert not edge.sent("current")


def test_wrong_secrets_cause_one_read_a_minute(client: Any, edge: Edge, clock: Clock) -> None:
    made = reads(client)
    for second in range(120):
        clock.now = second
        assert not edge.sent("wrong")
    assert len(made) == 2


def test_requests_without_a_secret_cause_no_read(client: Any, edge: Edge, clock: Clock) -> None:
    edge.sent("current")
    made = reads(client)
    clock.now = 299
    assert not edge.sent("") and made == []


@pytest.mark.parametrize("text", ["", "no json", "[]", json.dumps({"url": "https://api.example.com"})])
def test_an_incomplete_secret_is_an_error_without_its_content(client: Any, edge: Edge, text: str) -> None:
    client.put_secret_value(SecretId="edge", SecretString=text or " ")
    with pytest.raises(SecretUnavailableError) as caught:
        edge.sent("current")
    assert caught.value.value == "edge" and caught.value.remedy.startswith("Run make deploy-edge")


def test_the_last_known_secret_is_used_while_secrets_manager_fails(client: Any, edge: Edge, clock: Clock) -> None:
    edge.sent("current")
    client.delete_secret(SecretId="edge", ForceDeleteWithoutRecovery=True)
    clock.now = 301
    assert edge.sent("current")


def test_url_of_a_result_is_signed_for_this_version_and_time(edge: Edge) -> None:
    url = result_url(LOCATION, Store(None), edge, 3600)

    assert url.startswith(
        "https://api.example.com/images/eu-west-1/results/api/k/%C3%A4%20b%2Bc.jpg.png?versionId=v%2F1&Expires="
    )
    assert 3590 < signed_until(url) - time.time() < 3610
    for old, new in (("eu-west-1", "us-east-1"), ("v%2F1", "v2"), ("%2Bc", "d")):
        with pytest.raises(InvalidSignature):
            signed_until(url.replace(old, new))


def test_without_an_edge_s3_signs_the_url() -> None:
    with mock_aws():
        s3 = boto3.client("s3", "eu-west-1", aws_access_key_id="k", aws_secret_access_key="s")
        assert ".amazonaws.com/" in result_url(LOCATION, Store(s3), None, 60)
