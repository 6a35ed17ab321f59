"""S3, for all stages: the one module that talks to it, and that turns its errors into ours."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Set
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config as SdkConfig
from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as NoConnectionError

from core.errors import SourceChangedError, SourceNotFoundError
from core.image import decode, encode
from core.limits import check_bytes
from core.types import Alpha, Mask, Picture
from functions.contracts.errors import StorageDeniedError, StorageUnavailableError
from functions.contracts.job import StoredObject
from functions.runtime.aws_errors import is_overload
from functions.runtime.config import SDK

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_STYLE: Final = "path" if os.environ.get("AWS_ENDPOINT_URL") else "virtual"  # an endpoint of one's own has one name
S3_SDK: Final = SDK.merge(SdkConfig(signature_version="s3v4", s3={"addressing_style": _STYLE}))
"""Left to itself boto3 signs addresses in S3's old way, and for S3's global endpoint: newer regions refuse both, and
from a new bucket in an older one callers are redirected, to where the signature does not hold."""

_ABSENT: Final = {"NoSuchKey", "NoSuchVersion", "NoSuchBucket", "MethodNotAllowed", "KeyTooLongError", "404"}
_NO_VERSION: Final = _ABSENT | {"InvalidArgument"}  # what S3 says of a version's name that it did not give
_CHANGED: Final = {"PreconditionFailed", "412"}


@dataclass(frozen=True)
class StoredFile:
    """An object's bytes, the version they are of, and its user metadata."""

    data: bytes
    version_id: str | None
    etag: str
    metadata: Mapping[str, str]

    @cached_property
    def sha256(self) -> str:
        """Hash of the bytes, 64 hexadecimal digits."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class StoredVersion:
    """A version of an object, and its user metadata."""

    version_id: str | None
    metadata: Mapping[str, str]


class Store:
    """Pictures, masks and alphas in S3.

    Args:
        s3_client: the client to use; made from the environment if None.
    """

    def __init__(self, s3_client: S3Client | None = None) -> None:
        self._s3 = s3_client or boto3.client("s3", config=S3_SDK)

    def fetch(self, bucket: str, key: str, *, version_id: str | None = None, etag: str | None = None) -> StoredFile:
        """Read one object, and exactly the version that is named.

        Args:
            bucket: its bucket.
            key: its key.
            version_id: the version to read; None reads the newest.
            etag: what the object's ETag has to be, for buckets that keep no versions.

        Raises:
            SourceNotFoundError: there is no such object or version.
            SourceChangedError: its ETag is another one.
            FileTooLargeError: it is larger than :data:`core.limits.MAX_BYTES`; nothing of it is read.
            StorageDeniedError, StorageUnavailableError: S3 refuses, or fails.
        """
        request: dict[str, Any] = {"Bucket": bucket, "Key": key}
        if version_id:
            request["VersionId"] = version_id
        elif etag:
            request["IfMatch"] = etag
        with _errors_of(bucket, key, absent=_NO_VERSION if version_id else _ABSENT):
            answer = self._s3.get_object(**request)
            with closing(answer["Body"]) as body:
                check_bytes(answer["ContentLength"])
                data = body.read()
            return StoredFile(
                data=data,
                version_id=answer.get("VersionId"),
                etag=answer["ETag"].strip('"'),
                metadata=answer["Metadata"],
            )

    def picture(self, source: StoredObject, *, at_least_px: int | None = None) -> Picture:
        """Read and decode the validated version; for ``at_least_px`` see :func:`core.image.decode.decode`."""
        file = self.fetch(source.bucket, source.key, version_id=source.version_id, etag=source.etag)
        return decode.decode(file.data, at_least_px=at_least_px)

    def plane(self, bucket: str, key: str) -> Alpha:
        """Read a mask or an alpha that an earlier stage put."""
        return decode.decode_plane(self.fetch(bucket, key).data)

    def put_plane(self, bucket: str, key: str, plane: Alpha | Mask) -> None:
        """Write a mask or an alpha, with the 8 bits that decode_plane gives back."""
        self.put(bucket, key, encode.encode_plane(plane), "image/png")

    def put(
        self, bucket: str, key: str, data: bytes, content_type: str, metadata: Mapping[str, str] | None = None
    ) -> str | None:
        """Write one object, whole or not at all, and return its version."""
        with _errors_of(bucket, key):
            answer = self._s3.put_object(
                Bucket=bucket, Key=key, Body=data, ContentType=content_type, Metadata=metadata or {}
            )
            return answer.get("VersionId")

    def newest(self, bucket: str, key: str) -> StoredVersion | None:
        """Return which version of an object is there; None if there is none."""
        try:
            with _errors_of(bucket, key):
                head = self._s3.head_object(Bucket=bucket, Key=key)
        except SourceNotFoundError:
            return None
        return StoredVersion(head.get("VersionId"), head["Metadata"])

    def delete(self, bucket: str, key: str, version_id: str | None) -> None:
        """Delete one version for good: what it replaced is there again."""
        version = {"VersionId": version_id} if version_id else {}
        with _errors_of(bucket, key):
            self._s3.delete_object(Bucket=bucket, Key=key, **version)  # type: ignore[arg-type]

    def delete_all(self, bucket: str, key: str) -> None:
        """Delete all versions of one object for good."""
        with _errors_of(bucket, key):
            pages = self._s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=key)
            for page in pages:
                for version in (*page.get("Versions", []), *page.get("DeleteMarkers", [])):
                    if version["Key"] == key:
                        self._s3.delete_object(Bucket=bucket, Key=key, VersionId=version["VersionId"])

    def url(self, bucket: str, key: str, version_id: str | None, seconds: int) -> str:
        """Return an address where anybody can read a version for a while, at most as long as our credentials live.

        Args:
            bucket: its bucket.
            key: its key.
            version_id: the version; None leads to whichever is the newest.
            seconds: how long.
        """
        version = {"VersionId": version_id} if version_id else {}
        return self._s3.generate_presigned_url(
            "get_object", {"Bucket": bucket, "Key": key, **version}, ExpiresIn=seconds
        )

    def upload_form(self, bucket: str, key: str, content_type: str, max_bytes: int, seconds: int) -> dict[str, Any]:
        """Return ``url`` and ``fields`` of a form by which anybody can put one object of this type and size."""
        return self._s3.generate_presigned_post(
            bucket,
            key,
            Fields={"Content-Type": content_type},
            Conditions=[{"Content-Type": content_type}, ["content-length-range", 1, max_bytes]],
            ExpiresIn=seconds,
        )


@contextmanager
def _errors_of(bucket: str, key: str, absent: Set[str] = _ABSENT) -> Iterator[None]:
    where = f"s3://{bucket}/{key}"
    try:
        yield
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in absent:
            raise SourceNotFoundError(
                "There is no such object, or no longer this version of it",
                field="source.key",
                value=where,
                remedy="Upload the picture again.",
            ) from error
        if code in _CHANGED:
            raise SourceChangedError(
                "The object was overwritten before it could be read",
                field="source.etag",
                value=where,
                remedy="Nothing to do: the newer upload is processed by itself. Turn on versioning to keep both.",
            ) from error
        if is_overload(error.response):
            raise _unavailable(where, code) from error
        raise StorageDeniedError(
            f"S3 refuses: {code}",
            field="source.key",
            value=where,
            remedy="Give the stage's role access to the bucket, and to the key that encrypts it.",
        ) from error
    except (NoConnectionError, HTTPClientError, IncompleteReadError) as error:
        raise _unavailable(where, type(error).__name__) from error


def _unavailable(where: str, why: str) -> StorageUnavailableError:
    return StorageUnavailableError(
        f"S3 did not answer as it should: {why}",
        field="source.key",
        value=where,
        remedy="Upload the picture again later: S3 has to recover first.",
    )
