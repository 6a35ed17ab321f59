"""DynamoDB: atomic reads and writes."""

import threading
from typing import Any

from moto.dynamodb.responses import DynamoHandler

from embedded_cloud.moto_patches.around import around

_one_at_a_time = threading.RLock()  # reentrant: a transaction calls single writes


@around(DynamoHandler, "call_action")
def one_request_at_a_time(original: Any, self: Any) -> Any:
    """AWS checks a condition and writes in one step; moto first creates an empty item that other requests can see."""
    with _one_at_a_time:
        return original(self)
