import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from botocore.exceptions import ClientError

from client.errors import StackUnavailableError, UsageError
from client.stack import Stack
from tests.fakes.stack_in_memory import OUTPUTS

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


def connect(cloudformation: CloudFormation, **where: Any) -> Stack:
    def client(service: str) -> Any:
        return cloudformation if service == "cloudformation" else service

    return Stack.connect("pbr", client=client, **{"region": "eu-west-1", **where})


@pytest.fixture
def authorizations(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, list[str]]]:
    """A server that answers nothing useful and keeps who asked: its port, and the Authorization headers."""
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


def test_a_stack_is_known_by_its_outputs_and_parameters() -> None:
    stack = connect(CloudFormation(OUTPUTS))
    assert stack.outputs == OUTPUTS
    assert stack.parameters == {"DefaultModel": "classical"}
    assert (stack.s3, stack.stepfunctions, stack.sqs) == ("s3", "stepfunctions", "sqs")


def test_an_embedded_cloud_is_looked_at_more_often_than_aws() -> None:
    aws, embedded = (
        connect(CloudFormation(OUTPUTS)),
        connect(CloudFormation(OUTPUTS), endpoint_url="http://localhost:5"),
    )
    assert 0.3 <= embedded.poll_s < 1 <= aws.poll_s


def test_a_missing_stack_is_told_by_name() -> None:
    with pytest.raises(StackUnavailableError, match="no such stack") as caught:
        connect(CloudFormation())
    assert caught.value.value == "pbr"


@pytest.mark.parametrize("missing", sorted(OUTPUTS))
def test_another_projects_stack_is_told_by_what_it_lacks(missing: str) -> None:
    outputs = {key: value for key, value in OUTPUTS.items() if key != missing}
    with pytest.raises(StackUnavailableError, match=missing):
        connect(CloudFormation(outputs))


def test_without_a_region_nothing_is_guessed(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="region"):
        connect(CloudFormation(OUTPUTS), region=None)


def test_where_nothing_listens_it_is_told() -> None:
    with pytest.raises(StackUnavailableError, match="Nothing answers"):
        Stack.connect("pbr", region="eu-west-1", endpoint_url="http://localhost:9")


def test_ones_own_credentials_never_go_to_an_embedded_cloud(authorizations: tuple[int, list[str]]) -> None:
    port, seen = authorizations
    with pytest.raises(ClientError):
        Stack.connect("pbr", region="eu-west-1", endpoint_url=f"http://localhost:{port}")
    assert seen and all("Credential=local/" in header for header in seen)


def test_an_embedded_clouds_credentials_never_go_elsewhere(authorizations: tuple[int, list[str]]) -> None:
    port, seen = authorizations
    with pytest.raises(ClientError):  # 0.0.0.0 leads here, and is no name of this machine
        Stack.connect("pbr", region="eu-west-1", endpoint_url=f"http://0.0.0.0:{port}")
    assert seen and all("Credential=AKIAMINE/" in header for header in seen)
