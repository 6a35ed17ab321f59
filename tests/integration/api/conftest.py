"""The deployed stack and clients of its HTTP API."""

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from client import api_keys
from client.stack import Stack
from embedded_cloud.cloud import EmbeddedCloud
from functions.contracts.api_key import ApiKey, Scope
from tests.conftest import ROOT, client

PARAMETERS = {
    "DefaultModel": "classical",
    "CorsOrigins": "https://shop.example",
    "UrlSchemes": "http,https",  # the tests' servers have no certificates
    "UrlNetworks": "127.0.0.0/8",  # and run on localhost
    "ResultsReplicaBucketArn": "arn:aws:s3:::replica",
}


@pytest.fixture(scope="package")
def cloud() -> Iterator[EmbeddedCloud]:
    """The stack with the classical segmenter on Lambda."""
    with EmbeddedCloud(ROOT / "template.yaml", PARAMETERS, retry_pace=0.01) as cloud:
        elsewhere = client("s3", cloud.endpoint_url, "us-west-2")
        elsewhere.create_bucket(Bucket="replica", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
        elsewhere.put_bucket_versioning(Bucket="replica", VersioningConfiguration={"Status": "Enabled"})
        yield cloud


@pytest.fixture(scope="package")
def stack(cloud: EmbeddedCloud) -> Stack:
    return Stack.connect(cloud.stack_name, region=cloud.region, endpoint_url=cloud.endpoint_url)


def make_key(stack: Stack, *scopes: Scope, rate_per_minute: int = 6000, monthly_quota: int | None = None) -> ApiKey:
    """Create a key with these scopes, or with all scopes."""
    return api_keys.create(
        stack,
        "tests",
        scopes or Scope,
        rate_per_minute=rate_per_minute,
        monthly_quota=monthly_quota,
        lifetime=None,
        now=datetime.now(UTC),
    ).key


@pytest.fixture(scope="package")
def key(stack: Stack) -> ApiKey:
    """A key with all scopes."""
    return make_key(stack)


@pytest.fixture(scope="package")
def api(cloud: EmbeddedCloud, key: ApiKey) -> Iterator[httpx.Client]:
    """An HTTP client with that key."""
    with httpx.Client(base_url=cloud.outputs["ApiUrl"], headers={"X-API-Key": key.reveal()}, timeout=40) as http:
        yield http


def replicate(stack: Stack, source_key: str) -> list[str]:
    """Copy the results of a source to the replica, as S3 does and moto does not, and return their keys."""
    results, prefix = stack.outputs["ResultsBucket"], f"results/{source_key}"
    found = stack.s3.list_objects_v2(Bucket=results, Prefix=prefix)["Contents"]
    for one in found:
        stack.s3.copy_object(Bucket="replica", Key=one["Key"], CopySource={"Bucket": results, "Key": one["Key"]})
    return [one["Key"] for one in found]


def replicas(stack: Stack) -> list[str]:
    """Return the keys of all versions in the replica."""
    return [one["Key"] for one in stack.s3.list_object_versions(Bucket="replica").get("Versions", [])]


def process(api: httpx.Client, **request: Any) -> httpx.Response:
    """Repeat a request until its job has ended: a busy machine may exceed the API's timeout."""
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    while (response := api.post("/process", headers=headers, **request)).status_code == 202:
        pass
    return response


def ended(api: httpx.Client, location: str, timeout_s: float = 60) -> dict[str, Any]:
    """Wait until a job has ended, and return it."""
    deadline = time.monotonic() + timeout_s
    while (job := api.get(location).json())["status"] in ("queued", "running"):
        assert time.monotonic() < deadline, f"{location} did not end in {timeout_s} s"
        time.sleep(0.1)
    return dict(job)
