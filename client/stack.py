"""A deployed stack: its outputs and parameters, and the boto3 clients for its services.

boto3 is imported where it is used: that takes longer than ``pbr process --help``, which needs none of it.
"""

import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self, cast
from urllib.parse import urlsplit

from client.errors import StackUnavailableError, UsageError
from core.options import read_presets
from core.presets import Preset
from functions.contracts.errors import StorageDeniedError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_stepfunctions import SFNClient

DEFAULT_NAME: Final = "precision-background-remover"
"""Name of the stack in an embedded cloud."""

DEFAULT_REGION: Final = "eu-west-1"
"""Region of an embedded cloud unless AWS_DEFAULT_REGION is set."""

NOMINAL_MEMORY_MB: Final = 10_240
"""Memory of the large functions of an embedded cloud, which does not limit it: they accept every model and image."""

_EMBEDDED_KEY: Final = "local"
"""Access key and secret key of the users of an embedded cloud. Any would do, except those of its own processes."""

_ROLE_KEY: Final = "embedded-cloud:"
"""Start of the access keys of an embedded cloud's roles: callers with such a key have the permissions of the role."""

_DENIED: Final = "AccessDenied"  # S3 answers this for a missing object, too, unless the caller may list the bucket
_ABSENT: Final = ("NoSuchKey", "404", "KeyTooLongError")  # no stage writes a key that is too long
_LOOPBACK: Final = {"localhost", "127.0.0.1", "::1"}
_NEEDED: Final = ("UploadsBucket", "ResultsBucket", "WorkBucket", "StateMachineArn", "StateMachineAlias", "QueueUrl")

# Packages that botocore imports if they are installed, for TLS and signatures of AWS: 0.15 s that a cloud on this
# machine can save.
_ONLY_FOR_AWS: Final = ("awscrt", "OpenSSL")

_EMBEDDED_POLL_S: Final = 0.3
_AWS_POLL_S: Final = 1.5  # GetExecutionHistory refills at 20 calls a second for a whole account

_SDK: Final[dict[str, Any]] = {
    "retries": {"mode": "standard", "total_max_attempts": 8},  # throttling and connection errors, with backoff
    "connect_timeout": 5,
    "read_timeout": 60,
    "max_pool_connections": 16,
}


@dataclass(frozen=True)
class Stack:
    """A deployed stack.

    Attributes:
        name: name of the CloudFormation stack.
        region: AWS region.
        endpoint_url: endpoint of an embedded cloud; None for AWS.
        outputs: outputs of the stack by name.
        parameters: parameters of the stack by name, defaults included.
        client: returns the client of a service, by the service's name.
        poll_s: longest polling interval, seconds.
    """

    name: str
    region: str
    endpoint_url: str | None
    outputs: Mapping[str, str]
    parameters: Mapping[str, str]
    client: Callable[[str], Any]
    poll_s: float = _AWS_POLL_S

    @property
    def place(self) -> str:
        """Options that select the stack in commands of pbr, after a space; empty for the embedded cloud."""
        return "" if self.endpoint_url else f" --stack {self.name} --region {self.region}"

    @property
    def presets(self) -> dict[str, Preset]:
        """Presets of options by name, built-in ones included.

        Raises:
            InvalidOptionsError: the parameter Presets of the stack is invalid.
        """
        return read_presets(self.parameters.get("Presets", ""))

    @classmethod
    def connect(
        cls,
        name: str,
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        client: Callable[[str], Any] | None = None,
    ) -> Self:
        """Return the stack with this name.

        Args:
            name: name of the CloudFormation stack.
            region: AWS region; None for the region that boto3 is configured for.
            endpoint_url: endpoint of an embedded cloud; None for AWS.
            client: returns the client of a service, by the service's name; None for boto3 clients.

        Raises:
            UsageError: if no region is configured.
            StackUnavailableError: if the stack does not exist, belongs to another project, or does not respond.
        """
        with _hidden(*_ONLY_FOR_AWS if is_local(endpoint_url) else ()):
            import boto3
            from botocore.config import Config

        # Never send the user's credentials to an embedded cloud, nor an embedded cloud's credentials to AWS.
        key = _embedded_key() if is_local(endpoint_url) else None
        session = boto3.session.Session(
            key, key, region_name=region, botocore_session=_without_user_settings() if key else None
        )
        if not session.region_name:
            raise UsageError(
                "No AWS region is configured",
                field="--region",
                value=None,
                remedy="Pass --region, or set AWS_DEFAULT_REGION.",
            )

        def boto3_client(service: str) -> Any:
            return session.client(service, endpoint_url=endpoint_url, config=config)  # type: ignore[call-overload]

        if endpoint_url and client is None and not _accepts_connections(endpoint_url):
            raise _unreachable(endpoint_url)
        config = Config(**_SDK, proxies={} if key else None)  # proxies of the environment cannot reach localhost
        client = _each_once(client or boto3_client)
        outputs, parameters = _describe(client("cloudformation"), name, endpoint_url or session.region_name)
        return cls(
            name=name,
            region=session.region_name,
            endpoint_url=endpoint_url,
            outputs=outputs,
            parameters=parameters,
            client=client,
            poll_s=_EMBEDDED_POLL_S if is_local(endpoint_url) else _AWS_POLL_S,
        )

    def pause_s(self, waited_s: float) -> float:
        """Return the time until the next poll, seconds: short at first, as cached results take a fraction of a second.

        Args:
            waited_s: time since the first poll, seconds.
        """
        return min(max(waited_s / 5, self.poll_s / 3), self.poll_s)

    @property
    def s3(self) -> "S3Client":
        """Client of S3."""
        return cast("S3Client", self.client("s3"))

    @property
    def stepfunctions(self) -> "SFNClient":
        """Client of Step Functions."""
        return cast("SFNClient", self.client("stepfunctions"))

    @property
    def sqs(self) -> "SQSClient":
        """Client of SQS."""
        return cast("SQSClient", self.client("sqs"))

    @property
    def functions(self) -> "LambdaClient":
        """Client of Lambda."""
        return cast("LambdaClient", self.client("lambda"))

    @property
    def dynamodb(self) -> "DynamoDBClient":
        """Client of DynamoDB."""
        return cast("DynamoDBClient", self.client("dynamodb"))

    @property
    def secrets(self) -> "SecretsManagerClient":
        """Client of Secrets Manager."""
        return cast("SecretsManagerClient", self.client("secretsmanager"))

    def output(self, name: str) -> str:
        """Return an output that stacks of an earlier template do not have.

        Raises:
            StackUnavailableError: if the stack does not have it.
        """
        if name not in self.outputs:
            raise StackUnavailableError(
                f"The stack has no output {name}",
                field="--stack",
                value=self.name,
                remedy="It was deployed from an earlier template.yaml. Deploy it again.",
            )
        return self.outputs[name]

    def messages(self, output: str) -> tuple[int, int]:
        """Return the number of waiting and of received messages in a queue.

        Args:
            output: name of the stack output that has the queue's URL.
        """
        counted = self.sqs.get_queue_attributes(
            QueueUrl=self.outputs[output],
            AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
        )["Attributes"]
        return int(counted["ApproximateNumberOfMessages"]), int(counted["ApproximateNumberOfMessagesNotVisible"])

    def document(self, key: str, *, required_access: bool = False) -> dict[str, Any] | None:
        """Return a sidecar or failure report from the results bucket, or None if there is none.

        Args:
            key: object key.
            required_access: raise an error if access is denied, instead of returning None.

        Raises:
            StorageDeniedError: if access is denied and required.
        """
        from botocore.exceptions import ClientError

        bucket = self.outputs["ResultsBucket"]
        try:
            body = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == _DENIED and required_access:
                raise StorageDeniedError(
                    "Access to the results bucket is denied",
                    field="ResultsBucket",
                    value=f"s3://{bucket}/{key}",
                    remedy="Ask for s3:GetObject and s3:ListBucket on this bucket.",
                ) from error
            if code != _DENIED and code not in _ABSENT:
                raise
            return None
        found: dict[str, Any] = json.loads(body)
        return found


def is_local(endpoint_url: str | None) -> bool:
    """Return whether an endpoint is on the loopback interface."""
    return endpoint_url is not None and urlsplit(endpoint_url).hostname in _LOOPBACK


def _embedded_key() -> str:
    """Return the access key for an embedded cloud: that of a role, if the environment has one."""
    key = os.environ.get("AWS_ACCESS_KEY_ID", "")
    return key if key.startswith(_ROLE_KEY) else _EMBEDDED_KEY


def _without_user_settings() -> Any:
    """Return a session that uses neither AWS_PROFILE nor the files of the user, which may not exist or be invalid."""
    from botocore.session import Session

    settings = dict.fromkeys(("config_file", "credentials_file"), (None, None, os.devnull, None))
    return Session(session_vars={"profile": (None, None, None, None), **settings})


@contextmanager
def _hidden(*packages: str) -> Iterator[None]:
    """Make imports of packages fail, except of those that are imported already."""
    hidden = [package for package in packages if package not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None marks a module that cannot be imported
    try:
        yield
    finally:
        for package in hidden:
            del sys.modules[package]


def _each_once(client: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a function that makes the client of a service once, for all threads: boto3's sessions allow only one."""
    lock, made = threading.Lock(), dict[str, Any]()

    def get(service: str) -> Any:
        with lock:
            if service not in made:
                made[service] = client(service)
            return made[service]

    return get


def _accepts_connections(endpoint_url: str) -> bool:
    """Return False if nothing listens on a port of this machine. The SDK would try for seconds to connect."""
    url = urlsplit(endpoint_url)
    if not is_local(endpoint_url) or url.hostname is None:
        return True
    try:
        socket.create_connection((url.hostname, url.port or (443 if url.scheme == "https" else 80)), timeout=5).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return True  # the SDK reports it
    return True


def _unreachable(where: str) -> StackUnavailableError:
    """Return the error for an endpoint, or a region of AWS, that does not respond."""
    return StackUnavailableError(
        "The endpoint does not respond",
        field="endpoint",
        value=where,
        remedy="Start an embedded cloud with pbr up, or unset AWS_ENDPOINT_URL."
        if "://" in where
        else "Check the network, and --region.",
    )


def _describe(cloudformation: Any, name: str, where: str) -> tuple[dict[str, str], dict[str, str]]:
    from botocore.exceptions import ClientError, EndpointConnectionError

    try:
        [stack] = cloudformation.describe_stacks(StackName=name)["Stacks"]
    except EndpointConnectionError:
        raise _unreachable(where) from None
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationError":
            raise
        raise StackUnavailableError(
            f"The stack does not exist in {where}",
            field="--stack",
            value=name,
            remedy="Check --stack and --region, or deploy the stack with make deploy.",
        ) from None
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
    parameters = {p["ParameterKey"]: p["ParameterValue"] for p in stack.get("Parameters", [])}
    if missing := [key for key in _NEEDED if key not in outputs]:
        raise StackUnavailableError(
            f"The stack has no output {missing[0]} ({stack['StackStatus']})",
            field="--stack",
            value=name,
            remedy="Pass a stack that was deployed from template.yaml, and wait until its deployment is complete.",
        )
    return outputs, parameters
