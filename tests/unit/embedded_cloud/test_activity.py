from collections.abc import Iterator

import pytest
from werkzeug.test import Client, EnvironBuilder
from werkzeug.wrappers import Response

from embedded_cloud.activity import Activity
from embedded_cloud.callers import OWN_KEY, access_key


class Clock:
    """Time that tests set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def activity(clock: Clock) -> Activity:
    return Activity(clock)


def signed(key: str) -> dict[str, str]:
    scope = f"{key}/20261130/eu-west-1/s3/aws4_request"
    return {"Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"}


@pytest.mark.parametrize(
    ("path", "headers", "idle_s"),
    [
        ("/", signed(OWN_KEY), 7),
        ("/", signed(access_key("arn:aws:iam::123456789012:role/stack-Role-1")), 7),
        ("/", signed("local"), 0),
        ("/", signed("AKIAIOSFODNN7EXAMPLE"), 0),
        ("/process", {"X-API-Key": "pbr_1"}, 0),
        (f"/bucket/key?X-Amz-Credential={OWN_KEY}%2F20261130%2Feu-west-1%2Fs3%2Faws4_request", {}, 0),
    ],
    ids=["the cloud", "own process", "pbr", "other key", "HTTP API", "URL that a function has presigned"],
)
def test_requests_of_users_are_activity(
    activity: Activity, clock: Clock, path: str, headers: dict[str, str], idle_s: float
) -> None:
    clock.now += 7
    assert Client(activity.watch(Response("done"))).get(path, headers=headers).text == "done"
    assert activity.idle_s() == idle_s


def test_a_request_is_activity_until_its_response_is_sent(activity: Activity, clock: Clock) -> None:
    def slow() -> Iterator[bytes]:
        clock.now += 7
        yield b"part"

    body, *_ = Client(activity.watch(Response(slow()))).run_wsgi_app(EnvironBuilder().get_environ())
    clock.now += 7
    assert activity.idle_s() == 0, "the client still reads"
    body.close()  # type: ignore[attr-defined]
    clock.now += 3
    assert activity.idle_s() == 3


def test_a_request_that_ends_with_an_error_has_ended(activity: Activity, clock: Clock) -> None:
    def broken(*_: object) -> Iterator[bytes]:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        Client(activity.watch(broken)).get("/")
    clock.now += 3
    assert activity.idle_s() == 3
