from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2
from moto import mock_aws
from typer.testing import CliRunner

from client import api_keys
from client.cli import app
from client.errors import KeyConflictError, KeyNotFoundError, StackUnavailableError, UsageError
from client.stack import Stack
from functions.api.auth import Authorizer, Caller
from functions.api.problems import Problem
from functions.contracts.api_key import ApiKey, Scope, quota_meter
from functions.contracts.webhook_signature import signing_secret
from tests.fakes import stack_in_memory

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A stack with tables for keys and usage, and a webhook secret."""
    with mock_aws():
        session = boto3.session.Session("local", "local", region_name="eu-west-1")
        dynamodb, secrets = session.client("dynamodb"), session.client("secretsmanager")
        for table, key in (("keys", "key_id"), ("usage", "meter")):
            dynamodb.create_table(
                TableName=table,
                KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )
        secrets.create_secret(Name="webhooks", SecretString="master")
        yield replace(
            stack_in_memory.stack(dynamodb=dynamodb, secrets=secrets),
            outputs={"ApiKeysTable": "keys", "ApiUsageTable": "usage", "WebhookSecretArn": "webhooks"},
            parameters={"ApiRatePerMinute": "60", "ApiMonthlyQuota": "10000"},
        )


def authorizer(stack: Stack, at: datetime = NOW) -> Authorizer:
    """Return the authorizer of a new function instance, with an empty cache."""
    return Authorizer(
        keys_table="keys",
        usage_table="usage",
        rate_per_minute=60,
        monthly_quota=10_000,
        dynamodb_client=stack.dynamodb,
        clock=at.timestamp,
    )


def caller(stack: Stack, key: ApiKey, at: datetime = NOW) -> Caller:
    request = APIGatewayProxyEventV2({"headers": {"x-api-key": key.reveal()}, "requestContext": {}})
    return authorizer(stack, at).authorize(request, Scope.READ).caller


def is_accepted(stack: Stack, key: ApiKey, at: datetime = NOW) -> bool:
    try:
        return bool(caller(stack, key, at))
    except Problem as problem:
        assert problem.code == "auth_failed"
        return False


def make(stack: Stack, name: str = "laptop", **overrides: Any) -> api_keys.IssuedKey:
    given = {"scopes": [Scope.READ], "rate_per_minute": None, "monthly_quota": None, "lifetime": None, "now": NOW}
    return api_keys.create(stack, name, **given | overrides)


def test_a_key_has_the_requested_scopes_and_limits(stack: Stack) -> None:
    scopes = {Scope.READ, Scope.DELETE}
    key = make(stack, scopes=scopes, rate_per_minute=5, monthly_quota=7, lifetime=90 * DAY).key
    assert caller(stack, key) == Caller(key.key_id, frozenset(scopes), 5, 7)
    assert is_accepted(stack, key, NOW + 89 * DAY) and not is_accepted(stack, key, NOW + 90 * DAY)
    assert not is_accepted(stack, make(stack, lifetime=0 * DAY).key)


def test_a_key_without_limits_has_those_of_the_stack(stack: Stack) -> None:
    key = make(stack).info
    assert (key.rate_per_minute, key.monthly_quota) == (60, 10_000)
    own = make(stack, rate_per_minute=5, monthly_quota=0).info
    assert (own.rate_per_minute, own.monthly_quota) == (5, 0)


def test_json_of_a_new_key(stack: Stack) -> None:
    issued = make(stack, monthly_quota=0)
    assert issued.to_json() == {
        "id": issued.key.key_id,
        "name": "laptop",
        "scopes": ["read"],
        "rate_per_minute": 60,
        "monthly_quota": 0,
        "used": 0,
        "created_at": "2026-03-01T12:00:00Z",
        "expires_at": None,
        "revoked_at": None,
        "rotated_at": None,
        "status": "active",
        "key": issued.key.reveal(),
    }


def test_keys_are_listed_newest_first_with_the_usage_of_this_month(stack: Stack) -> None:
    used, revoked, rotated = (make(stack, now=NOW + days * DAY, lifetime=9 * DAY).key for days in (1, 2, 3))
    stack.dynamodb.put_item(
        TableName=stack.outputs["ApiUsageTable"],
        Item={"meter": {"S": quota_meter(used.key_id, NOW)}, "used": {"N": "1"}},
    )
    api_keys.revoke(stack, revoked.key_id, NOW)
    api_keys.rotate(stack, rotated.key_id, DAY, NOW + 4 * DAY)
    facts = [key.to_json() for key in api_keys.list_keys(stack, NOW + 10 * DAY)]
    assert [(key["id"], key["used"], key["status"]) for key in facts[:3]] == [
        (rotated.key_id, 0, "active"),
        (revoked.key_id, 0, "revoked"),
        (used.key_id, 1, "expired"),
    ]
    assert [key["rotated_at"] for key in facts[:3]] == ["2026-03-05T12:00:00Z", None, None]
    assert api_keys.list_keys(stack, datetime(2026, 4, 1, tzinfo=UTC))[2].used == 0


def test_neither_the_table_nor_the_list_has_a_secret(stack: Stack) -> None:
    first = make(stack)
    issued = [first, api_keys.rotate(stack, first.key.key_id, DAY, NOW)]
    stored = str(stack.dynamodb.scan(TableName="keys")["Items"])
    listed = str([key.to_json() for key in api_keys.list_keys(stack, NOW)])
    for secret in (one.key.secret.get_secret_value() for one in issued):
        assert secret not in stored + listed + repr(issued)
    assert all(one.key.sha256 in stored and one.key.sha256 not in listed for one in issued)


def test_both_secrets_of_a_rotated_key_are_valid_during_the_grace_period(stack: Stack) -> None:
    old = make(stack).key
    new = api_keys.rotate(stack, old.key_id, DAY, NOW).key
    assert new.key_id == old.key_id
    assert [is_accepted(stack, key, NOW + 0.9 * DAY) for key in (old, new)] == [True, True]
    assert [is_accepted(stack, key, NOW + DAY) for key in (old, new)] == [False, True]


def test_rotation_without_grace_ends_the_old_secret(stack: Stack) -> None:
    old = make(stack).key
    new = api_keys.rotate(stack, old.reveal(), timedelta(0), NOW).key
    assert [is_accepted(stack, key) for key in (old, new)] == [False, True]


def test_a_revoked_key_is_refused_and_cannot_be_rotated(stack: Stack) -> None:
    key = make(stack).key
    api_keys.revoke(stack, key.key_id, NOW)
    assert not is_accepted(stack, key)
    with pytest.raises(KeyConflictError, match="revoked"):
        api_keys.rotate(stack, key.key_id, DAY, NOW)


def test_the_first_revocation_of_a_key_counts(stack: Stack) -> None:
    key = make(stack).key.reveal()
    assert api_keys.revoke(stack, key, NOW).revoked_at == api_keys.revoke(stack, key, NOW + DAY).revoked_at == NOW


def test_an_expired_key_is_not_rotated(stack: Stack) -> None:
    key = make(stack, lifetime=DAY).key.key_id
    with pytest.raises(KeyConflictError, match="expired"):
        api_keys.rotate(stack, key, DAY, NOW + DAY)


def test_error_for_an_unknown_key_has_its_id(stack: Stack) -> None:
    unknown = ApiKey.generate().key_id
    for attempt in (
        lambda: api_keys.revoke(stack, unknown, NOW),
        lambda: api_keys.rotate(stack, unknown, DAY, NOW),
        lambda: api_keys.webhook_secret(stack, unknown),
    ):
        with pytest.raises(KeyNotFoundError, match=unknown):
            attempt()


@pytest.mark.parametrize("key", [ApiKey.generate().reveal()[:-1], ""], ids=["cut off", "empty"])
def test_a_mistyped_key_is_not_printed(stack: Stack, key: str) -> None:
    for attempt in (lambda: api_keys.revoke(stack, key, NOW), lambda: api_keys.rotate(stack, key, DAY, NOW)):
        with pytest.raises(UsageError) as caught:
            attempt()
        assert caught.value.value is None and "pbr keys list" in str(caught.value)


class Overtaken:
    """A DynamoDB client that runs another operation just before each update."""

    def __init__(self, dynamodb: Any, others: Callable[[], object]) -> None:
        self.exceptions, self.get_item = dynamodb.exceptions, dynamodb.get_item
        self._update_item, self._others = dynamodb.update_item, others

    def update_item(self, **request: Any) -> Any:
        self._others()
        return self._update_item(**request)


def test_a_key_that_is_revoked_while_it_is_rotated_stays_revoked(stack: Stack) -> None:
    issued = make(stack)
    key_id = issued.key.key_id
    overtaken: Any = Overtaken(stack.dynamodb, lambda: api_keys.revoke(stack, key_id, NOW))
    with pytest.raises(KeyConflictError):
        api_keys.rotate(replace(stack, client=lambda _service: overtaken), key_id, DAY, NOW)
    assert not is_accepted(stack, issued.key)


def test_one_of_two_concurrent_rotations_fails(stack: Stack) -> None:
    key_id, issued = make(stack).key.key_id, []
    overtaken: Any = Overtaken(stack.dynamodb, lambda: issued.append(api_keys.rotate(stack, key_id, DAY, NOW)))
    with pytest.raises(KeyConflictError):
        api_keys.rotate(replace(stack, client=lambda _service: overtaken), key_id, DAY, NOW)
    assert is_accepted(stack, issued[0].key)


def test_no_key_is_stored_if_it_cannot_be_shown(stack: Stack) -> None:
    before = len(api_keys.list_keys(stack, NOW))
    with pytest.raises(stack.dynamodb.exceptions.ResourceNotFoundException):
        make(replace(stack, outputs={**stack.outputs, "ApiUsageTable": "nosuch"}))
    assert len(api_keys.list_keys(stack, NOW)) == before


def test_the_webhook_secret_of_a_key_survives_rotations(stack: Stack) -> None:
    key = make(stack).key
    before = api_keys.webhook_secret(stack, key.key_id)
    newest = api_keys.rotate(stack, key.key_id, DAY, NOW).key
    assert before == api_keys.webhook_secret(stack, newest.reveal()) == signing_secret("master", key.key_id)


def test_the_webhook_secret_of_a_caller_with_aws_credentials(stack: Stack) -> None:
    session = "arn:aws:sts::123456789012:assumed-role/shop/one"
    request = APIGatewayProxyEventV2({"headers": {}, "requestContext": {"authorizer": {"iam": {"userArn": session}}}})
    caller_id = authorizer(stack).authorize(request, Scope.READ).caller.id
    assert api_keys.webhook_secret(stack, session) == signing_secret("master", caller_id)


@pytest.mark.parametrize("arn", ["arn:", "arn:aws:iam::123456789012:role/shop", "arn:aws:s3:::bucket"])
def test_arns_that_are_not_callers_are_refused(stack: Stack, arn: str) -> None:
    with pytest.raises(UsageError, match="get-caller-identity"):
        api_keys.webhook_secret(stack, arn)


def test_a_stack_without_the_api_must_be_deployed_again(stack: Stack) -> None:
    key_id, older = make(stack).key.key_id, replace(stack, outputs={})
    for attempt in (
        lambda: make(older),
        lambda: api_keys.list_keys(older, NOW),
        lambda: api_keys.rotate(older, key_id, DAY, NOW),
        lambda: api_keys.revoke(older, key_id, NOW),
        lambda: api_keys.webhook_secret(older, key_id),
    ):
        with pytest.raises(StackUnavailableError, match="Deploy it again"):
            attempt()


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 101], ids=["none", "two lines", "long"])
def test_key_names_are_printable(stack: Stack, name: str) -> None:
    with pytest.raises(UsageError, match="1 to 100 printable") as caught:
        make(stack, name)
    assert "Value error" not in caught.value.message


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("create a --scope admin", "delete"),
        ("create a --rate 0", "--rate"),
        ("create a --rate 60001", "--rate"),
        ("create a --quota -1", "--quota"),
        ("create a --expires 1w", "--expires"),
        ("rotate a --grace soon", "--grace"),
    ],
)
def test_usage_errors_are_detected_first(arguments: str, says: str) -> None:
    result = CliRunner().invoke(app, ["keys", *arguments.split()])
    assert result.exit_code == 2 and says in result.stderr
