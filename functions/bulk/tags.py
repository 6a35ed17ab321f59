"""Tags of the stack that reach what a run creates."""

from typing import Final

import boto3
from botocore.exceptions import ClientError

_OF_AWS: Final = "aws:"
"""Prefix of the tags that CloudFormation adds and that no one else may set."""

_MISSING: Final = ("ResourceNotFound", "ValidationException", "ValidationError")


def tags_of(arn: str) -> list[dict[str, str]]:
    """Return the tags of a SageMaker resource, except those of AWS, as ``{"Key": ..., "Value": ...}``.

    A resource that does not exist has none: the call that uses it fails with the better error.
    """
    pages = boto3.client("sagemaker").get_paginator("list_tags").paginate(ResourceArn=arn)
    try:
        tags = [tag for page in pages for tag in page["Tags"]]
    except ClientError as error:
        if error.response["Error"]["Code"] not in _MISSING:
            raise
        return []
    return [{"Key": tag["Key"], "Value": tag["Value"]} for tag in tags if not tag["Key"].startswith(_OF_AWS)]
