"""Segmentation on ECS: a process that loads its model once, receives jobs from SQS and completes them by task token.

While one batch is predicted, the images of the next are read, decoded and prepared, and the masks of the previous one
are stored and reported. docs/how-to/run-a-worker.md describes its behavior on each event.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any, Final

import boto3
import numpy as np
from botocore.config import Config
from pydantic import Field

from core.arrays import Mask, Segmentation
from core.errors import BackgroundRemoverError
from core.segmentation.looks import Look, complete, follow
from core.segmentation.registry import CLASSICAL
from core.segmentation.segment import predict
from core.segmentation.sessions import Device
from functions.contracts.errors import WorkerCrashedError
from functions.contracts.job import Job
from functions.runtime import cgroup
from functions.runtime.handler import logger, measure, parse
from functions.runtime.store import Store
from functions.segment import gpu
from functions.segment.config import SegmentationConfig
from functions.segment.ecs.batches import Batches
from functions.segment.ecs.protection import Protection
from functions.segment.ecs.queue import JobQueue, Message
from functions.segment.task_tokens import TaskTokens
from functions.segment.work import deliver, load

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_stepfunctions import SFNClient

_BATCHES_IN_HAND: Final = 3
"""One is prepared, one is predicted and one is delivered."""

_MOST_RECEIVES: Final = 3
"""A job received for the fourth time probably crashed three workers. Those that were stopped do not count, because they
send the job again; those that were lost without notice do, and then Lambda takes over. The limit is below the queue's
five receives, after which the state machine would not learn of the failure."""


_MOST_FAILURES: Final = 3
"""Failed predictions in a row after which the worker exits. The cause is then probably not the images but a broken GPU,
which stays broken until the process ends. Such a worker would fail jobs faster than others complete them."""


class WorkerConfig(SegmentationConfig):
    """Configuration of the worker, in addition to that of segmentation.

    Attributes:
        queue_url: URL of the job queue.
        default_model: model to load before the first job; None loads none.
        pbr_batch: maximum number of images in a prediction.
        pbr_batch_wait_s: maximum time that an image waits for others of its model, in seconds.
        pbr_heartbeat_s: interval of heartbeats for jobs in progress, in seconds.
        pbr_visibility_s: visibility timeout of messages in progress, in seconds.
        pbr_drain_s: time to finish jobs after SIGTERM, in seconds; less than ECS's stop timeout.
        ecs_agent_uri: set by ECS.
    """

    queue_url: str
    default_model: str | None = None
    pbr_batch: Annotated[int, Field(gt=0)] = 1
    pbr_batch_wait_s: Annotated[float, Field(ge=0)] = 0.1
    pbr_heartbeat_s: Annotated[float, Field(gt=0)] = 30.0
    pbr_visibility_s: Annotated[int, Field(gt=0)] = 120
    pbr_drain_s: Annotated[float, Field(ge=0)] = 100.0
    ecs_agent_uri: str | None = None


@dataclass(frozen=True)
class _Picture:
    """A job whose image is ready for prediction; ``started`` is a ``time.perf_counter``."""

    message: Message
    job: Job
    look: Look
    started: float


class Worker:
    """Receives jobs and processes them in three concurrent steps: load, predict, deliver.

    Args:
        config: see :class:`WorkerConfig`.
        store: storage of images and masks.
        sqs: SQS client.
        sfn: Step Functions client.

    Raises:
        GpuUnavailableError, InvalidOptionsError, WeightsHashMismatchError, WeightsUnavailableError: the default model
            cannot be loaded.
    """

    def __init__(self, config: WorkerConfig, store: Store, sqs: SQSClient, sfn: SFNClient) -> None:
        self._config, self._store, self._networks = config, store, config.networks()
        if config.default_model not in (None, CLASSICAL):
            self._networks.load(config.default_model)
        self._queue = JobQueue(
            sqs,
            TaskTokens(sfn),
            queue_url=config.queue_url,
            most=_BATCHES_IN_HAND * config.pbr_batch,
            heartbeat_s=config.pbr_heartbeat_s,
            visibility_s=config.pbr_visibility_s,
        )
        self._protection = Protection(config.ecs_agent_uri)
        self._batches: Batches[_Picture] = Batches(config.pbr_batch, config.pbr_batch_wait_s)
        # Decoding needs much memory, so the number of concurrent decodes is limited to the number of CPUs.
        self._loading = ThreadPoolExecutor(max(2, cgroup.cpus()), "load")
        self._delivering = ThreadPoolExecutor(max(2, config.pbr_batch), "deliver")
        self._ending: SimpleQueue[Exception | None] = SimpleQueue()  # safe to use in a signal handler

    def stop(self) -> None:
        """Stop receiving jobs and return those that have not begun. :meth:`run` returns after the others are done."""
        self._ending.put(None)

    def run(self) -> bool:
        """Process jobs until stopped, and return whether all jobs that had begun were finished in time.

        Raises:
            Exception: a thread failed; all jobs were returned to the queue.
        """
        for step in (self._receive_all, self._predict_all, self._queue.keep_alive):
            Thread(target=self._watched, args=(step,), name=step.__name__, daemon=True).start()
        failure = self._ending.get()
        self._batches.close()
        self._queue.close(crashed=failure is not None)
        finished = self._queue.drain(0.0 if failure else self._config.pbr_drain_s)
        for pool in (self._loading, self._delivering):
            pool.shutdown(wait=False, cancel_futures=True)
        if failure:
            raise failure
        return finished

    def _watched(self, step: Callable[..., None], *args: Any) -> None:
        """Run a step. Any error ends the worker, which would otherwise hold its messages without processing them."""
        try:
            step(*args)
        except Exception as error:
            self._ending.put(error)

    def _receive_all(self) -> None:
        while (messages := self._queue.take()) is not None:
            # All are announced before the first is loaded: otherwise it could be predicted without the others.
            for message, job in [*self._accepted(messages)]:
                self._loading.submit(self._watched, self._load, message, job)
            if messages:
                self._protection.on()
            elif self._queue.idle:  # no message during a long poll
                self._protection.off()

    def _accepted(self, messages: Iterable[Message]) -> Iterator[tuple[Message, Job]]:
        """Yield messages with their jobs, which are announced to the batches. Those that are not valid fail."""
        for message in messages:
            try:
                job = parse(Job, message.job)
                if message.received > _MOST_RECEIVES:
                    raise WorkerCrashedError(
                        "All workers that received this job crashed or were lost",
                        field="source.key",
                        value=job.source.key,
                        remedy="Check the last log lines of the workers. The image may need more memory.",
                    )
            except BackgroundRemoverError as error:
                self._delivering.submit(self._watched, self._complete, message, error)
                continue
            self._batches.expect(job.model)
            yield message, job

    def _load(self, message: Message, job: Job) -> None:
        logger.thread_safe_append_keys(job_id=message.job_id)
        started = time.perf_counter()
        try:
            if self._queue.alive(message):
                logger.info("job received", extra={"received": message.received})
                look = load(job, self._store, self._networks)
                self._batches.put(job.model, _Picture(message, job, look, started))
                return
        except Exception as error:  # the state machine must learn of any error
            self._delivering.submit(self._watched, self._complete, message, error)
        self._batches.cancel(job.model)

    def _predict_all(self) -> None:
        failures = 0
        while (batch := self._batches.take()) is not None:
            begun = [picture for picture in batch if self._queue.begin(picture.message)]
            if begun and self._config.pbr_batch > 1:  # else it is always 1
                measure("BatchSize", len(begun))
            for picture, seen in self._look(begun):
                self._delivering.submit(self._watched, self._deliver, picture, seen)
                if not isinstance(seen, Exception):
                    failures = 0
                elif not isinstance(seen, BackgroundRemoverError):
                    failures += 1
                    if failures == _MOST_FAILURES:
                        raise seen

    def _look(self, pictures: Sequence[_Picture]) -> Iterator[tuple[_Picture, Mask | Segmentation | Exception]]:
        """Yield every picture with the prediction of its last look, its segmentation, or an error.

        Pictures that need another look are predicted in another batch.
        """
        while pictures:
            again = []
            for picture, prediction in zip(pictures, self._predict(pictures), strict=True):
                outcome = prediction if picture.look.final else _followed(picture.look, prediction)
                if isinstance(outcome, Look):
                    again.append(replace(picture, look=outcome))
                else:
                    yield picture, outcome
            pictures = again

    def _predict(self, batch: Sequence[_Picture]) -> list[Mask | Exception]:
        """Return a prediction or an error for each image. An image must not fail the others of its batch."""
        try:
            return [*predict([picture.look.prepared for picture in batch], self._networks)]
        except Exception as error:
            if len(batch) == 1:
                return [error]
            logger.warning("batch failed, will predict its images one by one", exc_info=True)
        return [outcome for picture in batch for outcome in self._predict([picture])]

    def _deliver(self, picture: _Picture, seen: Mask | Segmentation | Exception) -> None:
        logger.thread_safe_append_keys(job_id=picture.message.job_id)
        try:
            if isinstance(seen, Exception):
                raise seen
            segmentation = complete(picture.look, lambda _: seen) if isinstance(seen, np.ndarray) else seen
            part = deliver(
                picture.job, segmentation, self._store, self._config.work_bucket, host="ecs", started=picture.started
            )
        except Exception as error:  # see _load
            self._complete(picture.message, error)
        else:
            self._complete(picture.message, part)

    def _complete(self, message: Message, outcome: Mapping[str, Any] | Exception) -> None:
        logger.thread_safe_append_keys(job_id=message.job_id)
        if isinstance(outcome, BackgroundRemoverError):
            logger.warning("stage failed", extra={"failure": outcome.facts()})
        elif isinstance(outcome, Exception):
            logger.error("stage failed", exc_info=outcome)
        else:
            logger.info("stage done", extra={"seconds": outcome["seconds"]})
        self._queue.complete(message, outcome)


def _followed(look: Look, prediction: Mask | Exception) -> Look | Segmentation | Exception:
    if isinstance(prediction, Exception):
        return prediction
    try:
        return follow(look, prediction)
    except Exception as error:  # an image must not fail the others of its batch
        return error


def main() -> None:
    """Run a worker until SIGTERM or SIGINT."""
    try:
        # The SDK's default timeouts add up to minutes, which would delay the heartbeats of other jobs.
        calls = Config(
            connect_timeout=5,
            read_timeout=20,
            retries={"mode": "standard", "total_max_attempts": 3},
            max_pool_connections=50,
        )
        sqs, sfn = boto3.client("sqs", config=calls), boto3.client("stepfunctions", config=calls)
        config = WorkerConfig()
        worker = Worker(config, Store(), sqs, sfn)
    except Exception as error:
        failure = error.facts() if isinstance(error, BackgroundRemoverError) else type(error).__name__
        logger.error(f"the worker cannot start: {error}", extra={"failure": failure})
        sys.exit(1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    if config.pbr_device is Device.CUDA:
        gpu.start_publishing()
    logger.info("worker started")
    status = 0
    try:
        finished = worker.run()
        logger.info("worker stopped", extra={"finished": finished})
    except Exception:
        status = 1
        logger.exception("worker failed and returned its jobs to the queue")
    os._exit(status)  # a prediction cannot be interrupted, and Python would wait for its thread


if __name__ == "__main__":
    main()
