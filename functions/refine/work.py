"""The work of Refine, on images."""

import time
from typing import Any

from core import pipeline
from core.arrays import Alpha, Mask, Picture
from core.types import Quality
from functions.contracts.job import SegmentedJob


def refine(job: SegmentedJob, picture: Picture, mask: Mask, started: float) -> tuple[Alpha, dict[str, Any]]:
    """Return the alpha at the size of the image, and its :class:`functions.contracts.job.AlphaPart`.

    Args:
        job: the workflow state.
        picture: the image at full size.
        mask: as :meth:`functions.runtime.store.Store.plane` reads it.
        started: ``perf_counter`` at the start of the stage.

    Raises:
        UnknownForegroundError: the mask has no certain foreground.
    """
    judged = job.segment.mask.quality
    edge = pipeline.refine_edge(
        picture,
        mask,
        job.options.precision_level,
        job.options.roi,
        Quality(judged.score, judged.reasons) if judged else None,
        from_alpha=job.segment.mask.from_alpha,
    )
    part = {
        "key": job.alpha_key,
        "report": edge.report,
        "quality": edge.quality_facts(),
        "seconds": round(time.perf_counter() - started, 4),
    }
    return edge.alpha, part
