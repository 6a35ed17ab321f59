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
    """Two tables, a clock, and a authorizer that reads them."""

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


def refused(authorizer: Authorizer, event: APIGatewayProxyEventV2, scope: Scope = Scope.READ) -> Problem:
    with pytest.raises(Problem) as caught:
        authorizer.authorize(event, scope)
    return caught.value


# ---- Who calls


@pytest.mark.parametrize(
    "header",
    [
        lambda text: {"x_api_key": text},
        lambda text: {"X_API_KEY": text},
        lambda text: {"authorization": f"Bearer {text}"},
        lambda text: {"Authorization": f"bearer  {text}"},
        lambda text: {"x_api_key": text, "authorization": "Basic dXNlcjpwYXNz"},
    ],
    ids=["X-API-Key", "any case", "Bearer", "bearer", "beside a proxy's"],
)
def test_a_key_is_known_by_either_header(api: Api, header: Callable[[str], dict[str, str]]) -> None:
    key = api.key()
    caller = api.authorizer.authorize(request(**header(key.reveal())), Scope.READ).caller
    assert caller == Caller(key.key_id, frozenset({Scope.PROCESS, Scope.READ}), rate_per_minute=60, monthly_quota=3)


def test_a_key_has_its_own_limits_before_the_stack_s(api: Api) -> None:
    caller = api.authorizer.authorize(of(api.key(rate_per_minute=5, monthly_quota=0)), Scope.READ).caller
    assert (caller.rate_per_minute, caller.monthly_quota) == (5, 0)


def bad_requests(api: Api) -> dict[str, APIGatewayProxyEventV2]:
    """Everything that is no valid key, by what is wrong with it."""
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


def test_whatever_is_no_valid_key_gets_one_and_the_same_answer(api: Api) -> None:
    answers = [refused(api.authorizer, event) for event in bad_requests(api).values()]
    assert len({(a.body("r"), tuple(a.headers.items())) for a in answers}) == 1
    assert (answers[0].status, answers[0].code) == (401, "auth_failed")
    assert answers[0].headers == {"WWW-Authenticate": "Bearer"}


def test_no_log_line_and_no_problem_has_a_secret(
    api: Api, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(logger.registered_handler, "stream", logged := io.StringIO())
    keys = {"good": of(api.key(rate_per_minute=1)), **bad_requests(api)}
    told = [str(api.authorizer.authorize(keys["good"], Scope.READ))]
    told += [
        f"{p!r} {p} {p.body('r')} {p.headers}" for p in (refused(api.authorizer, event) for event in keys.values())
    ]
    told.append(repr(refused(api.authorizer, of(api.key()), Scope.DELETE)))
    told += [caplog.text, logged.getvalue()]
    everything = "\n".join(told)
    assert "rate_limit_exceeded" in everything and "scope_missing" in everything and "wrong secret" in everything
    secrets = {word for event in keys.values() for word in " ".join(event.headers.values()).split() if len(word) > 8}
    secrets |= {word[21:85] for word in secrets if word.startswith("pbr_")}
    assert len(secrets) > 10 and not [secret for secret in secrets if secret in everything]


def test_a_caller_is_told_which_scope_the_key_lacks(api: Api) -> None:
    problem = refused(api.authorizer, of(api.key()), Scope.DELETE)
    assert (problem.status, problem.code, problem.value) == (403, "scope_missing", "delete")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.text(), st.text())
def test_no_header_breaks_the_gate(api: Api, name: str, scheme: str) -> None:
    for event in (request(x_api_key=name), request(authorization=f"{scheme} {name}")):
        assert refused(api.authorizer, event).status == 401


# ---- IAM


def test_who_the_gateway_has_authenticated_may_do_all(api: Api) -> None:
    caller = api.authorizer.authorize(
        request(iam={"userArn": "arn:aws:iam::123456789012:user/ann"}), Scope.DELETE
    ).caller
    assert (caller.rate_per_minute, caller.monthly_quota) == (60, 3)
    assert caller.id.isalnum() and caller.id.islower() and len(caller.id) == 35


def test_a_role_is_one_caller_whatever_its_sessions_are_called(api: Api) -> None:
    def id_of(arn: str) -> str:
        return api.authorizer.authorize(request(iam={"userArn": arn}), Scope.READ).caller.id

    ids = [id_of(arn) for arn in (f"{ROLE}/one", f"{ROLE}/two", f"{ROLE}per/one")]
    assert ids[0] == ids[1] != ids[2]
    users = [id_of(f"arn:aws:iam::123456789012:user/{path}") for path in ("team/ann", "team/bob")]
    assert users[0] != users[1]


def test_nobody_is_iam_s_caller_by_what_they_send_themselves(api: Api) -> None:
    signed = request(authorization="AWS4-HMAC-SHA256 Credential=x", x_amzn_iam_user_arn=f"{ROLE}/one")
    assert refused(api.authorizer, signed).status == 401


# ---- What a warm function knows


class Counting:
    """DynamoDB's client, and how often it was asked for a key."""

    def __init__(self, dynamodb: Any) -> None:
        self.exceptions, self.update_item = dynamodb.exceptions, dynamodb.update_item
        self._get_item, self.reads = dynamodb.get_item, 0

    def get_item(self, **asked: Any) -> Any:
        self.reads += 1
        return self._get_item(**asked)


def test_a_key_is_read_once_in_half_a_minute(api: Api) -> None:
    dynamodb, key = Counting(api.dynamodb), api.key()
    authorizer = api.new_authorizer(dynamodb)
    for seconds, reads in ((0, 1), (KNOWN_FOR_S - 1, 1), (1, 2), (1, 2)):
        api.clock.wait(seconds)
        authorizer.authorize(of(key), Scope.READ)
        assert dynamodb.reads == reads


def test_a_revocation_takes_effect_within_that_time(api: Api) -> None:
    key = api.key()
    api.authorizer.authorize(of(key), Scope.READ)
    api.put(record_of(key, revoked_at=NOW))
    api.clock.wait(KNOWN_FOR_S)
    assert refused(api.authorizer, of(key)).code == "auth_failed"


def test_a_new_secret_opens_its_key_at_once(api: Api) -> None:
    old = api.key()
    api.authorizer.authorize(of(old), Scope.READ)
    rotated, new = record_of(old).rotated(NOW, timedelta(0))
    api.put(rotated)
    assert api.authorizer.authorize(of(new), Scope.READ).caller.id == old.key_id


def test_a_key_expires_on_time_although_it_is_known(api: Api) -> None:
    key = api.key(expires_at=NOW + timedelta(seconds=10))
    api.authorizer.authorize(of(key), Scope.READ)
    api.clock.wait(10)
    assert refused(api.authorizer, of(key)).code == "auth_failed"


# ---- How often


def admitted(api: Api, key: ApiKey, times: int) -> list[Authorization]:
    return [api.authorizer.authorize(of(key), Scope.READ) for _ in range(times)]


def test_a_minute_s_requests_may_come_at_once_and_then_one_at_a_time(api: Api) -> None:
    key = api.key(rate_per_minute=4)
    assert [admission.rate_limit.remaining for admission in admitted(api, key, 4)] == [3, 2, 1, 0]
    problem = refused(api.authorizer, of(key))
    assert (problem.status, problem.code) == (429, "rate_limit_exceeded")
    assert problem.headers == {
        "Retry-After": "15",
        "X-RateLimit-Limit": "4",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": str(int(NOW.timestamp()) + 60),
    }
    api.clock.wait(14)
    assert refused(api.authorizer, of(key)).headers["Retry-After"] == "1"
    api.clock.wait(1)
    assert admitted(api, key, 1)[0].rate_limit.remaining == 0
    assert refused(api.authorizer, of(key)).status == 429


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=5)
@given(st.integers(1, 8), st.lists(st.floats(0, 30), min_size=10, max_size=20))
def test_no_stretch_of_time_has_more_than_a_full_bucket_and_what_flows_back(
    api: Api, limit: int, waits: list[float]
) -> None:
    key, times = api.key(rate_per_minute=limit), []
    for seconds in waits:
        api.clock.wait(seconds)
        try:
            api.authorizer.authorize(of(key), Scope.READ)
        except Problem as problem:
            assert times, "the first one is let in"
            api.clock.wait(int(problem.headers["Retry-After"]))
            api.authorizer.authorize(of(key), Scope.READ)  # who waits as told is let in
        times.append(api.clock())
    for first in range(len(times)):
        for last in range(first, len(times)):
            elapsed_s = times[last] - times[first]
            assert last - first + 1 <= limit + math.ceil((elapsed_s + 0.002) * limit / 60)  # the meter's unit is 1 ms


def test_a_bucket_that_was_left_alone_is_full_and_holds_no_more(api: Api) -> None:
    key = api.key(rate_per_minute=2)
    admitted(api, key, 2)
    api.clock.wait(3600)
    assert [admission.rate_limit.remaining for admission in admitted(api, key, 2)] == [1, 0]
    assert refused(api.authorizer, of(key)).status == 429


def test_one_caller_s_requests_are_not_another_s(api: Api) -> None:
    admitted(api, api.key(rate_per_minute=1), 1)
    admitted(api, api.key(rate_per_minute=1), 1)


class Overtaken:
    """DynamoDB's client; between each update's decision and its arrival somebody else's request is served."""

    def __init__(self, dynamodb: Any, others: Callable[[], None]) -> None:
        self.exceptions, self.get_item = dynamodb.exceptions, dynamodb.get_item
        self._update_item, self._others = dynamodb.update_item, others

    def update_item(self, **asked: Any) -> Any:
        self._others()
        return self._update_item(**asked)


@pytest.mark.parametrize("before", [0, 1, 2], ids=["idle", "one before", "two before"])
def test_of_two_requests_at_once_only_as_many_are_let_in_as_are_left(api: Api, before: int) -> None:
    key = api.key(rate_per_minute=3)
    admitted(api, key, before)
    let_in = []

    def others() -> None:
        try:
            let_in.extend(admitted(api, key, 1))
        except Problem as problem:
            assert problem.status == 429

    overtaken = api.new_authorizer(Overtaken(api.dynamodb, others))
    for _ in range(3):
        try:
            let_in.append(overtaken.authorize(of(key), Scope.READ))
        except Problem as problem:
            assert problem.status == 429
    assert len(let_in) == 3 - before
    assert sorted(admission.rate_limit.remaining for admission in let_in) == list(range(3 - before))


# ---- How much


def test_the_month_s_quota_is_spent_one_by_one_and_begins_anew(api: Api) -> None:
    caller = api.authorizer.authorize(of(api.key()), Scope.READ).caller
    for used in range(3):
        assert api.authorizer.usage(caller).used == used
        api.authorizer.charge(caller)
    with pytest.raises(Problem) as caught:
        api.authorizer.charge(caller)
    assert (caught.value.status, caught.value.code) == (402, "quota_exceeded")
    assert (api.authorizer.usage(caller).quota, api.authorizer.usage(caller).used) == (3, 3)
    api.clock.now = datetime(2026, 4, 1, tzinfo=UTC)
    api.authorizer.charge(caller)
    assert api.authorizer.usage(caller).used == 1


def test_a_quota_of_nothing_admits_nothing(api: Api) -> None:
    caller = api.authorizer.authorize(of(api.key(monthly_quota=0)), Scope.READ).caller
    with pytest.raises(Problem, match="quota_exceeded"):
        api.authorizer.charge(caller)


def test_a_refund_gives_one_back_and_never_more_than_was_charged(api: Api) -> None:
    caller = api.authorizer.authorize(of(api.key()), Scope.READ).caller
    api.authorizer.refund(caller.id)
    assert api.authorizer.usage(caller).used == 0
    api.authorizer.charge(caller)
    for _ in range(2):
        api.authorizer.refund(caller.id)
        assert api.authorizer.usage(caller).used == 0


def test_two_charges_at_the_limit_are_one(api: Api) -> None:
    caller = api.authorizer.authorize(of(api.key(monthly_quota=1)), Scope.READ).caller
    overtaken = api.new_authorizer(Overtaken(api.dynamodb, lambda: api.authorizer.charge(caller)))
    with pytest.raises(Problem, match="quota_exceeded"):
        overtaken.charge(caller)
    assert api.authorizer.usage(caller).used == 1


def test_two_refunds_of_one_charge_are_one(api: Api) -> None:
    caller = api.authorizer.authorize(of(api.key()), Scope.READ).caller
    api.authorizer.charge(caller)
    api.new_authorizer(Overtaken(api.dynamodb, lambda: api.authorizer.refund(caller.id))).refund(caller.id)
    assert api.authorizer.usage(caller).used == 0


def test_meters_are_forgotten_once_they_are_over(api: Api) -> None:
    api.authorizer.charge(caller := api.authorizer.authorize(of(api.key()), Scope.READ).caller)
    items = [item for item in api.dynamodb.scan(TableName="usage")["Items"] if caller.id in item["meter"]["S"]]
    kept_s = {item["meter"]["S"]: int(item["expires_at"]["N"]) - NOW.timestamp() for item in items}
    assert kept_s == {f"rate#{caller.id}": 3600, f"quota#{caller.id}#2026-03": 62 * 86400}


# ---- When DynamoDB fails


def failing(code: str, status: int) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}},
        "UpdateItem",
    )


class Failing:
    """DynamoDB's client, of which one call fails."""

    def __init__(self, dynamodb: Any, call: str, error: Exception) -> None:
        self.exceptions, self.get_item, self.update_item = dynamodb.exceptions, dynamodb.get_item, dynamodb.update_item
        self._error = error
        setattr(self, call, self._fail)

    def _fail(self, **_asked: Any) -> Any:
        raise self._error


THROTTLED = [
    failing("ProvisionedThroughputExceededException", 400),
    failing("RequestLimitExceeded", 400),
    failing("ThrottlingException", 400),
    failing("InternalServerError", 500),
]


@pytest.mark.parametrize("call", ["get_item", "update_item"])
@pytest.mark.parametrize("error", THROTTLED, ids=str)
def test_nobody_is_let_in_while_dynamodb_throttles(api: Api, call: str, error: ClientError) -> None:
    with pytest.raises(ClientError) as caught:
        api.new_authorizer(Failing(api.dynamodb, call, error)).authorize(of(api.key()), Scope.READ)
    problem = to_problem(caught.value)
    assert (problem.status, problem.code, problem.headers) == (503, "unavailable", {"Retry-After": "5"})


@pytest.mark.parametrize(
    "error",
    [EndpointConnectionError(endpoint_url="https://dynamodb"), ReadTimeoutError(endpoint_url="https://dynamodb")],
    ids=["unreachable", "silent"],
)
def test_nothing_is_charged_and_nobody_let_in_while_dynamodb_does_not_answer(api: Api, error: Exception) -> None:
    for call in ("get_item", "update_item"):
        authorizer = api.new_authorizer(Failing(api.dynamodb, call, error))
        with pytest.raises(type(error)):
            authorizer.authorize(of(api.key()), Scope.READ)
    with pytest.raises(type(error)):
        authorizer.charge(Caller("k", frozenset(), 60, 3))
    assert to_problem(error).code == "unavailable"


def test_a_table_that_is_not_there_is_no_passing_trouble(api: Api) -> None:
    authorizer = Authorizer(
        keys_table="nosuch", usage_table="usage", rate_per_minute=60, monthly_quota=3, dynamodb_client=api.dynamodb
    )
    with pytest.raises(ClientError, match="ResourceNotFound"):
        authorizer.authorize(of(ApiKey.generate()), Scope.READ)
