"""Keys as they are made by ``pbr keys`` and used over HTTP, and callers whom the gateway has authenticated."""

import json
from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from typer.testing import CliRunner, Result

from client import keys
from client.cli import app
from client.stack import Stack
from embedded_cloud.cloud import EmbeddedCloud
from functions.contracts.api_key import ApiKey

ACCOUNT = "/v1.0/account"

Pbr = Callable[[str], Result]


@pytest.fixture
def pbr(cloud: EmbeddedCloud) -> Pbr:
    def run(arguments: str) -> Result:
        done = CliRunner().invoke(app, ["keys", *arguments.split()], env={"AWS_ENDPOINT_URL": cloud.endpoint_url})
        assert done.exit_code == 0, done.output
        return done

    return run


def call(cloud: EmbeddedCloud, key: str) -> httpx.Response:
    return httpx.get(cloud.outputs["ApiUrl"] + ACCOUNT, headers={"X-API-Key": key}, timeout=40)


def test_a_new_key_stands_alone_on_standard_output_and_opens_the_api(
    cloud: EmbeddedCloud, stack: Stack, pbr: Pbr
) -> None:
    made = pbr("create laptop --rate 5")
    key = ApiKey.parse(made.stdout.removesuffix("\n"))
    assert key and key.reveal() not in made.stderr
    assert "shown this once" in made.stderr
    assert pbr(f"webhook-secret {key.key_id}").stdout == keys.webhook_secret(stack, key.key_id) + "\n"
    answer = call(cloud, key.reveal())
    assert (answer.status_code, answer.headers["x-ratelimit-limit"]) == (200, "5")
    assert answer.headers["x-ratelimit-remaining"] == "4"


def test_a_key_whose_requests_come_too_fast_is_told_when_to_come_back(cloud: EmbeddedCloud, pbr: Pbr) -> None:
    key = pbr("create hasty --rate 1").stdout.strip()
    answers = [call(cloud, key) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert 0 < int(answers[1].headers["retry-after"]) <= 60


def test_a_rotated_key_opens_with_its_new_secret_at_once_and_with_the_old_one_for_a_day(
    cloud: EmbeddedCloud, pbr: Pbr
) -> None:
    old = pbr("create laptop").stdout.strip()
    assert call(cloud, old).status_code == 200
    rotated = pbr(f"rotate {old[4:20]}")
    assert "before does so until" in rotated.stderr
    assert [call(cloud, key).status_code for key in (rotated.stdout.strip(), old)] == [200, 200]


def test_a_revoked_key_is_answered_as_one_that_never_was(cloud: EmbeddedCloud, pbr: Pbr) -> None:
    key = pbr("create laptop").stdout.strip()
    assert f"Revoked {key[4:20]}, laptop." in pbr(f"revoke {key}").stdout
    told = [call(cloud, text).json()["errors"] for text in (key, ApiKey.generate().reveal(), "nonsense", "")]
    assert told[0][0]["code"] == "auth_failed" and all(errors == told[0] for errors in told)


def test_the_list_is_for_people_and_for_scripts(stack: Stack, pbr: Pbr) -> None:
    key = json.loads(pbr("create shop --scope read --quota 7 --expires 90d --json").stdout)
    listed = {one["id"]: one for one in json.loads(pbr("list --json").stdout)}
    del key["key"]
    assert listed[key["id"]] == key and key["scopes"] == ["read"]
    [line] = [line for line in pbr("list").stdout.splitlines() if line.startswith(key["id"])]
    assert "0 of 7" in line
    assert len(listed) == len(keys.entries(stack, datetime.now(UTC)))


def test_a_signed_request_needs_no_key_and_reaches_nothing_but_its_own_route(cloud: EmbeddedCloud) -> None:
    def signed(path: str) -> httpx.Response:
        request = AWSRequest("GET", cloud.outputs["ApiUrl"] + path)
        SigV4Auth(Credentials("AKIAANN", "secret"), "execute-api", cloud.region).add_auth(request)
        return httpx.get(str(request.url), headers=dict(request.headers), timeout=40)

    answer = signed(f"/iam{ACCOUNT}")
    assert (answer.status_code, answer.headers["x-ratelimit-limit"]) == (200, "60")
    assert signed(ACCOUNT).status_code in (401, 403)
    assert httpx.get(cloud.outputs["ApiUrl"] + f"/iam{ACCOUNT}", timeout=40).status_code == 403
