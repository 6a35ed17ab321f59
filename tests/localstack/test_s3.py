"""What the functions, the API and the sweep rely on S3 for."""

import hashlib
import time
import uuid
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config

from core.errors import SourceChangedError, SourceNotFoundError
from functions.runtime.store import S3_SDK, Store
from tests.localstack.conftest import REGION, Account

KEY = "photos/a b+ü.jpg"
JPEG = "image/jpeg"


def client_of(account: Account) -> Any:
    """Return a client that signs as the functions do."""
    return boto3.client(
        "s3",
        region_name=REGION,
        endpoint_url=account.endpoint_url,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=S3_SDK.merge(Config(s3={"addressing_style": "path"})),
    )


@pytest.fixture
def store(aws: Account) -> Store:
    return Store(client_of(aws))


@pytest.fixture
def bucket(aws: Account) -> str:
    """A versioned bucket, in which a new object starts nothing."""
    return aws.ids["ResultsBucket"]


@pytest.fixture
def prefix() -> str:
    return f"{uuid.uuid4()}/"


def post(form: dict[str, Any], data: bytes, **changed: str) -> httpx.Response:
    return httpx.post(form["url"], data={**form["fields"], **changed}, files={"file": data})


def test_each_version_stays_readable(store: Store, bucket: str, prefix: str) -> None:
    key = prefix + KEY
    first = store.put(bucket, key, b"first", JPEG, {"pbr-format": "webp"})
    second = store.put(bucket, key, b"second", JPEG)
    assert first != second
    old, new = store.fetch(bucket, key, version_id=first), store.fetch(bucket, key)
    assert (old.data, old.metadata, new.data) == (b"first", {"pbr-format": "webp"}, b"second")
    assert (old.version_id, new.version_id) == (first, second)
    store.delete(bucket, key, second)
    assert store.newest(bucket, key).version_id == first


def test_an_overwritten_object_does_not_match_its_earlier_etag(store: Store, aws: Account, prefix: str) -> None:
    unversioned = aws.ids["WorkBucket"]
    store.put(unversioned, prefix, b"first", JPEG)
    etag = store.fetch(unversioned, prefix).etag
    assert store.fetch(unversioned, prefix, etag=etag).data == b"first"
    store.put(unversioned, prefix, b"second", JPEG)
    with pytest.raises(SourceChangedError):
        store.fetch(unversioned, prefix, etag=etag)


def test_missing_objects_and_versions_are_not_found(store: Store, bucket: str, prefix: str) -> None:
    version = store.put(bucket, prefix, b"", JPEG)
    store.delete(bucket, prefix, version)
    for version_id in (None, version, "malformed"):
        with pytest.raises(SourceNotFoundError):
            store.fetch(bucket, prefix, version_id=version_id)
        assert store.newest(bucket, prefix, version_id) is None
    with pytest.raises(SourceNotFoundError):
        store.fetch(bucket, "k" * 1025)


def test_a_deleted_object_is_not_found_but_listed_as_deleted(
    store: Store, aws: Account, bucket: str, prefix: str
) -> None:
    version = store.put(bucket, prefix + KEY, b"", JPEG)
    store.put(bucket, prefix + "kept", b"", JPEG)
    aws.client("s3").delete_object(Bucket=bucket, Key=prefix + KEY)
    with pytest.raises(SourceNotFoundError):
        store.fetch(bucket, prefix + KEY)
    assert store.fetch(bucket, prefix + KEY, version_id=version).data == b""
    assert [key for key, _ in store.deletions(bucket, prefix)] == [prefix + KEY]
    store.delete_permanently(list(store.versions(bucket, prefix + KEY)))
    assert list(store.deletions(bucket, prefix)) == []
    assert store.newest(bucket, prefix + KEY, version) is None


def test_a_copy_has_its_own_metadata(store: Store, aws: Account, bucket: str, prefix: str) -> None:
    work = aws.ids["WorkBucket"]
    store.put(work, prefix + KEY, b"content", JPEG, {"of": "source"})
    version = store.copy((work, prefix + KEY), bucket, prefix + KEY, "image/webp", {"of": "copy"})
    copied = store.fetch(bucket, prefix + KEY)
    assert (copied.data, copied.version_id, copied.metadata) == (b"content", version, {"of": "copy"})
    assert aws.client("s3").head_object(Bucket=bucket, Key=prefix + KEY)["ContentType"] == "image/webp"
    with pytest.raises(SourceNotFoundError):
        store.copy((work, prefix + "absent"), bucket, prefix + KEY, JPEG, {})


def test_a_listing_in_pages_has_the_newest_version_of_each_object(aws: Account, bucket: str, prefix: str) -> None:
    s3 = client_of(aws)
    s3.meta.events.register("provide-client-params.s3.ListObjectVersions", lambda params, **_: {**params, "MaxKeys": 2})
    store = Store(s3)
    keys = [f"{prefix}{name}" for name in ("a", "b/c", "b/d", "e", "f")]
    newest = {}
    for key in (*keys, *keys):
        newest[key] = store.put(bucket, key, b"", JPEG)
    s3.delete_object(Bucket=bucket, Key=keys[1])
    pages = list(store.newest_versions(bucket, prefix=prefix))
    assert len(pages) > 2
    listed = [(one.key, one.version_id) for page in pages for one in page.newest]
    assert listed == [(key, newest[key]) for key in keys if key != keys[1]]
    after = store.newest_versions(bucket, after=f"{prefix}b/cc", prefix=prefix)
    assert [one.key for page in after for one in page.newest] == keys[2:]


def test_the_sha256_of_an_upload_is_checked_and_kept(store: Store, bucket: str, prefix: str) -> None:
    sha256 = hashlib.sha256(b"content").hexdigest()
    form = store.upload_form(bucket, prefix, JPEG, 100, 60, sha256=sha256)
    assert post(form, b"content").status_code == 204
    assert store.newest(bucket, prefix, checksum=True).sha256 == sha256
    refused = post(form, b"contenT")
    assert refused.status_code == 400
    assert store.fetch(bucket, prefix).data == b"content"


def test_a_form_uploads_only_what_its_policy_allows(store: Store, bucket: str, prefix: str) -> None:
    form = store.upload_form(bucket, prefix, JPEG, 5, 60)
    assert post(form, b"12345").status_code == 204
    refused = {
        "larger": post(form, b"123456"),
        "empty": post(form, b""),
        "another key": post(form, b"12345", key=f"{prefix}other"),
        "another type": post(form, b"12345", **{"Content-Type": "text/html"}),
    }
    assert {name: answer.status_code for name, answer in refused.items()} == {
        "larger": 400,
        "empty": 400,
        "another key": 403,
        "another type": 403,
    }
    assert "EntityTooLarge" in refused["larger"].text
    assert store.newest(bucket, f"{prefix}other") is None


def test_an_expired_form_is_refused(store: Store, bucket: str, prefix: str) -> None:
    form = store.upload_form(bucket, prefix, JPEG, 5, 1)
    time.sleep(2)
    assert post(form, b"1").status_code == 403


def test_a_presigned_url_serves_one_version(store: Store, bucket: str, prefix: str) -> None:
    first = store.put(bucket, prefix + KEY, b"first", JPEG)
    store.put(bucket, prefix + KEY, b"second", JPEG)
    answer = httpx.get(store.url(bucket, prefix + KEY, first, 60))
    assert (answer.content, answer.headers["content-type"]) == (b"first", JPEG)
    assert httpx.get(store.url(bucket, prefix + KEY, None, 60)).content == b"second"


def test_the_signature_of_a_presigned_url_is_checked(on_localstack: Account, prefix: str) -> None:
    store, bucket = Store(client_of(on_localstack)), on_localstack.ids["ResultsBucket"]
    store.put(bucket, prefix, b"content", JPEG)
    url = store.url(bucket, prefix, None, 60)
    assert httpx.get(url).status_code == 200
    assert httpx.get(url.replace("X-Amz-Expires=60", "X-Amz-Expires=600")).status_code == 403
    expired = store.url(bucket, prefix, None, 1)
    time.sleep(2)
    assert httpx.get(expired).status_code == 403
