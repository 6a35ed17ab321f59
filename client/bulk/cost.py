"""What a bulk run has cost so far, at list prices."""

from collections import Counter
from typing import Final

from client.bulk.run import BATCH
from client.stack import Stack
from functions.contracts.prices import express_usage, prices_of, standard_usage

_DEFAULT_MEMORY_MB: Final = 3008


def cost_usd(stack: Stack, counts: Counter[str], seconds: float) -> float:
    """Return an estimate in US dollars. The summary of the run replaces it.

    Args:
        stack: the stack.
        counts: number of images by status.
        seconds: total processing time.
    """
    parameters = stack.parameters
    segment_mb = int(parameters.get("SegmentMemory", _DEFAULT_MEMORY_MB))
    images = counts["done"] + counts["cached"] + counts["failed"]
    host = parameters.get("SegmentationHost")
    if host == "ecs" or (host == "sagemaker" and parameters.get("SageMakerMode") == "async"):
        usage = standard_usage(images, seconds, segment_mb)
    else:
        memory_mb = int(parameters.get("BulkMemory", 0)) or segment_mb
        usage = express_usage(images, counts["cached"], BATCH, seconds, memory_mb)
    _, prices = prices_of(stack.region)
    return usage.orchestration_usd(prices) + usage.compute_usd(prices) + usage.requests_usd(prices)
