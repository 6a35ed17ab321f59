"""Segmentation on SageMaker, as the four functions that its inference toolkits call; ``serve`` calls the same.

A request is a job as the other hosts get it, a job with the task token that waits for it, or a picture. Pixels of jobs
go through S3, so that no picture meets an endpoint's limit. A picture is answered with its mask: Batch Transform sends
pictures, and needs nothing of the stack.
"""

import json
import os
import threading
import time
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from core.errors import BackgroundRemoverError, InvalidRequestError, UnsupportedFormatError
from core.image import decode, png
from core.segmentation.registry import CLASSICAL
from core.segmentation.segment import Prepared, finish, predict, prepare, sufficient_px
from core.segmentation.sessions import Networks
from core.types import Segmentation
from functions.contracts.job import Job
from functions.runtime.config import SegmentationConfig
from functions.runtime.handler import logger, parse
from functions.runtime.store import Store
from functions.segment.task_tokens import TaskTokens
from functions.segment.work import deliver, load

_JSON: Final = "application/json"
_PNG: Final = "image/png"
_PICTURES: Final = ("image/", "application/x-image", "application/octet-stream")

GreyPicture = NDArray[np.uint8]
"""H x W, 0 is background and 255 is subject."""


class NotAcceptableError(BackgroundRemoverError):
    """The answer has another type than the request accepts. The state machine never meets it."""

    retryable = False


class InferenceConfig(SegmentationConfig):
    """What the endpoint needs beside.

    Attributes:
        work_bucket: where masks of jobs go; without one there are pictures and no jobs.
        default_model: the model that is loaded at the start, and that masks pictures.
        heartbeat_s: how often a task token is prolonged while its job is in hand.
    """

    work_bucket: str = ""
    default_model: str
    heartbeat_s: Annotated[float, Field(gt=0)] = 30.0


class AsyncRequest(BaseModel):
    """A job, and the task token that waits for its mask."""

    token: Annotated[str, Field(min_length=1)]
    job: dict[str, Any]


@dataclass(frozen=True)
class JobContext:
    """What jobs need, and pictures do not.

    Attributes:
        work_bucket: where masks go.
        store: where pictures and masks lie.
        answers: where task tokens are answered.
        heartbeat_s: see :class:`InferenceConfig`.
    """

    work_bucket: str
    store: Store
    answers: TaskTokens
    heartbeat_s: float = 30.0


@dataclass(frozen=True)
class Segmenter:
    """What ``model_fn`` loads; may be used by several threads.

    Each thread reads and decodes its own picture. Networks run for one at a time: a second run would slow down the
    first, and on a GPU might not fit beside it.

    Attributes:
        networks: run the models.
        model: the name of the one that masks pictures.
        desk: None for an endpoint that takes no jobs.
    """

    networks: Networks
    model: str
    desk: JobContext | None = None
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def mask(self, data: bytes) -> GreyPicture:
        """Return the mask of a picture at the picture's own size: the network's, enlarged by bicubic interpolation.

        Raises:
            BackgroundRemoverError: see :func:`core.image.decode.decode` and :func:`core.segmentation.segment.segment`.
        """
        registry = self.networks.source.registry
        picture = decode.decode(data, at_least_px=sufficient_px(self.model, registry))
        mask = self._segment(prepare(picture.rgb, self.model, registry)).mask
        size = picture.info.width, picture.info.height
        return np.asarray(cv2.resize(cv2.convertScaleAbs(mask, alpha=255), size, interpolation=cv2.INTER_CUBIC))

    def part(self, job: Job) -> dict[str, Any]:
        """Do a job; see :func:`functions.segment.work.segment_job`.

        Raises:
            BackgroundRemoverError: as there; and InvalidRequestError if there is no work bucket.
        """
        started = time.perf_counter()
        desk = self._require_desk()
        segmentation = self._segment(load(job, desk.store, self.networks))
        return deliver(job, segmentation, desk.store, desk.work_bucket, host="sagemaker", started=started)

    def answer(self, ticket: AsyncRequest) -> None:
        """Do a job and answer its task token, with the mask or with what went wrong.

        Raises:
            InvalidRequestError: there is no work bucket.
            ClientError, BotoCoreError: the answer could not be given.
        """
        desk = self._require_desk()
        if not desk.answers.heartbeat(ticket.token):
            return
        with desk.answers.kept_alive(ticket.token, every_s=desk.heartbeat_s):
            try:
                part = self.part(parse(Job, ticket.job))
            except Exception as error:  # whatever it is, the state machine is waiting to be told
                logger.exception("segmentation failed")
                desk.answers.failure(ticket.token, error)
            else:
                desk.answers.success(ticket.token, part)

    def _segment(self, prepared: Prepared) -> Segmentation:
        with self._turn:
            [prediction] = predict([prepared], self.networks)
        return finish(prepared, prediction)

    def _require_desk(self) -> JobContext:
        if self.desk is None:
            raise InvalidRequestError(
                "This endpoint takes pictures and no jobs",
                field="WORK_BUCKET",
                value=None,
                remedy="Set WORK_BUCKET in the container's environment to the stack's work bucket.",
            )
        return self.desk


def model_fn(model_dir: str) -> Segmenter:
    """Load the default model.

    Args:
        model_dir: where SageMaker has put the model's own files; weights there are taken before all others.

    Raises:
        GpuUnavailableError, InvalidOptionsError, WeightsHashMismatchError, WeightsUnavailableError: see
            :meth:`core.segmentation.sessions.Networks.load`.
    """
    config = InferenceConfig()
    directories = os.pathsep.join((model_dir, config.pbr_model_dir))
    networks = config.model_copy(update={"pbr_model_dir": directories}).networks()
    if config.default_model != CLASSICAL:
        networks.load(config.default_model)
    desk = JobContext(config.work_bucket, Store(), TaskTokens(), config.heartbeat_s) if config.work_bucket else None
    return Segmenter(networks, config.default_model, desk)


def input_fn(body: bytes | str, content_type: str | None) -> Job | AsyncRequest | bytes:
    """Read a request.

    A picture stays as it is: at which size it is best decoded depends on the model.

    Args:
        body: the request's body. The toolkits decode JSON to text.
        content_type: its type.

    Raises:
        InvalidRequestError: it is JSON, and no job.
        UnsupportedFormatError: it is neither JSON nor a picture, by its type.
    """
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind == _JSON:
        return _parse(body)
    if isinstance(body, bytes) and kind.startswith(_PICTURES):
        return body
    raise UnsupportedFormatError(
        "The request is neither a job nor a picture",
        field="Content-Type",
        value=content_type,
        remedy=f"Send a job as {_JSON}, or a picture as image/*, application/x-image or application/octet-stream.",
    )


def _parse(body: bytes | str) -> Job | AsyncRequest:
    try:
        event = json.loads(body)
    except ValueError as error:
        raise InvalidRequestError(
            f"The body is no JSON: {error}",
            field="body",
            value=body[:80],
            remedy="Send a job, as the state machine hands it on.",
        ) from None
    return parse(AsyncRequest, event) if isinstance(event, dict) and "token" in event else parse(Job, event)


def predict_fn(data: Job | AsyncRequest | bytes, model: Segmenter) -> dict[str, Any] | GreyPicture:
    """Do what was asked for.

    Returns:
        Of a picture the mask, at the picture's size. Of a job its :class:`functions.contracts.job.MaskPart`; nothing of
        it if a task token was answered with it.

    Raises:
        BackgroundRemoverError: see :class:`Segmenter`.
    """
    if isinstance(data, bytes):
        return model.mask(data)
    if isinstance(data, Job):
        return model.part(data)
    model.answer(data)
    return {}


def output_fn(prediction: dict[str, Any] | GreyPicture, accept: str | None) -> tuple[bytes, str]:
    """Return the answer's body and its type: JSON, or an 8-bit grey PNG.

    Args:
        prediction: what ``predict_fn`` returned.
        accept: the types that the request accepts; None for any.

    Raises:
        NotAcceptableError: this one is not among them.
    """
    kind = _JSON if isinstance(prediction, dict) else _PNG
    accepted = {item.partition(";")[0].strip().lower() for item in (accept or "*/*").split(",")}
    if accepted.isdisjoint({kind, f"{kind.partition('/')[0]}/*", "*/*"}):
        raise NotAcceptableError(
            f"The answer is {kind}",
            field="Accept",
            value=accept,
            remedy=f"Accept {kind}, or any type.",
        )
    if isinstance(prediction, dict):
        return json.dumps(prediction).encode(), kind
    height, width = prediction.shape
    return png.write(lambda top, bottom: prediction[top:bottom], height, width, channels=1), kind
