"""Segmentation on SageMaker: the four functions that its inference toolkits and ``server`` call.

A request contains a job, a job and its task token, a request for a mask of a bulk run, or an image. Images and masks of
the first three are in S3, so that the payload limit of an endpoint does not apply. The response to an image is its
mask; Batch Transform can send images, too, and then needs no other resource of the stack.
"""

import json
import os
import threading
import time
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from core.arrays import Mask
from core.errors import (
    BackgroundRemoverError,
    InvalidOptionsError,
    InvalidRequestError,
    TransientError,
    UnsupportedFormatError,
)
from core.image import decode, png
from core.image.backdrop import composed
from core.segmentation import looks
from core.segmentation.registry import CLASSICAL
from core.segmentation.segment import Prepared, predict, sufficient_px
from core.segmentation.sessions import Networks
from core.types import Precision
from functions.contracts.job import Job
from functions.contracts.masks import MASK_FACTS, MaskRequest, mask_key
from functions.runtime.handler import job_id, job_in_thread, logger, outcome_logged, parse
from functions.runtime.inspection import Inspector
from functions.runtime.store import Store
from functions.segment.config import SegmentationConfig
from functions.segment.task_tokens import TaskTokens
from functions.segment.work import deliver, describe, load, look_at, needed_px

_JSON: Final = "application/json"
_PNG: Final = "image/png"
_IMAGES: Final = ("image/", "application/x-image", "application/octet-stream")
_MASK_ATTEMPTS: Final = 3

INSPECTOR: Final = Inspector()

GrayImage = NDArray[np.uint8]
"""H x W, uint8: 0 is background, 255 is foreground."""


class NotAcceptableError(BackgroundRemoverError):
    """The request does not accept the response's type. Not used by the state machine."""

    retryable = False


class InferenceConfig(SegmentationConfig):
    """Configuration of the endpoint, in addition to that of segmentation.

    Attributes:
        work_bucket: bucket for the masks of jobs; if empty, the endpoint accepts images only.
        default_model: model to load at the start, and the model for images.
        heartbeat_s: interval of heartbeats while a job is in progress, in seconds.
    """

    work_bucket: str = ""
    default_model: str
    heartbeat_s: Annotated[float, Field(gt=0)] = 30.0


class AsyncRequest(BaseModel):
    """A job, and the task token to complete with its mask."""

    token: Annotated[str, Field(min_length=1)]
    job: dict[str, Any]


Request: TypeAlias = Job | AsyncRequest | MaskRequest | bytes
"""A request; bytes are an image."""


@dataclass(frozen=True)
class JobContext:
    """Resources for jobs, which requests with images do not need.

    Attributes:
        work_bucket: bucket for masks.
        store: storage of images and masks.
        task_tokens: reports to the state machine.
        heartbeat_s: see :class:`InferenceConfig`.
    """

    work_bucket: str
    store: Store
    task_tokens: TaskTokens
    heartbeat_s: float = 30.0


@dataclass(frozen=True)
class Segmenter:
    """The loaded model; thread-safe.

    Threads read and decode concurrently. Predictions run one at a time: a second one would slow down the first, and
    might exceed the memory of a GPU.

    Attributes:
        networks: the segmentation networks.
        model: name of the model for images.
        job_context: resources for jobs; None if the endpoint accepts images only.
        pause_s: half of the pause before the second attempt at the mask of a bulk run, in seconds.
    """

    networks: Networks
    model: str
    job_context: JobContext | None = None
    pause_s: float = 1.0
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def mask(self, data: bytes) -> GrayImage:
        """Return the mask of one look at an image, resized to the image's size by bicubic interpolation.

        Raises:
            BackgroundRemoverError: see :meth:`functions.runtime.inspection.Inspector.inspect` and
                :func:`core.segmentation.segment.segment`.
        """
        INSPECTOR.inspect(data)  # Validate has not
        registry = self.networks.source.registry
        picture = decode.decode(data, at_least_px=sufficient_px(self.model, registry))
        look = looks.first(composed(picture), self.model, registry, Precision.DRAFT, picture.alpha)
        mask = looks.complete(look, self._predict).mask
        size = picture.info.width, picture.info.height
        return np.asarray(cv2.resize(cv2.convertScaleAbs(mask, alpha=255), size, interpolation=cv2.INTER_CUBIC))

    def segment(self, job: Job) -> dict[str, Any]:
        """Do a job; see :func:`functions.segment.work.segment_job`.

        Raises:
            BackgroundRemoverError: as there; and InvalidRequestError if there is no work bucket.
        """
        started = time.perf_counter()
        context = self._require_job_context()
        segmentation = looks.complete(load(job, context.store, self.networks), self._predict)
        return deliver(job, segmentation, context.store, context.work_bucket, host="sagemaker", started=started)

    def complete(self, request: AsyncRequest) -> None:
        """Process a job and complete its task token with the mask or the error.

        Raises:
            InvalidRequestError: no work bucket is configured.
            ClientError, BotoCoreError: the outcome could not be reported.
        """
        context = self._require_job_context()
        with job_in_thread(job_id(request.job)):
            if not context.task_tokens.heartbeat(request.token):
                return
            with context.task_tokens.kept_alive(request.token, every_s=context.heartbeat_s):
                try:
                    with outcome_logged():
                        part = self.segment(parse(Job, request.job))
                except Exception as error:  # the state machine must learn of any error
                    context.task_tokens.failure(request.token, error)
                else:
                    context.task_tokens.success(request.token, part)

    def answer_batch(self, request: MaskRequest) -> dict[str, Any]:
        """Make a mask for a bulk run, and return its facts, or those of the error.

        An error is no error of the request, because that would fail the transform job: the bulk run segments the image
        again, and reports it.
        """
        identity = {"source": request.mask_of.model_dump()}
        for attempt in range(1, _MASK_ATTEMPTS + 1):
            try:
                return {**identity, **self.make_mask(request)}
            except TransientError as error:
                failure = error.facts()
                if attempt < _MASK_ATTEMPTS:
                    time.sleep(2**attempt * self.pause_s)
            except BackgroundRemoverError as error:
                failure = error.facts()
                break
            except Exception as error:
                logger.exception("segmentation failed", extra=identity)
                failure = {"error": type(error).__name__, "message": str(error)}
                break
        logger.warning("no mask", extra={**identity, "failure": failure})
        return {**identity, **failure}

    def make_mask(self, request: MaskRequest) -> dict[str, Any]:
        """Write the mask of an image with its facts, unless there is one, and return the facts.

        Raises:
            BackgroundRemoverError: see :meth:`segment` and :meth:`functions.runtime.inspection.Inspector.inspect`.
        """
        started, context, registry = time.perf_counter(), self._require_job_context(), self.networks.source.registry
        model, image = request.options.model, request.mask_of
        known = registry[model].identity if model in registry else None
        if known != request.model_identity:
            raise InvalidOptionsError(
                "The container has other weights of the model than the stack",
                field="options.model",
                value=model,
                remedy="Build the container from the version of the stack, and deploy both with the same CustomModels.",
            )
        file = context.store.fetch(image.bucket, image.key, version_id=image.version_id, etag=image.etag)
        key = mask_key(file.sha256, request.options, known)
        if context.store.newest(context.work_bucket, key):
            return {"mask_key": key}
        info = INSPECTOR.inspect(file.data).info  # Validate has not
        job = request.job(key, file.sha256, info)
        look = look_at(decode.decode(file.data, at_least_px=needed_px(job, registry)), job, registry)
        segmentation = looks.complete(look, self._predict)
        part = describe(job, segmentation, host="sagemaker", seconds=time.perf_counter() - started)
        facts = json.dumps(part, separators=(",", ":"))
        context.store.put_plane(context.work_bucket, key, segmentation.mask, {MASK_FACTS: facts})
        return {"mask_key": key, **part}

    def _predict(self, prepared: Prepared) -> Mask:
        with self._turn:
            [prediction] = predict([prepared], self.networks)
        return prediction

    def _require_job_context(self) -> JobContext:
        if self.job_context is None:
            raise InvalidRequestError(
                "This endpoint accepts images only, not jobs",
                field="WORK_BUCKET",
                value=None,
                remedy="Set WORK_BUCKET in the container's environment to the stack's work bucket.",
            )
        return self.job_context


def model_fn(model_dir: str) -> Segmenter:
    """Load the default model.

    Args:
        model_dir: directory of the SageMaker model's files, searched for weights first.

    Raises:
        GpuUnavailableError, InvalidOptionsError, WeightsHashMismatchError, WeightsUnavailableError: see
            :meth:`core.segmentation.sessions.Networks.load`.
    """
    config = InferenceConfig()
    directories = os.pathsep.join((model_dir, config.pbr_model_dir))
    networks = config.model_copy(update={"pbr_model_dir": directories}).networks()
    if config.default_model != CLASSICAL:
        networks.load(config.default_model)
    context = JobContext(config.work_bucket, Store(), TaskTokens(), config.heartbeat_s) if config.work_bucket else None
    return Segmenter(networks, config.default_model, context)


def input_fn(body: bytes | str, content_type: str | None) -> Request:
    """Parse a request. An image is returned undecoded, because the decoded size depends on the model.

    Args:
        body: body of the request. The toolkits pass JSON as text.
        content_type: MIME type of the body.

    Raises:
        InvalidRequestError: the body is JSON but not a job.
        UnsupportedFormatError: the type is neither JSON nor an image.
    """
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind == _JSON:
        return _parse(body)
    if isinstance(body, bytes) and kind.startswith(_IMAGES):
        return body
    raise UnsupportedFormatError(
        "The request is neither a job nor an image",
        field="Content-Type",
        value=content_type,
        remedy=f"Send a job as {_JSON}, or an image as image/*, application/x-image or application/octet-stream.",
    )


def _parse(body: bytes | str) -> Job | AsyncRequest | MaskRequest:
    try:
        event = json.loads(body)
    except ValueError as error:
        raise InvalidRequestError(
            f"The body is not valid JSON: {error}",
            field="body",
            value=body[:80],
            remedy="Send a job in the format of events/segment.json.",
        ) from None
    if isinstance(event, dict) and "mask_of" in event:
        return parse(MaskRequest, event)
    return parse(AsyncRequest, event) if isinstance(event, dict) and "token" in event else parse(Job, event)


def predict_fn(data: Request, model: Segmenter) -> dict[str, Any] | GrayImage:
    """Process a request.

    Returns:
        The mask of an image, at the image's size; the :class:`functions.contracts.job.MaskPart` of a job; an empty
        object for a job with a task token; what :meth:`Segmenter.answer_batch` returns for a mask of a bulk run.

    Raises:
        BackgroundRemoverError: see :class:`Segmenter`.
    """
    if isinstance(data, bytes):
        return model.mask(data)
    if isinstance(data, Job):
        with job_in_thread(data.execution.name), outcome_logged():
            return model.segment(data)
    if isinstance(data, MaskRequest):
        return model.answer_batch(data)
    model.complete(data)
    return {}


def output_fn(prediction: dict[str, Any] | GrayImage, accept: str | None) -> tuple[bytes, str]:
    """Return the response's body and MIME type: JSON, or an 8-bit grayscale PNG.

    Args:
        prediction: result of ``predict_fn``.
        accept: MIME types that the request accepts; None for any.

    Raises:
        NotAcceptableError: the request does not accept the type.
    """
    kind = _JSON if isinstance(prediction, dict) else _PNG
    accepted = {item.partition(";")[0].strip().lower() for item in (accept or "*/*").split(",")}
    if accepted.isdisjoint({kind, f"{kind.partition('/')[0]}/*", "*/*"}):
        raise NotAcceptableError(
            f"The response has the type {kind}",
            field="Accept",
            value=accept,
            remedy=f"Accept {kind} or */*.",
        )
    if isinstance(prediction, dict):
        return json.dumps(prediction).encode(), kind
    height, width = prediction.shape
    return png.write(lambda top, bottom: prediction[top:bottom], height, width, channels=1), kind
