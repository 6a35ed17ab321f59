"""Large objects of bulk runs in S3: manifests, rows, result files and summaries."""

import io
import json
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

import boto3

from functions.runtime.store import S3_SDK, errors_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class BulkObjects:
    """Objects that are streamed.

    Args:
        s3_client: S3 client; None creates one from the environment.
    """

    def __init__(self, s3_client: "S3Client | None" = None) -> None:
        self._s3 = s3_client or boto3.client("s3", config=S3_SDK)

    def open(self, bucket: str, key: str) -> IO[bytes]:
        """Return an object's content as a file to read.

        Raises:
            SourceNotFoundError: the object does not exist.
            StorageDeniedError, StorageUnavailableError: S3 denies access, or is unavailable.
        """
        with errors_of(bucket, key):
            body = self._s3.get_object(Bucket=bucket, Key=key)["Body"]
        return io.BufferedReader(_Stream(body), 1 << 20)

    def upload(self, bucket: str, key: str, file: IO[bytes], content_type: str = "application/x-ndjson") -> None:
        """Write an object of any size."""
        with errors_of(bucket, key):
            self._s3.upload_fileobj(file, bucket, key, ExtraArgs={"ContentType": content_type})

    def keys(self, bucket: str, prefix: str) -> Iterator[str]:
        """Yield the keys below a prefix.

        Raises:
            StorageDeniedError, StorageUnavailableError: S3 denies access, or is unavailable.
        """
        with errors_of(bucket, prefix):
            for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                yield from (found["Key"] for found in page.get("Contents", []))

    def records(self, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
        """Yield the children of the newest Map Run from the files that its ResultWriter wrote below a prefix.

        There are several if a redrive had to start a new one, which has all items.

        Raises:
            StorageDeniedError, StorageUnavailableError: S3 denies access, or is unavailable.
        """
        with errors_of(bucket, prefix):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            found = [one for page in pages for one in page.get("Contents", []) if one["Key"].endswith("/manifest.json")]
        if not found:
            return
        with self.open(bucket, max(found, key=lambda one: one["LastModified"])["Key"]) as file:
            files = json.load(file)["ResultFiles"]
        for status in ("SUCCEEDED", "FAILED", "PENDING"):
            for one in files.get(status, []):
                with self.open(bucket, one["Key"]) as lines:
                    yield from (json.loads(line) for line in lines if line.strip())


class _Stream(io.RawIOBase):
    """A botocore body as a raw stream."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._body.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._body.close()
        super().close()
