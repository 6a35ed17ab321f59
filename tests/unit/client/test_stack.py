import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from client.errors import StackUnavailableError, UsageError
from client.stack import DEFAULT_NAME, DEFAULT_REGION, Stack
from core.presets import BUILT_IN
from embedded_cloud.cloud import DEFAULT_REGION as EMBEDDED_REGION
from embedded_cloud.cloud import EmbeddedCloud
from tests.fakes.stack_in_memory import OUTPUTS, stack

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIAMINE", "AWS_SECRET_ACCESS_KEY": "mine"}


class CloudFormation:
    def __init__(self, outputs: dict[str, str] | None = None) -> None:
        self._outputs = outputs

    def describe_stacks(self, **request: Any) -> dict[str, Any]:
        if self._outputs is None:
            message = f"Stack with id {request['StackName']} does not exist"
            raise ClientError({"Error": {"Code": "ValidationError", "Message": message}}, "DescribeStacks")
        outputs = [{"OutputKey": key, "OutputValue": value} for key, value in self._outputs.items()]
        parameters = [{"ParameterKey": "DefaultModel", "ParameterValue": "classical"}]
        return {"Stacks": [{"Outputs": outputs, "Parameters": parameters, "StackStatus": "CREATE_COMPLETE"}]}


def connect(cloudformation: Any, **where: Any) -> Stack:
    def client(service: str) -> Any:
        return cloudformation if service == "cloudformation" else service

    return Stack.connect("pbr", client=client, **{"region": "eu-west-1", **where})


@pytest.fixture
def authorizations(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, list[str]]]:
    """A server that denies every request: its port, and the Authorization headers it received."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.headers["Authorization"])
            self.send_response(403)
            self.end_headers()
            self.wfile.write(b"<R><Error><Code>AccessDenied</Code><Message>No</Message></Error></R>")

        def log_message(self, *_args: object) -> None:
            pass

    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, seen
    server.shutdown()
    server.server_close()


def test_a_stack_has_outputs_parameters_and_clients() -> None:
    stack = connect(CloudFormation(OUTPUTS))
    assert stack.outputs == OUTPUTS
    assert stack.parameters == {"DefaultModel": "classical"}
    assert (stack.s3, stack.stepfunctions, stack.sqs) == ("s3", "stepfunctions", "sqs")  # type: ignore[comparison-overlap]


def test_each_client_is_made_at_its_first_use_and_once() -> None:
    made: list[str] = []

    def client(service: str) -> Any:
        made.append(service)
        return CloudFormation(OUTPUTS) if service == "cloudformation" else object()

    stack = Stack.connect("pbr", region="eu-west-1", client=client)
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: stack.s3, range(8)))) == 1
    assert made == ["cloudformation", "s3"]


def test_an_embedded_cloud_is_polled_more_often_than_aws() -> None:
    aws, embedded = (
        connect(CloudFormation(OUTPUTS)),
        connect(CloudFormation(OUTPUTS), endpoint_url="http://localhost:5"),
    )
    for waited_s in (0, 1, 60):
        assert embedded.pause_s(waited_s) < aws.pause_s(waited_s)


def test_polls_are_frequent_at_first_only() -> None:
    embedded = connect(CloudFormation(OUTPUTS), endpoint_url="http://localhost:5")
    assert embedded.pause_s(0) <= 0.1
    assert [embedded.pause_s(waited_s) for waited_s in (1, 60)] == [0.2, embedded.poll_s]


def test_error_for_a_missing_stack_has_its_name() -> None:
    with pytest.raises(StackUnavailableError, match="does not exist") as caught:
        connect(CloudFormation())
    assert caught.value.value == "pbr"


@pytest.mark.parametrize("missing", sorted(OUTPUTS))
def test_error_for_another_projects_stack_has_the_missing_output(missing: str) -> None:
    outputs = {key: value for key, value in OUTPUTS.items() if key != missing}
    with pytest.raises(StackUnavailableError, match=missing):
        connect(CloudFormation(outputs))


def test_a_region_is_required(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="region"):
        connect(CloudFormation(OUTPUTS), region=None)


def test_an_endpoint_on_which_nothing_listens_is_reported_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(StackUnavailableError, match=r"does not respond .* AWS_ENDPOINT_URL\.$"):
        Stack.connect("pbr", region="eu-west-1", endpoint_url="http://localhost:9")
    assert time.monotonic() - started < 2, "the SDK's retries take at least four seconds"


class Unreachable:
    def describe_stacks(self, **_: Any) -> Any:
        raise EndpointConnectionError(endpoint_url="https://cloudformation.eu-west-1.amazonaws.com/")


def test_a_region_that_does_not_respond() -> None:
    with pytest.raises(StackUnavailableError, match=r"does not respond .*eu-west-1.* Check the network"):
        connect(Unreachable())


def test_aws_credentials_are_never_sent_to_an_embedded_cloud(authorizations: tuple[int, list[str]]) -> None:
    port, seen = authorizations
    with pytest.raises(ClientError):
        Stack.connect("pbr", region="eu-west-1", endpoint_url=f"http://localhost:{port}")
    assert seen and all("Credential=local/" in header for header in seen)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTP_PROXY", "http://127.0.0.1:9"),
        ("AWS_PROFILE", "missing"),
        ("AWS_CONFIG_FILE", __file__),
        ("AWS_SHARED_CREDENTIALS_FILE", __file__),
    ],
)
def test_an_embedded_cloud_is_reached_whatever_the_users_settings_are(
    authorizations: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    port, seen = authorizations
    monkeypatch.setenv(name, value)
    with pytest.raises(ClientError, match="AccessDenied"):
        Stack.connect("pbr", region="eu-west-1", endpoint_url=f"http://localhost:{port}")
    assert len(seen) == 1


def test_embedded_credentials_are_sent_to_loopback_only(authorizations: tuple[int, list[str]]) -> None:
    port, seen = authorizations
    with pytest.raises(ClientError):  # 0.0.0.0 reaches this server without being a loopback name
        Stack.connect("pbr", region="eu-west-1", endpoint_url=f"http://0.0.0.0:{port}")
    assert seen and all("Credential=AKIAMINE/" in header for header in seen)


def test_the_default_stack_is_that_of_an_embedded_cloud() -> None:
    assert (EmbeddedCloud.stack_name, EMBEDDED_REGION) == (DEFAULT_NAME, DEFAULT_REGION)


def test_a_stack_has_the_built_in_presets_and_those_of_its_parameter() -> None:
    plain = stack()
    assert plain.presets == BUILT_IN
    own = replace(plain, parameters={"Presets": '{"card": {"preset": "sticker"}}'})
    assert own.presets == {**BUILT_IN, "card": BUILT_IN["sticker"]}
