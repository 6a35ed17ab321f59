"""``pbr forget`` on a deployed stack."""

import httpx
import pytest
from PIL import Image
from skimage import data as photographs
from typer.testing import CliRunner

from client.cli import app
from client.stack import Stack
from embedded_cloud.cloud import EmbeddedCloud
from tests.conftest import file_of
from tests.integration.api.conftest import ended, replicas, replicate
from tests.integration.deployment import Deployed

KEY = "forgotten/käse +1.png"
IN_ANY_JSON = "se +1.png"
"""The end of the key, which no JSON escapes."""

BUCKETS = ("UploadsBucket", "ResultsBucket", "WorkBucket")
TABLES = ("CacheTable", "ReviewsTable", "ApiJobsTable", "ApiUsageTable", "ApiKeysTable")


def mentions(stack: Stack, *words: str) -> list[str]:
    """Return what has one of these words in its key or content, in all buckets and tables."""
    found = []
    for bucket in (stack.outputs[name] for name in BUCKETS):
        page = stack.s3.list_object_versions(Bucket=bucket)
        for one in (*page.get("Versions", []), *page.get("DeleteMarkers", [])):
            text = one["Key"]
            if "Size" in one and one["Key"].endswith(".json"):
                version = stack.s3.get_object(Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])
                text += version["Body"].read().decode()
            if any(word in text for word in words):
                found.append(one["Key"])
    for table in (stack.outputs[name] for name in TABLES):
        items = stack.dynamodb.scan(TableName=table)["Items"]
        found += [table for item in items if any(word in str(item) for word in words)]
    return found


@pytest.mark.slow
def test_nothing_is_left_of_a_forgotten_source(api: httpx.Client, cloud: EmbeddedCloud, stack: Stack) -> None:
    deployed, draft = Deployed(cloud), {"pbr-precision-level": "draft"}
    doubtful = file_of(Image.fromarray(photographs.coins()).convert("RGB"), "PNG")
    result = deployed.process(KEY, doubtful, draft).output
    assert result["quality"]["review"], "choose another picture"
    deployed.process(KEY, doubtful, {**draft, "pbr-format": "webp"})
    deployed.process(KEY, b"no image")
    job = api.post("/jobs", json={"source": {"key": KEY}})
    assert ended(api, job.headers["Location"])["status"] == "failed"

    words = IN_ANY_JSON, result["cache"]["key"]
    places = mentions(stack, *words)
    assert {stack.outputs[name] for name in ("CacheTable", "ReviewsTable", "ApiJobsTable")} <= set(places)
    assert len(replicate(stack, KEY)) == 4, "two results with sidecars"
    done = CliRunner().invoke(app, ["forget", KEY, "--yes"], env={"AWS_ENDPOINT_URL": cloud.endpoint_url})
    assert done.exit_code == 0, done.output
    assert (mentions(stack, *words), replicas(stack)) == ([], [])
