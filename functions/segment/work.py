"""The steps of segmentation that all hosts share."""

import time
from collections.abc import Mapping
from typing import Any, Literal

from core import layout
from core.arrays import Picture, Segmentation
from core.image.backdrop import composed
from core.segmentation.looks import Look, complete, first
from core.segmentation.registry import CLASSICAL, Model
from core.segmentation.segment import predict, sufficient_px
from core.segmentation.sessions import Networks
from functions.contracts.job import Job
from functions.runtime.store import Store

HostName = Literal["lambda", "ecs", "sagemaker"]


def segment_job(job: Job, store: Store, work_bucket: str, networks: Networks, *, host: HostName) -> dict[str, Any]:
    """Segment the job's image, store the mask, and return its :class:`functions.contracts.job.MaskPart`.

    Raises:
        BackgroundRemoverError: see :func:`core.segmentation.looks.segment`, :class:`functions.runtime.store.Store`.
    """
    started = time.perf_counter()
    look = load(job, store, networks)
    segmentation = complete(look, lambda prepared: predict([prepared], networks)[0])
    return deliver(job, segmentation, store, work_bucket, host=host, started=started)


def load(job: Job, store: Store, networks: Networks) -> Look:
    """Read the job's image, at the size that its model needs, and prepare the first look at its region of interest."""
    registry = networks.source.registry
    return look_at(store.picture(job.source, at_least_px=needed_px(job, registry)), job, registry)


def needed_px(job: Job, registry: Mapping[str, Model]) -> int:
    """Return the image side that the job's model needs: ``at_least_px`` of ``decode``."""
    region = layout.region(job.options.roi, job.source.width, job.source.height)
    return region.at_least_px(sufficient_px(job.model, registry))


def look_at(picture: Picture, job: Job, registry: Mapping[str, Model]) -> Look:
    """Prepare the first look at the region of interest of the job's image, which has at least ``needed_px``."""
    region = layout.region(job.options.roi, job.source.width, job.source.height)
    alpha = None if picture.alpha is None else region.cut(picture.alpha)
    return first(region.cut(composed(picture)), job.model, registry, job.options.precision_level, alpha)


def deliver(
    job: Job, segmentation: Segmentation, store: Store, work_bucket: str, *, host: HostName, started: float
) -> dict[str, Any]:
    """Store the mask and return its :class:`functions.contracts.job.MaskPart`; ``started``: ``perf_counter``."""
    store.put_plane(work_bucket, job.mask_key, segmentation.mask)
    return describe(job, segmentation, host=host, seconds=time.perf_counter() - started)


def describe(job: Job, segmentation: Segmentation, *, host: HostName, seconds: float) -> dict[str, Any]:
    """Return the :class:`functions.contracts.job.MaskPart` of a mask."""
    height, width = segmentation.mask.shape
    return {
        "key": job.mask_key,
        "width": width,
        "height": height,
        "model": segmentation.model,
        "weights_sha256": segmentation.weights_sha256,
        "host": host,
        "seconds": round(seconds, 4),
        "quality": segmentation.quality.facts(),
        "looks": list(segmentation.looks),
        "rejected_looks": list(segmentation.rejected_looks),
        "from_alpha": segmentation.from_alpha,
        "warnings": [*segmentation.warnings, *_model_warnings(segmentation.model), *_host_warnings(job)],
    }


def _model_warnings(model: str) -> list[str]:
    if model != CLASSICAL:
        return []
    return ["segmented without a neural network: the classical segmenter expects one centered subject"]


def _host_warnings(job: Job) -> list[str]:
    return [f"segmented on lambda: {state} failed with {caught['Error']}" for state, caught in job.fallback.items()]
