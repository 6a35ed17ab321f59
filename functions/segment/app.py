"""Segmentation on Lambda: a CPU host, and the fallback of the other hosts."""

from typing import Any

from functions.contracts.job import Job
from functions.runtime.handler import stage
from functions.runtime.store import Store
from functions.segment.config import SegmentationConfig
from functions.segment.work import segment_job

CONFIG = SegmentationConfig()
STORE = Store()
NETWORKS = CONFIG.networks()


@stage(Job)
def handler(job: Job) -> dict[str, Any]:
    """Return the mask: see :class:`functions.contracts.job.MaskPart`."""
    return segment_job(job, STORE, CONFIG.work_bucket, NETWORKS, host="lambda")
