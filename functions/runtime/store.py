"""S3 access of the functions. The only module that calls S3 and translates its errors into ours."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config as SdkConfig
from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as NoConnectionError

from core.errors import SourceChangedError, SourceNotFoundError
from core.limits import check_bytes
from functions.contracts.errors import StorageDeniedError, StorageUnavailableError
from functions.contracts.job import StoredObject
from functions.runtime.aws_errors import is_overload
from functions.runtime.config import SDK

# Half of the functions read no images, so methods import NumPy and the codecs when they run.
if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from core.arrays import Alpha, Mask, Picture

# Custom endpoints have no host name per bucket.
_STYLE: Final = "path" if os.environ.get("AWS_ENDPOINT_URL") else "virtual"
S3_SDK: Final = SDK.merge(SdkConfig(signature_version="s3v4", s3={"addressing_style": _STYLE}))
"""By default boto3 presigns URLs with signature version 2 for the global endpoint. Newer regions reject both, and older
ones redirect requests for new buckets to a host name that the signature does not cover."""

_ABSENT: Final = {"NoSuchKey", "NoSuchVersion", "NoSuchBucket", "MethodNotAllowed", "KeyTooLongError", "404"}
_NO_VERSION: Final = _ABSENT | {"InvalidArgument"}  # S3's error for a malformed version ID
_CHANGED: Final = {"PreconditionFailed", "412"}

_MD5: Final = re.compile("[0-9a-f]{32}")

_MAX_DELETIONS: Final = 1000
"""Most versions of a DeleteObjects request."""

_NOT_IN_XML: Final = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
"""Characters of keys that the XML of DeleteObjects cannot contain."""

_ACTIONS: Final = {
    "CopyObject": "s3:GetObject and s3:PutObject",
    "DeleteObject": "s3:DeleteObject and s3:DeleteObjectVersion",
    "DeleteObjects": "s3:DeleteObject and s3:DeleteObjectVersion",
    "GetObject": "s3:GetObject and s3:GetObjectVersion",
    "HeadObject": "s3:GetObject and s3:GetObjectVersion",
    "ListObjectVersions": "s3:ListBucketVersions",
    "ListObjectsV2": "s3:ListBucket",
}
"""Permissions of operations that do not have the operation's name."""


@dataclass(frozen=True)
class StoredFile:
    """An object's content, version and user metadata."""

    data: bytes
    version_id: str | None
    etag: str
    metadata: Mapping[str, str]

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the content, 64 hexadecimal digits."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class StoredVersion:
    """An object's version and user metadata, and the SHA-256 that it was uploaded with, if it is known."""

    version_id: str | None
    etag: str
    metadata: Mapping[str, str]
    sha256: str | None = None


@dataclass(frozen=True)
class ListedVersion:
    """The newest version of an object in a listing.

    Attributes:
        key: object key.
        version_id: version.
        modified: time of the upload; that of a multipart upload is the time when it was created, not completed.
        etag: ETag.
    """

    key: str
    version_id: str
    modified: datetime
    etag: str

    @property
    def may_be_multipart(self) -> bool:
        """Whether it may be a multipart upload. The ETag of one is not an MD5 digest, so it has another form."""
        return not _MD5.fullmatch(self.etag)


@dataclass(frozen=True)
class Deletable:
    """A version of an object, a delete marker, or an object of an unversioned bucket.

    Attributes:
        bucket: bucket.
        key: object key.
        version_id: version; None in an unversioned bucket.
        bytes: size; 0 for a delete marker.
        is_marker: whether it is a delete marker.
    """

    bucket: str
    key: str
    version_id: str | None
    bytes: int
    is_marker: bool = False


@dataclass(frozen=True)
class ListedPage:
    """A part of a listing: the newest versions of its objects, and the last key that it covers."""

    newest: tuple[ListedVersion, ...]
    last_key: str


class Store:
    """Images, masks, alphas and documents in S3.

    Args:
        s3_client: S3 client; None creates one from the environment.
    """

    def __init__(self, s3_client: S3Client | None = None) -> None:
        self._s3 = s3_client or boto3.client("s3", config=S3_SDK)

    def fetch(self, bucket: str, key: str, *, version_id: str | None = None, etag: str | None = None) -> StoredFile:
        """Read an object.

        Args:
            bucket: bucket.
            key: object key.
            version_id: version to read; None reads the newest.
            etag: expected ETag, used without ``version_id`` for buckets without versioning.

        Raises:
            SourceNotFoundError: the object or version does not exist.
            SourceChangedError: the object has another ETag.
            FileTooLargeError: the object is larger than :data:`core.limits.MAX_BYTES`. Its content is not read.
            StorageDeniedError, StorageUnavailableError: S3 denies access, or is unavailable.
        """
        request: dict[str, Any] = {"Bucket": bucket, "Key": key}
        if version_id:
            request["VersionId"] = version_id
        elif etag:
            request["IfMatch"] = etag
        with errors_of(bucket, key, absent=_NO_VERSION if version_id else _ABSENT):
            response = self._s3.get_object(**request)
            with closing(response["Body"]) as body:
                check_bytes(response["ContentLength"])
                data = body.read()
            return StoredFile(
                data=data,
                version_id=response.get("VersionId"),
                etag=response["ETag"].strip('"'),
                metadata=response["Metadata"],
            )

    def picture(self, source: StoredObject, *, at_least_px: int | None = None) -> Picture:
        """Read and decode a validated image; for ``at_least_px`` see :func:`core.image.decode.decode`."""
        from core.image import decode

        file = self.fetch(source.bucket, source.key, version_id=source.version_id, etag=source.etag)
        return decode.decode(file.data, at_least_px=at_least_px)

    def plane(self, bucket: str, key: str) -> Alpha:
        """Read a mask or an alpha that :meth:`put_plane` wrote."""
        from core.image import decode

        return decode.decode_plane(self.fetch(bucket, key).data)

    def put_plane(self, bucket: str, key: str, plane: Alpha | Mask, metadata: Mapping[str, str] | None = None) -> None:
        """Write a mask or an alpha as an 8-bit PNG."""
        from core.image import encode

        self.put(bucket, key, encode.encode_plane(plane), "image/png", metadata)

    def put(
        self, bucket: str, key: str, data: bytes, content_type: str, metadata: Mapping[str, str] | None = None
    ) -> str | None:
        """Write an object atomically, and return its version; None in an unversioned bucket."""
        with errors_of(bucket, key):
            response = self._s3.put_object(
                Bucket=bucket, Key=key, Body=data, ContentType=content_type, Metadata=metadata or {}
            )
            return response.get("VersionId")

    def newest(
        self, bucket: str, key: str, version_id: str | None = None, *, checksum: bool = False
    ) -> StoredVersion | None:
        """Return the newest version of an object, or this one; None if it does not exist.

        Args:
            bucket: bucket.
            key: object key.
            version_id: version.
            checksum: read the SHA-256, which S3 has if the object was uploaded with it.
        """
        version: dict[str, Any] = {"VersionId": version_id} if version_id else {}
        if checksum:
            version["ChecksumMode"] = "ENABLED"
        try:
            with errors_of(bucket, key, absent=_NO_VERSION | {"400"} if version_id else _ABSENT):
                head = self._s3.head_object(Bucket=bucket, Key=key, **version)
        except SourceNotFoundError:
            return None
        return StoredVersion(head.get("VersionId"), head["ETag"].strip('"'), head["Metadata"], _sha256(head))

    def copy(
        self, source: tuple[str, str], bucket: str, key: str, content_type: str, metadata: Mapping[str, str]
    ) -> str | None:
        """Copy an object, ``(bucket, key)``, with new metadata, and return the copy's version.

        Raises:
            SourceNotFoundError: the object does not exist.
        """
        with errors_of(*source):
            response = self._s3.copy_object(
                Bucket=bucket,
                Key=key,
                CopySource={"Bucket": source[0], "Key": source[1]},
                MetadataDirective="REPLACE",
                ContentType=content_type,
                Metadata=metadata,
            )
            return response.get("VersionId")

    def delete(self, bucket: str, key: str, version_id: str | None) -> None:
        """Delete a version permanently. The previous version becomes the newest one."""
        version = {"VersionId": version_id} if version_id else {}
        with errors_of(bucket, key):
            self._s3.delete_object(Bucket=bucket, Key=key, **version)  # type: ignore[arg-type]

    def versions(self, bucket: str, prefix: str) -> Iterator[Deletable]:
        """Yield all versions and delete markers of the objects with a prefix, in the order of their keys.

        Of a key, versions come before delete markers, the newest first.
        """
        with errors_of(bucket, prefix):
            for page in self._s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
                found = [
                    *(Deletable(bucket, one["Key"], one["VersionId"], one["Size"]) for one in page.get("Versions", [])),
                    *(
                        Deletable(bucket, one["Key"], one["VersionId"], 0, is_marker=True)
                        for one in page.get("DeleteMarkers", [])
                    ),
                ]
                yield from sorted(found, key=lambda one: one.key.encode())

    def objects(self, bucket: str, prefix: str) -> Iterator[Deletable]:
        """Yield the objects of an unversioned bucket whose keys start with a prefix."""
        with errors_of(bucket, prefix):
            for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for one in page.get("Contents", []):
                    yield Deletable(bucket, one["Key"], None, one["Size"])

    def delete_permanently(self, objects: Sequence[Deletable]) -> None:
        """Delete versions and objects, bucket by bucket. Those that do not exist are ignored.

        Raises:
            StorageDeniedError, StorageUnavailableError: S3 did not delete at least one of them. The others of its
                bucket are deleted; buckets after it are not touched.
        """
        for bucket in dict.fromkeys(one.bucket for one in objects):
            self._delete_permanently(bucket, [one for one in objects if one.bucket == bucket])

    def _delete_permanently(self, bucket: str, objects: Sequence[Deletable]) -> None:
        errors: list[Any] = []
        # Oldest versions first, delete markers last: otherwise a failure would bring back a version that was replaced.
        objects = [
            *(one for one in reversed(objects) if not one.is_marker),
            *(one for one in objects if one.is_marker),
        ]
        in_batches = [one for one in objects if not _NOT_IN_XML.search(one.key)]
        for start in range(0, len(in_batches), _MAX_DELETIONS):
            batch = in_batches[start : start + _MAX_DELETIONS]
            with errors_of(bucket, batch[0].key):
                request: Any = {"Objects": [_identifier(one) for one in batch], "Quiet": True}
                errors += self._s3.delete_objects(Bucket=bucket, Delete=request).get("Errors", [])
        for one in objects:
            if _NOT_IN_XML.search(one.key):
                self.delete(bucket, one.key, one.version_id)
        for error in errors:
            with errors_of(bucket, error["Key"]):
                status: Any = {"HTTPStatusCode": 500 if error["Code"] == "InternalError" else 403}
                raise ClientError({"Error": error, "ResponseMetadata": status}, "DeleteObjects")

    def newest_versions(self, bucket: str, after: str = "", prefix: str = "") -> Iterator[ListedPage]:
        """Yield the newest versions of the objects that exist, in the order of their keys.

        Args:
            bucket: bucket.
            after: start after this key, which need not exist.
            prefix: start of the keys.
        """
        marker = {"KeyMarker": after} if after else {}
        while True:
            with errors_of(bucket, after):
                page = self._s3.list_object_versions(Bucket=bucket, Prefix=prefix, **marker)  # type: ignore[arg-type]
            versions, deletions = page.get("Versions", []), page.get("DeleteMarkers", [])
            newest = (
                ListedVersion(one["Key"], one["VersionId"], one["LastModified"], one["ETag"].strip('"'))
                for one in versions
                if one["IsLatest"]
            )
            yield ListedPage(tuple(newest), max((one["Key"] for one in (*versions, *deletions)), default=after))
            if not page["IsTruncated"]:
                return
            marker = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}

    def deletions(self, bucket: str, prefix: str) -> Iterator[tuple[str, datetime]]:
        """Yield key and time of the deletion of each object with this prefix that does not exist any more.

        Objects whose versions have all been deleted permanently are left out.
        """
        with errors_of(bucket, prefix):
            for page in self._s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
                for one in page.get("DeleteMarkers", []):
                    if one["IsLatest"]:
                        yield one["Key"], one["LastModified"]

    def url(self, bucket: str, key: str, version_id: str | None, seconds: int) -> str:
        """Return a presigned URL for a version of an object. It also expires with the credentials of this process.

        Args:
            bucket: bucket.
            key: object key.
            version_id: version; None for the newest at the time of the request.
            seconds: lifetime in seconds.
        """
        version = {"VersionId": version_id} if version_id else {}
        return self._s3.generate_presigned_url(
            "get_object", {"Bucket": bucket, "Key": key, **version}, ExpiresIn=seconds
        )

    def upload_form(
        self, bucket: str, key: str, content_type: str, max_bytes: int, seconds: int, *, sha256: str | None = None
    ) -> dict[str, Any]:
        """Return ``url`` and ``fields`` of a presigned POST form for an object of this type and maximum size.

        The form can be posted any number of times until it expires. With ``sha256``, 64 hexadecimal digits, it uploads
        that content only.
        """
        fields = {"Content-Type": content_type}
        if sha256 is not None:
            fields["x-amz-checksum-algorithm"] = "SHA256"
            fields["x-amz-checksum-sha256"] = base64.b64encode(bytes.fromhex(sha256)).decode()
        return self._s3.generate_presigned_post(
            bucket,
            key,
            Fields=dict(fields),
            Conditions=[*({name: value} for name, value in fields.items()), ["content-length-range", 1, max_bytes]],
            ExpiresIn=seconds,
        )


def _identifier(one: Deletable) -> dict[str, str]:
    return {"Key": one.key, **({"VersionId": one.version_id} if one.version_id else {})}


def _sha256(head: Mapping[str, Any]) -> str | None:
    """Return the SHA-256 of the content; that of a multipart upload is one of the parts' checksums."""
    checksum = head.get("ChecksumSHA256", "")
    is_whole = checksum and "-" not in checksum and head.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
    return base64.b64decode(checksum).hex() if is_whole else None


@contextmanager
def errors_of(bucket: str, key: str, absent: Set[str] = _ABSENT) -> Iterator[None]:
    """Translate S3's errors in the calls inside into ours."""
    where = f"s3://{bucket}/{key}"
    try:
        yield
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in absent:
            raise SourceNotFoundError(
                "The object or this version of it does not exist",
                field="source.key",
                value=where,
                remedy="Upload the image again.",
            ) from error
        if code in _CHANGED:
            raise SourceChangedError(
                "The object was overwritten before it was read",
                field="source.etag",
                value=where,
                remedy="No action needed: the newer upload is processed separately. Enable versioning to keep both.",
            ) from error
        if is_overload(error.response):
            raise _unavailable(where, code) from error
        action = _ACTIONS.get(error.operation_name, f"s3:{error.operation_name}")
        raise StorageDeniedError(
            f"S3 denied access: {code}",
            field="source.key",
            value=where,
            remedy=f"Grant {action} on the bucket, and the use of its KMS key.",
        ) from error
    except (NoConnectionError, HTTPClientError, IncompleteReadError) as error:
        raise _unavailable(where, type(error).__name__) from error


def _unavailable(where: str, why: str) -> StorageUnavailableError:
    return StorageUnavailableError(
        f"S3 is unavailable: {why}",
        field="source.key",
        value=where,
        remedy="Upload the image again later.",
    )
