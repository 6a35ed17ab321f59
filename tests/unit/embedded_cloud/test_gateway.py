"""The embedded API Gateway: which event a request becomes, which response an answer, and where the limits are."""

import base64
import http.client
import json
import re
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import Client

from embedded_cloud.gateway import LAMBDA_BYTES, REQUEST_BYTES, FunctionError, Gateway, Route, Server

SIGNATURE = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261123/eu-west-1/execute-api/aws4_request, Signature=00"
SEGMENT = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1)
TEXT = st.text(st.characters(codec="utf-8"))


class Function:
    """Records its event and returns a given result."""

    def __init__(self, answer: Any = None) -> None:
        self.event: dict[str, Any] = {}
        self.answer = {"statusCode": 204} if answer is None else answer

    def __call__(self, event: dict[str, Any]) -> Any:
        self.event = event
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


FUNCTION = Function()
CLIENT = Client(Gateway(FUNCTION), use_cookies=False)


def answered(answer: Any) -> Any:
    return Client(Gateway(Function(answer))).get("/thing")


def message(response: Any) -> tuple[int, str]:
    return response.status_code, response.json["message"]


def test_an_event_tells_all_of_the_request() -> None:
    CLIENT.post(
        "/jobs/a%20b?size=1&size=2&x=%26",
        data='{"a": 1}',
        content_type="application/json; charset=utf-8",
        headers=[
            ("X-API-Key", "k"),
            ("Accept", "a/b"),
            ("Accept", "c/d"),
            ("Cookie", "a=1; b=2"),
            ("User-Agent", "me"),
        ],
        environ_overrides={"REMOTE_ADDR": "192.0.2.7"},
    )

    event = FUNCTION.event
    assert (event["version"], event["routeKey"], event["rawPath"]) == ("2.0", "ANY /{proxy+}", "/jobs/a b")
    assert event["rawQueryString"] == "size=1&size=2&x=%26"
    assert event["queryStringParameters"] == {"size": "1,2", "x": "&"}
    assert event["pathParameters"] == {"proxy": "jobs/a b"}
    assert event["cookies"] == ["a=1", "b=2"]
    assert event["headers"].items() >= {"x-api-key": "k", "content-length": "8", "host": "localhost"}.items()
    assert re.split(r",\s*", event["headers"]["accept"]) == ["a/b", "c/d"]
    assert "cookie" not in event["headers"]
    assert (event["body"], event["isBase64Encoded"]) == ('{"a": 1}', False)
    context = event["requestContext"]
    assert (context["stage"], context["routeKey"], context["domainName"]) == ("$default", "ANY /{proxy+}", "localhost")
    assert context["http"] == {
        "method": "POST",
        "path": "/jobs/a b",
        "protocol": "HTTP/1.1",
        "sourceIp": "192.0.2.7",
        "userAgent": "me",
    }
    assert re.fullmatch(r"\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000", context["time"])
    assert context["timeEpoch"] > 1.7e12
    assert "authorizer" not in context


def test_a_request_without_body_query_or_cookies_has_no_such_fields() -> None:
    CLIENT.get("/health")

    assert not FUNCTION.event.keys() & {"body", "queryStringParameters", "cookies"}
    assert FUNCTION.event["rawQueryString"] == ""


@given(segments=st.lists(SEGMENT, min_size=1, max_size=3), query=st.lists(st.tuples(TEXT, TEXT), max_size=4))
def test_paths_come_decoded_and_queries_both_ways(segments: list[str], query: list[tuple[str, str]]) -> None:
    CLIENT.get("/" + "/".join(quote(segment, safe="") for segment in segments), query_string=urlencode(query))

    event = FUNCTION.event
    assert event["pathParameters"]["proxy"] == event["rawPath"][1:] == "/".join(segments)
    assert event["rawQueryString"] == urlencode(query)
    expected = {name: ",".join(v for n, v in query if n == name) for name, _ in query}
    assert event.get("queryStringParameters", {}) == expected


@given(body=st.binary(min_size=1), content_type=st.sampled_from(["image/png", "multipart/form-data; boundary=b", None]))
def test_bytes_travel_as_base64(body: bytes, content_type: str | None) -> None:
    CLIENT.post("/process", data=body, content_type=content_type)

    assert FUNCTION.event["isBase64Encoded"] is True
    assert base64.b64decode(FUNCTION.event["body"]) == body


@given(body=TEXT.filter(bool), content_type=st.sampled_from(["text/plain", "application/json", "application/xml"]))
def test_text_travels_as_it_is(body: str, content_type: str) -> None:
    CLIENT.post("/process", data=body.encode(), content_type=content_type)

    assert (FUNCTION.event["body"], FUNCTION.event["isBase64Encoded"]) == (body, False)


def test_a_form_travels_as_base64_too() -> None:
    CLIENT.post("/process", data={"size": "auto"})

    assert base64.b64decode(FUNCTION.event["body"]) == b"size=auto"


def test_the_more_particular_route_wins_and_wants_a_signature() -> None:
    assert message(CLIENT.get("/iam/health")) == (403, "Forbidden")
    assert message(CLIENT.get("/iam/health", headers={"Authorization": "Bearer AKIDEXAMPLE"})) == (403, "Forbidden")

    CLIENT.get("/iam/health", headers={"Authorization": SIGNATURE})

    assert FUNCTION.event["routeKey"] == "ANY /iam/{proxy+}"
    assert FUNCTION.event["rawPath"] == "/iam/health"
    identity = FUNCTION.event["requestContext"]["authorizer"]["iam"]
    assert (identity["accessKey"], identity["userArn"]) == ("AKIDEXAMPLE", "arn:aws:iam::123456789012:user/AKIDEXAMPLE")


def test_what_no_route_takes_is_not_found() -> None:
    client = Client(Gateway(FUNCTION, [Route("GET /jobs/{id}")]))

    assert client.get("/jobs/1").status_code == 204
    assert FUNCTION.event["pathParameters"] == {"id": "1"}
    assert message(client.post("/jobs/1")) == message(client.get("/jobs/1/2")) == (404, "Not Found")
    assert message(CLIENT.get("/")) == (404, "Not Found")


def test_an_answer_becomes_the_response() -> None:
    headers = {"Content-Type": "image/png", "X-Type": "person", "Content-Length": "1"}
    body = base64.b64encode(b"\x89PNG\xff").decode()
    response = answered(
        {"statusCode": 201, "headers": headers, "cookies": ["a=1", "b=2"], "body": body, "isBase64Encoded": True}
    )

    assert (response.status_code, response.data) == (201, b"\x89PNG\xff")
    assert (response.headers["Content-Type"], response.headers["X-Type"]) == ("image/png", "person")
    assert response.headers["Content-Length"] == "5"
    assert response.headers.getlist("Set-Cookie") == ["a=1", "b=2"]
    assert response.headers["Apigw-Requestid"]


def test_an_answer_without_a_status_is_sent_as_json() -> None:
    response = answered({"message": "ä"})

    assert (response.status_code, response.json) == (200, {"message": "ä"})
    assert response.content_type == "application/json"


@pytest.mark.parametrize(
    "answer",
    [
        FunctionError("boom"),
        {"statusCode": "fine"},
        {"statusCode": 200, "body": {"a": 1}},
        {"statusCode": 200, "body": "no base64!", "isBase64Encoded": True},
        {"statusCode": 200, "body": object()},
        {"statusCode": 200, "body": "x" * LAMBDA_BYTES},
    ],
    ids=["raised", "status", "body", "base64", "no JSON", "too long"],
)
def test_what_is_no_answer_is_an_internal_server_error(answer: Any) -> None:
    assert message(answered(answer)) == (500, "Internal Server Error")


def test_a_function_that_takes_too_long_is_not_waited_for() -> None:
    done = threading.Event()
    gateway = Gateway(lambda _event: done.wait(10), timeout_s=0.01)

    assert message(Client(gateway).get("/thing")) == (503, "Service Unavailable")
    done.set()
    gateway.close()


def test_bodies_are_limited_by_the_gateway_and_events_by_lambda() -> None:
    long = LAMBDA_BYTES * 3 // 4  # in base64

    assert message(CLIENT.post("/x", data=bytes(REQUEST_BYTES + 1))) == (413, "Request Entity Too Large")
    assert message(CLIENT.post("/x", data=bytes(REQUEST_BYTES))) == (413, "Request Too Long")
    assert message(CLIENT.post("/x", data=bytes(long))) == (413, "Request Too Long")
    assert CLIENT.post("/x", data=bytes(long - 2000)).status_code == 204


@pytest.fixture
def served() -> Iterator[tuple[Function, http.client.HTTPConnection]]:
    function = Function({"statusCode": 200, "body": "ok"})
    gateway = Gateway(function)
    server = Server(gateway, "127.0.0.1", 0)
    yield function, http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    server.close()
    gateway.close()


def test_a_body_in_chunks_arrives_whole(served: tuple[Function, http.client.HTTPConnection]) -> None:
    function, connection = served

    connection.request("POST", "/process", iter([b"ab", b"c"]), {"Content-Type": "image/png"}, encode_chunked=True)
    response = connection.getresponse()

    assert (response.status, response.read()) == (200, b"ok")
    assert base64.b64decode(function.event["body"]) == b"abc"
    assert function.event["headers"]["content-length"] == "3"
    assert "transfer-encoding" not in function.event["headers"]


def test_a_body_in_too_many_chunks_is_refused(served: tuple[Function, http.client.HTTPConnection]) -> None:
    _, connection = served

    connection.request("POST", "/process", (bytes(1024**2) for _ in range(11)), encode_chunked=True)
    response = connection.getresponse()

    assert (response.status, json.load(response)) == (413, {"message": "Request Entity Too Large"})
