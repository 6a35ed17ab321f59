from urllib.parse import parse_qsl, urlsplit

import boto3
import pytest
from botocore.auth import S3SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from embedded_cloud.callers import OWN_KEY, Caller, access_key, caller_of, is_own

KEY = access_key("arn:aws:iam::123456789012:role/stack-EncodeRole-1")


def test_a_signed_header_names_the_role_and_the_service() -> None:
    request = AWSRequest("GET", "http://localhost/bucket/key")
    S3SigV4Auth(Credentials(KEY, "secret"), "s3", "eu-west-1").add_auth(request)
    caller = caller_of(dict(request.headers), {}, {})
    assert caller == Caller(KEY, "s3")
    assert caller.role == "stack-EncodeRole-1"


def test_a_presigned_url_names_the_role() -> None:
    request = AWSRequest("GET", "http://localhost/bucket/key", params={})
    SigV4QueryAuth(Credentials(KEY, "secret"), "states", "eu-west-1").add_auth(request)
    query = dict(parse_qsl(urlsplit(str(request.url)).query))
    assert caller_of({}, query, {}) == Caller(KEY, "states")


def test_a_form_names_the_role() -> None:
    client = boto3.client("s3", region_name="eu-west-1", aws_access_key_id=KEY, aws_secret_access_key="secret")
    assert caller_of({}, {}, client.generate_presigned_post("bucket", "key")["fields"]).role == "stack-EncodeRole-1"


@pytest.mark.parametrize("query", [{}, {"AWSAccessKeyId": "AKIAIOSFODNN7EXAMPLE"}])
def test_users_have_no_role(query: dict[str, str]) -> None:
    assert caller_of({}, query, {}).role == ""


def test_the_cloud_itself_has_no_role() -> None:
    assert access_key("") == OWN_KEY
    assert Caller(OWN_KEY).role == ""


@pytest.mark.parametrize(
    ("key", "own"), [(OWN_KEY, True), (KEY, True), ("local", False), (f"{OWN_KEY}er", False)], ids=str
)
def test_keys_of_the_cloud_and_its_roles_are_its_own(key: str, own: bool) -> None:
    assert is_own(f"AWS4-HMAC-SHA256 Credential={key}/20261130/eu-west-1/s3/aws4_request, Signature=0") is own
