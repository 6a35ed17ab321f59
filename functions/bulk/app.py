"""Bulk: process a batch of images, each with all stages."""

import os
from typing import Any

from core.matting import compiled
from functions.bulk.batch import Batch, BatchProcessor
from functions.bulk.cache import Cache
from functions.bulk.config import BulkConfig
from functions.bulk.endpoint import Endpoint
from functions.bulk.image import ImageProcessor
from functions.bulk.masks import MaskPlanner
from functions.bulk.objects import BulkObjects
from functions.runtime.handler import stage
from functions.runtime.inspection import Inspector
from functions.runtime.reviews import Reviews
from functions.runtime.store import Store

CONFIG = BulkConfig()
compiled.use_cache(CONFIG.pbr_numba_cache)
INSPECTOR = Inspector()
if "AWS_LAMBDA_RUNTIME_API" in os.environ:  # the init phase is shorter if both processes import at the same time
    INSPECTOR.start()
IMAGES = ImageProcessor(
    CONFIG,
    Store(),
    Cache(CONFIG.cache_table),
    CONFIG.networks(),
    INSPECTOR,
    Reviews(CONFIG.reviews_table),
    Endpoint(CONFIG.sagemaker_endpoint_name) if CONFIG.sagemaker_endpoint_name else None,
)
BATCHES = BatchProcessor(IMAGES, CONFIG.bulk_budget_s)
MASKS = MaskPlanner(IMAGES, BulkObjects(), CONFIG.work_bucket)


class BatchRequest(Batch):
    """A batch to process, or to write the requests for its masks."""

    plan_masks: bool = False


@stage(BatchRequest)
def handler(batch: BatchRequest) -> dict[str, Any]:
    """Return the :class:`functions.contracts.bulk.BatchOutcome`, or the number of requests for masks."""
    if batch.plan_masks:
        return MASKS.plan(batch.items, batch.batch_input)
    return BATCHES.process(batch).model_dump(mode="json")
