"""Refine: compute the alpha at the size of the image."""

import time
from pathlib import Path
from typing import Any

from core import pipeline
from core.matting import compiled
from core.types import Quality
from functions.contracts.job import SegmentedJob
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
    judged = job.segment.mask.quality
    quality = Quality(judged.score, judged.reasons) if judged else None
    edge = pipeline.refine_edge(
        picture,
        mask,
        job.options.precision_level,
        job.options.roi,
        quality,
        from_alpha=job.segment.mask.from_alpha,
    )
    STORE.put_plane(CONFIG.work_bucket, job.alpha_key, edge.alpha)
    return {
        "key": job.alpha_key,
        "report": edge.report,
        "quality": edge.quality_facts(),
        "seconds": round(time.perf_counter() - started, 4),
    }
