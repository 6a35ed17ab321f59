"""API keys created with ``pbr keys``, and IAM callers."""

import json
from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from typer.testing import CliRunner, Result

from client import api_keys
from client.cli import app
from client.stack import Stack
from embedded_cloud.cloud import EmbeddedCloud
from functions.contracts.api_key import ApiKey

pytestmark = pytest.mark.slow  # tests/unit/functions/api covers keys in memory

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


def test_create_prints_only_the_key_to_standard_output_and_the_key_works(
    cloud: EmbeddedCloud, stack: Stack, pbr: Pbr
) -> None:
    made = pbr("create laptop --rate 5")
    key = ApiKey.parse(made.stdout.removesuffix("\n"))
    assert key and key.reveal() not in made.stderr
    assert "shown only once" in made.stderr
    assert pbr(f"webhook-secret {key.key_id}").stdout == api_keys.webhook_secret(stack, key.key_id) + "\n"
    response = call(cloud, key.reveal())
    assert (response.status_code, response.headers["x-ratelimit-limit"]) == (200, "5")
    assert response.headers["x-ratelimit-remaining"] == "4"


def test_rate_limited_responses_have_retry_after(cloud: EmbeddedCloud, pbr: Pbr) -> None:
    key = pbr("create hasty --rate 1").stdout.strip()
    responses = [call(cloud, key) for _ in range(2)]
    assert [response.status_code for response in responses] == [200, 429]
    assert 0 < int(responses[1].headers["retry-after"]) <= 60


def test_rotated_key_accepts_new_and_old_secret(cloud: EmbeddedCloud, pbr: Pbr) -> None:
    old = pbr("create laptop").stdout.strip()
    assert call(cloud, old).status_code == 200
    rotated = pbr(f"rotate {old[4:20]}")
    assert "previous key is valid until" in rotated.stderr
    assert [call(cloud, key).status_code for key in (rotated.stdout.strip(), old)] == [200, 200]


def test_revoked_and_unknown_keys_get_the_same_response(cloud: EmbeddedCloud, pbr: Pbr) -> None:
    key = pbr("create laptop").stdout.strip()
    assert f"Revoked {key[4:20]}, laptop." in pbr(f"revoke {key}").stdout
    responses = [call(cloud, text).json()["errors"] for text in (key, ApiKey.generate().reveal(), "nonsense", "")]
    assert responses[0][0]["code"] == "auth_failed" and all(errors == responses[0] for errors in responses)


def test_list_as_table_and_json(stack: Stack, pbr: Pbr) -> None:
    key = json.loads(pbr("create shop --scope read --quota 7 --expires 90d --json").stdout)
    listed = {one["id"]: one for one in json.loads(pbr("list --json").stdout)}
    del key["key"]
    assert listed[key["id"]] == key and key["scopes"] == ["read"]
    [line] = [line for line in pbr("list").stdout.splitlines() if line.startswith(key["id"])]
    assert "0 of 7" in line
    assert len(listed) == len(api_keys.list_keys(stack, datetime.now(UTC)))


def test_signed_requests_work_under_iam_only(cloud: EmbeddedCloud) -> None:
    def signed(path: str) -> httpx.Response:
        request = AWSRequest("GET", cloud.outputs["ApiUrl"] + path)
        SigV4Auth(Credentials("AKIAANN", "secret"), "execute-api", cloud.region).add_auth(request)
        return httpx.get(str(request.url), headers=dict(request.headers), timeout=40)

    response = signed(f"/iam{ACCOUNT}")
    assert (response.status_code, response.headers["x-ratelimit-limit"]) == (200, "60")
    assert signed(ACCOUNT).status_code in (401, 403)
    assert httpx.get(cloud.outputs["ApiUrl"] + f"/iam{ACCOUNT}", timeout=40).status_code == 403
