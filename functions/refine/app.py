"""Refine: compute the alpha at the size of the image."""

import time
from pathlib import Path
from typing import Any

from core.matting import compiled
from functions.contracts.job import SegmentedJob
from functions.refine.work import refine
from functions.runtime.config import Config
from functions.runtime.handler import stage
from functions.runtime.store import Store


class RefineConfig(Config):
    """Configuration of this stage.

    Attributes:
        work_bucket: bucket of masks and alphas.
        pbr_numba_cache: folder of compiled functions, in the container image only.
    """

    work_bucket: str
    pbr_numba_cache: Path | None = None


CONFIG = RefineConfig()
compiled.use_cache(CONFIG.pbr_numba_cache)
STORE = Store()


@stage(SegmentedJob)
def handler(job: SegmentedJob) -> dict[str, Any]:
    """Return the alpha: see :class:`functions.contracts.job.AlphaPart`."""
    started = time.perf_counter()
    picture = STORE.picture(job.source)
    mask = STORE.plane(CONFIG.work_bucket, job.segment.mask.key)
    alpha, part = refine(job, picture, mask, started)
    STORE.put_plane(CONFIG.work_bucket, job.alpha_key, alpha)
    return part
