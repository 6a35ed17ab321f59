from collections.abc import Iterator
from typing import Any

import boto3
import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError
from moto import mock_aws

from core.errors import FileTooLargeError, SourceChangedError, SourceNotFoundError
from core.limits import MAX_BYTES
from functions.contracts.errors import StorageDeniedError, StorageUnavailableError
from functions.runtime.store import S3_SDK, Deletable, Store


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="uploads")
        yield client


def test_the_uploaded_version_is_read_even_if_a_newer_one_exists(s3: Any) -> None:
    s3.put_bucket_versioning(Bucket="uploads", VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket="uploads", Key="a", Body=b"first", Metadata={"pbr-format": "webp"})["VersionId"]
    s3.put_object(Bucket="uploads", Key="a", Body=b"second")
    file = Store(s3).fetch("uploads", "a", version_id=first)
    assert (file.data, file.version_id, file.metadata) == (b"first", first, {"pbr-format": "webp"})


def test_an_object_overwritten_in_an_unversioned_bucket_is_detected(s3: Any) -> None:
    etag = s3.put_object(Bucket="uploads", Key="a", Body=b"first")["ETag"].strip('"')
    store = Store(s3)
    assert store.fetch("uploads", "a", etag=etag).data == b"first"
    s3.put_object(Bucket="uploads", Key="a", Body=b"second")
    with pytest.raises(SourceChangedError):
        store.fetch("uploads", "a", etag=etag)


@pytest.mark.parametrize(("bucket", "key"), [("uploads", "none.jpg"), ("no-such-bucket", "a")])
def test_a_missing_object_is_named_in_the_error(s3: Any, bucket: str, key: str) -> None:
    with pytest.raises(SourceNotFoundError) as caught:
        Store(s3).fetch(bucket, key)
    assert caught.value.value == f"s3://{bucket}/{key}"


class AnsweringS3:
    """Stands for the client, with one answer for everything."""

    def __init__(self, answer: dict[str, Any] | Exception) -> None:
        self.answer = answer

    def get_object(self, **_: Any) -> dict[str, Any]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class UnreadBody:
    closed = False

    def read(self) -> bytes:
        raise AssertionError("a file above the limit must not be read")

    def close(self) -> None:
        self.closed = True


def test_a_file_above_the_limit_is_rejected_unread() -> None:
    body = UnreadBody()
    store = Store(AnsweringS3({"ContentLength": MAX_BYTES + 1, "Body": body}))
    with pytest.raises(FileTooLargeError):
        store.fetch("uploads", "a")
    assert body.closed


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("SlowDown", 503, StorageUnavailableError),
        ("InternalError", 500, StorageUnavailableError),
        ("RequestTimeout", 400, StorageUnavailableError),
        ("AccessDenied", 403, StorageDeniedError),
        ("KMS.DisabledException", 400, StorageDeniedError),
    ],
)
def test_temporary_and_permanent_errors_are_distinguished(code: str, status: int, expected: type[Exception]) -> None:
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(expected):
        Store(AnsweringS3(ClientError(answer, "GetObject"))).fetch("uploads", "a")


def test_a_malformed_version_id_is_a_missing_version() -> None:
    answer = {"Error": {"Code": "InvalidArgument"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    store = Store(AnsweringS3(ClientError(answer, "GetObject")))
    with pytest.raises(SourceNotFoundError):
        store.fetch("uploads", "a", version_id="none of S3's")
    with pytest.raises(StorageDeniedError):
        store.fetch("uploads", "a")


def test_an_unreachable_endpoint_is_a_transient_error() -> None:
    client = boto3.client(
        "s3",
        region_name="us-east-1",
        endpoint_url="http://127.0.0.1:9",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=1),
    )
    with pytest.raises(StorageUnavailableError):
        Store(client).fetch("uploads", "a")


def test_a_presigned_url_returns_its_version(s3: Any) -> None:
    s3.put_bucket_versioning(Bucket="uploads", VersioningConfiguration={"Status": "Enabled"})
    store = Store(s3)
    version_ids = [store.put("uploads", "a", data, "image/png") for data in (b"first", b"second")]
    urls = [store.url("uploads", "a", version_id, 60) for version_id in (*version_ids, None)]
    assert [requests.get(url).content for url in urls] == [b"first", b"second", b"second"]  # moto answers for S3


@pytest.mark.parametrize("region", ["eu-west-1", "eu-south-1"])
def test_presigned_urls_contain_the_region_of_the_bucket(s3: Any, region: str) -> None:
    store = Store(boto3.client("s3", region_name=region, config=S3_SDK))
    place = f"https://results.s3.{region}.amazonaws.com/"
    assert store.url("results", "a.png", None, 60).startswith(f"{place}a.png?X-Amz-Algorithm=AWS4-HMAC-SHA256&")
    assert store.upload_form("results", "a.png", "image/png", 100, 60)["url"] == place


class Deletions:
    """Records deletions; ``errors`` is the answer for the objects of a batch that S3 does not delete."""

    def __init__(self, *errors: dict[str, str]) -> None:
        self.errors = list(errors)
        self.batches: list[list[tuple[str, str | None]]] = []
        self.single: list[str] = []

    def delete_objects(self, **request: Any) -> dict[str, Any]:
        self.batches.append([(one["Key"], one.get("VersionId")) for one in request["Delete"]["Objects"]])
        return {"Errors": self.errors} if self.errors else {}

    def delete_object(self, **request: Any) -> None:
        self.single.append(request["Key"])


def test_versions_are_deleted_in_batches_the_oldest_first_and_delete_markers_last() -> None:
    s3: Any = Deletions()
    versions = [Deletable("uploads", "a", f"v{number}", 1) for number in range(1500, 0, -1)]
    Store(s3).delete_permanently([*versions, Deletable("uploads", "a", "marker", 0, is_marker=True)])
    assert [len(batch) for batch in s3.batches] == [1000, 501]
    assert (s3.batches[0][0], s3.batches[1][-1]) == (("a", "v1"), ("a", "marker"))


def test_a_key_that_xml_cannot_contain_is_deleted_by_itself() -> None:
    s3: Any = Deletions()
    Store(s3).delete_permanently([Deletable("uploads", key, "v1", 1) for key in ("a\x01", "ä\n&<")])
    assert (s3.single, s3.batches) == (["a\x01"], [[("ä\n&<", "v1")]])


@pytest.mark.parametrize(
    ("code", "expected", "says"),
    [
        ("AccessDenied", StorageDeniedError, "Grant s3:DeleteObject and s3:DeleteObjectVersion"),
        ("InternalError", StorageUnavailableError, "S3 is unavailable"),
        ("SlowDown", StorageUnavailableError, "S3 is unavailable"),
    ],
)
def test_a_version_that_is_not_deleted_is_an_error(code: str, expected: type[Exception], says: str) -> None:
    s3: Any = Deletions({"Key": "a", "Code": code, "Message": "no"})
    with pytest.raises(expected, match=says):
        Store(s3).delete_permanently([Deletable("uploads", "a", "v1", 1)])


def test_versions_of_a_key_come_first_in_a_listing(s3: Any) -> None:
    s3.put_bucket_versioning(Bucket="uploads", VersioningConfiguration={"Status": "Enabled"})
    for key in ("a/b", "a", "a.png", "a"):
        s3.put_object(Bucket="uploads", Key=key, Body=b"12")
    s3.delete_object(Bucket="uploads", Key="a")
    found = [(one.key, one.bytes, one.is_marker) for one in Store(s3).versions("uploads", "a")]
    assert found == [("a", 2, False), ("a", 2, False), ("a", 0, True), ("a.png", 2, False), ("a/b", 2, False)]
