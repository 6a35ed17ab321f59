"""A deployed stack: where it is, what it consists of, and the SDK's clients to talk to it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError

from client.errors import StackUnavailableError, UsageError
from functions.contracts.errors import StorageDeniedError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_stepfunctions import SFNClient

_EMBEDDED_KEY: Final = "local"
_DENIED: Final = "AccessDenied"  # also of what is not there, for who may not list the bucket
_ABSENT: Final = ("NoSuchKey", "404", "KeyTooLongError")  # the last of what no stage would have written
_LOOPBACK: Final = {"localhost", "127.0.0.1", "::1"}
_NEEDED: Final = ("UploadsBucket", "ResultsBucket", "WorkBucket", "StateMachineArn", "QueueUrl")

_EMBEDDED_POLL_S: Final = 0.3
_AWS_POLL_S: Final = 1.5  # GetExecutionHistory refills at 20 calls a second for a whole account

# The SDK retries throttling and lost connections by itself, with backoff and jitter.
_SDK: Final = Config(
    retries={"mode": "standard", "total_max_attempts": 8},
    connect_timeout=5,
    read_timeout=60,
    max_pool_connections=16,
)


@dataclass(frozen=True)
class Stack:
    """A deployed stack.

    Attributes:
        name: of the CloudFormation stack.
        region: AWS region.
        endpoint_url: of an embedded cloud; None for AWS.
        outputs: the stack's outputs.
        parameters: the stack's parameters, defaults included.
        poll_s: seconds between two looks at something that is awaited.
    """

    name: str
    region: str
    endpoint_url: str | None
    outputs: Mapping[str, str]
    parameters: Mapping[str, str]
    s3: "S3Client"
    stepfunctions: "SFNClient"
    sqs: "SQSClient"
    functions: "LambdaClient"
    dynamodb: "DynamoDBClient"
    secrets: "SecretsManagerClient"
    poll_s: float = _AWS_POLL_S

    @classmethod
    def connect(
        cls,
        name: str,
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        client: Callable[[str], Any] | None = None,
    ) -> Self:
        """Look a stack up by its name.

        Args:
            name: of the CloudFormation stack.
            region: AWS region; None for the one that the SDK is configured for.
            endpoint_url: None for AWS.
            client: called with a service's name, returns its client; None for boto3's own.

        Raises:
            UsageError: no region is known.
            StackUnavailableError: there is no such stack, or it is another project's, or nothing answers.
        """
        # One's own credentials never go to an embedded cloud, and an embedded cloud's never anywhere else.
        key = _EMBEDDED_KEY if is_local(endpoint_url) else None
        session = boto3.session.Session(key, key, region_name=region)
        if not session.region_name:
            raise UsageError(
                "No AWS region is known",
                field="--region",
                value=None,
                remedy="Give --region, or set AWS_DEFAULT_REGION.",
            )

        def own_client(service: str) -> Any:
            return session.client(service, endpoint_url=endpoint_url, config=_SDK)  # type: ignore[call-overload]

        client = client or own_client
        outputs, parameters = _describe(client("cloudformation"), name, endpoint_url or session.region_name)
        return cls(
            name=name,
            region=session.region_name,
            endpoint_url=endpoint_url,
            outputs=outputs,
            parameters=parameters,
            s3=client("s3"),
            stepfunctions=client("stepfunctions"),
            sqs=client("sqs"),
            functions=client("lambda"),
            dynamodb=client("dynamodb"),
            secrets=client("secretsmanager"),
            poll_s=_EMBEDDED_POLL_S if is_local(endpoint_url) else _AWS_POLL_S,
        )

    def output(self, name: str) -> str:
        """Return an output that older templates do not have.

        Raises:
            StackUnavailableError: this stack's is such a one.
        """
        if name not in self.outputs:
            raise StackUnavailableError(
                f"The stack has no output {name}",
                field="--stack",
                value=self.name,
                remedy="It was deployed by an earlier template.yaml: deploy it again.",
            )
        return self.outputs[name]

    def messages(self, output: str) -> tuple[int, int]:
        """Count the messages of the queue that an output names: those that wait, and those that somebody has taken."""
        counted = self.sqs.get_queue_attributes(
            QueueUrl=self.outputs[output],
            AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
        )["Attributes"]
        return int(counted["ApproximateNumberOfMessages"]), int(counted["ApproximateNumberOfMessagesNotVisible"])

    def document(self, key: str, *, must_know: bool = False) -> dict[str, Any] | None:
        """Return a JSON object of the results bucket, a sidecar or a report; None if there is none.

        Args:
            key: where it lies.
            must_know: whether something is done because there is none: then None never means that one may not look.

        Raises:
            StorageDeniedError: one may not look, and has to know.
        """
        bucket = self.outputs["ResultsBucket"]
        try:
            body = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == _DENIED and must_know:
                raise StorageDeniedError(
                    "S3 does not say whether there is a result or a report",
                    field="ResultsBucket",
                    value=f"s3://{bucket}/{key}",
                    remedy="Have s3:GetObject and s3:ListBucket on the results bucket granted to you.",
                ) from error
            if code != _DENIED and code not in _ABSENT:
                raise
            return None
        found: dict[str, Any] = json.loads(body)
        return found


def is_local(endpoint_url: str | None) -> bool:
    """Return whether an endpoint is on this machine."""
    return endpoint_url is not None and urlsplit(endpoint_url).hostname in _LOOPBACK


def _describe(cloudformation: Any, name: str, where: str) -> tuple[dict[str, str], dict[str, str]]:
    try:
        [stack] = cloudformation.describe_stacks(StackName=name)["Stacks"]
    except EndpointConnectionError:
        raise StackUnavailableError(
            "Nothing answers",
            field="endpoint",
            value=where,
            remedy="Start an embedded cloud with pbr up, or unset AWS_ENDPOINT_URL.",
        ) from None
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationError":
            raise
        raise StackUnavailableError(
            f"There is no such stack at {where}",
            field="--stack",
            value=name,
            remedy="Deploy it with sam deploy, or give the right --stack and --region.",
        ) from None
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
    parameters = {p["ParameterKey"]: p["ParameterValue"] for p in stack.get("Parameters", [])}
    if missing := [key for key in _NEEDED if key not in outputs]:
        raise StackUnavailableError(
            f"The stack has no output {missing[0]} ({stack['StackStatus']})",
            field="--stack",
            value=name,
            remedy="Give the stack that template.yaml was deployed as, once its deployment is complete.",
        )
    return outputs, parameters
