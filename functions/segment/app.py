"""Segmentation on Lambda: the CPU host, and the one that stands in for the others."""

from typing import Any

from functions.segment.work import segment_job
from functions.shared.config import SegmentationConfig
from functions.shared.job import Job
from functions.shared.observe import stage
from functions.shared.store import Store

CONFIG = SegmentationConfig()
STORE = Store()
NETWORKS = CONFIG.networks()


@stage(Job)
def handler(job: Job) -> dict[str, Any]:
    """Return the mask: see :class:`functions.shared.job.MaskPart`."""
    return segment_job(job, STORE, CONFIG.work_bucket, NETWORKS, host="lambda")
