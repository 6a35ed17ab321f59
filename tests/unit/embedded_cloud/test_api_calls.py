from typing import Any
from urllib.parse import quote

import botocore.session
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded_cloud.api_calls import _RESOURCES, Call, Place, UnknownCallError, calls, s3_calls

PLACE = Place("aws", "eu-west-1", "123456789012")
MACHINE = "arn:aws:states:eu-west-1:123456789012:stateMachine:cut-outs"
TABLE = "arn:aws:dynamodb:eu-west-1:123456789012:table/cache"
FUNCTION = "arn:aws:lambda:eu-west-1:123456789012:function:encode"
QUEUE = "http://localhost:5000/123456789012/requests"


def made(service: str, operation: str, **given: Any) -> list[tuple[str, str]]:
    return [(call.action, call.resource) for call in calls(service, operation, given.get, PLACE)]


def s3(method: str, key: str = "", headers: dict[str, str] | None = None, **query: str) -> list[tuple[str, str]]:
    found = s3_calls(
        method, "photos", key, {name.replace("_", "-"): query[name] for name in query}, headers or {}, "aws"
    )
    return [(call.action.removeprefix("s3:"), call.resource.removeprefix("arn:aws:s3:::")) for call in found]


@pytest.mark.parametrize(
    ("service", "operation", "given", "expected"),
    [
        ("dynamodb", "GetItem", {"TableName": "cache"}, ("dynamodb:GetItem", TABLE)),
        ("dynamodb", "GetItem", {"TableName": TABLE}, ("dynamodb:GetItem", TABLE)),
        ("dynamodb", "Query", {"TableName": "cache", "IndexName": "q"}, ("dynamodb:Query", f"{TABLE}/index/q")),
        ("lambda", "Invoke", {"FunctionName": "encode"}, ("lambda:InvokeFunction", FUNCTION)),
        ("lambda", "Invoke", {"FunctionName": quote(FUNCTION)}, ("lambda:InvokeFunction", FUNCTION)),
        ("lambda", "Invoke", {"FunctionName": "encode", "Qualifier": "3"}, ("lambda:InvokeFunction", f"{FUNCTION}:3")),
        (
            "sqs",
            "DeleteMessageBatch",
            {"QueueUrl": QUEUE},
            ("sqs:DeleteMessage", "arn:aws:sqs:eu-west-1:123456789012:requests"),
        ),
        ("states", "StartExecution", {"stateMachineArn": f"{MACHINE}:live"}, ("states:StartExecution", MACHINE)),
        ("states", "StartExecution", {"stateMachineArn": MACHINE}, ("states:StartExecution", MACHINE)),
        ("states", "StopExecution", {"executionArn": "arn:e"}, ("states:StopExecution", "arn:e")),
        ("monitoring", "GetMetricData", {}, ("cloudwatch:GetMetricData", "*")),
        (
            "sagemaker",
            "InvokeEndpointAsync",
            {"EndpointName": "gpu"},
            ("sagemaker:InvokeEndpointAsync", "arn:aws:sagemaker:eu-west-1:123456789012:endpoint/gpu"),
        ),
    ],
)
def test_a_call_needs_an_action_on_a_resource(
    service: str, operation: str, given: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert made(service, operation, **given) == [expected]


def test_each_item_of_a_transaction_needs_the_permission_of_its_operation() -> None:
    items = [{"Update": {"TableName": "cache"}}, {"ConditionCheck": {"TableName": "jobs"}}]
    assert made("dynamodb", "TransactWriteItems", TransactItems=items) == [
        ("dynamodb:UpdateItem", TABLE),
        ("dynamodb:ConditionCheckItem", "arn:aws:dynamodb:eu-west-1:123456789012:table/jobs"),
    ]


def test_the_own_identity_needs_no_permission() -> None:
    assert made("sts", "GetCallerIdentity") == []


@pytest.mark.parametrize(
    ("service", "operation"), [("dynamodb", "BatchGetItem"), ("iam", "CreateUser"), ("sqs", "PurgeQueue")]
)
def test_an_unknown_call_is_an_error(service: str, operation: str) -> None:
    with pytest.raises(UnknownCallError, match=f"{service}:{operation}"):
        made(service, operation)


def test_every_known_call_is_an_operation_of_the_service() -> None:
    names = {"cloudwatch": ["cloudwatch"], "sagemaker": ["sagemaker", "sagemaker-runtime"], "states": ["stepfunctions"]}
    session = botocore.session.Session()
    for service, known in _RESOURCES.items():
        operations = {
            name for model in names.get(service, [service]) for name in session.get_service_model(model).operation_names
        }
        assert known.keys() - {"InvokeFunction", "ConditionCheckItem"} <= operations


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (s3("GET", "a/1.png"), [("GetObject", "photos/a/1.png")]),
        (s3("HEAD", "a"), [("GetObject", "photos/a")]),
        (s3("HEAD", "a", versionId="3"), [("GetObjectVersion", "photos/a")]),
        (
            s3("GET", "a", versionId="3", X_Amz_Signature="0", response_content_type="x"),
            [("GetObjectVersion", "photos/a")],
        ),
        (s3("PUT", "a", x_id="PutObject"), [("PutObject", "photos/a")]),
        (s3("PUT", "a", {"x-amz-tagging": "b=c"}), [("PutObject", "photos/a"), ("PutObjectTagging", "photos/a")]),
        (s3("PUT", "a", {"x-amz-copy-source": "work/b%20c"}), [("PutObject", "photos/a"), ("GetObject", "work/b c")]),
        (
            s3("PUT", "a", {"x-amz-copy-source": "/work/b?versionId=3"}),
            [("PutObject", "photos/a"), ("GetObjectVersion", "work/b")],
        ),
        (s3("POST", "a", uploads=""), [("PutObject", "photos/a")]),
        (s3("PUT", "a", uploadId="1", partNumber="2"), [("PutObject", "photos/a")]),
        (s3("GET", "a", uploadId="1"), [("ListMultipartUploadParts", "photos/a")]),
        (s3("DELETE", "a", uploadId="1"), [("AbortMultipartUpload", "photos/a")]),
        (s3("DELETE", "a"), [("DeleteObject", "photos/a")]),
        (s3("DELETE", "a", versionId="3"), [("DeleteObjectVersion", "photos/a")]),
        (s3("HEAD"), [("ListBucket", "photos")]),
        (s3("GET", list_type="2", prefix="a/"), [("ListBucket", "photos")]),
        (s3("GET", versions="", key_marker="a"), [("ListBucketVersions", "photos")]),
    ],
)
def test_a_request_to_s3_needs_actions_on_objects_or_the_bucket(
    request_: list[tuple[str, str]], expected: list[tuple[str, str]]
) -> None:
    assert request_ == expected


@pytest.mark.parametrize(
    ("method", "key", "query"),
    [("PUT", "a", "acl"), ("GET", "a", "tagging"), ("PUT", "", "policy")],
)
def test_an_unknown_request_to_s3_is_an_error(method: str, key: str, query: str) -> None:
    with pytest.raises(UnknownCallError, match=query):
        s3(method, key, **{query: ""})


def test_each_object_of_a_batch_needs_the_permission_to_delete_it() -> None:
    body = b"<Delete><Object><Key>a&amp;b</Key><VersionId>3</VersionId></Object><Object><Key>c</Key></Object></Delete>"
    assert s3_calls("POST", "photos", "", {"delete": ""}, {}, "aws", body) == [
        Call("s3:DeleteObjectVersion", "arn:aws:s3:::photos/a&b"),
        Call("s3:DeleteObject", "arn:aws:s3:::photos/c"),
    ]


@given(st.from_regex("[a-z0-9.-]+", fullmatch=True), st.text(min_size=1))
def test_the_source_of_a_copy_is_decoded(bucket: str, key: str) -> None:
    source = {"x-amz-copy-source": quote(f"{bucket}/{key}")}
    assert s3_calls("PUT", "photos", "a", {}, source, "aws")[1] == Call("s3:GetObject", f"arn:aws:s3:::{bucket}/{key}")
