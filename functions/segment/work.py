"""The work that the three hosts share."""

import time
from typing import Any, Literal

from core import pipeline
from core.models import CLASSICAL
from core.segment import sufficient_px
from functions.shared.config import SegmentationConfig
from functions.shared.job import Job
from functions.shared.store import Store


def segment_job(
    job: Job, store: Store, config: SegmentationConfig, *, host: Literal["lambda", "ecs", "sagemaker"]
) -> dict[str, Any]:
    """Segment the job's picture, put the mask, and return its :class:`functions.shared.job.MaskPart`.

    Raises:
        BackgroundRemoverError: see :func:`core.pipeline.find_subject` and :class:`functions.shared.store.Store`.
    """
    started = time.perf_counter()
    picture = store.picture(job.source, at_least_px=sufficient_px(job.options.model))
    segmentation = pipeline.find_subject(picture, job.options.model, config.weights)
    store.put_plane(config.work_bucket, job.keys.mask, segmentation.mask)
    height, width = segmentation.mask.shape
    return {
        "key": job.keys.mask,
        "width": width,
        "height": height,
        "model": segmentation.model,
        "weights_sha256": segmentation.weights_sha256,
        "host": host,
        "seconds": round(time.perf_counter() - started, 4),
        "warnings": [*_said_of_the_model(segmentation.model), *_said_of_the_host(job)],
    }


def _said_of_the_model(model: str) -> list[str]:
    if model != CLASSICAL:
        return []
    return ["segmented without a neural network: the classical segmenter expects one centred subject"]


def _said_of_the_host(job: Job) -> list[str]:
    return [f"segmented on lambda: {state} failed with {caught['Error']}" for state, caught in job.fallback.items()]
