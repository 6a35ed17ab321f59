"""The table of reviews in memory: the requests of the pipeline, or a table of moto with the template's keys."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from moto import mock_aws
from samtranslator.yaml_helper import yaml_parse

from tests.conftest import ROOT

TABLE = "reviews"


class Requests:
    """Records requests; ``error`` is raised instead, if there is one."""

    def __init__(self, error: Exception | None = None) -> None:
        self.updates: list[dict[str, Any]] = []
        self.error = error

    def update_item(self, **request: Any) -> None:
        self.updates.append(request)
        if self.error:
            raise self.error


@dataclass(frozen=True)
class ReviewsTable:
    """The table of template.yaml, in moto, and a client of DynamoDB."""

    client: Any

    def clear(self) -> None:
        for item in self.client.scan(TableName=TABLE)["Items"]:
            self.client.delete_item(TableName=TABLE, Key={"review_id": item["review_id"]})


@contextmanager
def reviews_table() -> Iterator[ReviewsTable]:
    properties = yaml_parse((ROOT / "template.yaml").read_text())["Resources"]["ReviewsTable"]["Properties"]
    names = ("BillingMode", "AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes")
    with mock_aws():
        client = boto3.client("dynamodb", "eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")
        client.create_table(TableName=TABLE, **{name: properties[name] for name in names})
        yield ReviewsTable(client)
