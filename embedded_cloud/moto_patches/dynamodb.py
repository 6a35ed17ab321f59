"""DynamoDB: reads and writes that are whole."""

import threading
from typing import Any

from moto.dynamodb.responses import DynamoHandler

from embedded_cloud.moto_patches.around import around

_one_at_a_time = threading.RLock()  # a transaction calls what a single write calls


@around(DynamoHandler, "call_action")
def one_request_at_a_time(original: Any, self: Any) -> Any:
    """AWS checks a condition and writes in one step; moto makes an empty item first, for others to find or to write."""
    with _one_at_a_time:
        return original(self)
