"""Conditional writes are atomic."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from embedded_cloud.cloud import EmbeddedCloud
from tests.integration.embedded_cloud.services.testbed import client

pytestmark = pytest.mark.slow  # the state machine's tests run on these services


def test_conditional_writes_are_atomic(cloud: EmbeddedCloud) -> None:
    dynamodb, table = client(cloud, "dynamodb"), cloud.outputs["Table"]
    [key_name] = [key["AttributeName"] for key in dynamodb.describe_table(TableName=table)["Table"]["KeySchema"]]
    claim = {"UpdateExpression": "SET #o = :me", "ConditionExpression": f"attribute_not_exists({key_name})"}

    def take(number: int) -> bool:
        key, me = {key_name: {"S": f"race/{number // 8}"}}, {":me": {"S": str(number)}}
        seen = dynamodb.get_item(TableName=table, Key=key).get("Item", {"owner": None})
        assert "owner" in seen, "an item is never half there"
        names = {"#o": "owner"}
        try:
            dynamodb.update_item(
                TableName=table, Key=key, ExpressionAttributeNames=names, ExpressionAttributeValues=me, **claim
            )
        except dynamodb.exceptions.ConditionalCheckFailedException:
            return False
        return True

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # switch threads a thousand times as often as by default
    try:
        with ThreadPoolExecutor(16) as pool:
            won = list(pool.map(take, range(400)))
    finally:
        sys.setswitchinterval(interval)
    assert [sum(won[first : first + 8]) for first in range(0, 400, 8)] == [1] * 50
