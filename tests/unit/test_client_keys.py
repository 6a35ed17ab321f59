import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2
from moto import mock_aws
from typer.testing import CliRunner, Result

from client import keys
from client.cli import app
from client.errors import KeyConflictError, KeyNotFoundError, StackUnavailableError, UsageError
from client.stack import Stack
from functions.api.auth import Caller, Gate
from functions.api.problems import Problem
from functions.shared.api_keys import ApiKey, Scope
from functions.shared.webhook_signing import signing_secret

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
DAY = timedelta(days=1)


def table(key: str) -> dict[str, Any]:
    attribute = {"AttributeName": key, "AttributeType": "S"}
    schema = {"AttributeName": key, "KeyType": "HASH"}
    properties = {"AttributeDefinitions": [attribute], "KeySchema": [schema], "BillingMode": "PAY_PER_REQUEST"}
    return {"Type": "AWS::DynamoDB::Table", "Properties": properties}


TEMPLATE = {
    "Parameters": {
        "ApiRatePerMinute": {"Type": "Number", "Default": 60},
        "ApiMonthlyQuota": {"Type": "Number", "Default": 10000},
    },
    "Resources": {
        "Keys": table("key_id"),
        "Usage": table("meter"),
    },
    "Outputs": {
        "ApiKeysTable": {"Value": {"Ref": "Keys"}},
        "ApiUsageTable": {"Value": {"Ref": "Usage"}},
        "WebhookSecretArn": {"Value": "webhooks"},
        **{
            name: {"Value": name}
            for name in ("UploadsBucket", "ResultsBucket", "WorkBucket", "StateMachineArn", "QueueUrl")
        },
    },
}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A stack on moto's AWS, with what keys need of the project's own."""
    with mock_aws():
        boto3.client("secretsmanager", "eu-west-1").create_secret(Name="webhooks", SecretString="master")
        boto3.client("cloudformation", "eu-west-1").create_stack(StackName="keys", TemplateBody=json.dumps(TEMPLATE))
        yield Stack.connect("keys", region="eu-west-1")


@pytest.fixture
def pbr(stack: Stack) -> Callable[..., Result]:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["keys", *arguments, "--stack", "keys", "--region", "eu-west-1"])

    return run


def caller(stack: Stack, text: str, at: datetime | None = None) -> Caller:
    """Return who a key's holder is to a function that has just started."""
    request = APIGatewayProxyEventV2({"headers": {"x-api-key": text}, "requestContext": {}})
    return gate(stack, at).admit(request, Scope.READ).caller


def gate(stack: Stack, at: datetime | None = None) -> Gate:
    return Gate(
        keys_table=stack.outputs["ApiKeysTable"],
        usage_table=stack.outputs["ApiUsageTable"],
        rate_per_minute=60,
        monthly_quota=10_000,
        dynamodb_client=stack.dynamodb,
        clock=(at or datetime.now(UTC)).timestamp,
    )


def lets_in(stack: Stack, text: str, at: datetime | None = None) -> bool:
    try:
        return bool(caller(stack, text, at))
    except Problem as problem:
        assert problem.code == "auth_failed"
        return False


def make(stack: Stack, name: str = "laptop", **limits: Any) -> keys.Issued:
    unlimited: dict[str, Any] = {"rate_per_minute": None, "monthly_quota": None, "lifetime": None}
    return keys.create(stack, name, [Scope.READ], now=NOW, **unlimited | limits)


def test_a_new_key_stands_alone_on_standard_output_and_opens_the_api(stack: Stack, pbr: Callable[..., Result]) -> None:
    made = pbr("create", "laptop")
    key = ApiKey.parse(made.stdout.removesuffix("\n"))
    assert made.exit_code == 0 and key
    assert caller(stack, key.reveal()) == Caller(key.key_id, frozenset({Scope.PROCESS, Scope.READ}), 60, 10_000)
    assert "shown this once" in made.stderr and key.reveal() not in made.stderr
    assert signing_secret("master", key.key_id) in made.stderr


def test_a_key_has_the_scopes_and_limits_that_were_asked_for(stack: Stack, pbr: Callable[..., Result]) -> None:
    asked = "--scope read --scope delete --rate 5 --quota 7 --expires 90d --json"
    made, now = json.loads(pbr("create", "shop", *asked.split()).stdout), datetime.now(UTC)
    assert caller(stack, made["key"]) == Caller(made["id"], frozenset({Scope.READ, Scope.DELETE}), 5, 7)
    assert lets_in(stack, made["key"], now + 89 * DAY) and not lets_in(stack, made["key"], now + 90 * DAY)


def test_scripts_get_all_facts_of_a_new_key(stack: Stack) -> None:
    issued = make(stack, monthly_quota=0)
    assert issued.facts() == {
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
        "webhook_secret": signing_secret("master", issued.key.key_id),
    }
    assert issued.facts()["key"] not in repr(issued) and issued.webhook_secret not in repr(issued)


def test_the_list_has_every_key_with_this_month_s_use_and_no_secrets(stack: Stack, pbr: Callable[..., Result]) -> None:
    used, revoked, rotated = (make(stack, name).key for name in ("used", "revoked", "rotated"))
    gate(stack).charge(caller(stack, used.reveal()))
    keys.revoke(stack, revoked.key_id, NOW)
    keys.rotate(stack, rotated.key_id, DAY, NOW + DAY)
    text, facts = pbr("list").stdout, pbr("list", "--json").stdout
    listed = {key["id"]: key for key in json.loads(facts)}
    assert [(listed[key.key_id]["used"], listed[key.key_id]["status"]) for key in (used, revoked, rotated)] == [
        (1, "active"),
        (0, "revoked"),
        (0, "active"),
    ]
    assert [listed[key.key_id]["rotated_at"] for key in (used, rotated)] == [None, "2026-03-02T12:00:00Z"]
    assert "1 of 10,000" in text and all(key_id in text for key_id in listed)
    stored = json.dumps(stack.dynamodb.scan(TableName=stack.outputs["ApiKeysTable"])["Items"])
    told = text + facts + stored
    assert not [key for key in (used, revoked, rotated) if key.secret.get_secret_value() in told or key.sha256 in facts]


def test_a_rotated_key_opens_with_both_secrets_for_a_day(stack: Stack, pbr: Callable[..., Result]) -> None:
    old = make(stack).key.reveal()
    rotated, now = pbr("rotate", old[4:20]), datetime.now(UTC)
    new = rotated.stdout.strip()
    assert new[4:20] == old[4:20] and "before does so until" in rotated.stderr
    assert [lets_in(stack, key, now + 0.9 * DAY) for key in (old, new)] == [True, True]
    assert [lets_in(stack, key, now + DAY) for key in (old, new)] == [False, True]


def test_a_key_that_leaked_is_rotated_without_grace(stack: Stack) -> None:
    old = make(stack).key.reveal()
    new = keys.rotate(stack, old, timedelta(0), NOW).key.reveal()
    assert [lets_in(stack, key, NOW) for key in (old, new)] == [False, True]


def test_a_revoked_key_lets_nobody_in(stack: Stack, pbr: Callable[..., Result]) -> None:
    key = make(stack).key
    revoked = pbr("revoke", key.key_id)
    assert revoked.exit_code == 0 and revoked.stdout.startswith(f"Revoked {key.key_id}, laptop.")
    assert not lets_in(stack, key.reveal())
    with pytest.raises(KeyConflictError, match="revoked"):
        keys.rotate(stack, key.key_id, DAY, NOW)


def test_a_key_is_revoked_by_its_text_once_and_for_all(stack: Stack) -> None:
    key = make(stack).key.reveal()
    assert keys.revoke(stack, key, NOW).revoked_at == keys.revoke(stack, key, NOW + DAY).revoked_at == NOW


def test_an_expired_key_is_not_rotated(stack: Stack) -> None:
    key = make(stack, lifetime=DAY).key.key_id
    with pytest.raises(KeyConflictError, match="expired"):
        keys.rotate(stack, key, DAY, NOW + DAY)


def test_a_key_that_is_not_there_is_named(stack: Stack, pbr: Callable[..., Result]) -> None:
    result = pbr("revoke", "0123456789abcdef")
    assert result.exit_code == 1 and result.stderr.startswith("error: No key has that id (ID: 0123456789abcdef).")
    with pytest.raises(KeyNotFoundError):
        keys.rotate(stack, "0123456789abcdef", DAY, NOW)


@pytest.mark.parametrize("key", [ApiKey.generate().reveal()[:-1], ""], ids=["cut off", "empty"])
def test_what_may_be_a_mistyped_key_is_not_repeated(stack: Stack, key: str) -> None:
    for attempt in (lambda: keys.revoke(stack, key, NOW), lambda: keys.rotate(stack, key, DAY, NOW)):
        with pytest.raises(UsageError) as caught:
            attempt()
        assert caught.value.value is None and "pbr keys list" in str(caught.value)


class Overtaken:
    """DynamoDB's client; just before an update arrives, somebody else has done something."""

    def __init__(self, dynamodb: Any, others: Callable[[], object]) -> None:
        self.exceptions, self.get_item = dynamodb.exceptions, dynamodb.get_item
        self._update_item, self._others = dynamodb.update_item, others

    def update_item(self, **asked: Any) -> Any:
        self._others()
        return self._update_item(**asked)


def test_a_key_that_is_revoked_while_it_is_rotated_stays_revoked(stack: Stack) -> None:
    issued = make(stack)
    key_id = issued.key.key_id
    overtaken: Any = Overtaken(stack.dynamodb, lambda: keys.revoke(stack, key_id, NOW))
    with pytest.raises(KeyConflictError):
        keys.rotate(replace(stack, dynamodb=overtaken), key_id, DAY, NOW)
    assert not lets_in(stack, issued.key.reveal(), NOW)


def test_of_two_rotations_at_once_one_is_told_that_its_secret_opens_nothing(stack: Stack) -> None:
    key_id, issued = make(stack).key.key_id, []
    overtaken: Any = Overtaken(stack.dynamodb, lambda: issued.append(keys.rotate(stack, key_id, DAY, NOW)))
    with pytest.raises(KeyConflictError):
        keys.rotate(replace(stack, dynamodb=overtaken), key_id, DAY, NOW)
    assert lets_in(stack, issued[0].key.reveal(), NOW)


def test_no_key_is_made_that_nobody_gets_to_see(stack: Stack) -> None:
    def count() -> int:
        return stack.dynamodb.scan(TableName=stack.outputs["ApiKeysTable"])["Count"]

    before = count()
    with pytest.raises(stack.secrets.exceptions.ResourceNotFoundException):
        make(replace(stack, outputs={**stack.outputs, "WebhookSecretArn": "nosuch"}))
    assert count() == before


@pytest.mark.parametrize("output", ["ApiKeysTable", "ApiUsageTable", "WebhookSecretArn"])
def test_a_stack_without_the_api_is_told_to_be_deployed_again(stack: Stack, output: str) -> None:
    outputs = {name: value for name, value in stack.outputs.items() if name != output}
    with pytest.raises(StackUnavailableError, match=f"no output {output} .*deploy it again"):
        make(replace(stack, outputs=outputs))


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 101], ids=["none", "two lines", "long"])
def test_a_name_is_one_printable_line(stack: Stack, name: str) -> None:
    with pytest.raises(UsageError, match="1 to 100 printable"):
        make(stack, name)


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
def test_wrong_use_is_told(pbr: Callable[..., Result], arguments: str, says: str) -> None:
    result = pbr(*arguments.split())
    assert result.exit_code == 2 and says in result.stderr
