import io
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto import mock_aws

from functions.api.auth import Authorization, Authorizer, Caller
from functions.api.problems import Problem
from functions.api.resolver import to_problem
from functions.contracts.api_key import KNOWN_FOR_S, ApiKey, KeyRecord, Scope, SecretHash
from functions.runtime.handler import logger

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
ROLE = "arn:aws:sts::123456789012:assumed-role/shop"


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now.timestamp()

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Api:
    """An authorizer with its tables and clock."""

    def __init__(self, dynamodb: Any) -> None:
        self.dynamodb, self.clock = dynamodb, Clock()
        self.authorizer = self.new_authorizer()

    def new_authorizer(self, dynamodb: Any = None) -> Authorizer:
        return Authorizer(
            keys_table="keys",
            usage_table="usage",
            rate_per_minute=60,
            monthly_quota=3,
            dynamodb_client=dynamodb or self.dynamodb,
            clock=self.clock,
        )

    def put(self, record: KeyRecord) -> None:
        self.dynamodb.put_item(TableName="keys", Item=record.item())

    def key(self, **facts: Any) -> ApiKey:
        key = ApiKey.generate()
        self.put(record_of(key, **facts))
        return key


@pytest.fixture(scope="module")
def dynamodb() -> Iterator[Any]:
    with mock_aws():
        client = boto3.session.Session("local", "local", region_name="eu-west-1").client("dynamodb")
        for table, key in (("keys", "key_id"), ("usage", "meter")):
            client.create_table(
                TableName=table,
                KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )
        yield client


@pytest.fixture
def api(dynamodb: Any) -> Api:
    return Api(dynamodb)


def record_of(key: ApiKey, **facts: Any) -> KeyRecord:
    hashes = (SecretHash(sha256=key.sha256, created_at=NOW),)
    return KeyRecord.model_validate(
        {
            "key_id": key.key_id,
            "name": "laptop",
            "hashes": hashes,
            "scopes": ["process", "read"],
            "created_at": NOW,
            **facts,
        }
    )


def request(*, iam: Any = None, **headers: str) -> APIGatewayProxyEventV2:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    context = {"authorizer": {"iam": iam}} if iam else {}
    return APIGatewayProxyEventV2({"headers": named, "requestContext": context})


def of(key: ApiKey) -> APIGatewayProxyEventV2:
    return request(x_api_key=key.reveal())


def rejected(authorizer: Authorizer, event: APIGatewayProxyEventV2, scope: Scope = Scope.READ) -> Problem:
    with pytest.raises(Problem) as caught:
        authorizer.authorize(event, scope)
    return caught.value


# ---- Authentication


@pytest.mark.parametrize(
    "header",
    [
        lambda text: {"x_api_key": text},
        lambda text: {"X_API_KEY": text},
        lambda text: {"authorization": f"Bearer {text}"},
        lambda text: {"Authorization": f"bearer  {text}"},
        lambda text: {"x_api_key": text, "authorization": "Basic dXNlcjpwYXNz"},
    ],
    ids=["X-API-Key", "any case", "Bearer", "bearer", "with another scheme"],
)
def test_key_is_accepted_in_either_header(api: Api, header: Callable[[str], dict[str, str]]) -> None:
    key = api.key()
    caller = api.authorizer.authorize(request(**header(key.reveal())), Scope.READ).caller
    assert caller == Caller(key.key_id, frozenset({Scope.PROCESS, Scope.READ}), rate_per_minute=60, monthly_quota=3)


def test_limits_of_a_key_override_the_stacks(api: Api) -> None:
    caller = api.authorizer.authorize(of(api.key(rate_per_minute=5, monthly_quota=0)), Scope.READ).caller
    assert (caller.rate_per_minute, caller.monthly_quota) == (5, 0)


def bad_requests(api: Api) -> dict[str, APIGatewayProxyEventV2]:
    """Requests without a valid key, by the defect."""
    good = api.key()
    rotated, _ = record_of(old := ApiKey.generate()).rotated(NOW - timedelta(days=2), timedelta(days=1))
    api.put(rotated)
    return {
        "nothing": request(),
        "empty": request(x_api_key=""),
        "not a key": request(x_api_key="secret"),
        "cut off": request(x_api_key=good.reveal()[:-1]),
        "twice, as the gateway joins them": request(x_api_key=f"{good.reveal()},{good.reveal()}"),
        "another scheme": request(authorization=f"Basic {good.reveal()}"),
        "unknown": of(ApiKey.generate()),
        "another key's secret": of(replace(good, secret=ApiKey.generate().secret)),
        "expired": of(api.key(expires_at=NOW)),
        "revoked": of(api.key(revoked_at=NOW)),
        "rotated": of(old),
        "no principal": request(iam={"userArn": ""}),
    }


def test_all_invalid_keys_get_the_same_response(api: Api) -> None:
    responses = [rejected(api.authorizer, event) for event in bad_requests(api).values()]
    assert len({(a.body("r"), tuple(a.headers.items())) for a in responses}) == 1
    assert (responses[0].status, responses[0].code) == (401, "auth_failed")
    assert responses[0].headers == {"WWW-Authenticate": "Bearer"}


def test_logs_and_problems_contain_no_secrets(
    api: Api, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(logger.registered_handler, "stream", logged := io.StringIO())
    keys = {"good": of(api.key(rate_per_minute=1)), **bad_requests(api)}
    texts = [str(api.authorizer.authorize(keys["good"], Scope.READ))]
    texts += [
        f"{p!r} {p} {p.body('r')} {p.headers}" for p in (rejected(api.authorizer, event) for event in keys.values())
    ]
    texts.append(repr(rejected(api.authorizer, of(api.key()), Scope.DELETE)))
    texts += [caplog.text, logged.getvalue()]
    everything = "\n".join(texts)
    assert "rate_limit_exceeded" in everything and "scope_missing" in everything and "wrong secret" in everything
    secrets = {word for event in keys.values() for word in " ".join(event.headers.values()).split() if len(word) > 8}
    secrets |= {word[21:85] for word in secrets if word.startswith("pbr_")}
    assert len(secrets) > 10 and not [secret for secret in secrets if secret in everything]


def test_problem_names_the_missing_scope(api: Api) -> None:
    problem = rejected(api.authorizer, of(api.key()), Scope.DELETE)
    assert (problem.status, problem.code, problem.value) == (403, "scope_missing", "delete")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.text(), st.text())
def test_arbitrary_headers_are_rejected_without_an_error(api: Api, name: str, scheme: str) -> None:
    for event in (request(x_api_key=name), request(authorization=f"{scheme} {name}")):
        assert rejected(api.authorizer, event).status == 401


# ---- IAM


def test_iam_callers_have_all_scopes(api: Api) -> None:
    caller = api.authorizer.authorize(
        request(iam={"userArn": "arn:aws:iam::123456789012:user/ann"}), Scope.DELETE
    ).caller
    assert (caller.rate_per_minute, caller.monthly_quota) == (60, 3)
    assert caller.id.isalnum() and caller.id.islower() and len(caller.id) == 35


def test_all_sessions_of_a_role_are_one_caller(api: Api) -> None:
    def id_of(arn: str) -> str:
        return api.authorizer.authorize(request(iam={"userArn": arn}), Scope.READ).caller.id

    ids = [id_of(arn) for arn in (f"{ROLE}/one", f"{ROLE}/two", f"{ROLE}per/one")]
    assert ids[0] == ids[1] != ids[2]
    users = [id_of(f"arn:aws:iam::123456789012:user/{path}") for path in ("team/ann", "team/bob")]
    assert users[0] != users[1]


def test_iam_identity_cannot_be_forged_with_headers(api: Api) -> None:
    signed = request(authorization="AWS4-HMAC-SHA256 Credential=x", x_amzn_iam_user_arn=f"{ROLE}/one")
    assert rejected(api.authorizer, signed).status == 401


# ---- Cache


class Counting:
    """A DynamoDB client that counts reads of keys."""

    def __init__(self, dynamodb: Any) -> None:
        self.exceptions, self.update_item = dynamodb.exceptions, dynamodb.update_item
        self._get_item, self.reads = dynamodb.get_item, 0

    def get_item(self, **request: Any) -> Any:
        self.reads += 1
        return self._get_item(**request)


def test_key_is_cached_for_half_a_minute(api: Api) -> None:
    dynamodb, key = Counting(api.dynamodb), api.key()
    authorizer = api.new_authorizer(dynamodb)
    for seconds, reads in ((0, 1), (KNOWN_FOR_S - 1, 1), (1, 2), (1, 2)):
        api.clock.wait(seconds)
        authorizer.authorize(of(key), Scope.READ)
        assert dynamodb.reads == reads


def test_revocation_takes_effect_when_the_cache_expires(api: Api) -> None:
    key = api.key()
    api.authorizer.authorize(of(key), Scope.READ)
    api.put(record_of(key, revoked_at=NOW))
    api.clock.wait(KNOWN_FOR_S)
    assert rejected(api.authorizer, of(key)).code == "auth_failed"


def test_new_secret_works_at_once(api: Api) -> None:
    old = api.key()
    api.authorizer.authorize(of(old), Scope.READ)
    rotated, new = record_of(old).rotated(NOW, timedelta(0))
    api.put(rotated)
    assert api.authorizer.authorize(of(new), Scope.READ).caller.id == old.key_id


def test_cached_key_expires_on_time(api: Api) -> None:
    key = api.key(expires_at=NOW + timedelta(seconds=10))
    api.authorizer.authorize(of(key), Scope.READ)
    api.clock.wait(10)
    assert rejected(api.authorizer, of(key)).code == "auth_failed"


# ---- Rate limits


def authorize(api: Api, key: ApiKey, times: int) -> list[Authorization]:
    return [api.authorizer.authorize(of(key), Scope.READ) for _ in range(times)]


def test_full_bucket_permits_a_burst_then_one_request_per_interval(api: Api) -> None:
    key = api.key(rate_per_minute=4)
    assert [admission.rate_limit.remaining for admission in authorize(api, key, 4)] == [3, 2, 1, 0]
    problem = rejected(api.authorizer, of(key))
    assert (problem.status, problem.code) == (429, "rate_limit_exceeded")
    assert problem.headers == {
        "Retry-After": "15",
        "X-RateLimit-Limit": "4",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": str(int(NOW.timestamp()) + 60),
    }
    api.clock.wait(14)
    assert rejected(api.authorizer, of(key)).headers["Retry-After"] == "1"
    api.clock.wait(1)
    assert authorize(api, key, 1)[0].rate_limit.remaining == 0
    assert rejected(api.authorizer, of(key)).status == 429


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=5)
@given(st.integers(1, 8), st.lists(st.floats(0, 30), min_size=10, max_size=20))
def test_no_period_permits_more_than_the_bucket_and_its_refill(api: Api, limit: int, waits: list[float]) -> None:
    key, times = api.key(rate_per_minute=limit), []  # type: ignore[var-annotated]
    for seconds in waits:
        api.clock.wait(seconds)
        try:
            api.authorizer.authorize(of(key), Scope.READ)
        except Problem as problem:
            assert times, "the first request is authorized"
            api.clock.wait(int(problem.headers["Retry-After"]))
            api.authorizer.authorize(of(key), Scope.READ)  # after Retry-After
        times.append(api.clock())
    for first in range(len(times)):
        for last in range(first, len(times)):
            elapsed_s = times[last] - times[first]
            assert last - first + 1 <= limit + math.ceil((elapsed_s + 0.002) * limit / 60)  # the meter's unit is 1 ms


def test_idle_bucket_does_not_overfill(api: Api) -> None:
    key = api.key(rate_per_minute=2)
    authorize(api, key, 2)
    api.clock.wait(3600)
    assert [admission.rate_limit.remaining for admission in authorize(api, key, 2)] == [1, 0]
    assert rejected(api.authorizer, of(key)).status == 429


def test_callers_have_separate_buckets(api: Api) -> None:
    authorize(api, api.key(rate_per_minute=1), 1)
    authorize(api, api.key(rate_per_minute=1), 1)


class Concurrent:
    """A DynamoDB client that serves a concurrent request before each update."""

    def __init__(self, dynamodb: Any, other_request: Callable[[], None]) -> None:
        self.exceptions, self.get_item = dynamodb.exceptions, dynamodb.get_item
        self._update_item, self._other_request = dynamodb.update_item, other_request

    def update_item(self, **request: Any) -> Any:
        self._other_request()
        return self._update_item(**request)


@pytest.mark.parametrize("before", [0, 1, 2], ids=["idle", "one before", "two before"])
def test_concurrent_requests_do_not_exceed_the_rate_limit(api: Api, before: int) -> None:
    key = api.key(rate_per_minute=3)
    authorize(api, key, before)
    authorized = []

    def other_request() -> None:
        try:
            authorized.extend(authorize(api, key, 1))
        except Problem as problem:
            assert problem.status == 429

    concurrent = api.new_authorizer(Concurrent(api.dynamodb, other_request))
    for _ in range(3):
        try:
            authorized.append(concurrent.authorize(of(key), Scope.READ))
        except Problem as problem:
            assert problem.status == 429
    assert len(authorized) == 3 - before
    assert sorted(admission.rate_limit.remaining for admission in authorized) == list(range(3 - before))


def test_rate_meters_expire(api: Api) -> None:
    caller = api.authorizer.authorize(of(api.key()), Scope.READ).caller
    item = api.dynamodb.get_item(TableName="usage", Key={"meter": {"S": f"rate#{caller.id}"}})["Item"]
    assert int(item["expires_at"]["N"]) - NOW.timestamp() == 3600


# ---- DynamoDB errors


def failing(code: str, status: int) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}},
        "UpdateItem",
    )


class Failing:
    """A DynamoDB client with one failing call."""

    def __init__(self, dynamodb: Any, call: str, error: Exception) -> None:
        self.exceptions, self.get_item, self.update_item = dynamodb.exceptions, dynamodb.get_item, dynamodb.update_item
        self._error = error
        setattr(self, call, self._fail)

    def _fail(self, **_request: Any) -> Any:
        raise self._error


THROTTLED = [
    failing("ProvisionedThroughputExceededException", 400),
    failing("RequestLimitExceeded", 400),
    failing("ThrottlingException", 400),
    failing("InternalServerError", 500),
]


@pytest.mark.parametrize("call", ["get_item", "update_item"])
@pytest.mark.parametrize("error", THROTTLED, ids=str)
def test_throttled_dynamodb_means_unavailable(api: Api, call: str, error: ClientError) -> None:
    with pytest.raises(ClientError) as caught:
        api.new_authorizer(Failing(api.dynamodb, call, error)).authorize(of(api.key()), Scope.READ)
    problem = to_problem(caught.value)
    assert (problem.status, problem.code, problem.headers) == (503, "unavailable", {"Retry-After": "5"})


@pytest.mark.parametrize(
    "error",
    [EndpointConnectionError(endpoint_url="https://dynamodb"), ReadTimeoutError(endpoint_url="https://dynamodb")],
    ids=["unreachable", "silent"],
)
def test_requests_are_rejected_while_dynamodb_does_not_respond(api: Api, error: Exception) -> None:
    for call in ("get_item", "update_item"):
        authorizer = api.new_authorizer(Failing(api.dynamodb, call, error))
        with pytest.raises(type(error)):
            authorizer.authorize(of(api.key()), Scope.READ)
    assert to_problem(error).code == "unavailable"


def test_missing_table_is_an_error(api: Api) -> None:
    authorizer = Authorizer(
        keys_table="nosuch", usage_table="usage", rate_per_minute=60, monthly_quota=3, dynamodb_client=api.dynamodb
    )
    with pytest.raises(ClientError, match="ResourceNotFound"):
        authorizer.authorize(of(ApiKey.generate()), Scope.READ)
