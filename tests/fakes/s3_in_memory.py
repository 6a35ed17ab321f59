"""S3 and DynamoDB in memory, as far as the stages call them."""

import base64
import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

Version = tuple[str, bytes, dict[str, str]]


def refusal(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Call")


class Objects:
    """Versioned buckets.

    Attributes:
        versions: by bucket and key, the newest version last: its ID, its content and its metadata.
        calls: number of calls by operation.
        unavailable: keys whose objects cannot be read.
        checked: keys whose objects were uploaded with their SHA-256.
        suffix: end of the checksums of multipart uploads.
    """

    def __init__(self) -> None:
        self.versions: dict[tuple[str, str], list[Version]] = {}
        self.calls: Counter[str] = Counter()
        self.unavailable: set[str] = set()
        self.checked: set[str] = set()
        self.suffix = ""

    def add(self, bucket: str, key: str, data: bytes, metadata: Mapping[str, str] | None = None) -> str:
        name = f"v{sum(map(len, self.versions.values()))}"
        self.versions.setdefault((bucket, key), []).append((name, data, dict(metadata or {})))
        return name

    def data(self, bucket: str, key: str) -> bytes:
        return self.versions[bucket, key][-1][1]

    def json(self, bucket: str, key: str) -> Any:
        return json.loads(self.data(bucket, key))

    def keys(self, bucket: str) -> list[str]:
        return sorted(key for where, key in self.versions if where == bucket)

    def _find(self, request: Mapping[str, Any], absent: str) -> Version:
        bucket, key = request["Bucket"], request["Key"]
        if key in self.unavailable:
            raise refusal("SlowDown", 503)
        found = self.versions.get((bucket, key), [])
        if "VersionId" in request:
            found = [one for one in found if one[0] == request["VersionId"]]
        if not found:
            raise refusal(absent, 404)
        return found[-1]

    def get_object(self, **request: Any) -> dict[str, Any]:
        self.calls["get"] += 1
        name, data, metadata = self._find(request, "NoSuchKey")
        facts = {"VersionId": name, "ETag": f'"{hashlib.md5(data).hexdigest()}"', "Metadata": metadata}
        return {**facts, "ContentLength": len(data), "Body": io.BytesIO(data)}

    def head_object(self, **request: Any) -> dict[str, Any]:
        self.calls["head"] += 1
        name, data, metadata = self._find(request, "404")
        checksum = {}
        if request.get("ChecksumMode") == "ENABLED" and request["Key"] in self.checked:
            checksum = {"ChecksumSHA256": base64.b64encode(hashlib.sha256(data).digest()).decode() + self.suffix}
        return {"VersionId": name, "ETag": f'"{hashlib.md5(data).hexdigest()}"', "Metadata": metadata, **checksum}

    def put_object(self, **request: Any) -> dict[str, Any]:
        self.calls["put"] += 1
        return {"VersionId": self.add(request["Bucket"], request["Key"], request["Body"], request["Metadata"])}

    def upload_fileobj(self, file: Any, bucket: str, key: str, **_: Any) -> None:
        self.calls["put"] += 1
        self.add(bucket, key, file.read())

    def get_paginator(self, operation: str) -> "Objects":
        assert operation == "list_objects_v2"
        return self

    def paginate(self, **request: Any) -> list[dict[str, Any]]:
        keys = [key for key in self.keys(request["Bucket"]) if key.startswith(request["Prefix"])]
        written = {key: int(self.versions[request["Bucket"], key][-1][0].removeprefix("v")) for key in keys}
        return [
            {"Contents": [{"Key": key, "LastModified": datetime.fromtimestamp(written[key], UTC)}]} for key in keys
        ] or [{}]

    def copy_object(self, **request: Any) -> dict[str, Any]:
        self.calls["copy"] += 1
        _, data, _ = self._find(request["CopySource"], "NoSuchKey")
        return {"VersionId": self.add(request["Bucket"], request["Key"], data, request["Metadata"])}

    def delete_object(self, **request: Any) -> None:
        where = request["Bucket"], request["Key"]
        self.versions[where] = [one for one in self.versions[where] if one[0] != request.get("VersionId", one[0])]
        if not self.versions[where]:
            del self.versions[where]


class Table:
    """A table with the key ``cache_key``."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Any]] = {}

    def get_item(self, **request: Any) -> dict[str, Any]:
        found = self.items.get(request["Key"]["cache_key"]["S"])
        return {"Item": found} if found else {}

    def put_item(self, **request: Any) -> None:
        assert request["ConditionExpression"] == "attribute_not_exists(cache_key)"
        key = request["Item"]["cache_key"]["S"]
        if key in self.items:
            raise refusal("ConditionalCheckFailedException", 400)
        self.items[key] = request["Item"]
