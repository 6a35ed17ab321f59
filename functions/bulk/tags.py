"""Tags of the stack that reach what a run creates."""

from typing import Final

import boto3

_OF_AWS: Final = "aws:"
"""Prefix of the tags that CloudFormation adds and that no one else may set."""


def tags_of(arn: str) -> list[dict[str, str]]:
    """Return the tags of a SageMaker resource, except those of AWS, as ``{"Key": ..., "Value": ...}``."""
    pages = boto3.client("sagemaker").get_paginator("list_tags").paginate(ResourceArn=arn)
    tags = (tag for page in pages for tag in page["Tags"])
    return [{"Key": tag["Key"], "Value": tag["Value"]} for tag in tags if not tag["Key"].startswith(_OF_AWS)]
