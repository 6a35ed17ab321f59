"""S3: contents on disk, events sent to EventBridge, checks of forms and checksums."""

import base64
import hashlib
import itertools
import json
import re
import threading
import uuid
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from moto.core.responses import ActionResult
from moto.core.utils import unix_time_millis
from moto.events.models import events_backends
from moto.s3 import notifications
from moto.s3.exceptions import S3ClientError
from moto.s3.models import FakeKey, S3Backend
from moto.s3.responses import S3Response

from embedded_cloud.contents import Content
from embedded_cloud.moto_patches.around import around

REASONS = {
    "ObjectCreated:Put": "PutObject",
    "ObjectCreated:Post": "POST Object",
    "ObjectCreated:Copy": "CopyObject",
    "ObjectCreated:CompleteMultipartUpload": "CompleteMultipartUpload",
    "ObjectRemoved:Delete": "DeleteObject",
    "ObjectRemoved:DeleteMarkerCreated": "DeleteObject",
}

_sequence = itertools.count(1)
_held = threading.local()


@around(FakeKey, "__init__")
def keep_contents_on_disk(original: Any, self: Any, name: str, value: bytes, *args: Any, **kwargs: Any) -> None:
    """AWS has room for any number of objects; moto keeps those of up to 16 MB in memory."""
    original(self, name, b"", *args, **kwargs)
    self._value_buffer.close()
    self._value_buffer = Content()
    self.value = value
    # Moto computes the hash later, when other threads read the content, and both move its position.
    self._etag = self._etag or hashlib.md5(value, usedforsecurity=False).hexdigest()


@around(FakeKey, "__getstate__")
def share_the_content_with_copies(_original: Any, self: Any) -> dict[str, Any]:
    """Moto copies all keys of a bucket to list its versions; the copies need no contents of their own."""
    return {name: value for name, value in vars(self).items() if name != "lock"}


@around(FakeKey, "__setstate__")
def take_the_content_of_the_original(_original: Any, self: Any, state: dict[str, Any]) -> None:
    """Keep the content in the state, see :func:`share_the_content_with_copies`; moto writes it again."""
    self.__dict__.update(state, lock=threading.Lock())


@around(S3Response, "get_bucket_notification")
def return_that_events_are_on(original: Any, self: Any) -> Any:
    """AWS returns EventBridgeConfiguration of a bucket that sends events to EventBridge; moto does not."""
    configured = self.backend.get_bucket_notification_configuration(self.bucket_name)
    status, headers, body = original(self)
    if configured and configured.event_bridge is not None:
        body = re.sub(r"(?s)(<NotificationConfiguration[^>]*?)/?>", r"\1><EventBridgeConfiguration/>", body, count=1)
        if "</NotificationConfiguration>" not in body:
            body += "</NotificationConfiguration>"
    return status, headers, body


@around(notifications, "_send_event_bridge_message")
def send_the_whole_event(_original: Any, account_id: str, bucket: Any, event_name: str, key: Any) -> None:
    """AWS sends the version of a versioned object, the API call as reason and a unique id and sequencer; moto does not.

    Tag and ACL changes send no event: moto reports every PUT as a tag change as well.
    """
    reason = REASONS.get(event_name.removeprefix("s3:"))
    if reason is None:
        return
    subject = {"key": key.name, "size": key.size, "etag": key.etag.strip('"'), "sequencer": f"{next(_sequence):018X}"}
    if bucket.is_versioned:
        subject["version-id"] = key.version_id
    event = {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": notifications._detail_type(event_name),
        "source": "aws.s3",
        "account": account_id,
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": bucket.region_name,
        "resources": [bucket.arn],
        "detail": {
            "version": "0",
            "bucket": {"name": bucket.name},
            "object": subject,
            "request-id": uuid.uuid4().hex[:16].upper(),
            "requester": account_id,
            "source-ip-address": "127.0.0.1",
            "reason": reason,
        },
    }
    _held.events.append((account_id, bucket.region_name, event))


def send_events_after_the_response(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    """AWS sends the event when the object is complete; moto sends it before the metadata is stored."""
    _held.events = []
    response = original(self, *args, **kwargs)
    events, _held.events = _held.events, []  # responses are often nested
    for account_id, region, event in events:
        for rule in list(events_backends[account_id][region].event_buses["default"].rules.values()):
            rule.send_to_targets(event, transform_input=False)
    return response


@around(S3Response, "_bucket_response_post")
def check_the_form(original: Any, self: Any, request: Any, bucket_name: str) -> Any:
    """AWS checks a form's file against its policy and its checksum, which it keeps; moto does not."""
    form, checksum = self.form_data, None
    if "policy" in form:
        policy = json.loads(base64.b64decode(form["policy"]))
        if datetime.fromisoformat(policy["expiration"]) < datetime.now(UTC):
            raise S3ClientError("AccessDenied", "Invalid according to Policy: Policy expired.")
        for condition in policy["conditions"]:
            if isinstance(condition, dict):
                [(name, value)] = condition.items()
                if name != "bucket" and form.get(name) != value:
                    raise S3ClientError("AccessDenied", f"Invalid according to Policy: {name}")
            elif condition[0] == "content-length-range" and not condition[1] <= len(self.body) <= condition[2]:
                raise S3ClientError("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
        if checksum := form.get("x-amz-checksum-sha256"):
            _compare(self.body, checksum)
    response = original(self, request, bucket_name)
    if checksum:
        key = self.backend.get_object(bucket_name, form["key"])
        key.checksum_algorithm, key.checksum_value = "SHA256", checksum
    return response


@around(S3Response, "_get_checksum")
def keep_the_checksum(original: Any, self: Any, response_headers: dict[str, Any]) -> Any:
    """AWS compares a SHA-256 with the content and keeps it; moto only if another header names the algorithm."""
    checksum = self.headers.get("x-amz-checksum-sha256")
    if not checksum or "x-amz-sdk-checksum-algorithm" in self.headers:
        return original(self, response_headers)
    _compare(self.body or b"", checksum)
    response_headers["x-amz-checksum-sha256"] = checksum
    return "SHA256", checksum


@around(S3Backend, "list_object_versions")
def start_after_the_key_marker(original: Any, self: Any, bucket_name: str, **given: Any) -> Any:
    """AWS starts after the last version of the key marker, which need not exist; moto leaves out one version more."""
    marker = given.get("key_marker")
    if marker is not None and not given.get("version_id_marker"):
        listed = self.get_bucket(bucket_name).keys.iterlists()
        before = [version for _, versions in listed for version in versions if version.name <= marker]
        last = max(before, key=lambda version: (version.name, -unix_time_millis(version.last_modified)), default=None)
        given["key_marker"] = last and last.name
        given["version_id_marker"] = last and last.version_id
    return original(self, bucket_name, **given)


@around(S3Response, "list_object_versions")
def encode_listed_keys(original: Any, self: Any) -> Any:
    """AWS encodes the keys of versions if asked, as botocore does: XML has no control characters. Moto does not."""
    if self.querystring.get("encoding-type", [None])[0] != "url":
        return original(self)

    def encoded(value: Any) -> Any:
        return quote(value) if isinstance(value, str) else value

    def answer(listed: ActionResult) -> Any:
        result: Any = listed.result
        tops = {name: encoded(result.get(name)) for name in ("Prefix", "Delimiter", "KeyMarker", "NextKeyMarker")}
        versions, markers = (
            [{**one, "Key": quote(one["Key"])} for one in result[name]] for name in ("Versions", "DeleteMarkers")
        )
        prefixes = [{"Prefix": quote(one["Prefix"])} for one in result.get("CommonPrefixes", ())]
        lists = {"Versions": versions, "DeleteMarkers": markers, "CommonPrefixes": prefixes}
        return S3Response.serialized(self, ActionResult({**result, **tops, **lists, "EncodingType": "url"}))

    self.serialized = answer
    try:
        return original(self)
    finally:
        del self.serialized


def _compare(content: bytes, checksum: str) -> None:
    if base64.b64encode(hashlib.sha256(content).digest()).decode() != checksum:
        raise S3ClientError("BadDigest", "The SHA256 you specified did not match the calculated checksum.")


around(S3Response, "key_response")(send_events_after_the_response)
around(S3Response, "bucket_response")(send_events_after_the_response)
