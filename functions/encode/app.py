"""Encode: write the result, its sidecar and the copy in the cache."""

import time
from typing import Any

from core.image.backdrop import WHITE, composed
from functions.contracts.job import RefinedJob
from functions.encode.work import Delivery
from functions.runtime.config import Config
from functions.runtime.handler import stage
from functions.runtime.outcomes import Outcomes
from functions.runtime.store import Store


class EncodeConfig(Config):
    """Buckets of Encode.

    Attributes:
        work_bucket: bucket of alphas and cached results.
        results_bucket: bucket of results and sidecars.
    """

    work_bucket: str
    results_bucket: str


CONFIG = EncodeConfig()
STORE = Store()
DELIVERY = Delivery(Outcomes(STORE, CONFIG.results_bucket), CONFIG.work_bucket)


@stage(RefinedJob)
def handler(job: RefinedJob) -> dict[str, Any]:
    """Return the sidecar; see :meth:`functions.encode.work.Delivery.deliver`."""
    started = time.perf_counter()
    picture = STORE.picture(job.source)
    alpha = STORE.plane(CONFIG.work_bucket, job.attempts[job.kept].refine.alpha.key)
    background = composed(STORE.picture(job.background), WHITE) if job.background else None
    return DELIVERY.deliver(job, picture, alpha, background, started)
