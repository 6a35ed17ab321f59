"""IAM actions and resources of API calls, as AWS's service authorization reference defines them.

Only the calls of this project's roles are known. Any other is an error, so that none is allowed by mistake.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import unescape

Given = Callable[[str], Any]
"""Returns the value of a request's parameter, or None."""


@dataclass(frozen=True)
class Call:
    """An IAM action, and the ARN that it is authorized for; * if the action does not support resources."""

    action: str
    resource: str


@dataclass(frozen=True)
class Place:
    """Where the resources of a request are."""

    partition: str
    region: str
    account: str

    def arn(self, service: str, resource: str) -> str:
        """Return the ARN of a resource."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"


class UnknownCallError(Exception):
    """The action or the resource of a call is not known."""


def _machine(given: Given, _place: Place) -> str:
    """Return the state machine of the ARN, which may be that of a version or an alias."""
    return ":".join(given("stateMachineArn").split(":")[:7])


def _execution(given: Given, _place: Place) -> str:
    return str(given("executionArn"))


def _table(given: Given, place: Place) -> str:
    table = place.arn("dynamodb", f"table/{given('TableName').rpartition('/')[2]}")
    return f"{table}/index/{index}" if (index := given("IndexName")) else table


def _queue(given: Given, place: Place) -> str:
    return place.arn("sqs", given("QueueUrl").rpartition("/")[2])


def _topic(given: Given, _place: Place) -> str:
    return str(given("TopicArn"))


def _function(given: Given, place: Place) -> str:
    name, qualifier = unquote(given("FunctionName")), given("Qualifier")
    arn = name if name.startswith("arn:") else place.arn("lambda", f"function:{name}")
    return f"{arn}:{qualifier}" if qualifier else arn


def _endpoint(given: Given, place: Place) -> str:
    return place.arn("sagemaker", f"endpoint/{given('EndpointName')}")


def _transform_job(given: Given, place: Place) -> str:
    return place.arn("sagemaker", f"transform-job/{given('TransformJobName')}")


def _tagged(given: Given, _place: Place) -> str:
    return str(given("ResourceArn"))


def _stack(given: Given, place: Place) -> str:
    name = given("StackName")
    return str(name) if name.startswith("arn:") else place.arn("cloudformation", f"stack/{name}/*")


def _secret(given: Given, _place: Place) -> str:
    return str(given("SecretId"))  # this project names secrets by their ARNs


def _every_resource(_given: Given, _place: Place) -> str:
    return "*"


_RESOURCES: Final[Mapping[str, Mapping[str, Callable[[Given, Place], str]]]] = {
    "cloudformation": {"DescribeStacks": _stack},
    "cloudwatch": dict.fromkeys(
        ("DescribeAlarms", "GetMetricData", "GetMetricStatistics", "ListMetrics"), _every_resource
    ),
    "dynamodb": dict.fromkeys(
        ("GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query", "Scan", "DescribeTable", "ConditionCheckItem"),
        _table,
    ),
    "lambda": {"InvokeFunction": _function},
    "sagemaker": {
        "ListTags": _tagged,
        **dict.fromkeys(("InvokeEndpoint", "InvokeEndpointAsync"), _endpoint),
        **dict.fromkeys(("CreateTransformJob", "DescribeTransformJob", "StopTransformJob"), _transform_job),
    },
    "secretsmanager": {"GetSecretValue": _secret},
    "sns": {"Publish": _topic},
    "sqs": dict.fromkeys(
        ("SendMessage", "ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", "GetQueueAttributes"), _queue
    ),
    "states": {
        **dict.fromkeys(
            (
                *("StartExecution", "ListExecutions", "DescribeStateMachine"),
                *("SendTaskSuccess", "SendTaskFailure", "SendTaskHeartbeat"),
            ),
            _machine,
        ),
        **dict.fromkeys(
            (
                *("DescribeExecution", "GetExecutionHistory", "StopExecution", "RedriveExecution"),
                "DescribeStateMachineForExecution",
            ),
            _execution,
        ),
    },
}
_PREFIXES: Final = {"monitoring": "cloudwatch"}  # of actions, where it is not the service in the signature
_ACTIONS: Final = {"Invoke": "InvokeFunction"}
_BATCH: Final = re.compile(r"(SendMessage|DeleteMessage|ChangeMessageVisibility)Batch")
_ITEM_ACTIONS: Final = {
    "ConditionCheck": "ConditionCheckItem",
    "Delete": "DeleteItem",
    "Put": "PutItem",
    "Update": "UpdateItem",
}


def calls(service: str, operation: str, given: Given, place: Place) -> list[Call]:
    """Return the calls that a request needs permission for.

    Args:
        service: service in the request's signature, e.g. ``states``.
        operation: API operation, e.g. ``StartExecution``.
        given: returns a parameter of the request. That of an operation with a task token has the ``stateMachineArn``
            of its execution.
        place: region and account.

    Raises:
        UnknownCallError: the operation is not known.
    """
    if operation == "TransactWriteItems":  # each item needs the permission of its own operation
        items = [one for item in given("TransactItems") for one in item.items()]
        return [Call(f"dynamodb:{_ITEM_ACTIONS[kind]}", _table(item.get, place)) for kind, item in items]
    if (service, operation) == ("sts", "GetCallerIdentity"):
        return []  # needs no permission
    prefix = _PREFIXES.get(service, service)
    action = _ACTIONS.get(operation, _BATCH.sub(r"\1", operation))
    resource = _RESOURCES.get(prefix, {}).get(action)
    if resource is None:
        raise UnknownCallError(f"The embedded cloud does not know which permission {service}:{operation} needs.")
    return [Call(f"{prefix}:{action}", resource(given, place))]


_S3: Final = {  # by method, whether the request is for an object, and subresource
    ("HEAD", False, ""): "ListBucket",
    ("GET", False, ""): "ListBucket",
    ("GET", False, "versions"): "ListBucketVersions",
    ("HEAD", True, ""): "GetObject",
    ("GET", True, ""): "GetObject",
    ("GET", True, "uploadId"): "ListMultipartUploadParts",
    ("PUT", True, ""): "PutObject",
    ("PUT", True, "uploadId"): "PutObject",
    ("POST", True, "uploads"): "PutObject",
    ("POST", True, "uploadId"): "PutObject",
    ("DELETE", True, ""): "DeleteObject",
    ("DELETE", True, "uploadId"): "AbortMultipartUpload",
}
_NO_SUBRESOURCE: Final = re.compile(
    r"versionId|partNumber|x-id|x-amz-.*|response-.*|AWSAccessKeyId|Signature|Expires|list-type|prefix|delimiter"
    r"|max-keys|start-after|continuation-token|encoding-type|fetch-owner|marker|key-marker|version-id-marker",
    re.IGNORECASE,
)
_OBJECT: Final = re.compile(r"<Key>(.*?)</Key>(?:<VersionId>(.*?)</VersionId>)?", re.DOTALL)
_MORE: Final = {"x-amz-acl": "PutObjectAcl", "x-amz-tagging": "PutObjectTagging"}


def s3_calls(
    method: str,
    bucket: str,
    key: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    partition: str,
    body: bytes = b"",
) -> list[Call]:
    """Return the calls that a request to S3 needs permission for.

    Args:
        method: HTTP method. A form is a PUT.
        bucket: bucket name.
        key: object key; empty for requests to the bucket.
        query: parameters of the URL.
        headers: request headers.
        partition: of the resources.
        body: request body, which lists the objects of a DeleteObjects request.

    Raises:
        UnknownCallError: the operation is not known.
    """
    if (method, key, query.get("delete")) == ("POST", "", ""):
        return [
            call
            for name, version in _OBJECT.findall(body.decode())
            for call in s3_calls("DELETE", bucket, unescape(name), {"versionId": version}, {}, partition)
        ]
    subresource = "".join(sorted(name for name in query if not _NO_SUBRESOURCE.fullmatch(name)))
    action = _S3.get((method, bool(key), subresource)) if bucket else None
    if action is None:
        path = "/" + "/".join(["bucket"] * bool(bucket) + ["key"] * bool(key))
        text = f"{method} {path}{'?' if subresource else ''}{subresource}"
        raise UnknownCallError(f"The embedded cloud does not know which permission {text} needs.")
    if query.get("versionId"):
        action += "Version"
    arn = f"arn:{partition}:s3:::{bucket}"
    found = [Call(f"s3:{action}", f"{arn}/{key}" if key else arn)]
    if method == "PUT":
        found += [Call(f"s3:{more}", f"{arn}/{key}") for header, more in _MORE.items() if header in headers]
    if source := headers.get("x-amz-copy-source"):
        path, _, version = source.lstrip("/").partition("?")
        version = "Version" if parse_qs(version).get("versionId") else ""
        found.append(Call(f"s3:GetObject{version}", f"arn:{partition}:s3:::{unquote(path)}"))
    return found
