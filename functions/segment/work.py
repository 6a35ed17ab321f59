"""The work that the three hosts share."""

import time
from typing import Any, Literal

from core import layout
from core.segmentation.registry import CLASSICAL
from core.segmentation.segment import Prepared, finish, predict, prepare, sufficient_px
from core.segmentation.sessions import Networks
from core.types import Segmentation
from functions.contracts.job import Job
from functions.runtime.store import Store

HostName = Literal["lambda", "ecs", "sagemaker"]


def segment_job(job: Job, store: Store, work_bucket: str, networks: Networks, *, host: HostName) -> dict[str, Any]:
    """Segment the job's picture, put the mask, and return its :class:`functions.contracts.job.MaskPart`.

    Raises:
        BackgroundRemoverError: see :func:`core.segmentation.segment.segment`, :class:`functions.runtime.store.Store`.
    """
    started = time.perf_counter()
    prepared = load(job, store, networks)
    [prediction] = predict([prepared], networks)
    return deliver(job, finish(prepared, prediction), store, work_bucket, host=host, started=started)


def load(job: Job, store: Store, networks: Networks) -> Prepared:
    """Read the job's picture, no larger than its model can use, and prepare the region that is looked at."""
    registry = networks.source.registry
    region = layout.region(job.options.roi, job.source.width, job.source.height)
    picture = store.picture(job.source, at_least_px=region.at_least_px(sufficient_px(job.model, registry)))
    return prepare(region.cut(picture.rgb), job.model, registry)


def deliver(
    job: Job, segmentation: Segmentation, store: Store, work_bucket: str, *, host: HostName, started: float
) -> dict[str, Any]:
    """Put the mask and return what the state machine is told of it; ``started`` is of ``time.perf_counter``."""
    store.put_plane(work_bucket, job.mask_key, segmentation.mask)
    height, width = segmentation.mask.shape
    return {
        "key": job.mask_key,
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
