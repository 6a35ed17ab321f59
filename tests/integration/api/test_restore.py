"""Rehearse the restores of docs/how-to/operate.md, with the program of that page."""

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime

import httpx
import pytest

from client import api_keys
from client.stack import Stack
from embedded_cloud.cloud import EmbeddedCloud
from functions.contracts.api_key import ApiKey
from tests.conftest import ROOT, client
from tests.integration.api.conftest import make_key
from tests.integration.deployment import until

pytestmark = pytest.mark.slow  # a rehearsal


def copy_missing_items(cloud: EmbeddedCloud, restored: str, table: str) -> None:
    """Run the program of the page."""
    page = (ROOT / "docs/how-to/operate.md").read_text()
    [program] = re.findall(r"<<'PY'\n(.*?)^PY$", page, re.DOTALL | re.MULTILINE)
    subprocess.run(
        [sys.executable, "-", restored, table],
        input=program,
        env={**os.environ, **cloud.environment},
        text=True,
        check=True,
    )


def test_a_restored_table_has_deleted_keys_and_keeps_later_changes(cloud: EmbeddedCloud, stack: Stack) -> None:
    deleted, revoked = make_key(stack), make_key(stack)
    dynamodb, table = client("dynamodb", cloud.endpoint_url, cloud.region), stack.outputs["ApiKeysTable"]
    restored = f"{table}-restored"
    dynamodb.restore_table_to_point_in_time(
        SourceTableName=table, TargetTableName=restored, RestoreDateTime=datetime.now(UTC)
    )
    dynamodb.delete_item(TableName=table, Key={"key_id": {"S": deleted.key_id}})
    api_keys.revoke(stack, revoked.key_id, datetime.now(UTC))

    copy_missing_items(cloud, restored, table)

    assert [_status(cloud, key) for key in (deleted, revoked)] == [200, 403]


def _status(cloud: EmbeddedCloud, key: ApiKey) -> int:
    url = f"{cloud.outputs['ApiUrl']}/v1.0/account"
    return httpx.get(url, headers={"X-API-Key": key.reveal()}, timeout=40).status_code


def test_copying_a_deleted_version_of_an_upload_processes_it_again(cloud: EmbeddedCloud, disc_png: bytes) -> None:
    s3, uploads, key = (
        client("s3", cloud.endpoint_url, cloud.region),
        cloud.outputs["UploadsBucket"],
        "restore/disc.png",
    )
    put = {"Bucket": uploads, "Key": key}
    lost = s3.put_object(**put, Body=disc_png, Metadata={"pbr-format": "webp"})["VersionId"]
    s3.delete_object(**put)

    s3.copy_object(**put, CopySource={**put, "VersionId": lost})

    restored = s3.head_object(**put)["VersionId"]
    sidecar = {"Bucket": cloud.outputs["ResultsBucket"], "Key": f"results/{key}.webp.json"}

    def processed_version() -> str | None:
        try:
            return str(json.loads(s3.get_object(**sidecar)["Body"].read())["source"]["version_id"])
        except s3.exceptions.NoSuchKey:
            return None

    until(lambda: processed_version() == restored)  # the lost version may have a result by then
