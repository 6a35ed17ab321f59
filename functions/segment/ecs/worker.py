"""Segmentation on ECS: a process that loads its model once, takes jobs from the queue and answers by task token.

While one batch is predicted, the pictures of the next are read, decoded and prepared, and the masks of the one before
are put and answered for. docs/how-to/run-a-worker.md tells what it does on each event.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any, Final

import boto3
from botocore.config import Config
from pydantic import Field

from core.errors import BackgroundRemoverError
from core.segmentation.registry import CLASSICAL
from core.segmentation.segment import Prepared, finish, predict
from core.types import Mask
from functions.contracts.errors import WorkerCrashedError
from functions.contracts.job import Job
from functions.runtime import cgroup
from functions.runtime.config import SegmentationConfig
from functions.runtime.handler import logger, parse
from functions.runtime.store import Store
from functions.segment.ecs.batches import Batches
from functions.segment.ecs.protection import Protection
from functions.segment.ecs.queue import JobQueue, Message
from functions.segment.task_tokens import TaskTokens
from functions.segment.work import deliver, load

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_stepfunctions import SFNClient

_BATCHES_IN_HAND: Final = 3
"""One is prepared while one is predicted and one delivered."""

_MOST_RECEIVES: Final = 3
"""A job that comes a fourth time ended three workers, or so it seems. It may as well have been given back, or have had
an answer that could not be sent. But a worker is stopped rarely, and three of them that each had this job waiting in
hand more rarely still; and a job that is wrongly taken for one that kills is not lost, Lambda does it. The limit is
below the queue's own of five receives, after which the state machine would not be told."""


_MOST_FAILURES: Final = 3
"""So many pictures in a row that the network fails on are not at fault: a GPU can break, and stays broken until the
process ends. The worker would take job after job, and fail it faster than any other does one."""


class WorkerConfig(SegmentationConfig):
    """What the worker needs beside.

    Attributes:
        queue_url: where jobs come from.
        default_model: loaded before the first job is taken; None loads none.
        pbr_batch: most pictures per prediction.
        pbr_batch_wait_s: how long a picture waits at most for others of its model that are on their way.
        pbr_heartbeat_s: how often jobs in hand are prolonged.
        pbr_visibility_s: for how long a message stays hidden from other workers each time.
        pbr_drain_s: how long after the signal to stop a job may be finished; less than ECS's stop timeout.
        ecs_agent_uri: ECS's own variable.
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
    """A job whose picture is ready to be predicted; ``started`` is of ``time.perf_counter``."""

    message: Message
    job: Job
    prepared: Prepared
    started: float


class Worker:
    """Takes jobs in, and does them in three steps that run beside each other: load, predict, deliver.

    Args:
        config: see :class:`WorkerConfig`.
        store: where pictures and masks lie.
        sqs: client of the queue.
        sfn: client of the state machine.

    Raises:
        GpuUnavailableError, InvalidOptionsError, WeightsHashMismatchError, WeightsUnavailableError: the default model
            cannot be loaded.
    """

    def __init__(self, config: WorkerConfig, store: Store, sqs: SQSClient, sfn: SFNClient) -> None:
        self._config, self._store, self._networks = config, store, config.networks()
        if config.default_model not in (None, CLASSICAL):
            self._networks.load(config.default_model)
        self._inbox = JobQueue(
            sqs,
            TaskTokens(sfn),
            queue_url=config.queue_url,
            most=_BATCHES_IN_HAND * config.pbr_batch,
            heartbeat_s=config.pbr_heartbeat_s,
            visibility_s=config.pbr_visibility_s,
        )
        self._protection = Protection(config.ecs_agent_uri)
        self._batches: Batches[_Picture] = Batches(config.pbr_batch, config.pbr_batch_wait_s)
        # A large picture takes memory while it is decoded: no more of them at a time than processors can be busy with.
        self._loading = ThreadPoolExecutor(max(2, cgroup.cpus()), "load")
        self._delivering = ThreadPoolExecutor(max(2, config.pbr_batch), "deliver")
        self._ending: SimpleQueue[Exception | None] = SimpleQueue()  # a signal's handler may put into it

    def stop(self) -> None:
        """Take no more jobs and give back those that wait; :meth:`run` returns once the others are done."""
        self._ending.put(None)

    def run(self) -> bool:
        """Work until stopped; return whether everything that had begun was finished in time.

        Raises:
            Exception: what ended one of the threads; all jobs were given back.
        """
        for step in (self._take_in, self._predict_all, self._inbox.keep_alive):
            Thread(target=self._watched, args=(step,), name=step.__name__, daemon=True).start()
        failure = self._ending.get()
        self._batches.close()
        self._inbox.close()
        finished = self._inbox.drain(0.0 if failure else self._config.pbr_drain_s)
        for pool in (self._loading, self._delivering):
            pool.shutdown(wait=False, cancel_futures=True)
        if failure:
            raise failure
        return finished

    def _watched(self, step: Callable[..., None], *args: Any) -> None:
        """Take a step; a worker that could not go on with it would hold its messages for ever, so it ends instead."""
        try:
            step(*args)
        except Exception as error:
            self._ending.put(error)

    def _take_in(self) -> None:
        while (messages := self._inbox.take()) is not None:
            for message in messages:
                self._accept(message)
            if messages:
                self._protection.on()
            elif self._inbox.idle:  # for as long as the queue was asked
                self._protection.off()

    def _accept(self, message: Message) -> None:
        try:
            job = parse(Job, message.job)
            if message.received > _MOST_RECEIVES:
                raise WorkerCrashedError(
                    "Each worker that took this job died of it, or was taken away",
                    field="source.key",
                    value=job.source.key,
                    remedy="Look for the last words of the workers in their log; the picture may need more memory.",
                )
        except BackgroundRemoverError as error:
            self._delivering.submit(self._watched, self._answer, message, error)
            return
        self._batches.expect(job.model)
        self._loading.submit(self._watched, self._load, message, job)

    def _load(self, message: Message, job: Job) -> None:
        logger.thread_safe_append_keys(job_id=message.job_id)
        started = time.perf_counter()
        try:
            if self._inbox.alive(message):
                logger.info("job taken", extra={"received": message.received})
                prepared = load(job, self._store, self._networks)
                self._batches.put(job.model, _Picture(message, job, prepared, started))
                return
        except Exception as error:  # whatever it is, the state machine is waiting to be told
            self._delivering.submit(self._watched, self._answer, message, error)
        self._batches.give_up(job.model)

    def _predict_all(self) -> None:
        failures = 0
        while (batch := self._batches.take()) is not None:
            begun = [picture for picture in batch if self._inbox.begin(picture.message)]
            for picture, prediction in zip(begun, self._predict(begun), strict=True):
                self._delivering.submit(self._watched, self._deliver, picture, prediction)
                if not isinstance(prediction, Exception):
                    failures = 0
                elif not isinstance(prediction, BackgroundRemoverError):
                    failures += 1
                    if failures == _MOST_FAILURES:
                        raise prediction

    def _predict(self, batch: Sequence[_Picture]) -> list[Mask | Exception]:
        """Return a prediction for each picture, or what went wrong with it. One must not fail its neighbours."""
        try:
            return [*predict([picture.prepared for picture in batch], self._networks)] if batch else []
        except Exception as error:
            if len(batch) == 1:
                return [error]
            logger.warning("a batch failed: its pictures are tried one by one", exc_info=True)
        return [outcome for picture in batch for outcome in self._predict([picture])]

    def _deliver(self, picture: _Picture, prediction: Mask | Exception) -> None:
        logger.thread_safe_append_keys(job_id=picture.message.job_id)
        try:
            if isinstance(prediction, Exception):
                raise prediction
            segmentation = finish(picture.prepared, prediction)
            answer = deliver(
                picture.job, segmentation, self._store, self._config.work_bucket, host="ecs", started=picture.started
            )
        except Exception as error:  # as above
            self._answer(picture.message, error)
        else:
            self._answer(picture.message, answer)

    def _answer(self, message: Message, outcome: Mapping[str, Any] | Exception) -> None:
        logger.thread_safe_append_keys(job_id=message.job_id)
        if isinstance(outcome, BackgroundRemoverError):
            logger.warning("stage failed", extra={"failure": outcome.facts()})
        elif isinstance(outcome, Exception):
            logger.error("stage failed", exc_info=outcome)
        else:
            logger.info("stage done", extra={"seconds": outcome["seconds"]})
        self._inbox.answer(message, outcome)


def main() -> None:
    """Run a worker until SIGTERM or SIGINT."""
    try:
        # The SDK's own patience is minutes for one call; that would keep the other jobs from their heartbeats.
        calls = Config(
            connect_timeout=5,
            read_timeout=20,
            retries={"mode": "standard", "total_max_attempts": 3},
            max_pool_connections=50,
        )
        sqs, sfn = boto3.client("sqs", config=calls), boto3.client("stepfunctions", config=calls)
        worker = Worker(WorkerConfig(), Store(), sqs, sfn)
    except Exception as error:
        failure = error.facts() if isinstance(error, BackgroundRemoverError) else type(error).__name__
        logger.error(f"the worker cannot start: {error}", extra={"failure": failure})
        sys.exit(1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    logger.info("worker started")
    status = 0
    try:
        finished = worker.run()
        logger.info("worker stopped", extra={"finished": finished})
    except Exception:
        status = 1
        logger.exception("the worker failed, and gave its jobs back")
    os._exit(status)  # nothing interrupts a prediction, and Python would wait for its thread


if __name__ == "__main__":
    main()
